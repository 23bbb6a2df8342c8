"""Start and stop: a start that fails leaves nothing behind, and an engine stops in the opposite order of its start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Config, Engine, ShadowSwitchError
from shadowswitch.actors.kit.actor import Address
from shadowswitch.engine import lifecycle, machine
from shadowswitch.storage import failpoints
from tests.conftest import FAST, running
from tests.support.engine_helpers import KIND, TYPES, fill, wait_until

PARTS = """Catalog StateChanges JournalWriter.start Timers WorkerPool Publisher BranchRouter Recovery.run Follower.start
Dispatcher.start Janitor.start Watcher.start Scrubber.start BuildRegistry OpenReaders SoakCalls Schedule.start
FolderCalls BuildRegistry.go_on Timers.every"""
"""The parts that the start makes or starts, in that order."""
STOPS = """Timers.close Schedule SoakCalls.close BranchRouter.close StateChanges.close OpenReaders.shut
BuildRegistry.close ShadowBuilder Scrubber Watcher Janitor Dispatcher Follower WorkerPool.close Timers.close
JournalWriter Catalog.close"""
"""The parts that stop, in that order: methods, and actors."""


def open_fast(path: Path, **settings: Any) -> Engine:
    return Engine.open(path, Config(**{**FAST, **settings}))


@pytest.fixture
def under_way(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory with a live index, and a build that the next start goes on with."""
    with open_fast(data_dir) as engine:
        engine.create_branch("main")
        fill(engine, 100)
        engine.rebuild("main", KIND, TYPES)
        monkeypatch.setenv("SHADOWSWITCH_POINTS", "build.shard_opened=sleep:600")
        engine.start_build("main", KIND, TYPES)
    return data_dir


def place_of(part: str) -> str:
    """The module that makes a part."""
    return (machine if hasattr(machine, part) else lifecycle).__name__


def fail(*_: object, **__: object) -> None:
    raise RuntimeError("planted")


@pytest.mark.parametrize("part", PARTS.split())
def test_a_start_that_fails_at_any_part_leaves_nothing_running_and_the_directory_free(
    under_way: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    before = set(running())
    with monkeypatch.context() as patch:
        patch.setattr(f"{place_of(part.partition('.')[0])}.{part}", fail)
        with pytest.raises(RuntimeError, match="planted"):
            open_fast(under_way)
    wait_until(lambda: before.issuperset(running()), 30.0, f"the end of {running()}")
    with open_fast(under_way) as engine:
        assert engine.index("main", KIND).record_count == 100
        assert engine.check() == []


@pytest.mark.parametrize("point", ["open.locked", "open.directories", "open.catalog", "recover.step"])
def test_a_start_that_meets_trouble_with_the_disk_leaves_the_directory_free(under_way: Path, point: str) -> None:
    failpoints.plan_points(f"{point}=raise:EIO")
    before = set(running())
    try:
        with pytest.raises(ShadowSwitchError, match="injected"):
            open_fast(under_way)
    finally:
        failpoints.plan_points("")
    wait_until(lambda: before.issuperset(running()), 30.0, f"the end of {running()}")
    open_fast(under_way).close()


def test_an_engine_stops_in_the_opposite_order_of_its_start(under_way: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[str] = []

    def note(owner: type, method: str, name: Callable[[Any], str]) -> None:
        ordinary = vars(owner)[method]

        def noted(part: Any, *arguments: Any) -> Any:
            stopped.append(name(part))
            return ordinary(part, *arguments)

        monkeypatch.setattr(owner, method, noted)

    for stop in dict.fromkeys(STOPS.split()):
        part, _, method = stop.partition(".")
        if method:
            note(getattr(machine if hasattr(machine, part) else lifecycle, part), method, lambda _, stop=stop: stop)  # type: ignore[misc]
    note(Address, "stop", lambda address: address.ref.actor_class.__name__)
    engine = open_fast(under_way, followers=1)
    stopped.clear()
    engine.close()
    assert stopped == STOPS.split()
