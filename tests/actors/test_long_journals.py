"""The journal is bounded by what must be kept: of each branch, by its own changes and by bytes; each has its turn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Engine, Put
from shadowswitch.actors.maintenance.long_journals import LOOK_CHUNKS, LongJournals
from shadowswitch.engine.encode import prepare
from shadowswitch.model.config import Config
from shadowswitch.storage.catalog import retention
from shadowswitch.storage.catalog.counters import Counters
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.clock import Clock
from tests.support.engine_helpers import put

SCHEDULE = 3600.0
"""No round of the Janitor but those of `clean_up`."""


def kept(engine: Engine, branch: str) -> int:
    """How many changes of a branch its journal has."""
    return len(engine.changes(branch, engine.branch(branch).oldest_lsn - 1, 100_000))


def write(engine: Engine, branch: str, changes: int, size: int = 10) -> None:
    for start in range(0, changes, 10):
        engine.write(branch, [put(f"{n}", "x" * size) for n in range(start, start + 10)])


def test_a_branch_keeps_its_own_newest_changes_however_much_others_write(open_engine: Any) -> None:
    engine = open_engine(journal_keep_changes=250, janitor_interval_s=SCHEDULE)
    for name in ("quiet", "busy"):
        engine.create_branch(name)
    write(engine, "quiet", 300)
    write(engine, "busy", 2000)
    engine.clean_up()
    assert kept(engine, "quiet") == 300, "its surplus is worth no transaction"
    assert 250 <= kept(engine, "busy") < 250 + 10
    write(engine, "quiet", 200)
    engine.close()
    engine = open_engine(journal_keep_changes=250, janitor_interval_s=SCHEDULE)
    engine.clean_up()
    assert 250 <= kept(engine, "quiet") < 250 + 10
    assert engine.check() == []


def test_large_records_are_kept_by_their_size(open_engine: Any) -> None:
    engine = open_engine(journal_keep_bytes=200_000, janitor_interval_s=SCHEDULE)
    engine.create_branch("main")
    write(engine, "main", 300, size=10_000)
    engine.clean_up()
    assert 15 <= kept(engine, "main") <= 20
    assert [change.id for change in engine.changes("main", engine.head("main") - 2)] == ["298", "299"]


def test_every_branch_has_its_turn_in_a_round(open_engine: Any) -> None:
    engine = open_engine(journal_keep_changes=5, janitor_interval_s=SCHEDULE)
    names = [f"b{n}" for n in range(130)]
    for name in names:
        engine.create_branch(name)
    for _ in range(3):
        for name in names:
            engine.write(name, [put(f"{n}", "x" * 300) for n in range(10)])
    for _ in range(3):  # a round ends after its time
        engine.clean_up()
    assert {name for name in names if kept(engine, name) > 5 + 10} == set()
    assert engine.check() == []


def test_a_slice_grows_with_what_was_written_since_the_last_one(open_engine: Any) -> None:
    engine = open_engine(journal_keep_changes=0, janitor_interval_s=SCHEDULE)
    engine.create_branch("main")
    engine.clean_up()
    for start in range(0, 3000, 500):  # each change is a chunk
        engine.write("main", [put(f"{n}", "x" * 1800) for n in range(start, start + 500)])
    commits = engine.stats()["counters"]["commits"]
    engine.clean_up()
    assert engine.branch("main").oldest_lsn == 3001
    assert engine.stats()["counters"]["commits"] - commits <= 3


class SetClock(Clock):
    """Stands still until it is set."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


class Journal:
    """A catalog with one branch, and the line of the long journals."""

    def __init__(self, path: Path) -> None:
        self.clock = SetClock()
        self.catalog = Catalog(path, clock=self.clock)
        self.counters = Counters(self.catalog)
        self.run(lambda commit: commit.create_branch("main", 0.0))
        self.branch = self.catalog.branch("main").number
        self.line = LongJournals(self.catalog, 0, 1 << 30)

    def run(self, work: Any) -> None:
        Commit(self.catalog, self.counters).run(work)

    def write(self, count: int) -> None:
        batch = prepare([Put("object_type", str(n), {"text": "x" * 1800}) for n in range(count)], Config())
        self.run(lambda commit: commit.write(self.branch, batch))
        self.line.written([self.branch])

    def in_line(self) -> bool:
        self.line.look()
        return self.line.next(10) == [self.branch]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path)
    yield journal
    journal.catalog.close()


def test_a_branch_that_waits_is_looked_at_after_longer_and_longer_pauses_and_when_it_is_written_to(
    journal: Journal,
) -> None:
    journal.write(300)
    assert journal.in_line()
    seen = []
    journal.line.wait(journal.branch)
    for second in range(1, 200):
        journal.clock.now = second
        if journal.in_line():
            seen.append(second)
            journal.line.wait(journal.branch)
    assert seen == [1, 3, 7, 15, 31, 63, 123, 183]
    journal.write(1)
    assert journal.in_line()
    journal.line.wait(journal.branch)
    assert not journal.in_line()
    journal.clock.now += 1
    assert journal.in_line(), "its pauses began anew"


def test_a_branch_without_surplus_is_in_no_line(journal: Journal) -> None:
    journal.write(150)
    assert not journal.in_line()
    journal.write(150)
    assert journal.in_line()
    journal.run(lambda commit: retention.trim_journal(commit, journal.branch, 301, 1000))
    journal.line.trimmed(journal.branch, 301)
    assert not journal.in_line()
    journal.line.wake_all()
    assert not journal.in_line()


def test_a_long_journal_is_counted_over_several_reads(journal: Journal) -> None:
    journal.write(2 * LOOK_CHUNKS + 100)
    assert journal.in_line()
    assert journal.line.begin(journal.branch) == 2 * LOOK_CHUNKS + 101
    journal.line.forget(journal.branch)
    assert not journal.in_line()
    assert not journal.line.is_worth(journal.branch, 500)
