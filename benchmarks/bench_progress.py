"""Benchmark 9, what is said of time: the ETA of builds, and the time of builds, switches and rollbacks by size.

    python -m benchmarks.bench_progress [--sizes 20000,100000,400000,1000000] [--builds 4]

A thread reads the status of each build every 10 ms. Its ETA is to *switched*; the error at 10, 50 and 90 % of the time
from start to switched is |ETA - time left| / time left, and infinite where no ETA was said. Quiet, and under 2 writers
and 2 readers. The verdict is over all builds, sizes and shares; the size and load with the largest median is named. The
first build has no last one to compare with: it has a row of its own, without a verdict, and a second one follows that
is not shown. The longest standstill is the longest time without a new percent, from the first status to BUILT, as a
share of the whole.
The validation is the time from its phase to BUILT. Switches and rollbacks are timed as calls, quiet: rollbacks in turns
with the reading of every row that follows them.
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from pathlib import Path

import msgspec

from benchmarks import common
from benchmarks.bench_switch import READERS, WRITERS
from benchmarks.common import BRANCH, KIND, TYPE, Report, quantile
from benchmarks.contenders import ShadowSwitch
from benchmarks.loops import Loops
from shadowswitch.engine.engine import Engine

POLL_S = 0.003
"""A hundredth of the shortest build: a longer one would be most of the standstill that it finds."""
BUILD_S = 600.0
SHARES = (0.1, 0.5, 0.9)
CONFIG = {"backend": "fts5", "tokenizer": "porter"}
ROLLBACKS = 10
READING_S = 120.0
FIRST = "the first, quiet"


class Watched(msgspec.Struct):
    """One build: times in seconds since its start, and what its status said at some of them."""

    whole_s: float
    copy_s: float
    switch_s: float
    built_s: float
    validating_s: float
    """From the phase `validating` until BUILT."""
    said: list[tuple[float, float, float | None]]
    """Time, percent, ETA; from the return of `start_build` until BUILT."""

    def error(self, share: float) -> float:
        """The error of the ETA at a share of the whole; infinite when none was said."""
        at, _, eta = min(self.said, key=lambda one: abs(one[0] - share * self.whole_s))
        left = self.whole_s - at
        return math.inf if eta is None or left <= 0 else abs(eta - left) / left

    def standstill(self) -> float:
        """The longest time without a new percent, as a share of the whole."""
        longest, since, last = 0.0, self.said[0][0], 0.0
        for at, percent, _ in [*self.said, (self.built_s, 100.0, None)]:
            if percent > last:
                longest, since, last = max(longest, at - since), at, percent
        return longest / self.whole_s


def build(engine: Engine) -> Watched:
    """A build with its switch, watched."""
    said: list[tuple[float, float, float | None]] = []
    copied: list[float] = []
    validating: list[float] = []
    over = threading.Event()
    begun = time.perf_counter()
    id = engine.start_build(BRANCH, KIND, [TYPE], CONFIG, seed="never").shadow_index_id

    def watch() -> None:
        while not over.is_set():
            status = engine.shadow(id)
            at = time.perf_counter() - begun
            if status.state in ("PREPARING", "BUILDING"):
                said.append((at, status.build_progress_percent, status.estimated_completion_seconds))
            if status.phase not in ("preparing", "copying") and not copied:
                copied.append(at)
            if status.phase == "validating" and not validating:
                validating.append(at)
            over.wait(POLL_S)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        engine.wait_for(id, "BUILT", timeout_s=BUILD_S)
        asked = time.perf_counter()
        result = engine.switch(id)
        ended = time.perf_counter()
    finally:
        over.set()
        watcher.join()
    assert result.success, result.message
    copy_s = copied[0] if copied else ended - begun
    built_s = asked - begun
    return Watched(ended - begun, copy_s, ended - asked, built_s, built_s - (validating or [built_s])[0], said)


def rollbacks(engine: Engine, times: int) -> list[float]:
    """The seconds of each call. Each waits until the live index was read through."""
    took = []
    for _ in range(times):
        before = readings(engine)
        begun = time.perf_counter()
        result = engine.rollback(BRANCH, KIND)
        took.append(time.perf_counter() - begun)
        assert result.success, result.message
        wait_for_reading(engine, before)
    return took


def readings(engine: Engine) -> int:
    """How often a live index was read through behind a switch."""
    return int(engine.stats()["counters"].get("readings", 0))


def wait_for_reading(engine: Engine, before: int) -> None:
    """Until one more was read through."""
    until = time.perf_counter() + READING_S
    while readings(engine) == before and time.perf_counter() < until:
        time.sleep(0.05)


def quiet_builds(engine: Engine, times: int) -> list[Watched]:
    """Builds with nothing beside them, not even the reading of the last one."""
    watched = []
    for _ in range(times):
        before = readings(engine)
        watched.append(build(engine))
        wait_for_reading(engine, before)
    return watched


def measure(report: Report, folder: Path, size: int, builds: int) -> dict[str, list[Watched]]:
    """Builds of one size: the first of all, then quiet and under load."""
    ours = ShadowSwitch(folder, size, CONFIG, rebuilds=0)
    try:
        first, _ = quiet_builds(ours.engine, 2)
        quiet = quiet_builds(ours.engine, builds)
        took = rollbacks(ours.engine, ROLLBACKS)
        with Loops(ours.write, ours.read, WRITERS, READERS) as loops:
            loaded = [build(ours.engine) for _ in range(builds)]
        report.problems += loops.errors + [str(finding) for finding in ours.engine.check()]
    finally:
        ours.close()
    switches = [one.switch_s for one in quiet]
    ratio = quantile([one.whole_s / one.copy_s for one in quiet], 0.5)
    report.figure(f"start to switched, quiet, {size:,}", quantile([one.whole_s for one in quiet], 0.5), "s")
    report.figure(f"by the copy alone, {size:,}", ratio, "times")
    validating = quantile([one.validating_s for one in quiet], 0.5)
    report.figure(f"validation, quiet, {size:,}", 1e6 * validating / size, "us", "for each record, p50")
    report.figure(f"call of a switch, quiet, {size:,}", quantile(switches, 0.5), "s", "p50")
    report.figure(f"call of a rollback, quiet, {size:,}", quantile(took, 0.5), "s", "p50")
    report.figure(f"call of a rollback, quiet, longest, {size:,}", max(took), "s")
    return {FIRST: [first], "quiet": quiet, "under load": loaded}


def said(error: float) -> str:
    """An error in words."""
    return f"{error:.0%}" if math.isfinite(error) else "none said"


def main() -> int:
    """Run and report."""
    parser = common.arguments(__doc__)
    parser.add_argument("--sizes", default="20000,100000,400000,1000000")
    parser.add_argument("--builds", type=int, default=4)
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    report = Report("What is said of time", f"fts5, porter; records {options.sizes}; {options.builds} builds of each")
    errors: dict[str, float] = {}
    every: list[float] = []
    standstills: list[float] = []
    longest_still = 0.0
    rows = ["| records | | ETA at 10 % | 50 % | 90 % | all | longest standstill |", "|---|---|---|---|---|---|---|"]
    for size in sizes:
        with common.scratch(options.folder) as folder:
            for load, builds_seen in measure(report, folder, size, options.builds).items():
                found = {share: [one.error(share) for one in builds_seen] for share in SHARES}
                middle = quantile([error for each in found.values() for error in each], 0.5)
                still = quantile([one.standstill() for one in builds_seen], 0.5)
                if load != FIRST:
                    errors[f"{size:,} {load}"] = middle
                    every += [error for each in found.values() for error in each]
                    standstills.append(still)
                    longest_still = max(longest_still, *(one.standstill() for one in builds_seen))
                cells = [said(quantile(each, 0.5)) for each in found.values()]
                rows.append(f"| {size:,} | {load} | {' | '.join(cells)} | {said(middle)} | {still:.1%} |")
    report.text = "Errors of the ETA, and the longest time without a new percent (medians):\n\n" + "\n".join(rows)
    error, still = quantile(every, 0.5), max(standstills)
    where, largest = max(errors.items(), key=lambda one: one[1])
    report.figure("error of the ETA", said(error), "", "median over builds, at 10, 50 and 90 %")
    report.figure(f"largest error of the ETA, {where}", said(largest), "", "median over builds, at 10, 50 and 90 %")
    report.target("the median error of the ETA is at most 25 %", said(error), error <= 0.25)
    report.figure("longest standstill of any build", f"{longest_still:.1%}", "", "as a share of its whole")
    report.target("no phase stands still for longer than 5 % of a build", f"{still:.1%}", still <= 0.05)
    calls = {figure.name: figure.value for figure in report.figures}
    for what, limit in (("switch", 0.5), ("rollback", 0.3)):
        longest = max(float(calls[f"call of a {what}, quiet, {size:,}"]) for size in sizes)
        report.target(f"a {what} takes at most {limit} s (p50) at each size", f"{longest:.3f} s", longest <= limit)
    validation_us = float(calls[f"validation, quiet, {sizes[-1]:,}"])
    report.target("a validation takes at most 5 us a record", f"{validation_us:.1f} us", validation_us <= 5.0)
    ratio = float(calls[f"by the copy alone, {sizes[-1]:,}"])
    report.target("start to switched is at most 2.5 times the copy", f"{ratio:.2f}", ratio <= 2.5)
    return common.finish(report, options)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
