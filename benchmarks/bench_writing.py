"""Benchmark 3, writing: acknowledged durable writes a second, beside raw LMDB group commit in a bare thread.

    python -m benchmarks.bench_writing [--writers 1,4,16,64] [--seconds 2] [--records 100000]

Writers in threads, closed loop without thought, records of about 220 bytes, one at a time and in batches of 100. The
usual work on an index is to edit: each write changes records drawn at random from all records. New records with growing
ids are measured for comparison. They are the best case of a B-tree by id: sixteen of them fall on one page of the raw
side. They are no special case of ours: records lie by bucket (docs/decisions/0003), and sixteen of them fall on sixteen
pages.

The raw side is a bare group commit. Callers put bytes into a queue. One thread puts all queued items into one LMDB
transaction, commits, and wakes the callers. It keeps no digest, no locks and no order across batches. The same with a
second table that gets every change again, as a journal does, is the limit of this disk. The sides take turns, and the
median of the rounds counts.
"""

from __future__ import annotations

import itertools
import queue
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import lmdb
import msgspec

from benchmarks import common
from benchmarks.common import BENCH_CONFIG, BRANCH, TYPE, Report, quantile
from benchmarks.loops import Loops
from shadowswitch.engine.engine import Engine
from shadowswitch.model.records import Put

TEXT = "word " * 40
MAP_BYTES = 16 << 30
GROUP_MAX = 5_000
LOAD_BATCH = 1_000
LIMIT_SHARE = 0.8
"""A rate of at least this share of raw LMDB with a journal counts as the limit of the disk."""
CHECKED_MAX = 200_000
"""fsck reads everything several times; beyond this size the counts must do."""

WriteBatch = Callable[[list[str]], object]


class Speed(msgspec.Struct):
    """Changes a second, and the latencies of the writes in ms."""

    rate: float
    latencies: list[float]


class RawLmdb:
    """Group commit of encoded records in a bare thread."""

    def __init__(self, folder: Path, journal: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._env = lmdb.open(str(folder), map_size=MAP_BYTES, max_dbs=2)
        self._records = self._env.open_db(b"records")
        self._journal = self._env.open_db(b"journal") if journal else None
        self._queue: queue.SimpleQueue[tuple[list[tuple[bytes, bytes]], threading.Event] | None] = queue.SimpleQueue()
        self._sequence = itertools.count(1)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def write(self, ids: list[str]) -> None:
        """Durable when it returns."""
        items = [(id.encode(), msgspec.msgpack.encode({"title": id, "body": TEXT})) for id in ids]
        done = threading.Event()
        self._queue.put((items, done))
        done.wait()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            group = [first]
            size = len(first[0])
            while size < GROUP_MAX:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    self._queue.put(None)
                    break
                group.append(more)
                size += len(more[0])
            with self._env.begin(write=True) as txn:
                for items, _ in group:
                    txn.cursor(self._records).putmulti(items)
                    if self._journal is not None:
                        log = [(next(self._sequence).to_bytes(8, "big"), value) for _, value in items]
                        txn.cursor(self._journal).putmulti(log)
            for _, done in group:
                done.set()

    def count(self) -> int:
        """Records stored."""
        with self._env.begin() as txn:
            return int(txn.stat(self._records)["entries"])

    def close(self) -> None:
        """End the thread."""
        self._queue.put(None)
        self._thread.join()
        self._env.close()


class Ids:
    """The ids to write: drawn from the existing records, or new ones in the order of their ids. Any thread."""

    def __init__(self, records: int, edits: bool, prefix: str) -> None:
        self._pool = known_ids(records) if edits else []
        self._prefix = prefix
        self._numbers = itertools.count()
        self._chance = random.Random(prefix)

    def draw(self, count: int) -> list[str]:
        """The ids of the next batch."""
        if self._pool:
            return self._chance.choices(self._pool, k=count)
        start = next(self._numbers) * count
        return [f"{self._prefix}{start + n:08d}" for n in range(count)]


def known_ids(records: int) -> list[str]:
    """The ids of the first records."""
    return [f"r{n:07d}" for n in range(records)]


def measure(write: WriteBatch, writers: int, batch: int, seconds: float, ids: Ids) -> Speed:
    """Closed loops of that many writers."""

    def step(_: object) -> None:
        write(ids.draw(batch))

    with Loops(step, None, writers, 0, think_s=0.0) as loops:
        begun = time.perf_counter()
        time.sleep(seconds)
        ended = time.perf_counter()
    if loops.errors:
        raise RuntimeError(loops.errors[0])
    inside = [
        ms for loop in loops.writers for at, ms in zip(loop.done, loop.took_ms, strict=True) if begun < at <= ended
    ]
    return Speed(len(inside) * batch / (ended - begun), inside)


class Sides:
    """Ours, raw, and raw with a journal; all begin with the same records."""

    def __init__(self, engine: Engine, folder: Path, records: int) -> None:
        self.engine = engine
        self.records = records
        self.raw, self.logged = RawLmdb(folder / "raw"), RawLmdb(folder / "logged", journal=True)
        ids = known_ids(records)
        for start in range(0, records, LOAD_BATCH):
            for write in (self._ours, self.raw.write, self.logged.write):
                write(ids[start : start + LOAD_BATCH])

    def _ours(self, ids: list[str]) -> None:
        """One durable batch of ours."""
        self.engine.write(BRANCH, [Put(TYPE, id, {"title": id, "body": TEXT}) for id in ids], timeout_s=60)

    def take_turns(
        self, report: Report, edits: bool, writers: int, batch: int, seconds: float, rounds: int
    ) -> tuple[float, float, float]:
        """Ours, raw, and raw with a journal, in turns: changes a second."""
        ways = {"shadowswitch": self._ours, "raw LMDB": self.raw.write, "raw LMDB with a journal": self.logged.write}
        found: dict[str, list[Speed]] = {way: [] for way in ways}
        for turn in range(rounds):
            for way, write in ways.items():
                ids = Ids(self.records if edits else 0, edits, f"{writers}-{batch}-{turn}-")
                found[way].append(measure(write, writers, batch, seconds, ids))
        size = f"batches of {batch}" if batch > 1 else "single writes"
        what = f"{writers} writer(s), {size}, {'edits' if edits else 'new records in order'}"
        rates = []
        for way, speeds in found.items():
            rates.append(quantile([speed.rate for speed in speeds], 0.5))
            report.figure(f"{what}: {way}", rates[-1], "changes/s", f"durable, median of {rounds} turns")
            times = [ms for speed in speeds for ms in speed.latencies]
            cuts = " / ".join(f"{quantile(times, share):.2f}" for share in (0.5, 0.99, 0.999))
            report.figure(f"{what}: {way}, latency", cuts, "ms", "p50 / p99 / p99.9 of one write")
        ours, raw, logged = rates
        said = f"{ours / raw:.2f} / {ours / logged:.2f}" if raw and logged else "nothing was written"
        report.figure(f"{what}: ratio", said, "", "of raw LMDB / of raw LMDB with a journal")
        return ours, raw, logged

    def check(self, report: Report) -> None:
        """Every acknowledged write must be there."""
        with_ours, without = self.engine.count(BRANCH), self.raw.count()
        changes = self.engine.stats()["counters"]["changes"]
        if not self.records <= with_ours <= changes:
            report.problems.append(f"the branch has {with_ours} records, {changes} changes were acknowledged")
        if without < self.records:
            report.problems.append("the raw side lost records")
        report.problems += [str(finding) for finding in self.engine.check()] if with_ours <= CHECKED_MAX else []

    def close(self) -> None:
        """End the threads."""
        self.raw.close()
        self.logged.close()


def run(report: Report, folder: Path, writers: list[int], seconds: float, rounds: int, records: int) -> None:
    """All sizes; then everything must be there."""
    with Engine.open(folder / "data", BENCH_CONFIG) as engine:
        engine.create_branch(BRANCH)
        sides = Sides(engine, folder, records)
        single = {n: sides.take_turns(report, True, n, 1, seconds, rounds) for n in writers}
        hundred = {n: sides.take_turns(report, True, n, 100, seconds, rounds) for n in writers}
        for n, batch in ((16, 1), (4, 100)):
            if n in writers:
                sides.take_turns(report, False, n, batch, seconds, rounds)
        sides.check(report)
        sides.close()
    if 16 in single:
        ours, raw, logged = single[16]
        said = f"{ours / raw:.2f}; {ours / logged:.2f} of raw LMDB with a journal"
        report.target("at least 0.7 of raw LMDB group commit at 16 writers", said, ours >= 0.7 * raw)
    if 4 in hundred:
        ours, _, limit = hundred[4]
        said = f"{ours:,.0f} changes/s; raw LMDB with a journal {limit:,.0f}: {ours / limit:.2f}"
        met = ours >= 100_000 or ours >= LIMIT_SHARE * limit
        report.target("100,000 changes/s in batches of 100 by 4 writers, or 0.8 of the limit of the disk", said, met)


def main() -> int:
    """The command."""
    parser = common.arguments(__doc__)
    parser.add_argument("--writers", default="1,4,16,64")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--records", type=int, default=100_000)
    options = parser.parse_args()
    data = f"{options.records:,} records of about 220 bytes, each write durable when it returns"
    report = Report("3. Writing", data)
    with common.scratch(options.folder) as folder:
        writers = [int(n) for n in options.writers.split(",")]
        run(report, folder, writers, options.seconds, options.rounds, options.records)
    return common.finish(report, options)


if __name__ == "__main__":
    sys.exit(main())
