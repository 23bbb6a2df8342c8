"""Benchmark 11, many builds: the latency of writers beside one build, and beside eight that were started at once.

    python -m benchmarks.bench_many_builds [--records 20000] [--builds 8] [--rounds 3] [--writers 2]

Each branch has as many records, and its index is built by one worker. Writers of another branch write single records in
closed loops and note what each write takes: without a build, beside one, beside eight. Rounds take turns. `builds_max`
is its default, half the number of cores; `commit_latency_budget` too. A target compares the 99th percentiles of all
writes.
"""

from __future__ import annotations

import contextlib
import random
import sys
import time
from pathlib import Path

from benchmarks import common
from benchmarks.common import BENCH_CONFIG, KIND, TYPE, Report, fill, quantile
from benchmarks.loops import Loops
from shadowswitch.engine.engine import Engine

BUILD_S = 900.0
QUIET_S = 5.0
CONFIG = {"backend": "fts5", "tokenizer": "porter", "parallel_workers": 1}
BUSY = "busy"


def write(engine: Engine) -> object:
    """A step of a writer."""

    def step(chance: random.Random) -> None:
        engine.write(BUSY, [common.record(chance.randrange(1000), chance)])

    return step


def build_all(engine: Engine, branches: list[str]) -> tuple[float, float]:
    """Build the index of each branch, all started at once, and discard them. Returns seconds, and the least share."""
    begun, share = time.perf_counter(), 1.0
    ids = [engine.start_build(branch, KIND, [TYPE], CONFIG).shadow_index_id for branch in branches]
    left = set(ids)
    while left:
        left = {id for id in left if engine.shadow(id).state in ("PREPARING", "BUILDING")}
        share = min(share, float(engine.stats()["build_share_given"]))
        if time.perf_counter() - begun > BUILD_S:
            raise TimeoutError(f"{len(left)} builds did not end in {BUILD_S:.0f} s")
        time.sleep(0.2)
    took_s = time.perf_counter() - begun
    for id in ids:
        engine.cancel_build(id, "measured")
    return took_s, share


def measure(report: Report, folder: Path, records: int, builds: int, rounds: int, writers: int, quiet_s: float) -> None:
    """All rounds on one data directory."""
    took: dict[int, list[float]] = {0: [], 1: [], builds: []}
    lasted: dict[int, list[float]] = {1: [], builds: []}
    shares: dict[int, list[float]] = {1: [], builds: []}
    with Engine.open(folder / "data", BENCH_CONFIG) as engine:
        branches = [f"b{n}" for n in range(builds)]
        for number, branch in enumerate([BUSY, *branches]):
            engine.create_branch(branch)
            fill(engine, records, branch, number)
        for _ in range(rounds):
            for count in took:
                with Loops(write(engine), None, writers, 0) as loops:  # type: ignore[arg-type]
                    if count:
                        seconds, share = build_all(engine, branches[:count])
                        lasted[count].append(seconds)
                        shares[count].append(share)
                    else:
                        time.sleep(quiet_s)
                took[count] += [ms for loop in loops.writers for ms in loop.took_ms]
                report.problems += loops.errors
        report.problems += [str(finding) for finding in engine.check()]
    for count, values in took.items():
        name = f"beside {count} builds" if count else "without a build"
        report.figure(f"a write {name}", quantile(values, 0.5), "ms", "p50 of single writes")
        report.figure(f"a write {name}, p99", quantile(values, 0.99), "ms", f"of {len(values):,} writes")
    for count, times in lasted.items():
        report.figure(f"time of {count} builds", quantile(times, 0.5), "s", "start to the last BUILT, median")
        report.figure(f"least share given to {count} builds", min(shares[count]), "", "1: builds did not give way")
    one, many = (quantile(took[count], 0.99) for count in (1, builds))
    says = f"{builds} builds at once leave writers' p99 within 1.5 of that beside one"
    report.target(says, f"{many / one:.2f} ({many:.1f} and {one:.1f} ms)", many <= 1.5 * one)


def main() -> int:
    """Run and report."""
    parser = common.arguments(__doc__)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--builds", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--writers", type=int, default=2)
    parser.add_argument("--quiet-s", type=float, default=QUIET_S)
    options = parser.parse_args()
    what = f"fts5, porter; {options.builds} branches of {options.records:,} records; {options.writers} writers"
    report = Report("Many builds", what)
    with common.scratch(options.folder) as folder:
        measure(
            report, folder, options.records, options.builds, options.rounds, options.writers, options.quiet_s
        )  # fmt: skip
    return common.finish(report, options)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
