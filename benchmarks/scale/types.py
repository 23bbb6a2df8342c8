"""Many resource types: reading a record, looking at a branch, a switch and fsck, beside the same with one type."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from benchmarks.common import BATCH, BENCH_CONFIG, BRANCH, KIND, Report, each_us, quantile
from benchmarks.scale.sizes import Sizes
from shadowswitch.engine.engine import Engine
from shadowswitch.model.records import Put

CALLS = 500
SWITCHES = 7
RATIO_MAX = 2.0


class Costs(msgspec.Struct):
    """Of one data directory: microseconds, milliseconds, seconds."""

    get_us: float
    branch_us: float
    sealed_ms: float
    check_s: float


def measure(sizes: Sizes, folder: Path, report: Report) -> None:
    """The same number of records, of one type and of many."""
    records = 2 * sizes.types
    one = _costs(folder / "one", records, 1, report)
    many = _costs(folder / "many", records, sizes.types, report)
    for what, unit, few, lots in (
        ("get", "us", one.get_us, many.get_us),
        ("branch()", "us", one.branch_us, many.branch_us),
        ("sealed_ms p50", "ms", one.sealed_ms, many.sealed_ms),
        ("check()", "s", one.check_s, many.check_s),
    ):
        report.figure(f"types: {what}, 1 type", few, unit, f"{records:,} records")
        report.figure(f"types: {what}, {sizes.types:,} types", lots, unit, f"{records:,} records")
        says = f"{what} with {sizes.types:,} types within {RATIO_MAX:g} times of one type"
        report.target(says, f"{lots / few:.2f} times", sizes.judged(lots <= RATIO_MAX * few))


def _costs(data: Path, records: int, types: int, report: Report) -> Costs:
    names = [f"type_{n:05d}" for n in range(types)]
    with Engine.open(data, BENCH_CONFIG) as engine:
        engine.create_branch(BRANCH)
        for start in range(0, records, BATCH):
            numbers = range(start, min(records, start + BATCH))
            engine.write(BRANCH, [Put(names[n % types], f"r{n:07d}", {"text": f"text {n}"}) for n in numbers])
        get_us = each_us(lambda: engine.get(BRANCH, names[-1], f"r{types - 1:07d}"), CALLS)
        branch_us = each_us(lambda: engine.branch(BRANCH), CALLS)
        turns_ms = []
        result = engine.rebuild(BRANCH, KIND, names, {"backend": "kv", "parallel_workers": 1}, timeout_s=300)
        result = engine.rebuild(BRANCH, KIND, names, {"backend": "kv", "parallel_workers": 1}, timeout_s=300)
        for _ in range(SWITCHES):
            result = engine.rollback(BRANCH, KIND)
            if not result.success:
                report.problems.append(f"types: a rollback failed: {result.message}")
            turns_ms.append(result.sealed_ms)
        begun = time.perf_counter()
        report.problems += [str(finding) for finding in engine.check()]
        return Costs(get_us, branch_us, quantile(turns_ms, 0.5), time.perf_counter() - begun)
