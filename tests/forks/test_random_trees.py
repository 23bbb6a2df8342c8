"""Forks by random work on a tree of branches (BR-1 to BR-4), and the ways to get it wrong, each of which is found.

The design and its variants are those of the model in which it was checked first: no old images, ancestors that are not
cut at the fork, no tombstones, old images that go too early, a merge without comparison. Forks that
follow have variants of their own.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shadowswitch import Config, Engine, Put, ShadowSwitchError
from tests.support import inside
from tests.support.fork_tree import Tree

CONFIG = Config(disk_reserve_bytes=0, janitor_interval_s=3600)
STEPS = 40


def run(folder: Path, seed: int, steps: int = STEPS, look_every: int = 10) -> list[str]:
    """What is wrong after random work, with the engine opened again now and then."""
    engine = Engine.open(folder, CONFIG)
    try:
        tree = Tree(engine, seed)
        for number in range(1, steps + 1):
            tree.step()
            if number % look_every == 0 and (found := tree.different()):
                return found
            if tree.chance.random() < 0.05:
                engine.close()
                tree.engine = engine = Engine.open(folder, CONFIG)
        return tree.wrong()
    finally:
        engine.close()


@pytest.mark.parametrize("seed", range(12))
def test_what_each_branch_shows_is_what_its_copy_has(tmp_path: Path, seed: int) -> None:
    """BR-1 to BR-4."""
    assert run(tmp_path / "data", seed) == []


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(100, 300))
def test_many_trees(tmp_path: Path, seed: int) -> None:
    """BR-1 to BR-4."""
    assert run(tmp_path / "data", seed, steps=120, look_every=20) == []


def _no_images(_: Any, *given: Any, **how: Any) -> None:
    return None


def _not_cut(ordinary: Callable[..., Any], *given: Any, **how: Any) -> Any:
    lineage = ordinary(*given, **how)
    ancestors = tuple((number, (1 << 64) - 1) for number, _ in lineage.ancestors)
    return msgspec.structs.replace(lineage, ancestors=ancestors)


def _no_tombstones(_: Any, *given: Any, **how: Any) -> None:
    return None


def _too_early(ordinary: Callable[..., Any], commit: Any, key: bytes, forks: list[int], is_fork: bool) -> Any:
    return ordinary(commit, key, forks[1:], is_fork)


def _no_base(_: Any, *given: Any, **how: Any) -> None:
    return None


def _never_own(_: Any, *given: Any, **how: Any) -> bool:
    return False


def _of_the_parent_only(ordinary: Callable[..., Any], row: Any, branch: Any) -> Any:
    return {(number, lsn) for number, lsn in ordinary(row, branch) if number == row.parent}


FLAWS = {
    "old images are not saved": (inside.Step.SAVE_OLD_IMAGE, _no_images),
    "ancestors are not cut at the fork": (inside.Step.READ_LINEAGE, _not_cut),
    "a forked root keeps no tombstones": (inside.Step.LOOK_FOR_OLD_IMAGE, _no_tombstones),
    "old images are trimmed too early": (inside.Step.TRIM_RECORD, _too_early),
    "a fork that follows keeps no base": (inside.Step.KEEP_BASE, _no_base),
    "a fork that follows takes over changes of what it changed itself": (inside.Step.IS_OWN, _never_own),
    "old images are not kept for forks of forks that follow": (inside.Step.NEEDS_OF_FORK, _of_the_parent_only),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_design_without_a_rule_is_found_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flaw: str) -> None:
    """A test that cannot fail is none: each of these must be found within some seeds."""
    inside.wrap(monkeypatch, *FLAWS[flaw])
    for seed in range(20):
        try:
            if run(tmp_path / str(seed), seed):
                return
        except (ShadowSwitchError, AssertionError):
            return
    pytest.fail("it was not found")


def _written_between(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    """Another writer writes to the record that a merge has compared, before its batch is sent."""
    chance = iter([True])

    def write() -> None:
        if next(chance, False):
            engine.write("main", [Put("t", "1", {"a": 0, "b": 1})])

    inside.before(patch, inside.Step.BRING, write)


@pytest.mark.parametrize("compares", [True, False])
def test_a_merge_compares_in_its_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compares: bool) -> None:
    """BR-2: the write that came between is merged by its fields; without the comparison it would be lost."""
    with Engine.open(tmp_path / "data", CONFIG) as engine:
        engine.create_branch("main")
        engine.write("main", [Put("t", "1", {"a": 0, "b": 0})])
        engine.fork_branch("fork", "main")
        engine.write("fork", [Put("t", "1", {"a": 1, "b": 0})])
        _written_between(engine, monkeypatch)
        if not compares:
            inside.replace(monkeypatch, inside.Step.CHECK_UNMOVED, lambda *given, **how: None)
        result = engine.merge_into("main", "fork")
        record = engine.get("main", "t", "1")
        assert result.applied == 1
        assert record is not None
        assert record.fields == ({"a": 1, "b": 1} if compares else {"a": 1, "b": 0})


def test_the_random_work_is_work(tmp_path: Path) -> None:
    """The trees of the tests above fork, merge, rebase and drop, or they would prove little."""
    with Engine.open(tmp_path / "data", CONFIG) as engine:
        for seed in random.Random(1).sample(range(100), 4):
            tree = Tree(engine, seed)
            for _ in range(STEPS):
                tree.step()
        kinds = {event.type.removeprefix("com.shadowswitch.") for event in engine.events(limit=10_000)}
    assert {"branch.forked", "branch.merged", "branch.rebased", "branch.dropped"} <= kinds
