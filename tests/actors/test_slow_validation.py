"""`Config.validation_timeout_s` limits the time without progress, not that of a whole validation."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shadowswitch import BuildFailed, Engine
from tests.support.engine_helpers import TYPES, fill
from tests.support.slow_backend import SLOW_ROWS, SLOW_ROWS_S

LIMIT_S = 3.0


def start(engine: Engine) -> str:
    return engine.start_build("main", "LOOKUP", TYPES, {"backend": SLOW_ROWS, "parallel_workers": 1}).shadow_index_id


@pytest.fixture
def engine(open_engine: Callable[..., Engine]) -> Engine:
    engine = open_engine(validation_timeout_s=LIMIT_S, worker_timeout_s=60.0)
    engine.create_branch("main")
    fill(engine, 9000)
    return engine


def test_a_validation_that_progresses_may_take_longer_than_the_limit(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes at least 4.5 s."""
    monkeypatch.setenv(SLOW_ROWS_S, "0.5")
    assert engine.wait_for(start(engine), "BUILT", timeout_s=120).record_count == 9000


def test_a_validation_that_stands_fails_and_says_for_how_long(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker beats: it is none that was stopped."""
    monkeypatch.setenv(SLOW_ROWS_S, "100")
    shadow_id = start(engine)
    with pytest.raises(BuildFailed, match=r"made no progress for 3 s.*raise Config\.validation_timeout_s"):
        engine.wait_for(shadow_id, timeout_s=90)
    assert engine.stats()["counters"].get("worker_deaths", 0) == 0
