"""The janitor trims the journal up to the first change that is still needed, and not one change further (ST-6).

A journal chunk is removed as a whole, so a bound that is one LSN too high shows only where single writes lie right
behind the bound, and only when a whole slice (`janitor.TRIM_SLICE`) may go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shadowswitch import Engine
from shadowswitch.storage.catalog.rows import GenerationRow
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, built, fill, live, put, wait_until

OLD = 300
"""Changes that may go: more than a slice of trimming."""
SINGLE = 5
"""Changes behind them, each in a journal chunk of its own."""


def generation_rows(engine: Engine) -> list[GenerationRow]:
    return inside.catalog(engine).generations()


def applied_lsns(engine: Engine) -> list[int]:
    return [generation.applied_lsn for generation in inside.open_generations(engine).values()]


def paused_build(engine: Engine) -> Callable[[], object]:
    shadow = engine.start_build("main", KIND, TYPES).shadow_index_id
    engine.pause_build(shadow)

    def end() -> None:
        engine.resume_build(shadow)
        assert engine.wait_for(shadow, "BUILT", timeout_s=60).record_count == OLD + SINGLE

    return end


def waiting_shadow(engine: Engine) -> Callable[[], object]:
    shadow = built(engine).shadow_index_id
    return lambda: engine.switch(shadow)


def live_index(engine: Engine) -> Callable[[], object]:
    live(engine)
    return lambda: None


def hold(engine: Engine) -> Callable[[], object]:
    engine.hold_changes("mirror", "main", OLD)
    return lambda: engine.release_changes("mirror", "main")


def no_need(engine: Engine) -> Callable[[], object]:
    return lambda: None


@pytest.mark.parametrize(
    ("need", "keep"), [(paused_build, 0), (waiting_shadow, 0), (live_index, 0), (hold, 0), (no_need, SINGLE)]
)
def test_the_first_change_that_is_needed_is_the_oldest_that_is_kept(
    open_engine: Any, need: Callable[[Engine], Callable[[], object]], keep: int
) -> None:
    engine = open_engine(journal_keep_changes=keep, janitor_interval_s=3600, flush_interval_s=3600)
    engine.create_branch("main")
    assert fill(engine, OLD) == OLD
    end = need(engine)
    for n in range(SINGLE):
        engine.write("main", [put(f"after{n}")])
    engine.clean_up()
    assert engine.branch("main").oldest_lsn == OLD + 1
    assert [change.lsn for change in engine.changes("main", OLD)] == list(range(OLD + 1, OLD + SINGLE + 1))
    end()


def test_the_journal_never_begins_behind_what_the_catalog_calls_durable(open_engine: Any) -> None:
    """A recovery asks each shard and does not need `note_durable`. The call keeps the rows true, so that a restart
    trims and reports from where the host was."""
    engine = open_engine(journal_keep_changes=0, janitor_interval_s=3600, flush_interval_s=0.01)
    engine.create_branch("main")
    fill(engine, OLD)
    live(engine), live(engine)
    head = fill(engine, OLD, text="again")
    wait_until(lambda: applied_lsns(engine) == [head, head])
    for generation in inside.open_generations(engine).values():
        generation.writer.flush()
    engine.clean_up()
    assert engine.branch("main").oldest_lsn == head + 1, "nothing was trimmed, so the test proves nothing"
    assert [row.durable_lsn for row in generation_rows(engine)] == [head, head]
