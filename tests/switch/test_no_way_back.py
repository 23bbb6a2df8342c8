"""No reader, inside or outside, gets an older state while several callers switch and roll back an index (SW-2)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from shadowswitch import Engine, ShadowSwitchError
from shadowswitch.engine.reader import outside_reader
from shadowswitch.storage import failpoints
from tests.support import inside
from tests.support.engine_helpers import KIND, attempt, crew, fill, live, put, wait_until


def test_the_validation_of_a_soaking_generation_does_not_apply_more_than_the_live_one_has(engine: Engine) -> None:
    fill(engine, 100)
    first, second = live(engine), live(engine)
    with inside.pause_apply(engine, second):
        engine.write("main", [put("late", "late")])
        assert inside.check_generation(engine, first, "DIGEST").errors == []
        behind, ahead = inside.generation(engine, first), inside.generation(engine, second)
        assert ahead.applied_lsn >= behind.applied_lsn == engine.head("main")


def test_no_reader_goes_back_in_time_while_two_callers_switch_one_index_to_and_fro(engine: Engine) -> None:
    fill(engine, 100)
    live(engine), live(engine)
    seen: dict[str, list[tuple[int, int]]] = {"inside": [], "outside": [], "kept": []}
    numbers, switched = itertools.count(), itertools.count()

    def within() -> None:
        with engine.reader("main", KIND, timeout_s=30) as reader:
            seen["inside"].append((reader.lsn, reader.generation))

    def kept() -> None:
        """A reader that was opened earlier is not ahead of one that is opened now (SW-2)."""
        with engine.reader("main", KIND, timeout_s=30) as early:
            before = early.applied_lsn()
            with engine.reader("main", KIND, timeout_s=30) as late:
                seen["kept"] += [(before, early.generation), (late.applied_lsn(), late.generation)]

    def outside() -> None:
        with outside_reader(engine.path, inside.catalog(engine), "main", KIND) as reader:
            seen["outside"].append((reader.applied_lsn(), reader.generation))

    def switch() -> None:
        result: Any = attempt(lambda: engine.rollback("main", KIND))
        assert isinstance(result, ShadowSwitchError) or result.success or "not switched" in result.message
        next(switched)

    works: list[tuple[Callable[[], None], int]] = [(within, 1), (outside, 1), (kept, 1), (switch, 2)]
    failpoints.plan_points("switch.drained=sleep:0.01;switch.committed=sleep:0.01")
    with crew() as hands:
        for work, count in works:
            hands.start(work, count)
        hands.start(lambda: engine.write("main", [put("0", f"edit{next(numbers)}")]), 2)
        wait_until(lambda: next(switched) >= 80 or hands.errors, deadline_s=120)
    failpoints.plan_points("")
    for where, states in seen.items():
        fell = [pair for pair in itertools.pairwise(states) if pair[1][0] < pair[0][0]]
        assert not fell, f"{where}: {fell[:5]} of {len(states)}"
