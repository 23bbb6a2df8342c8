"""check(): of many records with an index, and of many branches; beside bare LMDB that reads the rows of the catalog."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path

from benchmarks.bare import BareRows
from benchmarks.common import BENCH_CONFIG, BRANCH, KIND, TYPE, Report, fill
from benchmarks.scale.sizes import Sizes
from shadowswitch.engine.engine import Engine
from shadowswitch.model.records import Put

RECORDS, RECORDS_S_MAX = 1_000_000, 20.0
BRANCHES, BRANCHES_S_MAX = 100_000, 60.0
OF_BRANCH = 10
READING_S = 120.0
MAKERS = 16


def measure(sizes: Sizes, folder: Path, report: Report) -> None:
    """The time of a check of each, on all cores."""
    records, branches = min(sizes.records, RECORDS), min(sizes.branches, BRANCHES)
    with Engine.open(folder / "records", BENCH_CONFIG) as engine:
        engine.create_branch(BRANCH)
        fill(engine, records)
        engine.rebuild(BRANCH, KIND, [TYPE], timeout_s=1800)
        _wait_for_reading(engine)
        took_s = _check(engine, report)
    what = f"check of {records:,} records and their fts5 index"
    report.target(f"{what} within {RECORDS_S_MAX:g} s", f"{took_s:.1f} s", sizes.judged(took_s <= RECORDS_S_MAX))
    _beside(folder / "records", what, took_s, report)
    with Engine.open(folder / "branches", BENCH_CONFIG) as engine:
        _make(engine, branches)
        took_s = _check(engine, report)
    what = f"check of {branches:,} branches of {OF_BRANCH} records"
    report.target(f"{what} within {BRANCHES_S_MAX:g} s", f"{took_s:.1f} s", sizes.judged(took_s <= BRANCHES_S_MAX))
    _beside(folder / "branches", what, took_s, report)


def _beside(data: Path, what: str, took_s: float, report: Report) -> None:
    """The check and the baseline: one thread that reads the rows of the catalog, without decoding one."""
    with closing(BareRows(data)) as bare:
        rows_s = bare.all_s()
    report.figure(f"checks: {what}", took_s, "s", "on all cores")
    report.figure(f"checks: bare LMDB, all rows of the catalog, {what}", rows_s, "s", "one thread, not decoded")


def _wait_for_reading(engine: Engine) -> None:
    """Until the Scrubber has read the new live generation, which it does on a core of its own."""
    until = time.perf_counter() + READING_S
    while not engine.stats()["counters"].get("readings", 0) and time.perf_counter() < until:
        time.sleep(0.1)


def _check(engine: Engine, report: Report) -> float:
    begun = time.perf_counter()
    report.problems += [f"checks: {finding}" for finding in engine.check()]
    return time.perf_counter() - begun


def _make(engine: Engine, branches: int) -> None:
    def make(numbers: range) -> None:
        for number in numbers:
            engine.create_branch(f"feature/{number:06d}")
            puts = [Put(TYPE, f"r{n}", {"text": f"text {n} of {number}"}) for n in range(OF_BRANCH)]
            engine.write(f"feature/{number:06d}", puts, timeout_s=120)

    threads = [threading.Thread(target=make, args=(range(first, branches, MAKERS),)) for first in range(MAKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
