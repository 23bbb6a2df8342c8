"""Where the time goes: CPU by thread of one write, build, search and pin; the parts of a copy; the parts of a switch.

    python -m benchmarks.cpu [--writes 3000] [--records 30000] [--searches 3000] [--json FILE]

Read from /proc/self/task/*/schedstat, which neighbours on the machine disturb little. Microseconds of CPU for each
operation; threads of one kind are added up. `wall` is what it took, disk and neighbours included. The parts of a switch
are wall time, means over the switches, under two writers and two readers.
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
from benchmarks.contenders import ShadowSwitch, words
from benchmarks.loops import Loops
from benchmarks.paths import BACKEND, OPTIONS, SHARD, copy_records, create
from shadowswitch.engine.engine import Engine
from shadowswitch.model.digest import BUCKETS
from shadowswitch.storage import data_directory
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal import read_records

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


def copy_parts(report: Report, folder: Path, records: int) -> None:
    """Of a copy: reading the records out of the catalog, and loading them into a shard; this thread alone."""
    catalog = Catalog(folder / "data" / data_directory.CATALOG, readonly=True)
    branch = catalog.branch(BRANCH).number
    begun, cursor, done = time.thread_time(), b"", False
    while not done:
        piece = read_records(catalog, branch, 1, TYPE, range(BUCKETS), cursor, BENCH_CONFIG.copy_slice_rows)
        cursor, done = piece.cursor, piece.done
    report.figure("copy, one record: CPU, reading", (time.thread_time() - begun) / records * 1e6, "µs")
    path = create(folder / "copied")
    begun = time.thread_time()
    assert copy_records(catalog, branch, BACKEND, OPTIONS, path / SHARD) == records
    report.figure("copy, one record: CPU, reading and loading", (time.thread_time() - begun) / records * 1e6, "µs")
    catalog.close()


def switches_under_load(report: Report, folder: Path, records: int, switches: int) -> None:
    """The parts of a switch, under load."""
    ours = ShadowSwitch(folder, records, {"backend": "fts5", "parallel_workers": 1})
    try:
        with Loops(ours.write, ours.read, 2, 2) as loops:
            for _ in range(switches):
                time.sleep(0.02)
                ours.switch()
        report.problems += loops.errors
        found = ours.engine.stats()["latencies"]
    finally:
        ours.close()
    for name in sorted(found):
        if name.startswith("switch") or name in ("sealed", "commit"):
            says = f"mean of {found[name]['count']}; p99 at most {found[name]['p99_ms']} ms"
            report.figure(f"under load: {name}", float(found[name]["mean_ms"]), "ms", says)


def main() -> int:
    """The command."""
    parser = common.arguments(__doc__)
    parser.add_argument("--writes", type=int, default=3000)
    parser.add_argument("--records", type=int, default=30_000)
    parser.add_argument("--switches", type=int, default=40)
    parser.add_argument("--searches", type=int, default=3000)
    options = parser.parse_args()
    report = Report("Where the time goes", f"{options.records:,} records of about 200 bytes, fts5, one shard")
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
        engine.close()
        copy_parts(report, folder, options.records)
    with common.scratch(options.folder) as folder:
        switches_under_load(report, folder, options.records, options.switches)
    return common.finish(report, options)


if __name__ == "__main__":
    sys.exit(main())
