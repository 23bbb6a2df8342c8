"""Estimates of builds and switches are those of the last ones of the index, over restarts too."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shadowswitch import Engine
from shadowswitch.actors.build.running_builds import RunningBuilds
from shadowswitch.model.config import Config
from shadowswitch.model.metrics import Metrics
from shadowswitch.model.progress import Pace
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, built, fill, outside_environment, wait_until

Eventually = Callable[..., Any]
SLOW_COPY = "copy.slice=sleep:0.1"
CUT_OFF = """
import os, signal, sys, threading
from shadowswitch import Config, Engine
engine = Engine.open(sys.argv[1], Config(copy_slice_rows=200))
id = engine.start_build("main", "SEARCH_INDEX", ["object_type"], {"parallel_workers": 1}).shadow_index_id
while (percent := engine.shadow(id).build_progress_percent) < 45:
    threading.Event().wait(0.01)
print(id, percent, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
"""A host that is killed in the middle of the copy of a build, and says how far that was."""


@pytest.mark.parametrize("restarted", [False, True])
def test_the_estimate_of_a_switch_is_the_time_of_the_last_call(
    engine: Engine, open_engine: Callable[..., Engine], eventually: Eventually, restarted: bool
) -> None:
    fill(engine, 100)
    result = engine.switch(built(engine).shadow_index_id)
    assert result.success, result.message
    if restarted:
        engine.close()
        engine = open_engine()
    eventually(lambda: inside.catalog(engine).shadow(result.shadow_index_id).switch_s is not None)
    shadow = built(engine, columns=["title"])
    assert shadow.estimated_switch_duration_seconds == pytest.approx(result.switch_duration_ms / 1000)


@pytest.mark.parametrize("restarted", [False, True])
def test_the_estimate_of_a_turn_is_the_turn_of_the_last_switch_and_not_its_call(
    engine: Engine, open_engine: Callable[..., Engine], eventually: Eventually, restarted: bool
) -> None:
    fill(engine, 100)
    first = built(engine)
    assert first.estimated_sealed_ms is None, "the index was never switched"
    results = [engine.switch(first.shadow_index_id)]
    second = built(engine, tokenizer="porter").shadow_index_id
    eventually(lambda: engine.shadow(second).estimated_sealed_ms is not None)
    if restarted:
        engine.close()
        engine = open_engine()
    estimated_ms = engine.shadow(second).estimated_sealed_ms
    results.append(engine.switch(second))
    assert all(result.success for result in results)
    assert estimated_ms is not None
    assert estimated_ms == round(results[0].sealed_ms, 3)
    back = engine.rollback("main", KIND)
    assert back.success, back.message
    third = built(engine, columns=["text"]).shadow_index_id
    eventually(lambda: engine.shadow(third).estimated_sealed_ms == round(back.sealed_ms, 3))


@pytest.mark.parametrize("restarted", [False, True])
def test_a_build_knows_its_time_by_the_last_one(
    engine: Engine, open_engine: Callable[..., Engine], restarted: bool
) -> None:
    """Before it has copied a row."""
    fill(engine, 2000)
    first = built(engine)
    engine.switch(first.shadow_index_id)
    pace = inside.catalog(engine).shadow(first.shadow_index_id).pace
    assert isinstance(pace, Pace)
    if restarted:
        engine.close()
        engine = open_engine()
    shadow = built(engine, columns=["title"])
    catalog = inside.catalog(engine)
    begun = msgspec.structs.replace(catalog.shadow(shadow.shadow_index_id), progress=0.0, started_at=None)
    meter = RunningBuilds(Config(), Metrics()).meter_of(begun, catalog, at=5.0)
    meter.measure(5.0, 4000, 0, 0, 0.0, 0.0)
    assert meter.read(5.0)[1] == pytest.approx(2 * pace.whole_s)


def test_a_first_build_knows_its_time_by_one_of_another_branch(engine: Engine) -> None:
    engine.create_branch("other")
    fill(engine, 2000)
    fill(engine, 1000, "other")
    first = built(engine)
    catalog = inside.catalog(engine)
    pace = catalog.shadow(first.shadow_index_id).pace
    assert isinstance(pace, Pace)
    id = engine.start_build("other", KIND, TYPES, {"columns": ["title"]}).shadow_index_id
    engine.wait_for(id, "BUILT", timeout_s=60)
    begun = msgspec.structs.replace(catalog.shadow(id), progress=0.0, started_at=None)
    meter = RunningBuilds(Config(), Metrics()).meter_of(begun, catalog, at=5.0)
    meter.measure(5.0, 1000, 0, 0, 0.0, 0.0)
    assert meter.read(5.0)[1] == pytest.approx(pace.whole_s / 2)


def test_a_build_that_a_kill_cut_off_soon_goes_on_at_its_percent(
    open_engine: Callable[..., Engine], data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the first seconds of its copy, from which few percents are stored: the rows say where it is."""
    monkeypatch.setenv("SHADOWSWITCH_POINTS", SLOW_COPY)
    with open_engine(copy_slice_rows=200) as engine:
        engine.create_branch("main")
        fill(engine, 4000)
        first = built(engine)
        assert engine.switch(first.shadow_index_id).success
        pace = inside.catalog(engine).shadow(first.shadow_index_id).pace
    done = subprocess.run(
        [sys.executable, "-c", CUT_OFF, str(data_dir)],
        env=outside_environment(SHADOWSWITCH_POINTS=SLOW_COPY),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    id, said = done.stdout.split()[0], float(done.stdout.split()[1])
    engine = open_engine(copy_slice_rows=200)
    wait_until(lambda: engine.shadow(id).estimated_completion_seconds is not None, what="the ETA")
    status = engine.shadow(id)
    assert status.state == "BUILDING"
    assert status.build_progress_percent > said / 4, "its rows, not its time, say where it is now"
    assert isinstance(pace, Pace)
    assert status.estimated_completion_seconds is not None
    assert status.estimated_completion_seconds > pace.whole_s / 10, "the stored rows are no speed"
    engine.wait_for(id, "BUILT", timeout_s=60)
    assert inside.catalog(engine).shadow(id).pace is None, "the time of a part is no pace"
