"""The journal as users see it: every change once, in order, whole; trimmed only below the needed changes."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from shadowswitch import Change, Delete, Engine, JournalTrimmed, Put, ShadowState
from tests.support.engine_helpers import KIND, TYPES, built, crew, fill, found, live, put, wait_until


def replayed(changes: list[Change]) -> dict[tuple[str, str], tuple[int, dict[str, Any]]]:
    """The records after these changes."""
    state: dict[tuple[str, str], tuple[int, dict[str, Any]]] = {}
    for change in changes:
        key = (change.resource_type, change.id)
        if change.fields is None:
            state.pop(key, None)
        else:
            state[key] = (change.lsn, change.fields)
    return state


def every_change(engine: Engine, branch: str = "main", limit: int = 7) -> list[Change]:
    changes: list[Change] = []
    after = 0
    while piece := engine.changes(branch, after, limit):
        changes += piece
        after = piece[-1].lsn
    return changes


def test_replaying_the_journal_gives_the_records(engine: Engine) -> None:
    engine.create_branch("other")

    def write(number: int) -> None:
        for n in range(40):
            branch = ("main", "other")[n % 2]
            engine.write(branch, [put(f"{number * n % 17}", f"{number}"), Delete("object_type", str(n % 13))])
            engine.write(branch, [Put("link_type", str(n % 5), {"n": n})])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    lsns: list[int] = []
    for branch in ("main", "other"):
        changes = every_change(engine, branch)
        records = {(r.resource_type, r.id): (r.lsn, r.fields) for r in engine.scan(branch)}
        assert replayed(changes) == records
        assert [change.lsn for change in changes] == sorted(change.lsn for change in changes)
        lsns += [change.lsn for change in changes]
    assert sorted(lsns) == list(range(1, len(lsns) + 1)), "ST-1: an LSN is missing or given twice"


def test_a_reader_of_changes_that_keeps_up_misses_nothing(engine: Engine) -> None:
    followed: list[Change] = []

    def follow() -> None:
        followed.extend(engine.changes("main", followed[-1].lsn if followed else 0, 50))

    with crew() as hands:
        hands.start(follow)
        for n in range(100):
            engine.write("main", [put(f"{n}-{m}") for m in range(10)])
        wait_until(lambda: len(followed) >= 1000)
    assert [change.lsn for change in followed] == list(range(1, 1001))


def test_changes_after_the_head_are_none_and_a_limit_is_kept(engine: Engine) -> None:
    fill(engine, 10)
    assert engine.changes("main", after=10) == []
    assert engine.changes("main", after=10**15) == []
    assert [change.lsn for change in engine.changes("main", after=3, limit=2)] == [4, 5]


def test_the_journal_is_kept_as_long_as_a_build_needs_it(open_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(journal_keep_changes=0)
    engine.create_branch("main")
    fill(engine, 1000)
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "copy.slice=sleep:1")
    shadow = engine.start_build("main", KIND, TYPES, {"parallel_workers": 1})
    wait_until(lambda: engine.shadow(shadow.shadow_index_id).state == ShadowState.BUILDING)
    engine.pause_build(shadow.shadow_index_id)
    start_lsn = engine.shadow(shadow.shadow_index_id).start_lsn
    for n in range(5):
        engine.write("main", [put(str(m), f"round{n}") for m in range(1000)])
        engine.clean_up()
        assert engine.branch("main").oldest_lsn <= start_lsn + 1, "ST-6"
    engine.resume_build(shadow.shadow_index_id)
    engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=60)
    assert engine.switch(shadow.shadow_index_id).success
    assert len(found(engine, "round4")) == 1000


def test_the_journal_is_trimmed_once_the_generations_have_it_on_disk(open_engine: Any) -> None:
    engine = open_engine(journal_keep_changes=10, flush_interval_s=0.05)
    engine.create_branch("main")
    live(engine)
    live(engine)  # one live, one soaking: both hold the journal
    for n in range(5):
        engine.write("main", [put(str(m), f"round{n}") for m in range(500)])
    head = engine.head("main")
    wait_until(lambda: engine.branch("main").oldest_lsn > head - 300)
    oldest = engine.branch("main").oldest_lsn
    with pytest.raises(JournalTrimmed) as caught:
        engine.changes("main", after=0)
    assert oldest <= caught.value.oldest_lsn <= engine.branch("main").oldest_lsn, "the janitor may still be trimming"
    assert engine.changes("main", after=head - 5)[-1].lsn == head
    assert engine.rollback("main", KIND).success
    assert len(found(engine, "round4")) == 500
    engine.close()
    again = open_engine(journal_keep_changes=10)
    assert len(found(again, "round4")) == 500


def test_a_trimmed_journal_still_lets_builds_start_and_readers_of_all_records_go_on(open_engine: Any) -> None:
    engine = open_engine(journal_keep_changes=0)
    engine.create_branch("main")
    fill(engine, 2000)
    engine.clean_up()
    assert engine.branch("main").oldest_lsn > 1000
    assert built(engine).record_count == 2000
    head = engine.head("main")
    records = {record.id for record in engine.scan("main")}
    engine.write("main", [put("later")])
    records |= {change.id for change in engine.changes("main", after=head)}
    assert len(records) == 2001
