"""Concurrent development with rebuilds: the same schedule in modes freeze, swap, seed-moves and shadow, one auditor.

    python -m benchmarks.simulate --developers 20 --branches 5 --minutes 0.5 --rebuilds 5 --seed 1
    python -m benchmarks.simulate --scenarios        the report's three scenarios in scaled time

Real threads on a real engine; builds, and a reader by path, in processes of their own. The run fails when `shadow`
loses or revives anything, when one of its reads fails or is stale, when the engine itself lost a record in any mode, or
(with --expect-failures) when the auditor does not find the known failures of the other modes.

In `shadow` two threads on each branch also make feature branches, one after the other: forked, edited, searched,
rebased, merged and dropped. No other way knows forks.

A read is stale when it shows an older version of a record than was acknowledged --stale-s before it began, or than the
same reader saw before. Everything else is defined beside its figure.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks import common
from benchmarks.common import Report, scratch
from benchmarks.simulation import tables
from benchmarks.simulation.hosts import Delays
from benchmarks.simulation.running import Outcome, run_mode
from benchmarks.simulation.schedule import (
    Schedule,
    Size,
    big_team,
    everyday,
    many_builds,
    round_the_clock,
)

BUILD_S_MAX = 1.3
"""The three scenarios last for 70 builds, in each of four modes: six minutes with builds of this length."""
MODES = ("freeze", "swap", "seed-moves", "shadow")


def play(schedule: Schedule, modes: Sequence[str], options: argparse.Namespace) -> dict[str, Outcome]:
    """One schedule in every mode, each on a fresh engine."""
    delays = Delays(options.gap_ms / 1000, options.copy_deletes)
    found = {}
    with scratch(options.folder) as folder:
        for mode in modes:
            begun = time.perf_counter()
            found[mode] = run_mode(schedule, mode, folder, options.stale_s, delays)
            print(f"{schedule.title}: {mode} took {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    return found


def judge(report: Report, schedule: Schedule, found: dict[str, Outcome]) -> None:
    """The rules that hold on every machine."""
    for mode, outcome in found.items():
        report.problems += [f"{schedule.title}, {mode}: {problem}" for problem in outcome.problems]
    ours = found.get("shadow")
    if ours is not None:
        counts = {
            "lost writes": ours.lost,
            "revived deletes": ours.revived,
            "failed reads": ours.failed_reads + ours.outside_failed,
            "stale reads": ours.stale_reads,
            "edits never searchable": ours.never_searchable,
        }
        report.problems += [f"{schedule.title}, shadow: {n} {what}" for what, n in counts.items() if n]


def not_found(outcomes: Sequence[Outcome]) -> list[str]:
    """The known failures of the other modes that the auditor did not find: it would prove nothing about ours."""
    sums = {mode: Counter[str]() for mode in MODES}
    for o in outcomes:
        failed = o.failed_reads + o.outside_failed
        sums[o.mode].update(blocked=o.delayed, lost=o.lost, revived=o.revived, failed=failed)
    expected = {
        "the blocked time of freeze": sums["freeze"]["blocked"],
        "the lost writes of swap": sums["swap"]["lost"],
        "the revived deletes of swap": sums["swap"]["revived"],
        "the lost writes of seed-moves": sums["seed-moves"]["lost"],
        "the failed reads of seed-moves": sums["seed-moves"]["failed"],
    }
    return [f"the auditor did not find {what}" for what, seen in expected.items() if not seen]


def build_time_s(size: Size, options: argparse.Namespace) -> float:
    """How long a build of this size takes while twenty people work: what stands for the report's 30 minutes."""
    trial = big_team(size, 1.0)
    with scratch(options.folder) as folder:
        found = run_mode(trial, "freeze", folder, options.stale_s, Delays())
    if not found.rebuild_spans:
        raise RuntimeError(f"the first build failed: {found.problems[:3]}")
    return found.build_s


def scenarios(size: Size, options: argparse.Namespace, report: Report) -> list[tuple[Schedule, dict[str, Outcome]]]:
    """The report's three, on the scale of a build that was measured first."""
    build_s = build_time_s(size, options)
    if build_s > BUILD_S_MAX:  # a slow machine: fewer records, so that the days do not become too long
        size = msgspec.structs.replace(size, records=max(1000, int(size.records * BUILD_S_MAX / build_s)))
        build_s = build_time_s(size, options)
        report.data += f" (on this machine {size.records:,})"
    report.data += f"; a build of {build_s:.2f} s stands for 30 minutes"
    plans = (big_team(size, build_s), many_builds(size, build_s), round_the_clock(size, build_s))
    return [(plan, play(plan, MODES, options)) for plan in plans]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = common.arguments(__doc__)
    found.add_argument("--developers", type=int, default=20)
    found.add_argument("--branches", type=int, default=5)
    found.add_argument("--minutes", type=float, default=0.25)
    found.add_argument("--rebuilds", type=int, default=5)
    found.add_argument("--records", type=int, default=20_000, help="in each branch")
    found.add_argument("--think-s", type=float, default=0.15, help="mean time of thought before each step")
    found.add_argument("--seed", type=int, default=1)
    found.add_argument("--stale-s", type=float, default=1.0)
    found.add_argument("--gap-ms", type=float, default=0.0, help="seed-moves: what a busy disk takes between its moves")
    found.add_argument("--copy-deletes", type=int, default=0, help="swap, seed-moves: a copy lasts for so many deletes")
    found.add_argument("--modes", default=",".join(MODES))
    found.add_argument("--scenarios", action="store_true")
    found.add_argument("--expect-failures", action="store_true")
    found.add_argument("--plots", metavar="FOLDER", help="write SVG plots there")
    return found


def main() -> int:
    """The command."""
    options = parser().parse_args()
    size = Size(
        options.developers,
        options.branches,
        options.minutes * 60,
        options.rebuilds,
        options.records,
        options.think_s,
        options.seed,
    )
    report = Report("Simulation of concurrent development")
    report.data = f"{size.records:,} records in each branch, mean thought {size.think_s:g} s, seed {size.seed}"
    if options.scenarios:
        runs = scenarios(size, options, report)
    else:
        plan = everyday(size)
        runs = [(plan, play(plan, options.modes.split(","), options))]
    for schedule, found in runs:
        judge(report, schedule, found)
    if options.expect_failures:
        report.problems += not_found([outcome for _, found in runs for outcome in found.values()])
    report.text = tables.markdown(runs, options.scenarios)
    tables.figures(report, runs)
    if options.plots:
        report.plots = tables.plots(Path(options.plots), runs)
    return common.finish(report, options)


if __name__ == "__main__":
    sys.exit(main())
