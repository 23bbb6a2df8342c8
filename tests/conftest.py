"""Fixtures: every test that opens an engine ends with fsck, and fails on an actor or a worker that was left behind."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pykka
import pytest
from hypothesis import HealthCheck, settings

from shadowswitch import Config, Engine
from shadowswitch.actors.kit.actor import EngineActor
from shadowswitch.storage import failpoints
from tests.support import inside
from tests.support.engine_helpers import fill, put, wait_until, worker_processes
from tests.support.gathering import Gathered

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it in the background; commands inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

sys.path.append(str(Path(__file__).resolve().parents[1]))
"""For `benchmarks`. The entry is the last, so that Python finds installed packages first."""

settings.register_profile("no duration", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no duration")
"""A machine that is busy with other work for 200 ms is no defect of the product."""

FAST = {"refresh_interval_ms": 5.0, "janitor_interval_s": 0.1, "disk_reserve_bytes": 1 << 20, "seal_budget_ms": 2e4}
"""Settings for tests: timers are short, and no attempt is given up on a loaded machine."""

OpenEngine = Callable[..., Engine]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """The data directory that `open_engine` opens."""
    return tmp_path / "data"


def buckets_repaired(engine: Engine) -> int:
    """How many buckets an engine has repaired since it was opened; also of a closed engine."""
    counted: int = inside.counter(engine, "buckets_repaired")
    return counted


@pytest.fixture
def planted_damage() -> None:
    """For a test that damages an index on purpose: bucket repair is no failure there. By `usefixtures`."""


@pytest.fixture
def open_engine(data_dir: Path, request: pytest.FixtureRequest) -> Iterator[OpenEngine]:
    """Opens engines (of `data_dir` without an argument); at the end each is checked and closed.

    No engine may have repaired a bucket: a build that loses changes would pass, healed by its validation. A test that
    plants damage uses `planted_damage`. `sound=False` is for damage that stays: no check at the end of such an engine.
    """
    opened: list[tuple[Engine, bool]] = []
    before = set(running())

    def open_(path: Path | None = None, *, sound: bool = True, **settings: Any) -> Engine:
        engine = Engine.open(path or data_dir, Config(**{**FAST, **settings}))
        opened.append((engine, sound))
        return engine

    yield open_
    failpoints.plan_points("")
    try:
        for engine, sound in opened:
            if sound and "planted_damage" not in request.fixturenames:
                assert buckets_repaired(engine) == 0, "a build or a copy differed from its source"
            if sound and not inside.is_closed(engine):
                assert engine.check() == []
    finally:
        for engine, _ in opened:
            engine.close()
    wait_until(lambda: before.issuperset(running()), 30.0, f"the end of {running()}")


def running() -> list[str]:
    """The actors, threads and workers of all engines of this process; none may outlive its engine."""
    actors = [str(ref) for ref in pykka.ActorRegistry.get_all() if issubclass(ref.actor_class, EngineActor)]
    threads = [f"{t.name} {t.ident}" for t in threading.enumerate() if t.name.startswith("shadowswitch-")]
    return actors + threads + [f"worker {pid}" for pid in worker_processes()]


@pytest.fixture
def engine(open_engine: OpenEngine) -> Engine:
    """An engine with an empty branch `main`."""
    engine = open_engine()
    engine.create_branch("main")
    return engine


@pytest.fixture
def filled(engine: Engine) -> Engine:
    """The engine with 3,000 records on `main`."""
    for start in range(0, 3000, 500):
        engine.write("main", [put(str(n)) for n in range(start, start + 500)])
    return engine


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Waits until a condition is true, at most 20 seconds."""

    def wait(is_so: Callable[[], bool], deadline_s: float = 20.0) -> None:
        wait_until(is_so, deadline_s)

    return wait


@pytest.fixture
def gathered(engine: Engine) -> Iterator[Gathered]:
    """An engine with 100 records; when armed, three writes stand just ahead of the next turn of a switch."""
    fill(engine, 100)
    writes = Gathered(engine)

    def near() -> None:
        if writes.armed:
            writes.begin()

    with pytest.MonkeyPatch.context() as patched:  # a patch of its own: the test may undo its patches
        inside.before(patched, inside.Step.TAKE_TURN, near)
        yield writes
    failpoints.plan_points("")
    writes.join()
