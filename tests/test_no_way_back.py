"""No reader is shown less than before, wherever he reads, while an index is switched to and fro by several (SW-2)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from shadowswitch import Engine, ShadowSwitchError
from shadowswitch.engine.reader import outside_reader
from shadowswitch.storage import failpoints
from tests.engine_helpers import KIND, attempt, crew, fill, live, put, wait_until
from tests.support import inside


def test_a_soaking_index_that_is_validated_is_not_brought_ahead_of_the_live_one(engine: Engine) -> None:
    fill(engine, 100)
    first, second = live(engine), live(engine)
    with inside.pause_apply(engine, second):
        engine.write("main", [put("late", "late")])
        assert inside.check_generation(engine, first, "DIGEST").errors == []
        behind, ahead = inside.generation(engine, first), inside.generation(engine, second)
        assert ahead.applied_lsn >= behind.applied_lsn == engine.head("main")


def test_nobody_goes_back_in_time_while_two_switch_one_index_to_and_fro(engine: Engine) -> None:
    fill(engine, 100)
    live(engine), live(engine)
    seen: dict[str, list[tuple[int, int]]] = {"inside": [], "outside": []}
    numbers, switched = itertools.count(), itertools.count()

    def within() -> None:
        with engine.reader("main", KIND, timeout_s=30) as reader:
            seen["inside"].append((reader.lsn, reader.generation))

    def outside() -> None:
        with outside_reader(engine.path, inside.catalog(engine), "main", KIND) as reader:
            seen["outside"].append((reader.applied_lsn(), reader.generation))

    def switch() -> None:
        result: Any = attempt(lambda: engine.rollback("main", KIND))
        assert isinstance(result, ShadowSwitchError) or result.success or "not switched" in result.message
        next(switched)

    works: list[tuple[Callable[[], None], int]] = [(within, 1), (outside, 1), (switch, 2)]
    failpoints.plan_points("switch.committed=sleep:0.03")
    with crew() as hands:
        for work, count in works:
            hands.start(work, count)
        hands.start(lambda: engine.write("main", [put("0", f"edit{next(numbers)}")]), 2)
        wait_until(lambda: next(switched) >= 80 or hands.errors, deadline_s=120)
    failpoints.plan_points("")
    for where, states in seen.items():
        lsns = [lsn for lsn, _ in states]
        fell = [pair for pair in itertools.pairwise(states) if pair[1][0] < pair[0][0]]
        assert not fell, f"{where}: {fell[:5]} of {len(lsns)}"


def test_who_waits_while_readers_are_led_to_another_generation_goes_there_too(engine: Engine) -> None:
    """Between its commit and the lead a switch shows nothing older than its LSN; nobody waits longer than the lead."""
    first, second = live(engine), live(engine)
    left = inside.generation(engine, second)
    row = inside.catalog(engine).index(1, KIND)
    assert row is not None
    inside.set_read_floor_lsn(engine, second, engine.head("main") + 1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(engine.reader, "main", KIND, timeout_s=30)
        wait_until(lambda: left.pins == 1, what="a reader that waits")
        assert inside.set_live(engine, first, row.epoch + 1)
        with waiting.result(10) as reader:
            assert reader.generation == first
    assert left.pins == 0
    inside.set_live(engine, second, row.epoch + 2)
