"""Lists of branches and the figures of an engine, over many branches beside a hundred."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.common import BENCH_CONFIG, Report, quantile
from benchmarks.scale.sizes import Sizes
from benchmarks.scale.writers import make_branches
from shadowswitch.engine.engine import Engine

FEW, PAGE, ROUNDS = 100, 100, 15
RATIO_MAX = 5.0


def measure(sizes: Sizes, folder: Path, report: Report) -> None:
    """A page of branches, their number, and `stats`, with few and with many branches."""
    worst = 0.0
    figures: dict[int, dict[str, float]] = {}
    for count in sorted({min(FEW, sizes.branches), sizes.branches}):
        with Engine.open(folder / f"{count}", BENCH_CONFIG) as engine:
            make_branches(engine, count)
            calls: dict[str, Callable[[], object]] = {
                "a page of branches": lambda e=engine: e.branches(limit=PAGE, after=e.count_branches() // 2),  # type: ignore[misc]
                "count_branches": engine.count_branches,
                "stats": engine.stats,
            }
            figures[count] = {name: _median_ms(call) for name, call in calls.items()}
            for name, milliseconds in figures[count].items():
                report.figure(f"lists: {name}, {count:,} branches", milliseconds, "ms", f"median of {ROUNDS}")
    few, many = figures[min(figures)], figures[max(figures)]
    worst = max(many[name] / max(few[name], 0.05) for name in few)
    says = f"with {sizes.branches:,} branches at most {RATIO_MAX:g} times of what it takes with {FEW}"
    report.target(says, f"{worst:.1f}", sizes.judged(worst <= RATIO_MAX))


def _median_ms(call: Callable[[], object]) -> float:
    took = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        call()
        took.append((time.perf_counter() - begun) * 1000)
    return quantile(took, 0.5)
