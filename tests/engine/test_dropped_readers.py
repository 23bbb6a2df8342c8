"""A reader that is dropped without `close` keeps neither descriptors nor a pin."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any

import pytest

from shadowswitch import Engine, Reader
from tests.support import inside
from tests.support.engine_helpers import KIND, fill, live, wait_until


@pytest.fixture
def filled(open_engine: Callable[..., Any]) -> Engine:
    engine: Engine = open_engine()
    engine.create_branch("main")
    fill(engine, 50)
    return engine


def pins(engine: Engine, number: int) -> int:
    return inside.generation(engine, number).pins


def test_dropped_readers_are_let_go_and_told(filled: Engine, caplog: pytest.LogCaptureFixture) -> None:
    number = live(filled)
    wait_until(lambda: pins(filled, number) == 0)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        reader = filled.reader("main", KIND)
        rows = reader.scan()
        assert next(rows).resource_type
        del reader, rows
    gc.collect()
    wait_until(lambda: pins(filled, number) == 0, 10.0)
    assert len(os.listdir("/proc/self/fd")) < before + 250, "of 600; a third is kept, see IDLE_READERS_MAX"
    assert f"readers of generation {number} dropped without close(): " in caplog.text
    with filled.reader("main", KIND) as reader:
        assert reader.count() == 50


def test_a_dropped_reader_does_not_keep_an_old_generation(filled: Engine) -> None:
    first = live(filled)
    kept: list[Reader] = [filled.reader("main", KIND)]
    assert live(filled) != first
    kept.clear()
    gc.collect()
    wait_until(lambda: pins(filled, first) == 0, 10.0)


def test_a_closed_reader_is_not_told(filled: Engine, caplog: pytest.LogCaptureFixture) -> None:
    live(filled)
    for _ in range(10):
        with filled.reader("main", KIND) as reader:
            reader.count()
    del reader
    gc.collect()
    filled.close()
    assert "dropped without" not in caplog.text


def test_a_reader_that_was_dropped_before_the_close_is_let_go_then(
    filled: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    number = live(filled)
    reader = filled.reader("main", KIND)
    del reader
    gc.collect()
    filled.close()
    assert f"readers of generation {number} dropped without close(): 1" in caplog.text
