"""Estimates of builds and switches are those of the last ones of the index, over restarts too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from shadowswitch import Engine
from shadowswitch.actors.build.running_builds import RunningBuilds
from shadowswitch.model.config import Config
from shadowswitch.model.metrics import Metrics
from shadowswitch.model.progress import Pace
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, built, fill

Eventually = Callable[..., Any]


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
    begun = msgspec.structs.replace(catalog.shadow(shadow.shadow_index_id), progress=0.0)
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
    begun = msgspec.structs.replace(catalog.shadow(id), progress=0.0)
    meter = RunningBuilds(Config(), Metrics()).meter_of(begun, catalog, at=5.0)
    meter.measure(5.0, 1000, 0, 0, 0.0, 0.0)
    assert meter.read(5.0)[1] == pytest.approx(pace.whole_s / 2)
