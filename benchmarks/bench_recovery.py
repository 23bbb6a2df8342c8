"""Benchmark 7, recovery: how long `Engine.open` takes after SIGKILL.

    python -m benchmarks.bench_recovery [--records 1000000] [--branches 10000] [--kills 5]

A process fills the branch, builds and switches an index, makes the other branches, begins another build, and is killed
in the middle of it by SIGKILL. Then processes open the directory, say how long that took and when the first read
succeeded, and are killed in turn. Against: opening the same LMDB environment and the same SQLite file without any
engine, after the same kill. At the end every record is compared and fsck looks at everything.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.common import BENCH_CONFIG, BRANCH, KIND, TYPE, Report, fill, quantile
from benchmarks.paths import BACKEND, OPTIONS, SHARD
from benchmarks.processes import run_and_kill, say_and_wait
from shadowswitch.engine.engine import Engine
from shadowswitch.storage import data_directory
from shadowswitch.storage.catalog.environment import Catalog

BUILD = {**OPTIONS, "parallel_workers": 2}
OPEN_S = 120.0
HALF_DONE_PERCENT = 40.0


def prepare(data: Path, records: int, branches: int) -> dict[str, Any]:
    """In a process of its own: everything up to the middle of a second build."""
    engine = Engine.open(data, BENCH_CONFIG)
    engine.create_branch(BRANCH)
    fill(engine, records)
    result = engine.rebuild(BRANCH, KIND, [TYPE], {**BUILD, "shards": 1})
    assert result.success, result.message
    with ThreadPoolExecutor(32) as pool:  # so that the calls share commits
        list(pool.map(engine.create_branch, (f"feature/{n}" for n in range(branches))))
    shadow = engine.start_build(BRANCH, KIND, [TYPE], {**BUILD, "tokenizer": "unicode61"}).shadow_index_id
    seen = engine.shadow(shadow)
    while seen.state in ("PREPARING", "BUILDING") and seen.build_progress_percent < HALF_DONE_PERCENT:
        time.sleep(0.002)
        seen = engine.shadow(shadow)
    engine.write(BRANCH, [common.record(0, random.Random(9), marker="afterbuild")])
    return {"state": str(engine.shadow(shadow).state), "index": result.new_index_path, "head": engine.head(BRANCH)}


def reopen(data: Path) -> dict[str, Any]:
    """In a process of its own: open, and read what was written last."""
    begun = time.perf_counter()
    engine = Engine.open(data, BENCH_CONFIG)
    opened = time.perf_counter()
    with engine.reader(BRANCH, KIND, timeout_s=OPEN_S) as reader:
        found = len(reader.search("afterbuild"))
    read = time.perf_counter()
    shadows = [str(shadow.state) for shadow in engine.shadows()]
    return {"open_ms": (opened - begun) * 1000, "read_ms": (read - begun) * 1000, "found": found, "shadows": shadows}


def raw(data: Path, index: Path) -> dict[str, Any]:
    """In a process of its own: the same files without an engine."""
    begun = time.perf_counter()
    Catalog(data / data_directory.CATALOG).last_lsn()
    BACKEND.open_writer(index / SHARD, OPTIONS).state()
    return {"open_ms": (time.perf_counter() - begun) * 1000}


def in_process(folder: Path, what: str, *more: str) -> dict[str, Any]:
    """Run one of the three in a process, which is killed by SIGKILL once it has said what it found."""
    return run_and_kill("benchmarks.bench_recovery", folder / "stderr", "--as", what, *more)


def play(arguments: list[str]) -> None:
    """The process of `in_process`: says what it found and waits to be killed."""
    what, data, *more = arguments
    if what == "prepare":
        found = prepare(Path(data), int(more[0]), int(more[1]))
    elif what == "reopen":
        found = reopen(Path(data))
    else:
        found = raw(Path(data), Path(more[0]))
    say_and_wait(found)


def measure(report: Report, folder: Path, records: int, branches: int, kills: int) -> None:
    """Prepare, kill, open and kill again."""
    data = folder / "data"
    prepared = in_process(folder, "prepare", str(data), str(records), str(branches))
    report.figure("the second build when it was killed", prepared["state"], "")
    seen = [in_process(folder, "reopen", str(data)) for _ in range(kills)]
    bare = [in_process(folder, "raw", str(data), prepared["index"]) for _ in range(kills)]
    times = [each["open_ms"] for each in seen]
    reads = [each["read_ms"] for each in seen]
    report.figure("Engine.open after SIGKILL, first time", times[0], "ms", "the build half done")
    report.figure("Engine.open after SIGKILL", quantile(times, 0.5), "ms", f"median of {kills}, killed each time")
    report.figure("first search after SIGKILL", quantile(reads, 0.5), "ms", "from the call of open to the answer")
    report.figure("LMDB and SQLite opened without an engine", quantile([b["open_ms"] for b in bare], 0.5), "ms")
    report.figure("the interrupted build afterwards", seen[-1]["shadows"][-1], "", "it goes on by itself")
    worst = max(times)
    report.target("reopen after SIGKILL under 500 ms", f"{worst:.0f} ms at worst of {kills}", worst < 500)
    if any(each["found"] != 1 for each in seen):
        report.problems.append("what was acknowledged last before the kill was not found")
    with Engine.open(data, BENCH_CONFIG) as engine:
        if engine.head(BRANCH) < prepared["head"]:
            report.problems.append("the head went back")
        if len(engine.branches()) != branches + 1:
            report.problems.append(f"{len(engine.branches())} branches instead of {branches + 1}")
        with engine.reader(BRANCH, KIND, min_lsn=engine.head(BRANCH), timeout_s=OPEN_S) as reader:
            held = {found.id: found.lsn for found in reader.scan()}
        if held != {found.id: found.lsn for found in engine.scan(BRANCH)} or len(held) != records:
            report.problems.append("the index does not hold what the branch holds")
        if records <= CHECKED_MAX:
            report.problems += [str(finding) for finding in engine.check()]


CHECKED_MAX = 200_000
"""fsck reads everything several times; beyond this size the comparison of all records must do."""


def main() -> int:
    """The command."""
    parser = common.arguments(__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--branches", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--as", dest="role", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        play(options.role)
        return 0
    data = f"{options.records:,} records, {options.branches:,} branches, killed in the middle of a build"
    report = Report("7. Recovery", data)
    with common.scratch(options.folder) as folder:
        measure(report, folder, options.records, options.branches, options.kills)
    return common.finish(report, options)


if __name__ == "__main__":
    sys.exit(main())
