"""A fork as of an earlier LSN shows exactly what its parent showed then, or is refused."""

from __future__ import annotations

import random
from typing import Any

import pytest

from shadowswitch import Delete, Engine, InvalidConfig, Put
from tests.support import inside
from tests.support.fork_tree import IDS, TYPES

Shown = dict[tuple[str, str], Any]


def shown(engine: Engine, branch: str) -> Shown:
    found: Shown = {(one.resource_type, one.id): one.fields for one in engine.scan(branch)}
    assert engine.branch(branch).record_count == len(found)
    return found


def write_some(engine: Engine, branch: str, chance: random.Random, now: Shown) -> int:
    """A random batch, in the branch and in `now`; its LSN."""
    keys = chance.sample([(name, id) for name in TYPES for id in IDS], chance.randint(1, 4))
    batch: list[Put | Delete] = []
    for name, id in keys:
        if chance.random() < 0.4:
            batch.append(Delete(name, id))
            now.pop((name, id), None)
        else:
            now[name, id] = {"n": chance.random()}
            batch.append(Put(name, id, now[name, id]))
    return engine.write(branch, batch).lsn


@pytest.mark.parametrize("of", ["main", "fork"])
@pytest.mark.parametrize("seed", range(6))
def test_forks_of_random_moments_show_what_was_shown_then(engine: Engine, seed: int, of: str) -> None:
    """Of a branch that is no fork, and of a fork whose parent goes on."""
    chance, now, parent = random.Random(seed), Shown(), Shown()
    if of == "fork":
        for _ in range(8):
            write_some(engine, "main", chance, parent)
        engine.fork_branch("fork", "main")
        now |= parent
    then: dict[int, Shown] = {engine.head(of): dict(now)}
    forks: dict[str, Shown] = {}
    for step in range(60):
        act = chance.random()
        if of == "fork" and chance.random() < 0.3:
            write_some(engine, "main", chance, parent)
        if act < 0.6:
            lsn = write_some(engine, of, chance, now)
            then[lsn] = dict(now)
        elif act < 0.85 and len(forks) < 8:
            lsn = chance.choice(list(then))
            engine.fork_branch(f"f{step}", of, at_lsn=lsn)
            forks[f"f{step}"] = dict(then[lsn])
        elif act < 0.92 and forks:
            name = chance.choice(list(forks))
            write_some(engine, name, chance, forks[name])
        elif forks:
            name = chance.choice(list(forks))
            engine.drop_branch(name)
            del forks[name]
            inside.sweep(engine)
        assert shown(engine, of) == now
        for name, expected in forks.items():
            assert shown(engine, name) == expected, f"step {step}: {name}"
    assert list(engine.check()) == []


def test_a_fork_of_the_past_is_merged_like_every_other(engine: Engine) -> None:
    first = engine.write("main", [Put("t", "a", {"x": 1, "y": 1}), Put("t", "b", {"x": 1})]).lsn
    engine.write("main", [Put("t", "a", {"x": 2, "y": 1}), Delete("t", "b")])
    assert engine.fork_branch("old", "main", at_lsn=first).fork_lsn == first
    engine.write("old", [Put("t", "a", {"x": 1, "y": 5})])
    assert [(one.id, one.kind) for one in engine.diff("old")] == [("a", "changed")]
    assert engine.merge_into("main", "old").applied == 1
    assert shown(engine, "main") == {("t", "a"): {"x": 2, "y": 5}}


def test_what_is_not_known_any_more_is_refused(open_engine: Any) -> None:
    engine: Engine = open_engine(sound=False)  # its journal is said to begin later than it does
    engine.create_branch("main")
    receipts = [engine.write("main", [Put("t", f"k{n}", {"n": n})]).lsn for n in range(5)]
    engine.fork_branch("anchor", "main", at_lsn=receipts[2])
    inside.transact(engine, lambda commit: commit.set_oldest(1, receipts[3]))
    with pytest.raises(InvalidConfig, match=r"changes since its beginning are not all there: the journal begins at"):
        engine.fork_branch("x", "main", at_lsn=receipts[1])
    assert len(shown(engine, "main")) == 5
    engine.fork_branch("y", "main", at_lsn=receipts[3])
    assert len(shown(engine, "y")) == 4
    assert "x" not in {one.name for one in engine.branches()}


def test_an_lsn_inside_a_batch_and_one_to_come_are_refused(engine: Engine) -> None:
    engine.write("main", [Put("t", f"k{n}", {"n": n}) for n in range(3)])
    with pytest.raises(InvalidConfig, match="inside a batch of changes, which ends at LSN 3"):
        engine.fork_branch("x", "main", at_lsn=2)
    with pytest.raises(InvalidConfig, match="has not reached LSN 4: its head is 3"):
        engine.fork_branch("x", "main", at_lsn=4)
    assert shown(engine, engine.fork_branch("x", "main", at_lsn=0).name) == {}


def test_a_fork_is_forked_as_of_what_is_known_of_it(engine: Engine) -> None:
    first = engine.write("main", [Put("t", "a", {"n": 1})]).lsn
    begin = engine.write("main", [Put("t", "a", {"n": 2})]).lsn
    engine.fork_branch("fork", "main")
    lsn = engine.write("fork", [Put("t", "b", {"n": 1})]).lsn
    engine.write("fork", [Put("t", "c", {"n": 1}), Delete("t", "a")])
    with pytest.raises(InvalidConfig, match=f"it begins at LSN {begin}.*fork its parent"):
        engine.fork_branch("x", "fork", at_lsn=first)
    assert set(shown(engine, engine.fork_branch("y", "fork", at_lsn=begin).name)) == {("t", "a")}
    engine.drop_branch("y")
    engine.write("main", [Put("t", "d", {"n": 1})])
    engine.rebase("fork")
    with pytest.raises(InvalidConfig, match=r"it was rebased since, or .*, and no fork of it is as old"):
        engine.fork_branch("x", "fork", at_lsn=lsn)
    engine.fork_branch("view", "main", mode="following")
    engine.write("main", [Put("t", "a", {"n": 3})])
    with pytest.raises(InvalidConfig, match="it follows its parent, which keeps no old images"):
        engine.fork_branch("x", "view", at_lsn=engine.head("view") - 1)


def test_a_fork_of_a_rebased_fork_as_of_a_moment_behind_another_fork_of_it(engine: Engine) -> None:
    engine.write("main", [Put("t", "a", {"n": 1})])
    engine.fork_branch("fork", "main")
    engine.write("fork", [Put("t", "b", {"n": 1})])
    engine.fork_branch("anchor", "fork")
    lsn = engine.write("fork", [Put("t", "b", {"n": 2})]).lsn
    then = shown(engine, "fork")
    engine.write("main", [Put("t", "a", {"n": 5}), Put("t", "c", {"n": 5})])
    engine.rebase("fork")
    engine.write("fork", [Delete("t", "b")])
    assert shown(engine, engine.fork_branch("x", "fork", at_lsn=lsn).name) == then
    assert list(engine.check()) == []


def test_a_long_past_is_refused(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    inside.patch_limit(monkeypatch, inside.Limit.PAST_CHANGES, 3)
    first = engine.write("main", [Put("t", "a", {"n": 1})]).lsn
    for n in range(4):
        engine.write("main", [Put("t", "a", {"n": n})])
    with pytest.raises(InvalidConfig, match=r"more than 3 changes, .* came since LSN 0"):
        engine.fork_branch("x", "main", at_lsn=first)


def test_a_large_past_is_refused(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    inside.patch_limit(monkeypatch, inside.Limit.PAST_BYTES, 10_000)
    first = engine.write("main", [Put("t", "a", {"n": 1})]).lsn
    engine.write("main", [Put("t", "a", {"text": "x" * 20_000})])
    with pytest.raises(InvalidConfig, match="came since LSN 0"):
        engine.fork_branch("x", "main", at_lsn=first)


def test_the_index_of_a_fork_of_the_past_is_that_of_then(engine: Engine) -> None:
    first = engine.write("main", [Put("t", f"k{n}", {"text": f"first{n}"}) for n in range(50)]).lsn
    engine.write("main", [Put("t", "k1", {"text": "later"}), Delete("t", "k2"), Put("t", "new", {"text": "later"})])
    assert engine.rebuild("main", "SEARCH_INDEX", ["t"]).success
    engine.fork_branch("old", "main", at_lsn=first)
    with engine.reader("old", "SEARCH_INDEX", timeout_s=30) as reader:
        assert {row.id for row in reader.scan()} == {f"k{n}" for n in range(50)}
        assert not reader.search("later")
        assert len(reader.search("first1")) == 1
