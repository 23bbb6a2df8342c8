"""Writers over many branches, beside the same over a hundred, and beside what bare LMDB takes for as many pages."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import lmdb

from benchmarks.common import BENCH_CONFIG, Report, quantile
from benchmarks.scale.sizes import Sizes
from shadowswitch.engine.engine import Engine
from shadowswitch.model.records import Put

FEW, MANY = 100, 10_000
ROUNDS = 7
SHARE_MIN = 0.8
DIGEST_BYTES, JOURNAL_BYTES, RECORD_BYTES = 1024, 150, 100
"""What one write of a small record stores."""


def measure(sizes: Sizes, folder: Path, report: Report) -> None:
    """The rates over few and over many branches, in turns."""
    many = min(sizes.branches, MANY)
    few = min(FEW, many)
    with Engine.open(folder / "data", BENCH_CONFIG) as engine:
        make_branches(engine, many)
        rates: dict[int, list[float]] = {few: [], many: []}
        took: dict[int, list[float]] = {few: [], many: []}
        for _ in range(ROUNDS):
            for branches in (few, many):
                rate, milliseconds = _write(engine, branches, sizes)
                rates[branches].append(rate)
                took[branches] += milliseconds
        report.figure("writers: threads at the end", threading.active_count(), "")
        report.problems += [f"writers: {count} records" for count in (engine.count(_name(0)),) if not count]
    for branches in (few, many):
        how = f"{sizes.writers} writers, one small record each, median of {ROUNDS} rounds"
        report.figure(f"writers: over {branches:,} branches", quantile(rates[branches], 0.5), "writes/s", how)
        report.figure(f"writers: p99 of a write over {branches:,} branches", quantile(took[branches], 0.99), "ms")
    bare = _bare(folder / "bare", few, many, sizes)
    report.figure("writers: bare LMDB, over many by over few", bare, "", "commits of as many rows, one thread")
    share = quantile(rates[many], 0.5) / quantile(rates[few], 0.5)
    says = f"over {many:,} branches at least {SHARE_MIN:g} of the rate over {few}"
    report.target(says, f"{share:.2f}", sizes.judged(share >= SHARE_MIN), f"bare LMDB: {bare:.2f}")


def _name(number: int) -> str:
    return f"feature/{number:05d}"


def make_branches(engine: Engine, branches: int) -> None:
    """Make branches, each with a record."""

    def make(numbers: range) -> None:
        for number in numbers:
            engine.create_branch(_name(number))
            engine.write(_name(number), [Put("object_type", "a", {"text": "a"})])

    _all([threading.Thread(target=make, args=(range(k, branches, 16),)) for k in range(16)])


def _write(engine: Engine, branches: int, sizes: Sizes) -> tuple[float, list[float]]:
    """Writes in a second, and the milliseconds of each."""
    until = time.perf_counter() + sizes.seconds
    took: list[list[float]] = [[] for _ in range(sizes.writers)]

    def write(own: int) -> None:
        chance = random.Random(own)
        while (begun := time.perf_counter()) < until:
            put = Put("object_type", str(chance.randrange(10)), {"text": f"edit of {own}"})
            engine.write(_name(chance.randrange(branches)), [put], timeout_s=60)
            took[own].append((time.perf_counter() - begun) * 1000)

    begun = time.perf_counter()
    _all([threading.Thread(target=write, args=(own,)) for own in range(sizes.writers)])
    return sum(map(len, took)) / (time.perf_counter() - begun), [ms for one in took for ms in one]


def _all(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _bare(folder: Path, few: int, many: int, sizes: Sizes) -> float:
    """The rate of commits of one row of each kind for each writer: over many branches by over few."""
    folder.mkdir()
    env = lmdb.open(str(folder), map_size=4 << 30, max_dbs=3)
    kinds = [(env.open_db(name), bytes(size)) for name, size in _kinds()]
    chance = random.Random(3)
    with env.begin(write=True) as txn:
        for branch in range(many):
            for db, value in kinds:
                txn.put(branch.to_bytes(8, "big"), value, db=db)
    rates: dict[int, list[float]] = {few: [], many: []}
    for _ in range(ROUNDS):
        for branches in (few, many):
            begun, commits = time.perf_counter(), 0
            while time.perf_counter() - begun < sizes.seconds / 4:
                with env.begin(write=True) as txn:
                    for _ in range(sizes.writers):
                        key = chance.randrange(branches).to_bytes(8, "big")
                        for db, value in kinds:
                            txn.put(key, value, db=db)
                commits += 1
            rates[branches].append(commits / (time.perf_counter() - begun))
    env.close()
    return quantile(rates[many], 0.5) / quantile(rates[few], 0.5)


def _kinds() -> list[tuple[bytes, int]]:
    return [(b"digests", DIGEST_BYTES), (b"journal", JOURNAL_BYTES), (b"records", RECORD_BYTES)]
