"""Lists, the figures and the start of an engine, over many branches and many shadows beside a hundred of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from benchmarks.common import BENCH_CONFIG, BRANCH, KIND, TYPE, Report, fill, quantile
from benchmarks.scale.many_indexes import copy_index
from benchmarks.scale.sizes import Sizes
from benchmarks.scale.writers import make_branches
from shadowswitch.engine.engine import Engine
from shadowswitch.service.http.access import LOCAL, Access
from shadowswitch.service.http.host import Host, Options
from shadowswitch.service.http.routes.metrics import exposition
from shadowswitch.service.http.routes.shadows import estimate, overview
from shadowswitch.storage.catalog.rows import ShadowRow
from shadowswitch.storage.catalog.transaction import Commit

FEW, PAGE, ROUNDS, SHADOWS = 100, 100, 15, 5_000
INDEXES = 5_000
US_MAX = {"stats": 5.0, "metrics": 30.0, "the figures of the dashboard": 0.5}
"""Microseconds for each live index."""
ENDED, OPENS, OPEN_MS_MAX = 20_000, 5, 500.0
RATIO_MAX = 5.0


def measure(sizes: Sizes, folder: Path, report: Report) -> None:
    """A page, a count, and the figures, with few and with many branches, then with few and with many shadows."""
    _measure(sizes, sizes.branches, "branches", partial(_of_branches, folder), report)
    _measure(sizes, min(SHADOWS, sizes.branches), "shadows", partial(_of_shadows, folder), report)
    _measure_open(sizes, folder, report)
    _measure_indexes(sizes, folder, report)


def _measure(sizes: Sizes, many: int, what: str, of: Callable[[int], dict[str, float]], report: Report) -> None:
    figures = {count: of(count) for count in sorted({min(FEW, many), many})}
    for count, found in figures.items():
        for name, milliseconds in found.items():
            report.figure(f"lists: {name}, {count:,} {what}", milliseconds, "ms", f"median of {ROUNDS}")
    few = figures[min(figures)]
    worst = max(figures[many][name] / max(few[name], 0.05) for name in few)
    says = f"with {many:,} {what} at most {RATIO_MAX:g} times of what it takes with {FEW}"
    report.target(says, f"{worst:.1f}", sizes.judged(worst <= RATIO_MAX))


def _of_branches(folder: Path, count: int) -> dict[str, float]:
    with Engine.open(folder / f"{count}", BENCH_CONFIG) as engine:
        make_branches(engine, count)
        calls: dict[str, Callable[[], object]] = {
            "a page of branches": lambda: engine.branches(limit=PAGE, after=engine.count_branches() // 2),
            "count_branches": engine.count_branches,
            "stats": engine.stats,
        }
        return {name: _median_ms(call) for name, call in calls.items()}


def _of_shadows(folder: Path, count: int) -> dict[str, float]:
    """A live index, a build that was cancelled, and copies of the row of this one."""
    with Engine.open(folder / f"shadows-{count}", BENCH_CONFIG) as engine:
        engine.create_branch(BRANCH)
        fill(engine, 1000)
        engine.rebuild(BRANCH, KIND, [TYPE])
        row = _make_ended(engine, count)
        (live,) = engine.indexes()
        calls: dict[str, Callable[[], object]] = {
            "a page of 50 shadows": lambda: engine.shadows(limit=PAGE // 2, after=row.generation + count // 2),
            "count_shadow_states": engine.count_shadow_states,
            "the figures of the dashboard": lambda: overview[0].fn(host, LOCAL),
            "metrics": lambda: exposition(host, LOCAL),
            "the estimate of a start": lambda: estimate(host, engine.shadow(live.shadow_index_id)),
        }
        host = Host(engine, Access(), Options())
        return {name: _median_ms(call) for name, call in calls.items()}


def _make_ended(engine: Engine, count: int) -> ShadowRow:
    """A build that was cancelled, and copies of its row; returns the row."""
    ended = engine.start_build(BRANCH, "OTHER_INDEX", [TYPE], external=True)
    engine.cancel_build(ended.shadow_index_id)
    engine.clean_up()  # the Janitor notes the end
    context = engine._lifecycle.context
    row = context.catalog.shadow(ended.shadow_index_id)

    def copy(commit: Commit) -> None:
        for number in range(count):
            generation = commit.next_number("generation")
            commit.put_shadow(msgspec.structs.replace(row, id=f"{number:032x}", generation=generation))

    context.transact(copy, "make shadows")
    return row


def _measure_open(sizes: Sizes, folder: Path, report: Report) -> None:
    """The start over ended shadows, whose rows stay for `Config.ended_keep_s`."""
    count = min(ENDED, sizes.branches)
    with Engine.open(folder / "ended", BENCH_CONFIG) as engine:
        engine.create_branch(BRANCH)
        _make_ended(engine, count)
    milliseconds = _median_ms(lambda: Engine.open(folder / "ended", BENCH_CONFIG).close(), OPENS)
    what = f"open with {count:,} ended shadows"
    report.figure(f"lists: {what}, and close", milliseconds, "ms", f"median of {OPENS}")
    met = sizes.judged(milliseconds <= OPEN_MS_MAX)
    report.target(f"{what} takes at most {OPEN_MS_MAX:g} ms", f"{milliseconds:.0f} ms", met)


def _measure_indexes(sizes: Sizes, folder: Path, report: Report) -> None:
    """The figures of an engine with many live indexes: a row of each is inherent to the metrics."""
    few, many = min(FEW, sizes.branches), min(INDEXES, sizes.branches)
    found = {count: _of_indexes(folder, count) for count in sorted({few, many})}
    for name, most_us in US_MAX.items():
        for count, figures in found.items():
            report.figure(f"lists: {name}, {count:,} indexes", figures[name], "ms", f"median of {ROUNDS}")
        each_us = (found[many][name] - found[few][name]) / max(1, many - few) * 1000
        says = f"{name} of {many:,} indexes cost at most {most_us:g} us for each"
        report.target(says, f"{each_us:.1f} us", sizes.judged(each_us <= most_us))


def _of_indexes(folder: Path, count: int) -> dict[str, float]:
    with Engine.open(folder / f"indexes-{count}", BENCH_CONFIG) as engine:
        make_branches(engine, count)
        first, *others = engine.branches()
        made = engine.rebuild(first.name, KIND, [TYPE], {"backend": "kv"})
        if not made.success:
            raise RuntimeError(made.message)
        row = engine._lifecycle.context.catalog.indexes()[0]
        copy_index(engine, row, {one.number: one.name for one in others})
        host = Host(engine, Access(), Options())
        calls: dict[str, Callable[[], object]] = {
            "stats": engine.stats,
            "metrics": lambda: exposition(host, LOCAL),
            "the figures of the dashboard": lambda: overview[0].fn(host, LOCAL),
        }
        return {name: _median_ms(call) for name, call in calls.items()}


def _median_ms(call: Callable[[], object], rounds: int = ROUNDS) -> float:
    took = []
    for _ in range(rounds):
        begun = time.perf_counter()
        call()
        took.append((time.perf_counter() - begun) * 1000)
    return quantile(took, 0.5)
