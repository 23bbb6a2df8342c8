"""Restored at every LSN of a random run, a data directory shows what it showed then; or the restore says why not."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from shadowswitch import Change, Delete, Engine, InvalidConfig, Put, backups, restore, verify_backup
from tests.support.backup_helpers import Shown, shown
from tests.support.engine_helpers import live, put, wait_until

IDS = [str(number) for number in range(12)] + ["long" * 120]


def journal(engine: Engine, branch: str) -> list[Change]:
    """Every change that a branch still has."""
    return engine.changes(branch, engine.branch(branch).oldest_lsn - 1, 10_000)


class Run:
    """Random writes, forks and merges with a few backups, and what the branches showed behind each step."""

    def __init__(self, engine: Engine, store: Path, seed: int, steps: int) -> None:
        self.steps = steps
        self.engine = engine
        self.store = store
        self.chance = random.Random(seed)
        self.states: dict[int, list[Shown]] = {}
        """By LSN, what was shown behind each step up to it: a fork, a backup, a write."""
        self.journals: dict[int, dict[str, list[Change]]] = {}

    def go(self) -> None:
        self.engine.create_branch("main")
        self.write()
        self.engine.backup(str(self.store))
        self.note()
        for step in range(self.steps):
            self.chance.choices((self.write, self.fork, self.merge, self.create, self.switch), (12, 2, 2, 1, 1))[0]()
            self.note()
            if step % 10 == 9:
                self.engine.backup(str(self.store))

    def note(self) -> None:
        state = shown(self.engine)
        lsn = max(self.engine.head(name) for name in state)
        self.states.setdefault(lsn, []).append(state)
        self.journals[lsn] = {name: journal(self.engine, name) for name in state}

    def branch(self) -> str:
        return self.chance.choice([branch.name for branch in self.engine.branches()])

    def write(self) -> None:
        batch: dict[tuple[str, str], Put | Delete] = {}
        for _ in range(self.chance.choice((1, 1, 2, 3, 30))):
            kind, id = self.chance.choice(("object_type", "link_type")), self.chance.choice(IDS)
            gone = self.chance.random() < 0.3
            text = f"{self.chance.random()}".ljust(self.chance.choice((1, 900)), "x")
            batch[kind, id] = Delete(kind, id) if gone else put(id, text, kind)
        self.engine.write(self.branch(), list(batch.values()))

    def fork(self) -> None:
        parent = self.branch()
        mode = "following" if self.chance.random() < 0.4 else "snapshot"
        self.engine.fork_branch(f"fork{len(self.engine.branches())}", parent, mode=mode)

    def merge(self) -> None:
        forks = [branch for branch in self.engine.branches() if branch.parent]
        if forks:
            fork = self.chance.choice(forks)
            self.engine.merge_into(fork.parent or "", fork.name, on_conflict="theirs")

    def create(self) -> None:
        name = f"own{len(self.engine.branches())}"
        self.engine.create_branch(name)
        self.engine.write(name, [put("first")])

    def switch(self) -> None:
        live(self.engine)


def test_at_an_lsn_a_restore_shows_what_was_shown_then(open_engine: Callable[..., Engine], tmp_path: Path) -> None:
    play(open_engine, tmp_path, 0, 20)


@pytest.mark.torture
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(1, 9))
def test_at_every_lsn_of_long_runs(open_engine: Callable[..., Engine], tmp_path: Path, seed: int) -> None:
    play(open_engine, tmp_path, seed, 60)


def play(open_engine: Callable[..., Engine], tmp_path: Path, seed: int, steps: int) -> None:
    """A run, and a restore at the LSN of each of its steps, and at some inside of batches."""
    store, target = tmp_path / "store", tmp_path / "restored"
    run = Run(open_engine(), store, seed, steps)
    run.go()
    made = [one.last_lsn for one in backups(str(store))]
    inside = run.chance.sample(range(made[0], made[-1]), 8)
    for lsn in sorted({lsn for lsn in run.states if made[0] <= lsn <= made[-1]} | set(inside)):
        done = restore(str(store), target, at_lsn=lsn)
        state = max(at for at in run.states if at <= lsn)
        assert done.last_lsn == state, f"LSN {lsn}"
        again = open_engine(target)
        records = shown(again)
        known = [{name: records.get(name) for name in one} == one for one in run.states[state]]
        assert any(known) if state in made else known[-1], f"LSN {lsn}"
        for name, changes in run.journals[state].items():
            assert name not in records or journal(again, name) == changes, f"LSN {lsn}, the journal of {name}"
        assert again.check() == []
        again.close()
        shutil.rmtree(target)
    assert verify_backup(str(store), deep=True).findings == ()


def refused(store: Path, tmp_path: Path, at_lsn: int, says: str) -> None:
    with pytest.raises(InvalidConfig, match=says):
        restore(str(store), tmp_path / "restored", at_lsn=at_lsn)
    assert not list((tmp_path / "restored").glob("catalog*"))


def test_what_the_journal_does_not_tell_is_refused(engine: Engine, tmp_path: Path) -> None:
    store = tmp_path / "store"
    engine.write("main", [put("1")])
    engine.create_branch("gone")
    engine.fork_branch("fork", "main")
    engine.backup(str(store))
    engine.write("gone", [put("1")])
    lsn = engine.write("main", [put("2")]).lsn
    engine.drop_branch("gone")
    engine.backup(str(store))
    refused(store, tmp_path, lsn - 1, "'gone' was dropped")
    middle = engine.write("main", [put("3")]).lsn
    engine.write("main", [put("4")])
    engine.rebase("fork")
    engine.backup(str(store))
    refused(store, tmp_path, middle, "'fork' was rebased")
    assert restore(str(store), tmp_path / "restored", at_lsn=backups(str(store))[-1].last_lsn).replayed == 0


def test_changes_that_were_trimmed_are_refused(open_engine: Callable[..., Engine], tmp_path: Path) -> None:
    store = tmp_path / "store"
    engine = open_engine(journal_keep_changes=5)
    engine.create_branch("main")
    engine.write("main", [put("1")])
    engine.backup(str(store))
    for number in range(300):
        lsn = engine.write("main", [put(str(number), "x" * 1500)]).lsn

    wait_until(lambda: engine.branch("main").oldest_lsn > 5)
    engine.backup(str(store))
    refused(store, tmp_path, lsn - 1, "was trimmed too far")
