"""Which builds work, and which wait: `Config.builds_max`, priorities, pauses; the same over restarts and kills."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Config, Engine, InvalidConfig, InvalidTransition, ShadowIndex, Timeout
from shadowswitch.actors.queue.build_queue import BuildQueue
from shadowswitch.model.shadow_state import Phase, ShadowState
from shadowswitch.storage import failpoints
from shadowswitch.storage.catalog.rows import ShadowRow
from tests.conftest import FAST
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, fill, found, wait_until

BRANCHES = ("a", "b", "c", "d")
STAND = "build.shard_opened=sleep:600"
ONE: dict[str, Any] = {"parallel_workers": 1}


@pytest.fixture
def one_place(open_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> Engine:
    """One build works at a time, and stands in its copy until `let_go`."""
    engine = open_engine(builds_max=1)
    for branch in BRANCHES:
        engine.create_branch(branch)
        fill(engine, 50, branch)
    monkeypatch.setenv("SHADOWSWITCH_POINTS", STAND)
    return engine


def start(engine: Engine, branch: str, priority: int = 0) -> str:
    return engine.start_build(branch, KIND, TYPES, ONE, priority=priority).shadow_index_id


def queue_of(engine: Engine) -> dict[str, int | None]:
    """The branches whose builds are queued, with their positions."""
    return {one.branch_name: one.queue_position for one in engine.shadows() if one.phase == "queued"}


def copying(engine: Engine) -> list[str]:
    """The branches whose builds have begun and work."""
    begun = [one for one in engine.shadows() if one.state == "BUILDING"]
    return [one.branch_name for one in begun if one.phase not in ("queued", "paused")]


def row(id: str, generation: int, priority: int = 0) -> ShadowRow:
    return ShadowRow(
        1, id, 1, "main", KIND, TYPES, ShadowState.PREPARING, Phase.QUEUED, "fts5", {}, "", 1, 0.0,
        generation=generation, priority=priority,
    )  # fmt: skip


def test_the_highest_priority_goes_first_then_the_oldest() -> None:
    queue = BuildQueue(2)
    for one in (row("old", 1), row("young", 4), row("urgent", 3, 5), row("late", 2, -1)):
        queue.join(one)
    assert [queue.next(), queue.next(), queue.next()] == ["urgent", "old", None]
    assert queue.waiting() == ["young", "late"]
    queue.set_priority("late", 1)
    assert (queue.position("late"), queue.position("young"), queue.position("old")) == (1, 2, None)
    queue.join(row("held", 9, -9), held_place=True)
    queue.leave("old")
    assert queue.next() == "held", "it worked when the engine stopped"
    queue.join(row("urgent", 3, 5))
    assert queue.waiting() == ["late", "young"], "one that works does not wait"


@pytest.mark.parametrize(("cores", "places"), [(1, 1), (2, 1), (3, 1), (8, 4)])
def test_without_a_number_half_as_many_work_as_there_are_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, places: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    assert BuildQueue(0).places == places


def test_builds_beyond_the_places_wait_in_order_and_a_queued_one_is_cancelled(
    one_place: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [start(one_place, branch, priority) for branch, priority in zip(BRANCHES, (0, 0, 5, 0), strict=True)]
    wait_until(lambda: copying(one_place) == ["a"])
    assert queue_of(one_place) == {"c": 1, "b": 2, "d": 3}
    waiting = one_place.shadow(ids[1])
    assert (waiting.state, waiting.estimated_completion_seconds, waiting.start_lsn) == ("PREPARING", None, 0)
    assert "Config.builds_max lets 1 work at once" in (waiting.stands_still or "")
    assert one_place.stats()["builds_queued"] == 3
    assert not Path(waiting.shadow_index_path).exists(), "a queued build has nothing"
    one_place.set_priority(ids[3], 9)
    assert queue_of(one_place) == {"d": 1, "c": 2, "b": 3}
    assert one_place.cancel_build(ids[3], "not needed").state == "CANCELLED"
    assert queue_of(one_place) == {"c": 1, "b": 2}
    monkeypatch.delenv("SHADOWSWITCH_POINTS")
    one_place.cancel_build(ids[0], "the place is for another")
    for id in ids[1:3]:
        assert one_place.wait_for(id, "BUILT", timeout_s=60).record_count == 50
    c, b = one_place.shadow(ids[2]), one_place.shadow(ids[1])
    assert c.started_at is not None and b.started_at is not None  # noqa: PT018
    assert c.started_at < b.started_at, "the higher priority began first"


def test_an_external_build_takes_no_place_and_another_keeps_its_place_until_it_is_built(open_engine: Any) -> None:
    engine = open_engine(builds_max=1)
    for branch in BRANCHES:
        engine.create_branch(branch)
        fill(engine, 20, branch)
    engine.start_build("d", KIND, TYPES, {"backend": "fts5"}, external=True, service_name="other")
    failpoints.plan_points("build.validated=sleep:2@1")
    first, second = start(engine, "a"), start(engine, "b")
    wait_until(lambda: engine.shadow(first).phase == "validating")
    assert queue_of(engine) == {"b": 1}
    for id in (first, second):
        assert engine.wait_for(id, "BUILT", timeout_s=60).record_count == 20
    a, b = engine.shadow(first), engine.shadow(second)
    assert a.completed_at <= b.started_at


def test_a_rebuild_that_waits_in_the_queue_keeps_its_deadline(one_place: Engine) -> None:
    start(one_place, "a")
    with pytest.raises(Timeout, match="queued, number 1"):
        one_place.rebuild("b", KIND, TYPES, timeout_s=0.5)
    assert queue_of(one_place) == {}, "a rebuild that ended leaves the queue"


def test_a_paused_build_gives_its_place_and_waits_for_another(
    one_place: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = start(one_place, "a"), start(one_place, "b")
    wait_until(lambda: copying(one_place) == ["a"])
    paused = one_place.pause_build(first, by="alice", reason="the demo at noon")
    assert (paused.phase, paused.paused_by, paused.estimated_completion_seconds) == ("paused", "alice", None)
    assert paused.stands_still == "paused by alice (the demo at noon); resume_build lets it go on"
    wait_until(lambda: copying(one_place) == ["b"])
    again = one_place.pause_build(first, by="bob")
    assert again.paused_by == "alice", "it was paused already"
    assert one_place.resume_build(first, by="alice").queue_position == 1
    monkeypatch.delenv("SHADOWSWITCH_POINTS")
    one_place.cancel_build(second)
    one_place.wait_for(first, "BUILT", timeout_s=60)
    entries = [(one.type, one.data["by"]) for one in one_place.audit() if one.subject == first]
    assert [entry for entry in entries if entry[0] in ("build.paused", "build.resumed")] == [
        ("build.paused", "alice"),
        ("build.resumed", "alice"),
    ]


def test_a_queued_build_is_paused_and_resumed(one_place: Engine) -> None:
    start(one_place, "a")
    id = start(one_place, "b")
    assert one_place.pause_build(id).phase == "paused"
    assert queue_of(one_place) == {}
    assert one_place.resume_build(id).queue_position == 1


HOST = f"""
import sys
from shadowswitch import Config, Engine, Put
engine = Engine.open(sys.argv[1], Config(builds_max=2, **{FAST!r}))
ids = []
for branch, priority in zip("abcdef", (0, 0, 0, 3, -1, 0)):
    engine.create_branch(branch)
    engine.write(branch, [Put("object_type", str(n), {{"text": f"word{{n}}"}}) for n in range(50)])
    one = {{"parallel_workers": 1}}
    ids.append(engine.start_build(branch, "SEARCH_INDEX", ["object_type"], one, priority=priority))
engine.wait_for(ids[1].shadow_index_id, "BUILDING", timeout_s=60)
engine.wait_for(ids[0].shadow_index_id, "BUILDING", timeout_s=60)
engine.pause_build(ids[5].shadow_index_id, "alice", "not today")
engine.throttle_build(ids[0].shadow_index_id, 0.25)
engine.set_priority(ids[2].shadow_index_id, 2)
print("ready", flush=True)
engine.wait_for(ids[0].shadow_index_id, "BUILT")
"""


def test_after_a_kill_the_order_is_the_same(
    data_dir: Path, open_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHADOWSWITCH_POINTS", STAND)
    with subprocess.Popen([sys.executable, "-c", HOST, str(data_dir)], stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == "ready\n"
        host.send_signal(signal.SIGKILL)
    engine = open_engine(builds_max=2)
    wait_until(lambda: copying(engine) == ["a", "b"], what="the builds that worked go on")
    assert queue_of(engine) == {"d": 1, "c": 2, "e": 3}
    paused = by_branch(engine)["f"]
    assert (paused.phase, paused.paused_by) == ("paused", "alice")
    assert by_branch(engine)["a"].share == 0.25
    engine.close()
    fewer = open_engine(builds_max=1)
    wait_until(lambda: copying(fewer) == ["a"])
    assert queue_of(fewer) == {"b": 1, "d": 2, "c": 3, "e": 4}, "b worked when the engine stopped"
    monkeypatch.delenv("SHADOWSWITCH_POINTS")
    fewer.close()
    last = open_engine()
    for one in by_branch(last).values():
        if one.branch_name != "f":
            last.wait_for(one.shadow_index_id, "BUILT", timeout_s=60)
    last.resume_build(paused.shadow_index_id)
    last.wait_for(paused.shadow_index_id, "BUILT", timeout_s=60)


def by_branch(engine: Engine) -> dict[str, ShadowIndex]:
    return {one.branch_name: one for one in engine.shadows()}


def test_a_queued_build_keeps_no_journal(open_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(builds_max=1, journal_keep_changes=0)
    for branch in ("a", "b"):
        engine.create_branch(branch)
        fill(engine, 20, branch)
    monkeypatch.setenv("SHADOWSWITCH_POINTS", STAND)
    first, id = start(engine, "a"), start(engine, "b")
    for text in map(str, range(300)):
        fill(engine, 1, "b", text)
    wait_until(lambda: engine.branch("b").oldest_lsn > engine.branch("b").head_lsn - 250, what="the trim")
    monkeypatch.delenv("SHADOWSWITCH_POINTS")
    engine.cancel_build(first)
    engine.wait_for(id, "BUILT", timeout_s=60)
    assert engine.switch(id).success
    assert found(engine, "word0", "b") == {"0"}


def test_an_ended_or_external_build_is_not_operated(engine: Engine) -> None:
    fill(engine, 10)
    external = engine.start_build("main", "OTHER", TYPES, {"backend": "fts5"}, external=True, service_name="x")
    ended = engine.start_build("main", KIND, TYPES, ONE)
    engine.wait_for(ended.shadow_index_id, "BUILT", timeout_s=60)
    calls: list[Callable[[str], object]] = [
        engine.pause_build, engine.resume_build, lambda id: engine.throttle_build(id, 0.5),
        lambda id: engine.set_priority(id, 1),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(InvalidTransition, match="another process"):
            call(external.shadow_index_id)
        with pytest.raises(InvalidTransition, match="is BUILT"):
            call(ended.shadow_index_id)


@pytest.mark.parametrize("priority", [1.5, True, "high", 10**7])
def test_a_wrong_priority_is_refused(engine: Engine, priority: Any) -> None:
    with pytest.raises(InvalidConfig, match="whole number"):
        engine.start_build("main", KIND, TYPES, priority=priority)


@pytest.mark.parametrize("value", [-1, 1.5, True])
def test_a_wrong_number_of_places_is_refused(value: Any) -> None:
    with pytest.raises(InvalidConfig, match="builds_max"):
        Config(builds_max=value)


def test_a_build_whose_end_has_no_answer_leaves_its_place(open_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """BUILT is durable, but the transaction raises: no builder goes on with it, and the next build begins."""
    engine = open_engine(builds_max=1)
    for branch in ("a", "b"):
        engine.create_branch(branch)
        fill(engine, 20, branch)
    passed: list[str] = []

    def at_point(ordinary: Callable[[str], None], name: str) -> None:
        ordinary(name)
        if name == "build.manifest" and not passed:
            passed.append(name)
            failpoints.plan_points("journal.committed=raise:ENOSPC@1")

    inside.wrap(monkeypatch, inside.Step.BUILD_FAILPOINT, at_point)
    first, second = start(engine, "a"), start(engine, "b")
    assert engine.wait_for(first, "BUILT", timeout_s=60).record_count == 20
    assert engine.wait_for(second, "BUILT", timeout_s=60).record_count == 20
    assert passed
