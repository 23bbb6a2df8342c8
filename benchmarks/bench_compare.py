"""Benchmark 17, what a look at a shadow costs: `compare`, and live queries that are mirrored.

    python -m benchmarks.bench_compare [--records 100000] [--queries 100] [--rounds 5] [--seconds 8]

The shadow has another tokenizer than the live index, and is BUILT. Two threads search the live index through open
readers, a millisecond apart. Baselines are from windows before and after each comparison, and from an engine that
mirrors nothing; the engines take turns.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import msgspec

from benchmarks import common
from benchmarks.bench_search import middle, records
from benchmarks.common import BENCH_CONFIG, BRANCH, KIND, TYPE, Report, quantile
from benchmarks.loops import Loops
from shadowswitch.engine.engine import Engine
from shadowswitch.engine.reader import Reader

READERS = 2
SHADOW = {"parallel_workers": 1, "tokenizer": "cjk"}
SHARE = 0.1


def searching(reader: Reader) -> Loops:
    """Two threads that ask the live index."""
    return Loops(None, lambda chance: reader.search(middle(chance), 10), 0, READERS)


def took(loops: Loops, begin: float, end: float) -> list[float]:
    """The milliseconds of the searches that ended in a window."""
    return [
        ms for loop in loops.readers for done, ms in zip(loop.done, loop.took_ms, strict=True) if begin <= done < end
    ]


def comparing(report: Report, engine: Engine, shadow: str, queries: int, rounds: int) -> None:
    """How long `compare` takes, and what readers notice."""
    chance, calls, inside = random.Random(11), list[float](), list[float]()
    asked_ms, outside = list[float](), list[float]()
    with engine.reader(BRANCH, KIND) as reader:
        for _ in range(rounds):
            asked = [middle(chance) for _ in range(queries)]
            with searching(reader) as loops:
                begun = time.perf_counter()
                time.sleep(0.5)
                called = time.perf_counter()
                summary = engine.compare(shadow, asked).summary
                ended = time.perf_counter()
                time.sleep(0.5)
                over = time.perf_counter()
            report.problems += loops.errors
            calls.append(ended - called)
            inside += took(loops, called, ended)
            outside += took(loops, begun, called) + took(loops, ended, over)
            asked_ms.append(summary.live_ms + summary.shadow_ms)
            if summary.left_out:
                report.problems.append(f"{summary.left_out} queries were left out")
    report.figure("compare", quantile(calls, 0.5), "s", f"{len(set(asked))} queries, of both indexes, in a worker")
    report.figure("of that, a query of both", quantile(asked_ms, 0.5), "ms", "the sum of the medians of both sides")
    for name, times in (("beside a comparison", inside), ("alone", outside)):
        report.figure(f"search {name}", f"{quantile(times, 0.5):.2f} / {quantile(times, 0.99):.2f}", "ms", "p50 / p99")


def mirrored(folder: Path, share: float, seconds: float, report: Report) -> tuple[list[float], float]:
    """The milliseconds of searches with that share mirrored, and their rate."""
    config = msgspec.structs.replace(BENCH_CONFIG, mirror_share=share)
    with Engine.open(folder, config) as engine, engine.reader(BRANCH, KIND) as reader:
        with searching(reader) as loops:
            begun = time.perf_counter()
            time.sleep(seconds)
            ended = time.perf_counter()
        report.problems += loops.errors
        shadow = next(one for one in engine.shadows(BRANCH) if one.state == "BUILT")
        found = engine.compare(shadow.shadow_index_id, ["w1"]).mirrored
        if share and seconds > 3 and (found is None or not found.queries):
            report.problems.append("no query was mirrored")
    times = took(loops, begun, ended)
    return times, len(times) / (ended - begun)


def mirroring(report: Report, folder: Path, rounds: int, seconds: float) -> None:
    """A tenth of the queries mirrored, beside none."""
    times: dict[float, list[float]] = {0.0: [], SHARE: []}
    rates: dict[float, list[float]] = {0.0: [], SHARE: []}
    for number in range(rounds):
        for share in (0.0, SHARE) if number % 2 else (SHARE, 0.0):
            found, rate = mirrored(folder, share, seconds, report)
            times[share] += found
            rates[share].append(rate)
    for share, name in ((0.0, "none"), (SHARE, "a tenth")):
        cuts = f"{quantile(times[share], 0.5):.2f} / {quantile(times[share], 0.99):.2f}"
        report.figure(f"search, {name} mirrored", cuts, "ms", f"p50 / p99, {rounds} rounds of {seconds:g} s")
        report.figure(f"searches, {name} mirrored", quantile(rates[share], 0.5), "1/s", f"{READERS} threads")
    ratio = quantile(times[SHARE], 0.5) / max(1e-6, quantile(times[0.0], 0.5))
    report.figure("p50 with a tenth mirrored, by none", ratio, "", "")


def main() -> int:
    """The command."""
    parser = common.arguments(__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args()
    report = Report("17. Looking at a shadow", f"{options.records:,} records of 34 words; the shadow is BUILT")
    with common.scratch(options.folder) as folder:
        with Engine.open(folder / "data", BENCH_CONFIG) as engine:
            engine.create_branch(BRANCH)
            for batch in records(options.records):
                engine.write(BRANCH, batch)
            result = engine.rebuild(BRANCH, KIND, [TYPE], {"parallel_workers": 1})
            assert result.success, result.message
            shadow = engine.start_build(BRANCH, KIND, [TYPE], SHADOW).shadow_index_id
            engine.wait_for(shadow, "BUILT", timeout_s=600)
            comparing(report, engine, shadow, options.queries, options.rounds)
        mirroring(report, folder / "data", options.rounds, options.seconds)
    return common.finish(report, options)


if __name__ == "__main__":
    sys.exit(main())
