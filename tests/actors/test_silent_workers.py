"""Worker processes that were stopped: each is killed after `Config.worker_timeout_s`, and its task goes on in another.

A worker that works slowly, or waits, is none of these.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shadowswitch import BuildFailed, Config, Engine
from shadowswitch.actors.build.silence import Silence
from shadowswitch.storage import failpoints
from shadowswitch.storage.clock import SYSTEM, Clock
from tests.support.engine_helpers import KIND, TYPES, fill, found, live, wait_until, worker_processes

QUICK = {"worker_timeout_s": 1.0}


def start(engine: Engine) -> str:
    return engine.start_build("main", KIND, TYPES, {"parallel_workers": 1}).shadow_index_id


def stop(engine: Engine, but: int = 0) -> int:
    """Stop the worker that is at work; its process id."""

    def others() -> list[int]:
        return [pid for pid in engine.stats()["worker_pids"] if pid != but]

    wait_until(others)
    (pid,) = others()
    os.kill(pid, signal.SIGSTOP)
    return int(pid)


def killed(engine: Engine) -> list[dict[str, Any]]:
    """The data of the events of workers that were killed."""
    return [event.data for event in engine.events() if event.type == "com.shadowswitch.worker.killed"]


def test_a_build_whose_worker_is_stopped_goes_on_in_another_one(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_engine(copy_slice_rows=50, **QUICK)
    engine.create_branch("main")
    fill(engine, 1000)
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "copy.slice=sleep:0.1")
    shadow_id = start(engine)
    wait_until(lambda: engine.shadow(shadow_id).build_progress_percent > 0)
    pid = stop(engine)
    monkeypatch.delenv("SHADOWSWITCH_POINTS")
    assert engine.wait_for(shadow_id, "BUILT", timeout_s=60).record_count == 1000
    assert engine.switch(shadow_id).success
    assert len(found(engine, "hello")) == 1000
    (data,) = killed(engine)
    assert data["task"] == "BuildShard"
    assert data["silent_s"] >= 1.0
    assert data["reason"] in caplog.text
    assert f"worker process {pid} was killed" in data["reason"]
    assert engine.stats()["counters"]["worker_deaths"] == 1
    assert pid not in worker_processes()


def test_a_build_whose_workers_are_stopped_again_and_again_fails_with_the_reason(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(worker_retries=1, **QUICK)
    engine.create_branch("main")
    fill(engine, 100)
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "build.shard_opened=sleep:60")
    shadow_id = start(engine)
    stop(engine, stop(engine))
    with pytest.raises(BuildFailed, match=r"died 2 times.*no sign of life for .* s \(Config\.worker_timeout_s\)"):
        engine.wait_for(shadow_id, timeout_s=60)
    assert len(killed(engine)) == 2
    monkeypatch.delenv("SHADOWSWITCH_POINTS")
    engine.retry_build(shadow_id)
    engine.wait_for(shadow_id, "BUILT", timeout_s=60)
    assert engine.switch(shadow_id).success


def test_a_validation_and_a_check_go_on_when_their_worker_is_stopped(open_engine: Any) -> None:
    engine = open_engine(validation_samples=50_000, **QUICK)
    engine.create_branch("main")
    fill(engine, 1000)
    shadow_id = start(engine)
    wait_until(lambda: engine.shadow(shadow_id).phase == "validating")
    first = stop(engine)
    engine.wait_for(shadow_id, "BUILT", timeout_s=60)
    with ThreadPoolExecutor(1) as pool:
        checked = pool.submit(engine.check)
        stop(engine, first)
        assert checked.result(60) == []
    assert len(killed(engine)) == 2
    assert "BuildShard" not in {data["task"] for data in killed(engine)}


def test_a_worker_that_was_stopped_while_it_waits_for_a_task_gets_none_that_stands(open_engine: Any) -> None:
    engine = open_engine(**QUICK)
    engine.create_branch("main")
    fill(engine, 100)
    live(engine)
    wait_until(lambda: engine.stats()["counters"].get("readings", 0) == 1, 60.0)  # no worker starts from now on
    idle = worker_processes()
    assert idle
    for pid in idle:
        os.kill(pid, signal.SIGSTOP)
    live(engine)
    assert {data["task"] for data in killed(engine)} != set()


def test_a_start_reads_on_when_its_worker_is_stopped(open_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine()
    engine.create_branch("main")
    fill(engine, 100)
    live(engine, backend="kv")
    engine.close()
    stopped: list[int] = []
    real = subprocess.Popen.__init__

    def stop_the_first(process: Any, *arguments: Any, **options: Any) -> None:
        real(process, *arguments, **options)
        if not stopped:
            os.kill(process.pid, signal.SIGSTOP)
            stopped.append(process.pid)

    monkeypatch.setattr(subprocess.Popen, "__init__", stop_the_first)
    again = open_engine(**QUICK)
    assert stopped
    assert len(killed(again)) == 1
    assert found(again, "1")


def test_a_slow_worker_is_left_alone(open_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(copy_slice_rows=500, worker_timeout_s=0.4)
    engine.create_branch("main")
    fill(engine, 1000)
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "copy.slice=sleep:1.5")  # a disk that takes so long for one slice
    shadow_id = start(engine)
    engine.wait_for(shadow_id, "BUILT", timeout_s=60)
    assert killed(engine) == []
    assert "worker_deaths" not in engine.stats()["counters"]


@pytest.mark.parametrize(
    ("code", "is_silent"),
    [("while True: pass", False), ("import threading; threading.Event().wait()", True)],
    ids=["busy", "waiting"],
)
def test_a_process_that_uses_the_processor_is_not_silent(code: str, is_silent: bool) -> None:
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        silence, looks = Silence(process.pid, 0.4, SYSTEM), []

        def look() -> bool:
            looks.append(silence.goes_on())
            return looks[-1] or (len(looks) > 100 and not is_silent)

        wait_until(look)
        assert any(looks) is is_silent
    finally:
        process.kill()
        process.wait()


def test_the_time_in_which_the_host_was_stopped_is_no_silence() -> None:
    class Jumping(Clock):
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    clock = Jumping()
    silence = Silence(0, 60.0, clock)
    clock.now += 3600.0
    assert not silence.goes_on()
    assert silence.silent_s < 60.0


def test_the_setting_is_a_time_above_zero() -> None:
    with pytest.raises(Exception, match="worker_timeout_s must be above 0"):
        Config(worker_timeout_s=0)


@pytest.fixture(autouse=True)
def _no_points() -> Any:
    yield
    failpoints.plan_points("")
