"""Fixtures: every test that opens an engine ends with fsck, and fails on an actor or a worker that was left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Config, Engine

FAST = {"refresh_interval_ms": 5.0, "janitor_interval_s": 0.1, "disk_reserve_bytes": 1 << 20}
"""Settings for tests: nothing waits for a timer longer than it must."""

OpenEngine = Callable[..., Engine]


@pytest.fixture
def open_engine(tmp_path: Path) -> Iterator[OpenEngine]:
    """Opens engines (of `tmp_path/data` unless told otherwise); at the end each is checked and closed."""
    opened: list[Engine] = []

    def open_(path: Path | None = None, **settings: Any) -> Engine:
        engine = Engine.open(path or tmp_path / "data", Config(**{**FAST, **settings}))
        opened.append(engine)
        return engine

    yield open_
    for engine in opened:
        if not engine._closed:
            try:
                assert engine.check() == []
            finally:
                engine.close()
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("shadowswitch-")]
    assert [name for name in left if not name.startswith("shadowswitch-worker")] == []


@pytest.fixture
def engine(open_engine: OpenEngine) -> Engine:
    """An engine with an empty branch `main`."""
    engine = open_engine()
    engine.create_branch("main")
    return engine


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Waits until something is so, at most 20 seconds."""

    def wait(is_so: Callable[[], bool], deadline_s: float = 20.0) -> None:
        pause = threading.Event()
        for _ in range(int(deadline_s / 0.02)):
            if is_so():
                return
            pause.wait(0.02)
        raise AssertionError("it did not come about in time")

    return wait
