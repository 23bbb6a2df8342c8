"""CPU time by thread of one write, one build, one search and one pin: where the work is done, whatever the disk does.

    python -m benchmarks.cpu [--writes 3000] [--records 30000] [--searches 3000] [--json FILE]

Read from /proc/self/task/*/schedstat, which neighbours on the machine disturb little. Microseconds of CPU for each
operation; threads of one kind are added up. `wall` is what it took, disk and neighbours included.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from benchmarks import common
from benchmarks.bench_rebuild import build
from benchmarks.common import BENCH_CONFIG, BRANCH, KIND, TYPE, Report, fill, record
from benchmarks.contenders import words
from shadowswitch.engine.engine import Engine

WRITERS = 16


def cpu_by_thread() -> dict[str, float]:
    """CPU seconds so far by kind of thread, and of child processes that have ended or still run."""
    found: dict[str, float] = defaultdict(float)
    for thread in threading.enumerate():
        path = Path(f"/proc/self/task/{thread.native_id}/schedstat")
        try:
            found[_kind(thread.name)] += int(path.read_text().split()[0]) / 1e9
        except OSError:
            continue
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
                if int(parent) == os.getpid():
                    tasks = (folder / "task").iterdir()
                    found["worker processes"] += sum(int((t / "schedstat").read_text().split()[0]) for t in tasks) / 1e9
            except (OSError, ValueError):
                continue
    return found


def _kind(name: str) -> str:
    if name.startswith("shadowswitch-"):
        return name.removeprefix("shadowswitch-").rstrip("-0123456789")
    return "caller" if name == "MainThread" or name.startswith("caller") else name


def spent(report: Report, what: str, count: int, work: Callable[[], object]) -> None:
    """Do it, and add what each kind of thread spent on one of `count`."""
    before, begun = cpu_by_thread(), time.perf_counter()
    work()
    wall, after = time.perf_counter() - begun, cpu_by_thread()
    report.figure(f"{what}: wall", wall / count * 1e6, "µs")
    costs = {kind: (seconds - before.get(kind, 0.0)) / count * 1e6 for kind, seconds in after.items()}
    for kind, cost in sorted(costs.items(), key=lambda pair: -pair[1]):
        if cost >= 0.1:
            report.figure(f"{what}: CPU, {kind}", cost, "µs")


def writes(report: Report, engine: Engine, records: int, count: int) -> None:
    """One writer, then sixteen, then batches."""
    chance = random.Random(4)
    changes = [record(chance.randrange(records), chance) for _ in range(count)]

    def one() -> None:
        for change in changes:
            engine.write(BRANCH, [change])

    def sixteen() -> None:
        def share(number: int) -> None:
            for change in changes[number::WRITERS]:
                engine.write(BRANCH, [change])
            own[number] = time.thread_time()

        own: dict[int, float] = {}
        threads = [threading.Thread(target=share, args=(n,), name=f"writer {n}") for n in range(WRITERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        report.figure(f"write, {WRITERS} writers: CPU, callers", sum(own.values()) / count * 1e6, "µs")

    def batches() -> None:
        for start in range(0, count, 100):
            engine.write(BRANCH, changes[start : start + 100])

    spent(report, "write, 1 writer", count, one)
    spent(report, f"write, {WRITERS} writers", count, sixteen)
    spent(report, "change, in batches of 100", count, batches)


def main() -> int:
    """The command."""
    parser = common.arguments(__doc__)
    parser.add_argument("--writes", type=int, default=3000)
    parser.add_argument("--records", type=int, default=30_000)
    parser.add_argument("--searches", type=int, default=3000)
    options = parser.parse_args()
    report = Report("CPU time by thread", f"{options.records:,} records of about 200 bytes, fts5, one shard")
    with common.scratch(options.folder) as folder, Engine.open(folder / "data", BENCH_CONFIG) as engine:
        engine.create_branch(BRANCH)
        fill(engine, options.records)
        writes(report, engine, options.records, options.writes)
        build(engine, options.records, 1)
        spent(report, "build, one record", options.records, lambda: build(engine, options.records, 1))
        engine.rebuild(BRANCH, KIND, [TYPE], {"parallel_workers": 1})
        writes_followed = Report("")
        writes(writes_followed, engine, options.records, options.writes)
        for figure in writes_followed.figures:
            report.figure(f"{figure.name} (an index follows)", figure.value, figure.unit)
        chance = random.Random(5)
        queries = [words(chance) for _ in range(options.searches)]

        def search() -> None:
            for query in queries:
                with engine.reader(BRANCH, KIND) as reader:
                    reader.search(query)

        def pin() -> None:
            for _ in queries:
                engine.reader(BRANCH, KIND).close()

        spent(report, "search", options.searches, search)
        spent(report, "pin and unpin", options.searches, pin)
    return common.finish(report, options)


if __name__ == "__main__":
    sys.exit(main())
