"""Benchmark 12, forks: making one, reading through it, writing beside it, merging it, and having a thousand.

    python -m benchmarks.bench_forks [--records 1000000] [--changes 1000,10000,100000] [--many 1000]

A fork is held against what is done without one: a copy of the branch, record by record, a copy of the file, and, with
git, a worktree of as many files. Reading on a fork is held against reading its root in the same run; writing to a
parent against the same writes while it has no fork. A merge runs beside two writers of the target; they are held
against a quiet time after it.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from benchmarks import common
from benchmarks.common import (
    BATCH,
    BENCH_CONFIG,
    BRANCH,
    TYPE,
    Report,
    each_us,
    fill,
    gaps_ms,
    quantile,
    record,
    rss_mib,
    size_mib,
)
from benchmarks.loops import Loops
from shadowswitch.engine.engine import Engine
from shadowswitch.model.records import Put
from shadowswitch.storage.catalog.rows import FOLLOWING, SNAPSHOT

SHARES = (0.0, 0.01, 0.1)
"""Of the records, changed on a fork."""
COPIED_MAX = 100_000
"""Records that the copy record by record is measured with."""
FORKS = 20
WRITES = 200


def making(report: Report, engine: Engine, path: Path, records: int) -> None:
    """Make forks of the whole branch; then copy it, and the file."""
    took, before = [], size_mib(path)
    for number in range(FORKS):
        begun = time.perf_counter()
        engine.fork_branch(f"fork-{number}", BRANCH)
        took.append((time.perf_counter() - begun) * 1000)
    grown = (size_mib(path) - before) / FORKS
    says = f"fork_branch of {records:,} records, {FORKS} times"
    report.figure("fork", f"{quantile(took, 0.5):.1f} / {max(took):.1f}", "ms", f"p50 / longest, {says}")
    report.figure("disk that a fork takes", grown, "MiB", "growth of the directory, mean of these forks")
    report.target(
        "fork of 1,000,000 records: p50 at most 50 ms", f"{quantile(took, 0.5):.1f} ms", quantile(took, 0.5) <= 50
    )
    report.target("a fork takes less than 1 MiB of disk", f"{grown:.2f} MiB", grown < 1)
    for number in range(FORKS):
        engine.drop_branch(f"fork-{number}")
    begun = time.perf_counter()
    shutil.copyfile(path / "catalog" / "data.mdb", path / "copy")
    report.figure(
        "copy of the file instead", time.perf_counter() - begun, "s", "the catalog's file, as sparse as it is"
    )
    (path / "copy").unlink()
    engine.create_branch("copied")
    begun, batch = time.perf_counter(), []
    for number, found in enumerate(engine.scan(BRANCH)):
        if number == min(records, COPIED_MAX):
            break
        batch.append(Put(found.resource_type, found.id, found.fields))
        if len(batch) == BATCH:
            engine.write("copied", batch, timeout_s=120)
            batch = []
    says = f"scan and write of {min(records, COPIED_MAX):,} records"
    report.figure("copy record by record instead", time.perf_counter() - begun, "s", says)
    engine.drop_branch("copied")


def worktree(report: Report, folder: Path, records: int) -> None:
    """The records as files of a git repository, and a worktree of them on a branch of its own."""
    if shutil.which("git") is None:
        return
    chance, files = random.Random(7), min(records, COPIED_MAX)
    for number in range(files):
        place = folder / "repository" / f"{number % 256:02x}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.json").write_bytes(msgspec.json.encode(record(number, chance).fields))
    git = ["git", "-C", str(folder / "repository"), "-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "records"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    begun = time.perf_counter()
    subprocess.run(
        [*git, "worktree", "add", "-q", "-b", "topic", str(folder / "topic")], check=True, capture_output=True
    )
    took = time.perf_counter() - begun
    says = f"git worktree add of {files:,} files"
    report.figure("git worktree instead", took, "s", says)
    report.figure("disk of a git worktree", size_mib(folder / "topic"), "MiB", says)


def reading(report: Report, engine: Engine, records: int, times: int) -> None:
    """`get` and a scan on forks that changed more and more, beside their root."""
    chance = random.Random(2)
    ids = [f"r{chance.randrange(records):07d}" for _ in range(times)]
    counts = iter(range(1 << 30))

    def get_us(branch: str) -> float:
        return each_us(lambda: engine.get(branch, TYPE, ids[next(counts) % times]), times)

    for share in SHARES:
        name = f"read-{share:g}"
        engine.fork_branch(name, BRANCH)
        changed = [record(number, chance) for number in chance.sample(range(records), int(records * share))]
        for start in range(0, len(changed), BATCH):
            engine.write(name, changed[start : start + BATCH], timeout_s=120)
        root, fork = get_us(BRANCH), get_us(name)
        scans = {}
        for branch in (BRANCH, name):
            begun = time.perf_counter()
            found = sum(1 for _ in engine.scan(branch))
            scans[branch] = time.perf_counter() - begun
            if found != records:
                report.problems.append(f"a scan of {branch} has {found} records instead of {records}")
        says = f"{share:.0%} of {records:,} records changed on the fork; beside the root, in the same run"
        report.figure(f"get on a fork, {share:.0%} changed", f"{fork:.1f} / {root:.1f}", "us", f"fork / root, {says}")
        scanned = f"{scans[name]:.2f} / {scans[BRANCH]:.2f}"
        report.figure(f"scan of a fork, {share:.0%} changed", scanned, "s", f"fork / root, {says}")
        ratio = scans[name] / scans[BRANCH]
        report.target(
            f"get on a fork at most 2 times a root's, {share:.0%} changed", f"{fork / root:.2f}", fork / root <= 2
        )
        report.target(f"scan of a fork at most 3 times a root's, {share:.0%} changed", f"{ratio:.2f}", ratio <= 3)
        engine.drop_branch(name)


def writing(report: Report, engine: Engine, records: int, mode: str) -> None:
    """Single writes to the parent, each the first of its record, with 0, 1 and 10 forks. The order goes round."""
    chance = random.Random(3)
    took: dict[int, list[float]] = {0: [], 1: [], 10: []}
    for turn in range(3):
        for forks in took:
            names = [f"write-{turn}-{forks}-{number}" for number in range(forks)]
            for name in names:
                engine.fork_branch(name, BRANCH, mode)
            for _ in range(WRITES):
                change = record(chance.randrange(records), chance)
                begun = time.perf_counter()
                engine.write(BRANCH, [change])
                took[forks].append((time.perf_counter() - begun) * 1000)
            for name in names:
                engine.drop_branch(name)
            engine.clean_up(60)
    none = quantile(took[0], 0.5)
    for forks, times in took.items():
        cut = f"{quantile(times, 0.5):.2f} / {quantile(times, 0.99):.2f}"
        name = f"write to a parent with {forks} {mode} forks"
        report.figure(name, cut, "ms", f"p50 / p99 of {len(times)} single writes")
    ratio = quantile(took[1], 0.5) / none if none else 0.0
    report.target(f"parent's write p50 with a {mode} fork at most 1.15 times without", f"{ratio:.2f}", ratio <= 1.15)


def merging(report: Report, engine: Engine, records: int, sizes: list[int]) -> None:
    """Merges beside two writers of the target, on records of a type of their own."""
    chance = random.Random(4)

    def write(chance: random.Random) -> None:
        engine.write(BRANCH, [record(chance.randrange(1000), chance, "edited_type")])

    for size in (size for size in sizes if size <= records):
        name = f"merge-{size}"
        engine.fork_branch(name, BRANCH)
        changed = [record(number, chance) for number in chance.sample(range(records), size)]
        for start in range(0, size, BATCH):
            engine.write(name, changed[start : start + BATCH], timeout_s=120)
        with Loops(write, write, 2, 0) as loops:
            time.sleep(0.2)
            begun = time.perf_counter()
            result = engine.merge_into(BRANCH, name, timeout_s=120)
            ended = time.perf_counter()
            time.sleep(min(5.0, ended - begun))
            quiet = (time.perf_counter() - min(5.0, ended - begun), time.perf_counter())
        report.problems += loops.errors
        if result.applied != size or result.conflicts:
            report.problems.append(f"a merge of {size} applied {result.applied} with {len(result.conflicts)} conflicts")
        beside = [
            ms
            for loop in loops.writers
            for done, ms in zip(loop.done, loop.took_ms, strict=True)
            if begun <= done <= ended
        ]
        calm = [
            ms for loop in loops.writers for done, ms in zip(loop.done, loop.took_ms, strict=True) if done >= quiet[0]
        ]
        stall = gaps_ms([loop.done for loop in loops.writers], [(begun, ended)])
        report.figure(
            f"merge of {size:,} changes", ended - begun, "s", "beside two writers of the target that think 1 ms"
        )
        says = "p99 of a write beside the merge / in a quiet time after it"
        report.figure(
            f"writes beside a merge of {size:,}",
            f"{quantile(beside, 0.99):.1f} / {quantile(calm, 0.99):.1f}",
            "ms",
            says,
        )
        report.figure(
            f"longest stall in a merge of {size:,}", max(stall), "ms", "longest time without a write of a writer"
        )
        if size == max(sizes):
            ratio = quantile(beside, 0.99) / quantile(calm, 0.99) if calm else 0.0
            report.target("writers beside the largest merge: p99 within 2 times quiet", f"{ratio:.2f}", ratio <= 2)
        engine.drop_branch(name)


def many(report: Report, path: Path, forks: int) -> None:
    """A thousand forks of one branch: disk, memory, and the next open."""
    with Engine.open(path, BENCH_CONFIG) as engine:
        before, memory = size_mib(path), rss_mib()
        for number in range(forks):
            engine.fork_branch(f"many-{number}", BRANCH)
        disk, memory = size_mib(path) - before, rss_mib() - memory
        took = []
        for number in range(0, forks, max(1, forks // 50)):
            begun = time.perf_counter()
            engine.write(f"many-{number}", [record(number, random.Random(number))])
            took.append((time.perf_counter() - begun) * 1000)
    begun = time.perf_counter()
    with Engine.open(path, BENCH_CONFIG):
        opened = time.perf_counter() - begun
    report.figure(f"disk of {forks:,} forks", disk, "MiB", "growth of the directory")
    report.figure(f"memory of {forks:,} forks", memory, "MiB", "growth of the process while they are made")
    report.figure(f"first write to one of {forks:,} forks", quantile(took, 0.5), "ms", "p50")
    report.figure(f"open with {forks:,} forks", opened, "s", "Engine.open")


def main() -> int:
    """The command."""
    parser = common.arguments(__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--changes", default="1000,10000,100000")
    parser.add_argument("--many", type=int, default=1000)
    parser.add_argument("--gets", type=int, default=10_000)
    options = parser.parse_args()
    report = Report("12. Forks", f"{options.records:,} records of about 200 bytes")
    with common.scratch(options.folder) as folder:
        path = folder / "data"
        with Engine.open(path, BENCH_CONFIG) as engine:
            engine.create_branch(BRANCH)
            fill(engine, options.records)
            making(report, engine, path, options.records)
            worktree(report, folder, options.records)
            reading(report, engine, options.records, options.gets)
            for mode in (SNAPSHOT, FOLLOWING):
                writing(report, engine, options.records, mode)
            merging(report, engine, options.records, [int(size) for size in options.changes.split(",")])
        many(report, path, options.many)
    return common.finish(report, options)


if __name__ == "__main__":
    sys.exit(main())
