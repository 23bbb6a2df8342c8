"""What stays the same at any size: the start after SIGKILL, a switch, a rollback, and the memory of the host.

A process that says its figures and waits to be killed:

    python -m benchmarks.scale.flat prepare DATA RECORDS BRANCHES ROLLBACKS
    python -m benchmarks.scale.flat reopen DATA

The memory is that of a host that finds the branches there: the process that makes 100,000 of them keeps what the
allocator has not given back.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.common import BENCH_CONFIG, BRANCH, KIND, TYPE, Report, fill, quantile, rss_mib
from benchmarks.processes import run_and_kill, say_and_wait
from benchmarks.scale.sizes import Sizes
from shadowswitch.engine.engine import Engine

FEW_RECORDS, FEW_BRANCHES = 100_000, 100
BUILDS, ROLLBACKS, KILLS = 2, 21, 5
TINY_ROLLBACKS, TINY_KILLS = 3, 1
RATIO_MAX = 2.0
READING_S, BUILD_S = 600.0, 1800.0
FIGURES = {
    "open_ms": ("Engine.open after SIGKILL", "ms"),
    "switch_ms": ("call of a switch", "ms"),
    "rollback_ms": ("call of a rollback, median", "ms"),
    "sealed_ms": ("sealed_ms of a rollback, median", "ms"),
    "rss_mib": ("anonymous memory of a host that was started and has rolled back", "MiB"),
}


def measure(sizes: Sizes, folder: Path, report: Report) -> None:
    """Few records and branches, then all of them; both hosts are killed behind their switches."""
    cases = sorted(
        {(min(FEW_RECORDS, sizes.records), min(FEW_BRANCHES, sizes.branches)), (sizes.records, sizes.branches)}
    )
    found = [_of(folder / str(number), *case, sizes, report) for number, case in enumerate(cases)]
    for name, (what, unit) in FIGURES.items():
        for (records, branches), figures in zip(cases, found, strict=True):
            report.figure(f"flat: {what}, {records:,} records", figures[name], unit, f"{branches:,} branches")
        few, many = found[0][name], found[-1][name]
        says = (
            f"{what}: with {sizes.records:,} records and {sizes.branches:,} branches within {RATIO_MAX:g} times of few"
        )
        report.target(says, f"{many / few:.2f} times, {many:.4g} {unit}", sizes.judged(many <= RATIO_MAX * few))


def _of(folder: Path, records: int, branches: int, sizes: Sizes, report: Report) -> dict[str, float]:
    """The figures of one size."""
    folder.mkdir()
    rollbacks, kills = (ROLLBACKS, KILLS) if sizes.full else (TINY_ROLLBACKS, TINY_KILLS)
    module, data, errors = "benchmarks.scale.flat", str(folder / "data"), folder / "stderr"
    found = run_and_kill(module, errors, "prepare", data, str(records), str(branches), str(rollbacks))
    starts = [run_and_kill(module, errors, "reopen", data) for _ in range(kills)]
    report.problems += [f"flat: {one}" for one in found.pop("problems")]
    for start in starts:
        if (start["branches"], start["records"], start["generation"]) != (branches, records, found["generation"]):
            report.problems.append(f"flat: after SIGKILL the host has {start}, and had {found}")
    return {**found, **{name: quantile([one[name] for one in starts], 0.5) for name in ("open_ms", "rss_mib")}}


def prepare(data: Path, records: int, branches: int, rollbacks: int) -> dict[str, Any]:
    """In a process of its own: the branches, two generations of an index, switches and rollbacks."""
    engine = Engine.open(data, BENCH_CONFIG)
    engine.create_branch(BRANCH)
    fill(engine, records)
    with ThreadPoolExecutor(32) as pool:  # so that the calls share commits
        list(pool.map(engine.create_branch, (f"feature/{n:06d}" for n in range(1, branches))))
    problems: list[str] = []
    switch_ms = 0.0
    for number in range(1, BUILDS + 1):
        shadow = engine.start_build(BRANCH, KIND, [TYPE], {"backend": "fts5"}, seed="never").shadow_index_id
        engine.wait_for(shadow, "BUILT", timeout_s=BUILD_S)
        begun = time.perf_counter()
        result = engine.switch(shadow)
        switch_ms = (time.perf_counter() - begun) * 1000
        problems += [] if result.success else [f"a switch failed: {result.message}"]
        _wait_for_reading(engine, number)
    calls, turns = [], []
    for _ in range(rollbacks):
        begun = time.perf_counter()
        result = engine.rollback(BRANCH, KIND)
        calls.append((time.perf_counter() - begun) * 1000)
        turns.append(result.sealed_ms)
        problems += [] if result.success else [f"a rollback failed: {result.message}"]
    return {
        "switch_ms": switch_ms,
        "rollback_ms": quantile(calls, 0.5),
        "sealed_ms": quantile(turns, 0.5),
        "generation": engine.indexes()[0].generation,
        "problems": problems,
    }


def reopen(data: Path) -> dict[str, Any]:
    """In a process of its own: how long the start takes, and what is there."""
    begun = time.perf_counter()
    engine = Engine.open(data, BENCH_CONFIG)
    opened_ms = (time.perf_counter() - begun) * 1000
    for _ in range(2):  # there and back
        result = engine.rollback(BRANCH, KIND)
        assert result.success, result.message
    return {
        "open_ms": opened_ms,
        "rss_mib": rss_mib(),
        "branches": engine.count_branches(),
        "records": engine.count(BRANCH),
        "generation": engine.indexes()[0].generation,
    }


def _wait_for_reading(engine: Engine, count: int) -> None:
    """Until the Scrubber has read the new live generation: a rollback then has nothing left to read."""
    until = time.perf_counter() + READING_S
    while engine.stats()["counters"].get("readings", 0) < count and time.perf_counter() < until:
        time.sleep(0.1)


if __name__ == "__main__":
    what, where, *numbers = sys.argv[1:]
    say_and_wait(prepare(Path(where), *map(int, numbers)) if what == "prepare" else reopen(Path(where)))
