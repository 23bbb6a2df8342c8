"""A close from a callback is refused at once, and a close beside builds and rollbacks is quiet and says its name."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import CloseInCallback, Config, Engine, EngineClosed, SwitchRequest, SwitchResult
from shadowswitch.engine.machine import Machine
from shadowswitch.engine.open_state import OpenState
from shadowswitch.storage.generations.external_manifest import CheckDelivery
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, built, fill, live, put, wait_until

WAIT_S = 30


def by_subscriber(engine: Engine, close: Callable[..., None], _: Path) -> None:
    engine.subscribe(close)
    engine.create_branch("another")


def by_health_check(engine: Engine, close: Callable[..., None], _: Path) -> None:
    live(engine), live(engine)
    engine.set_health_check(close)


def by_validator(engine: Engine, close: Callable[..., None], _: Path) -> None:
    engine.add_validator("OWN", close)
    assert engine.switch(built(engine).shadow_index_id, SwitchRequest(validation_checks=("OWN",))).success


def by_watch(engine: Engine, close: Callable[..., None], folder: Path) -> None:
    engine.watch_folder(folder, close)


@pytest.mark.parametrize("way", [by_subscriber, by_health_check, by_validator, by_watch])
def test_a_close_inside_a_callback_is_refused_and_the_engine_stays_open(
    open_engine: Any, tmp_path: Path, way: Callable[..., None]
) -> None:
    engine = open_engine(health_interval_s=0.01)
    engine.create_branch("main")
    fill(engine, 20)
    ends: queue.Queue[BaseException | None] = queue.Queue()

    def close(*_: Any) -> None:
        try:
            engine.close()
            ends.put(None)
        except BaseException as error:
            ends.put(error)

    way(engine, close, tmp_path)
    error = ends.get(timeout=WAIT_S)
    assert isinstance(error, CloseInCallback)
    assert "close the engine on a thread of your own" in str(error)
    assert engine.write("main", [put("later")]).lsn == engine.head("main")


def test_a_callback_may_close_another_engine(engine: Engine, open_engine: Any, tmp_path: Path) -> None:
    other, done = open_engine(tmp_path / "other"), threading.Event()

    def close(_: Any) -> None:
        other.close()
        done.set()

    engine.subscribe(close)
    engine.create_branch("another")
    assert done.wait(WAIT_S)
    assert inside.is_closed(other)


def test_a_close_right_behind_the_start_of_a_build_prints_nothing(
    open_engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_engine()
    engine.create_branch("main")
    fill(engine, 20)
    engine.close()
    for _ in range(10):
        again = open_engine()
        for shadow in again.shadows():
            if shadow.state != "CANCELLED":
                again.cancel_build(shadow.shadow_index_id)
        caplog.clear()
        again.start_build("main", KIND, TYPES)
        again.close()
        assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_rollback_that_a_close_ends_raises_engine_closed(open_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine()
    engine.create_branch("main")
    fill(engine, 20)
    live(engine), live(engine)
    closer = threading.Thread(target=engine.close)

    def ended(_: Any, message: Any) -> SwitchResult:
        closer.start()
        wait_until(lambda: inside.is_closed(engine))
        return SwitchResult(message.shadow_id, False, "not switched: the validation was cancelled")

    with monkeypatch.context() as patch:
        inside.replace(patch, inside.Step.SWITCH, ended)
        with pytest.raises(EngineClosed, match="took effect as a whole or not at all"):
            engine.rollback("main", KIND)
        closer.join(WAIT_S)


def test_workers_that_were_closed_are_no_defect(engine: Engine, data_dir: Path) -> None:
    pool = Machine().start_workers(data_dir, Config(), lambda task, how: None)
    pool.close()
    with pytest.raises(EngineClosed):
        pool.submit(CheckDelivery("", ""), lambda *_: None, lambda *_: None)


def test_a_callback_inside_a_callback_does_not_let_the_outer_one_close() -> None:
    state = OpenState()

    @state.callback
    def outer() -> None:
        state.callback(lambda: None)()
        with pytest.raises(CloseInCallback):
            state.close()

    outer()
    assert state.close()
