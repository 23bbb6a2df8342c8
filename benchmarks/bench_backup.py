"""Benchmark 19, backups: made beside a host, verified, restored; beside a plain copy of the catalog.

    python -m benchmarks.bench_backup [--sizes 100000,1000000] [--rounds 3] [--seconds 4]

The store is a folder on the same disk. A backup is `Engine.backup`, from the call to its answer; the CPU of the host is
that of its process meanwhile. The plain copy reads and writes the file of a closed catalog, and forces it to disk: no
host may run beside it. Writers write one record at a time, in a host that does nothing else and beside backups that
follow one another, in turns. First read is from the beginning of `restore` until a record of the opened directory was
read. The index is built behind it, until the first search.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import threading
import time
from pathlib import Path

from benchmarks import common
from benchmarks.common import BATCH, BENCH_CONFIG, BRANCH, KIND, TYPE, Report, fill, quantile, record
from shadowswitch.engine.backups.stored import restore, verify_backup
from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.storage.data_directory import catalog_file

MB = 1e6
EDITS = 1000
LOOK_S = 0.02
FIRST_READ_S = 60.0
LIMIT_S = 600.0


def copied(data: Path, to: Path) -> tuple[float, int]:
    """Seconds and bytes of a plain copy of a closed catalog."""
    begun = time.perf_counter()
    with catalog_file(data).open("rb") as source, to.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
        os.fsync(target.fileno())
    size = to.stat().st_size
    to.unlink()
    return time.perf_counter() - begun, size


def backups(report: Report, engine: Engine, store: Path, size: int, rounds: int) -> None:
    """The first backup, and each after a thousand edits."""
    says = f"{size:,} records of about 200 bytes"
    cpu, begun = common.cpu_and_wall()
    first = engine.backup(str(store), timeout_s=LIMIT_S)
    ended = common.cpu_and_wall()
    report.figure(f"first backup, {size:,}", ended[1] - begun, "s", says)
    report.figure(f"first backup, {size:,}: CPU of the host", ended[0] - cpu, "s", "while the worker makes it")
    shown = f"{first.stored_bytes / MB:.1f} of {first.content_bytes / MB:.1f}"
    report.figure(f"first backup, {size:,}: stored of content", shown, "MB", "records, journal and all small tables")
    took, stored, chance = [], [], random.Random(size)
    for _ in range(rounds):
        edits = [record(number, chance) for number in chance.sample(range(size), min(EDITS, size))]
        for start in range(0, len(edits), BATCH):
            engine.write(BRANCH, edits[start : start + BATCH], timeout_s=120)
        begun = time.perf_counter()
        stored.append(engine.backup(str(store), timeout_s=LIMIT_S).stored_bytes / MB)
        took.append(time.perf_counter() - begun)
    says = f"each after {EDITS} random edits; median of {rounds}"
    report.figure(f"next backup, {size:,}", quantile(took, 0.5), "s", says)
    report.figure(f"next backup, {size:,}: stored", quantile(stored, 0.5), "MB", says)


def writes_ms(engine: Engine, seconds: float, chance: random.Random) -> list[float]:
    """The time of each of the writes of one writer, in milliseconds."""
    found, ends = [], time.perf_counter() + seconds
    while (begun := time.perf_counter()) < ends:
        engine.write(BRANCH, [record(chance.randrange(1000), chance)])
        found.append((time.perf_counter() - begun) * 1000)
    return found


def writers(report: Report, engine: Engine, store: Path, size: int, rounds: int, seconds: float) -> None:
    """One writer in a quiet host, and beside backups, in turns."""
    chance, quiet, beside = random.Random(9), list[float](), list[float]()
    for number in range(rounds):
        quiet += writes_ms(engine, seconds, chance)
        stop, made = threading.Event(), list[int]()

        def again(made: list[int] = made, stop: threading.Event = stop) -> None:
            while not stop.is_set():
                made.append(engine.backup(str(store), timeout_s=LIMIT_S).stored_bytes)

        thread = threading.Thread(target=again)
        thread.start()
        beside += writes_ms(engine, seconds, chance)
        stop.set()
        thread.join(LIMIT_S)
        if not made:
            report.problems.append(f"round {number}: no backup was made")
    for fraction, name in ((0.5, "p50"), (0.99, "p99"), (1.0, "longest")):
        shown = f"{quantile(quiet, fraction):.2f} / {quantile(beside, fraction):.2f}"
        says = f"one writer, alone / beside backups; {len(quiet)} and {len(beside)} writes, {size:,} records"
        report.figure(f"a write, {name}", shown, "ms", says)


def restored(report: Report, store: Path, folder: Path, size: int, rounds: int) -> None:
    """Verify, restore, first read, first search."""
    begun = time.perf_counter()
    found = verify_backup(str(store))
    report.figure(f"verify, {size:,}", time.perf_counter() - begun, "s", f"{found.size_bytes / MB:.1f} MB read")
    report.problems += found.findings
    reads, searches = [], []
    for number in range(rounds):
        target = folder / f"restored-{number}"
        begun = time.perf_counter()
        restore(str(store), target)
        with Engine.open(target, BENCH_CONFIG) as again:
            if again.get(BRANCH, TYPE, "r0000001") is None or again.count(BRANCH) != size:
                report.problems.append(f"the restored directory has {again.count(BRANCH)} of {size} records")
            reads.append(time.perf_counter() - begun)
            if number == 0:
                searches.append(first_search_s(again, begun))
        shutil.rmtree(target)
    longest = max(reads)
    report.figure(
        f"restore to first read, {size:,}", quantile(reads, 0.5), "s", f"median of {rounds}; {longest:.1f} at most"
    )
    report.figure(
        f"restore to first search, {size:,}", searches[0], "s", "an fts5 index, built by the opened host; once"
    )
    if size >= 1_000_000:
        report.target(
            "restore of 1,000,000 records: first read within 60 s", f"{longest:.1f} s", longest <= FIRST_READ_S
        )


def first_search_s(engine: Engine, begun: float) -> float:
    """From `begun` until the index that is built again answers."""
    ends = time.perf_counter() + LIMIT_S
    while True:
        try:
            with engine.reader(BRANCH, KIND) as reader:
                reader.search("w0001", limit=10)
            return time.perf_counter() - begun
        except ShadowSwitchError:
            if time.perf_counter() > ends:
                raise
            time.sleep(LOOK_S)


def measure(report: Report, folder: Path, size: int, rounds: int, seconds: float) -> None:
    """One size."""
    data, store = folder / "data", folder / "store"
    with Engine.open(data, BENCH_CONFIG) as engine:
        engine.create_branch(BRANCH)
        fill(engine, size)
        engine.rebuild(BRANCH, KIND, [TYPE], timeout_s=LIMIT_S)
        backups(report, engine, store, size, rounds)
    copies = [copied(data, folder / "copy") for _ in range(rounds)]
    says = f"of the closed catalog of {copies[0][1] / MB:.1f} MB, to the same disk; median of {rounds}"
    report.figure(f"a plain copy, {size:,}", quantile([took for took, _ in copies], 0.5), "s", says)
    restored(report, store, folder, size, rounds)
    with Engine.open(data, BENCH_CONFIG) as engine:
        writers(report, engine, store, size, rounds, seconds)


def main() -> int:
    """The command."""
    parser = common.arguments(__doc__)
    parser.add_argument("--sizes", default="100000,1000000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    report = Report("19. Backups", f"{options.sizes} records of about 200 bytes, into a folder on the same disk")
    for size in map(int, options.sizes.split(",")):
        with common.scratch(options.folder) as folder:
            measure(report, folder, size, options.rounds, options.seconds)
    return common.finish(report, options)


if __name__ == "__main__":
    sys.exit(main())
