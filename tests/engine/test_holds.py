"""Named, durable holds on the journal: no change under a hold is trimmed, and every hold has a limit."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shadowswitch import Engine, InvalidConfig, InvalidName, JournalTrimmed, UnknownBranch
from shadowswitch.storage.catalog import retention
from shadowswitch.storage.catalog.retention import trim_journal
from shadowswitch.storage.catalog.transaction import signed
from tests.support import inside
from tests.support.engine_helpers import crew, fill, put, wait_until


@pytest.fixture
def engine(open_engine: Any) -> Engine:
    """An engine that keeps only held changes, and trims on request."""
    engine: Engine = open_engine(journal_keep_changes=0, janitor_interval_s=3600)
    engine.create_branch("main")
    return engine


def write(engine: Engine, count: int) -> int:
    """Write `count` changes in batches of 100; the last LSN."""
    for _ in range(count // 100):
        engine.write("main", [put(str(n)) for n in range(100)])
    return engine.head("main")


def test_a_hold_keeps_changes_until_it_is_moved_or_released(engine: Engine) -> None:
    write(engine, 1000)
    engine.hold_changes("mirror", "main", 300)
    engine.hold_changes("audit", "main", 700)
    head = write(engine, 1000)
    engine.clean_up()
    assert engine.branch("main").oldest_lsn <= 301
    assert [change.lsn for change in engine.changes("main", 300, 5000)] == list(range(301, head + 1))
    engine.hold_changes("mirror", "main", 1500)
    engine.clean_up()
    assert 401 <= engine.branch("main").oldest_lsn <= 701
    assert engine.release_changes("audit", "main")
    assert not engine.release_changes("audit", "main")
    engine.clean_up()
    assert 1201 <= engine.branch("main").oldest_lsn <= 1501
    assert [hold.name for hold in engine.changes_holds("main")] == ["mirror"]


def test_a_hold_survives_a_restart(engine: Engine, open_engine: Any) -> None:
    write(engine, 500)
    engine.hold_changes("mirror", "main", 100)
    engine.close()
    again = open_engine(journal_keep_changes=0)
    head = write(again, 500)
    again.clean_up()
    assert again.changes("main", 100, 5000)[-1].lsn == head
    (hold,) = again.changes_holds()
    assert (hold.name, hold.branch_name, hold.after_lsn, hold.lag_changes) == ("mirror", "main", 100, head - 100)


def test_a_subscriber_that_holds_and_moves_misses_nothing(engine: Engine) -> None:
    engine.hold_changes("mirror", "main", 0)
    taken: list[int] = []

    def take() -> None:
        page = engine.changes("main", taken[-1] if taken else 0, 70)
        taken.extend(change.lsn for change in page)
        if page:
            engine.hold_changes("mirror", "main", taken[-1])

    with crew() as hands:
        hands.start(take)
        hands.start(engine.clean_up)
        head = write(engine, 3000)
        wait_until(lambda: taken and taken[-1] == head, 60)
    assert taken == list(range(1, head + 1))
    engine.clean_up()
    assert engine.branch("main").oldest_lsn > 2000


def test_a_hold_made_during_a_trim_is_kept_or_refused(engine: Engine) -> None:
    """The LSN of a trim is computed before its transaction, which takes a new hold into account."""
    write(engine, 2000)
    row = inside.catalog(engine).branch("main")
    inside.transact(engine, signed(lambda c: retention.hold(c, row, "late", 900), "a test"), "test")
    from shadowswitch.actors.maintenance.trimmer import _trim_slice

    inside.transact(engine, lambda c: _trim_slice([(row.number, 2001)], 200, c), "test")
    for _ in range(20):
        inside.transact(engine, lambda c: _trim_slice([(row.number, 2001)], 200, c), "test")
    assert engine.branch("main").oldest_lsn == 901


def test_a_forgotten_hold_is_given_up_and_the_next_read_is_refused_with_the_reason(open_engine: Any) -> None:
    engine = open_engine(journal_keep_changes=0, hold_changes_max=1000, janitor_interval_s=3600)
    engine.create_branch("main")
    write(engine, 400)
    engine.hold_changes("forgotten", "main", 100)
    write(engine, 700)
    engine.clean_up()
    assert engine.changes("main", 100)[0].lsn == 101
    write(engine, 700)
    engine.clean_up()
    (hold,) = engine.changes_holds()
    assert "more than 1000 (Config.hold_changes_max)" in hold.given_up
    assert hold.lag_changes == 0
    with pytest.raises(JournalTrimmed, match="the hold 'forgotten' at LSN 100 was given up: it held back 1700 LSNs"):
        engine.changes("main", 100)
    assert engine.events()[-1].type == "com.shadowswitch.hold.given_up"
    assert engine.audit()[-1].data["name"] == "forgotten"
    with pytest.raises(JournalTrimmed):
        engine.hold_changes("forgotten", "main", 100)
    assert engine.hold_changes("forgotten", "main", engine.head("main")).given_up == ""


def test_stats_show_each_hold_and_the_changes_it_keeps(engine: Engine) -> None:
    write(engine, 500)
    engine.hold_changes("mirror", "main", 100)
    (figures,) = json.loads(json.dumps(engine.stats()["journal"]))
    assert figures["held_by"] == [{"hold": "mirror", "durable_lsn": 100, "changes": 400}]
    assert figures["changes"] == 500
    assert engine.stats()["catalog"]["size_bytes"]["journal"] > 10_000


def test_an_invalid_hold_is_refused(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(engine, 10)
    for name in ("", "x" * 101, "a\0b", 7, "\ud800"):
        with pytest.raises(InvalidName):
            engine.hold_changes(name, "main", 0)  # type: ignore[arg-type]
    with pytest.raises(InvalidConfig, match="beyond the head"):
        engine.hold_changes("mirror", "main", 11)
    with pytest.raises(UnknownBranch):
        engine.hold_changes("mirror", "nowhere", 0)
    inside.patch_limit(monkeypatch, inside.Limit.HOLDS_MAX, 2)
    engine.hold_changes("a" * 100, "main", 0)
    engine.hold_changes("가지" * 50, "main", 0)
    with pytest.raises(InvalidConfig, match="2 holds already"):
        engine.hold_changes("c", "main", 0)
    assert engine.hold_changes("a" * 100, "main", 5).after_lsn == 5


def test_fsck_finds_a_journal_without_the_changes_of_a_hold(open_engine: Any) -> None:
    engine = open_engine(journal_keep_changes=0, janitor_interval_s=3600, sound=False)
    engine.create_branch("main")
    write(engine, 500)
    engine.hold_changes("mirror", "main", 100)
    row = inside.catalog(engine).branch("main")
    inside.transact(engine, lambda c: trim_journal(c, row.number, 300, 1000), "test")
    assert [finding.invariant for finding in engine.check()] == ["ST-6"]
