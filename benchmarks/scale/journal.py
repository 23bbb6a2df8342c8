"""The journal: what a steady fill leaves untrimmed, whether every branch has its turn, and what an idle host costs."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from benchmarks.common import BENCH_CONFIG, BRANCH, Report, fill_values, quantile
from benchmarks.scale.sizes import Sizes
from shadowswitch.engine.engine import Engine
from shadowswitch.model.records import Put

KEEP = 10_000
LEFT_MAX = 10 * KEEP
SETTLE_S = 5.0
BRANCH_KEEP, BRANCH_WRITES, BRANCH_BATCH = 10, 60, 20
IDLE_CPU_MAX = 1.0


def measure(sizes: Sizes, folder: Path, report: Report) -> None:
    """One branch that is filled without a pause; then many branches that each have a little more than is kept."""
    _fill(sizes, folder / "fill", report)
    _branches(sizes, folder / "branches", report)


def _fill(sizes: Sizes, data: Path, report: Report) -> None:
    with Engine.open(data, BENCH_CONFIG) as engine:
        engine.create_branch(BRANCH)
        left: list[float] = []
        begun = time.perf_counter()
        for start, batch in fill_values(sizes.records):
            engine.write(BRANCH, batch, timeout_s=120)
            if start % 10_000 == 0:
                left.append(_left(engine))
        rate = sizes.records / (time.perf_counter() - begun)
        at_end = _left(engine)
        time.sleep(SETTLE_S)
        report.figure("journal: fill", rate, "changes/s", f"{sizes.records:,} records, batches of 1,000, one writer")
        report.figure("journal: changes in it meanwhile, median", quantile(left, 0.5), "", f"{KEEP:,} are kept")
        report.figure("journal: changes in it, most", max(left), "")
        report.figure(f"journal: changes in it {SETTLE_S:g} s after the fill", _left(engine), "")
        says = f"a fill of {sizes.records:,} leaves at most {LEFT_MAX:,} changes in the journal"
        report.target(says, f"{at_end:,}", sizes.judged(at_end <= LEFT_MAX))


def _left(engine: Engine) -> int:
    found = engine.branch(BRANCH)
    return found.head_lsn - found.oldest_lsn + 1


def _branches(sizes: Sizes, data: Path, report: Report) -> None:
    count = max(1, sizes.branches // 10)
    config = msgspec.structs.replace(BENCH_CONFIG, journal_keep_changes=BRANCH_KEEP)
    with Engine.open(data, config) as engine:
        names = [f"feature/{n:06d}" for n in range(count)]
        for name in names:
            engine.create_branch(name)
        for start in range(0, BRANCH_WRITES, BRANCH_BATCH):
            numbers = range(start, start + BRANCH_BATCH)
            for name in names:
                engine.write(name, [Put("object_type", str(n), {"text": "x" * 400}) for n in numbers], timeout_s=60)
        begun, wait_s = time.perf_counter(), 60.0 if sizes.full else 2.0
        while (waiting := _long(engine, names)) and time.perf_counter() - begun < wait_s:
            time.sleep(1.0)
        report.figure("journal: until each had its turn", time.perf_counter() - begun, "s", f"{count:,} branches")
        if waiting and sizes.full:  # the LSNs of a few branches lie too close together for a transaction
            report.problems.append(f"journal: {waiting} of {count} branches were never trimmed")
        time.sleep(2.0)
        cpu, wall = time.process_time(), time.perf_counter()
        time.sleep(SETTLE_S)
        idle = 100 * (time.process_time() - cpu) / (time.perf_counter() - wall)
        report.figure("journal: processor of an idle host", idle, "%", f"of one core, {count:,} branches")
        says = f"an idle host with {count:,} branches takes at most {IDLE_CPU_MAX:g} % of a core"
        report.target(says, f"{idle:.2f} %", sizes.judged(idle <= IDLE_CPU_MAX))


def _long(engine: Engine, names: list[str]) -> int:
    """How many of the first, the middle and the last branches have all of their journal."""
    return sum(
        len(engine.changes(name, engine.branch(name).oldest_lsn - 1)) == BRANCH_WRITES
        for name in (*names[:50], *names[len(names) // 2 :][:50], *names[-50:])
    )
