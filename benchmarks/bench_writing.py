"""Benchmark 3, writing: acknowledged durable writes a second, beside raw LMDB group commit in a bare thread.

    python -m benchmarks.bench_writing [--writers 1,4,16,64] [--seconds 2]

Writers in threads, closed loop without thought, new records of about 220 bytes, one at a time and in batches of 100.
The raw side does what any group commit must: callers hand bytes to one thread through a queue, it puts all it finds
into one LMDB transaction, commits, and wakes them; it keeps no digest, no locks and no order across batches. The same
with a second table that gets every change again, as a journal does, is the limit that this disk sets. They take turns,
and the median of the rounds counts.
"""

from __future__ import annotations

import itertools
import queue
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


def measure(write: WriteBatch, writers: int, batch: int, seconds: float, prefix: str) -> Speed:
    """Closed loops of that many writers; every id is new."""
    numbers = itertools.count()

    def step(_: object) -> None:
        start = next(numbers) * batch
        write([f"{prefix}{start + n:08d}" for n in range(batch)])

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


class Totals:
    """What both sides must hold in the end."""

    def __init__(self, engine: Engine, raw: RawLmdb, logged: RawLmdb) -> None:
        self.engine = engine
        self.raw = raw
        self.logged = logged

    def ours(self, ids: list[str]) -> None:
        """One durable batch of ours."""
        self.engine.write(BRANCH, [Put(TYPE, id, {"title": id, "body": TEXT}) for id in ids], timeout_s=60)


def compare(
    report: Report, both: Totals, writers: int, batch: int, seconds: float, rounds: int
) -> tuple[float, float, float]:
    """Ours, raw, and raw with a journal, in turns: changes a second."""
    found: dict[str, list[Speed]] = {"ours": [], "raw": [], "logged": []}
    for turn in range(rounds):
        prefix = f"{writers}-{batch}-{turn}-"
        found["ours"].append(measure(both.ours, writers, batch, seconds, prefix))
        found["raw"].append(measure(both.raw.write, writers, batch, seconds, prefix))
        if batch > 1 or writers == 16:
            found["logged"].append(measure(both.logged.write, writers, batch, seconds, prefix))
    rate = {name: quantile([speed.rate for speed in speeds], 0.5) for name, speeds in found.items()}
    what = f"{writers} writer(s), batches of {batch}" if batch > 1 else f"{writers} writer(s), single writes"
    for name, says in (("ours", "shadowswitch"), ("raw", "raw LMDB"), ("logged", "raw LMDB with a journal")):
        if found[name]:
            report.figure(f"{what}: {says}", rate[name], "changes/s", f"durable, median of {rounds} turns")
            times = [ms for speed in found[name] for ms in speed.latencies]
            cuts = " / ".join(f"{quantile(times, share):.2f}" for share in (0.5, 0.99, 0.999))
            report.figure(f"{what}: {says}, latency", cuts, "ms", "p50 / p99 / p99.9 of one write")
    report.figure(f"{what}: ratio", rate["ours"] / rate["raw"] if rate["raw"] else 0.0, "of raw")
    return rate["ours"], rate["raw"], rate["logged"]


def run(report: Report, folder: Path, writers: list[int], seconds: float, rounds: int) -> None:
    """All sizes; then everything must be there."""
    raw, logged = RawLmdb(folder / "raw"), RawLmdb(folder / "logged", journal=True)
    with Engine.open(folder / "data", BENCH_CONFIG) as engine:
        engine.create_branch(BRANCH)
        both = Totals(engine, raw, logged)
        single = {n: compare(report, both, n, 1, seconds, rounds) for n in writers}
        hundred = {n: compare(report, both, n, 100, seconds, rounds) for n in writers}
        written = engine.stats()["counters"]["changes"]
        if engine.count(BRANCH) != written:
            report.problems.append(f"{written} records were acknowledged, the branch has {engine.count(BRANCH)}")
    if not raw.count():
        report.problems.append("the raw side stored nothing")
    raw.close()
    logged.close()
    if 16 in single:
        ratio = single[16][0] / single[16][1]
        report.target("at least 0.7 of raw LMDB group commit at 16 writers", f"{ratio:.2f}", ratio >= 0.7)
    if 4 in hundred:
        ours, _, limit = hundred[4]
        said = f"{ours:,.0f} changes/s; raw LMDB with a journal {limit:,.0f}"
        met = ours >= 100_000 or ours >= 0.9 * limit
        report.target("100,000 changes/s in batches of 100 by 4 writers, or the limit of the disk", said, met)


def main() -> int:
    """The command."""
    parser = common.arguments(__doc__)
    parser.add_argument("--writers", default="1,4,16,64")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    report = Report("3. Writing", "records of about 220 bytes, each write durable when it returns")
    with common.scratch(options.folder) as folder:
        writers = [int(n) for n in options.writers.split(",")]
        run(report, folder, writers, options.seconds, options.rounds)
    return common.finish(report, options)


if __name__ == "__main__":
    sys.exit(main())
