"""Events: stored if and only if their change was committed; delivered in order, at least once, also after a restart."""

from __future__ import annotations

import json
import threading
from datetime import datetime
from typing import Any

import pytest

from shadowswitch import Engine, Event, SwitchRequest
from shadowswitch.model.events import EVENT_PREFIX, EVENT_TYPES, to_cloud_event
from shadowswitch.storage import failpoints
from tests.support import inside
from tests.support.engine_helpers import KIND, ROOT, TYPES, built, fill, live, wait_until

STORY = ["build.claimed", "build.started", "build.completed", "switch.started", "switch.committed", "switch.finished"]


def types_of(events: list[Event], subject: str = "") -> list[str]:
    """The types of events without their prefix, of one subject or of all."""
    return [e.type.removeprefix("com.shadowswitch.") for e in events if subject in ("", e.subject)]


def test_a_rebuild_has_its_events_in_order(filled: Engine) -> None:
    result = filled.rebuild("main", KIND, TYPES)
    events = filled.events()
    assert types_of(events, result.shadow_index_id) == STORY
    assert [event.sequence for event in events] == sorted({event.sequence for event in events})
    assert len({event.id for event in events}) == len(events)
    committed, finished = events[-2:]
    assert committed.data["branch_name"] == finished.data["branch_name"] == "main"
    assert committed.data["sealed_lsn"] == result.sealed_lsn
    assert (finished.data["success"], finished.data["rollback"]) == (True, False)
    assert finished.data["sealed_ms"] == round(result.sealed_ms, 3) > 0
    assert committed.source.startswith("/shadowswitch/")


def test_events_are_read_after_a_sequence_number(filled: Engine) -> None:
    filled.rebuild("main", KIND, TYPES)
    every = filled.events()
    assert filled.events(after=every[1].sequence, limit=2) == every[2:4]
    assert filled.events(after=every[-1].sequence) == []


def test_failures_and_cancellations_are_events_with_their_reason(
    filled: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "copy.slice=raise:EIO@1")
    shadow = filled.start_build("main", KIND, TYPES, {"parallel_workers": 1})
    filled.wait_for(shadow.shadow_index_id, "FAILED", timeout_s=30)
    filled.retry_build(shadow.shadow_index_id)
    filled.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=30)
    filled.cancel_build(shadow.shadow_index_id, "not wanted")
    story = types_of(filled.events(), shadow.shadow_index_id)
    assert story[2:6] == ["build.failed", "build.retried", "build.resumed", "build.completed"]
    assert story[6] == "build.cancelled"
    failed = next(event for event in filled.events() if event.type.endswith("build.failed"))
    assert "injected" in failed.data["error"]


def test_a_switch_that_is_given_up_has_its_events_and_none_of_a_commit(filled: Engine) -> None:
    shadow = built(filled)
    filled.add_validator("NEVER", lambda reader: ["no"])
    assert not filled.switch(shadow.shadow_index_id, SwitchRequest(validation_checks=("NEVER",))).success
    story = types_of(filled.events(), shadow.shadow_index_id)
    assert story[-3:] == ["switch.started", "switch.given_up", "switch.finished"]
    assert "switch.committed" not in story


def test_a_subscriber_gets_every_event_once_and_in_order_from_where_it_asks(filled: Engine) -> None:
    live(filled)
    old: list[Event] = []
    new: list[Event] = []
    filled.subscribe(old.append, after=0)
    filled.subscribe(new.append)
    before = len(filled.events())
    live(filled)
    wait_until(lambda: len(old) == len(filled.events()) == before + len(new))
    assert old == filled.events()
    assert new == filled.events()[before:]


def test_a_subscriber_that_has_left_gets_nothing_more(filled: Engine) -> None:
    seen: list[Event] = []
    stays: list[Event] = []
    leave = filled.subscribe(seen.append)
    filled.subscribe(stays.append)
    leave()
    live(filled)
    wait_until(lambda: "switch.committed" in types_of(stays))
    assert seen == []


def test_a_callback_that_subscribed_twice_leaves_once_at_a_time(filled: Engine) -> None:
    seen: list[Event] = []
    leave = filled.subscribe(seen.append)
    filled.subscribe(seen.append)
    callback = seen.append
    first, _ = filled.subscribe(callback), filled.subscribe(callback)
    leave()
    first()
    first()
    before = len(filled.events())
    live(filled)
    wait_until(lambda: len(seen) == 2 * (len(filled.events()) - before))


def test_a_subscriber_that_raises_gets_the_same_event_again_and_others_are_not_kept_waiting(filled: Engine) -> None:
    tries: list[int] = []
    fine: list[Event] = []

    def clumsy(event: Event) -> None:
        tries.append(event.sequence)
        if len(tries) < 3:
            raise ValueError("not yet")

    filled.subscribe(clumsy, after=0)
    filled.subscribe(fine.append, after=0)
    live(filled)
    wait_until(lambda: len(fine) == len(filled.events()))
    wait_until(lambda: len(tries) >= len(filled.events()) + 2)
    assert tries[:3] == [tries[0]] * 3
    assert tries[2:] == [event.sequence for event in filled.events()]


def test_a_subscriber_may_call_the_engine(filled: Engine) -> None:
    seen: list[Any] = []
    filled.subscribe(lambda event: seen.append((event.type, filled.count("main"), len(filled.shadows()))), after=0)
    live(filled)
    wait_until(lambda: len(seen) >= len(filled.events()))


def test_a_subscriber_that_never_ends_does_not_keep_the_engine_from_writing_and_switching(filled: Engine) -> None:
    release = threading.Event()

    def hang(_: Event) -> None:
        release.wait(60)

    filled.subscribe(hang, after=0)
    live(filled)
    fill(filled, 100)
    release.set()


def test_events_survive_a_restart(open_engine: Any) -> None:
    first = open_engine()
    first.create_branch("main")
    fill(first, 10)
    live(first)
    events = first.events()
    first.close()
    second = open_engine()
    assert second.events()[: len(events)] == events
    seen: list[Event] = []
    second.subscribe(seen.append, after=events[2].sequence)
    wait_until(lambda: len(seen) >= len(events) - 3)
    live(second)
    wait_until(lambda: seen == second.events(after=events[2].sequence))


def test_no_event_is_stored_when_its_transaction_fails(filled: Engine) -> None:
    shadow = built(filled)
    count = len(filled.events())
    failpoints.plan_points("journal.before_commit=raise:ENOSPC@1")
    with pytest.raises(Exception, match=r"room|disk|No space"):
        filled.switch(shadow.shadow_index_id)
    failpoints.plan_points("")
    assert len(filled.events()) == count
    assert filled.switch(shadow.shadow_index_id).success


def test_an_end_of_soak_a_rollback_and_a_retirement_are_events(filled: Engine) -> None:
    first, second = live(filled), live(filled)
    filled.rollback("main", KIND, SwitchRequest(performed_by="me", reason="slow"))
    live(filled)
    story = filled.events()
    (back,) = (event for event in story if event.type.endswith("rollback.committed"))
    assert (back.data["generation"], back.data["previous"], back.data["by"]) == (first, second, "me")
    retired = [event.data["generation"] for event in story if event.type.endswith("generation.retired")]
    assert retired == [second]


def test_changes_of_branches_and_locks_are_events(engine: Engine) -> None:
    lock = engine.acquire_lock("main", "MAINTENANCE", "me", reason="tidy")
    engine.release_lock(lock.lock_id, lock.token)
    assert types_of(engine.events()) == ["branch.created", "lock.granted", "lock.released"]


def test_the_steps_of_recovery_are_events(open_engine: Any) -> None:
    first = open_engine(copy_slice_rows=10)
    first.create_branch("main")
    fill(first, 500)
    failpoints.plan_points("publish.staged=raise:EIO")
    live(first)
    first.close()
    failpoints.plan_points("")  # after the close: the janitor of the first would publish it
    second = open_engine()
    assert types_of(second.events())[-1] == "recovery.published"


def test_decisions_of_recovery_are_audited_and_nothing_else(open_engine: Any, data_dir: Any) -> None:
    first = open_engine()
    first.create_branch("main")
    fill(first, 10)
    live(first)
    first.close()
    second = open_engine()
    assert [entry.type.rpartition(".")[2] for entry in second.audit()] == ["created", "claimed", "committed"], (
        "recovery had nothing to decide"
    )
    shadow = second.start_build("main", KIND, TYPES, external=True)
    lock = second.acquire_lock("main", "MIGRATION", "bob", scope="RESOURCE_TYPE", resource_type="x", heartbeat_s=10)
    second.close()
    (data_dir / "published" / ".staging" / "half").mkdir(parents=True)
    third = open_engine()
    kept, awaited, cleaned = third.audit()[4:]
    assert [one.type for one in (kept, awaited, cleaned)] == [
        "recovery.locks_kept", "recovery.awaited", "recovery.cleaned"
    ]  # fmt: skip
    assert (kept.subject, kept.data["locks"]) == ("main", ["bob: MIGRATION all of x"])
    assert (awaited.subject, awaited.data["state"]) == (shadow.shadow_index_id, "BUILDING")
    assert cleaned.data["removed"] == ["half"]
    assert third.heartbeat(lock.lock_id, lock.token)
    assert types_of(third.events())[-3:] == ["recovery.locks_kept", "recovery.awaited", "recovery.cleaned"]


def test_only_the_newest_events_are_kept_and_the_gap_can_be_seen(open_engine: Any) -> None:
    engine = open_engine(events_keep=5, audit_keep=2)
    for n in range(30):
        engine.create_branch(f"branch {n}")
    engine.create_branch("main")
    fill(engine, 10)
    live(engine)
    live(engine)
    engine.clean_up()
    oldest, newest = engine.event_span()
    assert newest - oldest == 4
    kept = engine.events()
    assert [event.sequence for event in kept] == list(range(oldest, newest + 1))
    assert len(engine.audit()) == 2
    late: list[Event] = []
    engine.subscribe(late.append, after=1)
    wait_until(lambda: len(late) >= 5)
    assert late[0].sequence == engine.event_span()[0]
    assert engine.stats()["counters"]["events_missed"] == late[0].sequence - 2


def test_a_gap_in_the_event_log_is_found(open_engine: Any, data_dir: Any) -> None:
    engine = open_engine(sound=False)
    for n in range(5):
        engine.create_branch(f"branch {n}")
    inside.transact(
        engine, lambda commit: commit.txn.delete((3).to_bytes(8, "big"), db=commit.db["outbox"]), "plant a gap"
    )
    assert [str(finding) for finding in engine.check()] == ["EV-1 outbox: number 4 comes after 2"]


def test_every_event_has_a_listed_type_and_the_documentation_has_every_type(filled: Engine) -> None:
    live(filled)
    assert {event.type for event in filled.events()} <= {EVENT_PREFIX + kind for kind in EVENT_TYPES}
    types = (ROOT / "docs" / "events.md").read_text().partition("## Types")[2].partition("\n## ")[0]
    lines = types.splitlines()
    assert [line for line in lines if line.startswith("| `")] == [
        f"| `{k}` | {text} |" for k, text in EVENT_TYPES.items()
    ]


def test_an_event_travels_as_a_cloud_event(filled: Engine) -> None:
    live(filled)
    last = filled.events()[-1]
    sent = to_cloud_event(last)
    assert (sent["specversion"], sent["id"], sent["type"]) == ("1.0", last.id, last.type)
    assert int(sent["sequence"]) == last.sequence
    assert datetime.fromisoformat(sent["time"]) == last.time
    assert json.loads(json.dumps(sent)) == sent
