"""Batches of random edits, beside bare LMDB with the same rows; and small writes beside a batch of 64 MiB.

Bare LMDB stores what the engine stores: the records, chunks of the journal, a digest. Its rate falls with the number of
records, as each edit is a page of its own. The engine's rate is judged by that.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lmdb

from benchmarks.common import BATCH, BENCH_CONFIG, BRANCH, TYPE, Report, fill, quantile, rate, record
from benchmarks.scale.sizes import Sizes
from shadowswitch.engine.engine import Engine
from shadowswitch.model.records import Put

SMALL = 120_000
SHARE_MIN = 0.8
RECORD_BYTES, CHUNK_BYTES, CHUNK_CHANGES, DIGEST_BYTES = 240, 1_900, 7, 1_024
LARGE_RECORDS, TINY_RECORDS, LARGE_BYTES, ROUNDS = 64, 8, 1_000_000, 5
THINK_S = 0.002


def measure(sizes: Sizes, folder: Path, report: Report) -> None:
    """The rates of both at both sizes; then the longest small write beside large batches."""
    counts = sorted({min(SMALL, sizes.records), sizes.records})
    shares = []
    for count in counts:
        ours = _ours(folder / f"ours-{count}", count, sizes)
        bare = _bare(folder / f"bare-{count}", count, sizes)
        shares.append(ours / bare)
        report.figure(f"edits: {count:,} records", ours, "changes/s", f"random edits, batches of {BATCH}")
        report.figure(f"edits: {count:,} records, bare LMDB", bare, "changes/s", "the same rows, one thread")
    kept = shares[-1] / shares[0]
    says = f"from {counts[0]:,} to {counts[-1]:,} records at least {SHARE_MIN:g} of what bare LMDB keeps of its rate"
    report.target(says, f"{kept:.2f}", sizes.judged(kept >= SHARE_MIN))
    large = LARGE_RECORDS if sizes.full else TINY_RECORDS
    bare_ms = _bare_large(folder / "large-bare", large)
    small_ms = _beside_large(folder / "large", large)
    report.figure("edits: the longest small write beside batches of 64 MiB", small_ms, "ms", f"median of {ROUNDS}")
    report.figure("edits: the same bytes in bare LMDB", bare_ms, "ms", f"one transaction, median of {ROUNDS}")
    says = "a small write waits for a batch of 64 MiB no longer than bare LMDB takes for its bytes"
    report.target(says, f"{small_ms:.0f} of {bare_ms:.0f} ms", sizes.judged(small_ms <= bare_ms))


def _ours(folder: Path, count: int, sizes: Sizes) -> float:
    chance = random.Random(2)
    with Engine.open(folder, BENCH_CONFIG) as engine:
        engine.create_branch(BRANCH)
        fill(engine, count)
        batches = [[record(chance.randrange(count), chance) for _ in range(BATCH)] for _ in range(20)]
        turns = iter(range(1 << 30))
        return rate(lambda: engine.write(BRANCH, list(batches[next(turns) % 20]), timeout_s=60).count, sizes.seconds)


def _bare(folder: Path, count: int, sizes: Sizes) -> float:
    folder.mkdir()
    env = lmdb.open(str(folder), map_size=64 << 30, max_dbs=3)
    records, journal, heads = (env.open_db(name) for name in (b"records", b"journal", b"heads"))
    chance, value, chunk, digest = random.Random(2), bytes(RECORD_BYTES), bytes(CHUNK_BYTES), bytes(DIGEST_BYTES)
    keys = list(range(count))
    chance.shuffle(keys)
    for start in range(0, count, BATCH):
        with env.begin(write=True) as txn:
            for n in keys[start : start + BATCH]:
                txn.put(b"%016x" % n, value, db=records)
    lsn = 0

    def edit() -> int:
        nonlocal lsn
        with env.begin(write=True) as txn:
            for _ in range(BATCH):
                txn.put(b"%016x" % chance.randrange(count), value, db=records)
            for _ in range(0, BATCH, CHUNK_CHANGES):
                lsn += 1
                txn.put(b"%016x" % lsn, chunk, db=journal)
            txn.put(b"digest", digest, db=heads)
        return BATCH

    found = rate(edit, sizes.seconds)
    env.close()
    return found


def _bare_large(folder: Path, records: int) -> float:
    """Records and journal of a large batch."""
    folder.mkdir()
    env = lmdb.open(str(folder), map_size=8 << 30, max_dbs=2)
    kinds = [env.open_db(name) for name in (b"records", b"journal")]
    value, took = bytes(LARGE_BYTES), []
    for turn in range(ROUNDS):
        begun = time.perf_counter()
        with env.begin(write=True) as txn:
            for n in range(records):
                for number, db in enumerate(kinds):
                    txn.put(b"%08d %08d" % (turn * number, n), value, db=db)
        took.append((time.perf_counter() - begun) * 1000)
    env.close()
    return quantile(took, 0.5)


def _beside_large(folder: Path, records: int) -> float:
    longest: list[float] = []
    with Engine.open(folder, BENCH_CONFIG) as engine:
        for name in ("large", "small"):
            engine.create_branch(name)
        for _ in range(ROUNDS):
            large = [Put(TYPE, f"r{n}", {"text": "x" * LARGE_BYTES}) for n in range(records)]
            longest.append(_longest(engine, partial(engine.write, "large", large, timeout_s=120)))
    return quantile(longest, 0.5)


def _longest(engine: Engine, beside: Callable[[], object]) -> float:
    """The longest small write, in milliseconds, while something goes on."""
    ended, took = threading.Event(), [0.0]

    def write() -> None:
        while not ended.is_set():
            begun = time.perf_counter()
            engine.write("small", [Put(TYPE, "r", {"text": "small"})], timeout_s=60)
            took.append((time.perf_counter() - begun) * 1000)
            ended.wait(THINK_S)

    writer = threading.Thread(target=write)
    writer.start()
    beside()
    ended.set()
    writer.join()
    return max(took)
