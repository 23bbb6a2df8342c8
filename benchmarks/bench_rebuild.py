"""Benchmark 2, a whole rebuild: stalls of writers and readers, its speed, its memory.

    python -m benchmarks.bench_rebuild [--records 100000] [--rebuilds 5]

Rates are measured without load: of the copy (rows a second, from the start of the first worker's copy to the end of the
last), and of the whole build up to BUILT. Against: the backend's own `load` of the same records from memory by one bare
thread with the same pacing, and plain SQLite (`executemany` into one FTS5 table, one transaction for 10,000 rows).
Stalls are measured under 2 writers and 2 readers from start to switched, in windows of 0.25 s as in benchmark 1.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.bench_switch import READERS, WINDOW_S, WRITERS
from benchmarks.common import BENCH_CONFIG, BRANCH, KIND, TYPE, Report, Window, fill, quantile, quiet_windows, record
from benchmarks.contenders import ShadowSwitch
from benchmarks.loops import Loops, spread
from benchmarks.paths import BACKEND, OPTIONS, SHARD, create, item_of
from shadowswitch.engine.engine import Engine
from shadowswitch.model.shadow_state import ShadowState

FLUSH_ROWS = BENCH_CONFIG.copy_flush_rows
SLICE_ROWS = BENCH_CONFIG.copy_slice_rows
POLL_S = 0.004
BUILD_S = 600.0
LIMIT_SHARE = 0.9
"""A rate of at least this share of two bare loads at once counts as the limit of the machine."""


class Memory(threading.Thread):
    """The largest resident memory of this process's children together, looked at every 50 ms."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.peak_mib = 0.0

    def run(self) -> None:
        """Measure until `over` is set."""
        while not self.over.wait(0.05):
            self.peak_mib = max(self.peak_mib, sum(children_rss_mib()))


def children_rss_mib() -> Iterator[float]:
    """Resident memory, without pages of mapped files, of each child."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                words = (folder / "status").read_text().split()
                if int(words[words.index("PPid:") + 1]) == os.getpid():
                    yield int(words[words.index("RssAnon:") + 1]) / 1024
            except (OSError, ValueError):
                continue


@contextmanager
def watched() -> Iterator[Memory]:
    """Memory that is watched meanwhile."""
    memory = Memory()
    memory.start()
    try:
        yield memory
    finally:
        memory.over.set()
        memory.join()


def raw_backend(folder: Path, records: int, ready: Callable[[], object] = lambda: None) -> float:
    """Rows a second of the backend's own bulk load, from memory. `ready` is called when the records are made."""
    chance = random.Random(1)
    items = [item_of(record(n, chance), n + 1) for n in range(records)]
    items.sort(key=lambda item: item.key_hash >> 58)  # the catalog's order: by bucket
    path = create(folder / "raw")
    ready()
    begun = time.perf_counter()
    writer = BACKEND.open_writer(path / SHARD, OPTIONS)
    for start in range(0, records, SLICE_ROWS):
        writer.load(items[start : start + SLICE_ROWS], b"x")
        if (start + SLICE_ROWS) % FLUSH_ROWS == 0:
            writer.flush()
    writer.finish_load(records)
    writer.flush()
    took = time.perf_counter() - begun
    assert writer.state().digest.count == records
    writer.close()
    return records / took


def two_raw_backends(folder: Path, records: int) -> float:
    """The same by two processes at once, half of the records each: what a second core can bring here."""
    processes = multiprocessing.get_context("spawn")
    both, rates = processes.Barrier(2), processes.Queue()
    loads = [
        processes.Process(target=_raw_half, args=(folder / str(number), records // 2, both, rates))
        for number in range(2)
    ]
    for load in loads:
        load.start()
    found = [float(rates.get(timeout=BUILD_S)) for _ in loads]
    for load in loads:
        load.join(BUILD_S)
    return sum(found)


def _raw_half(folder: Path, records: int, both: Any, rates: Any) -> None:
    folder.mkdir()
    rates.put(raw_backend(folder, records, both.wait))


def plain_sqlite(folder: Path, records: int) -> float:
    """Rows a second of SQLite FTS5 as its manual shows it."""
    chance = random.Random(1)
    rows = [(put.id, "\n".join(map(str, put.fields.values()))) for put in (record(n, chance) for n in range(records))]
    connection = sqlite3.connect(folder / "plain.sqlite", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("CREATE VIRTUAL TABLE fts USING fts5(id UNINDEXED, body, tokenize='porter')")
    begun = time.perf_counter()
    for start in range(0, records, FLUSH_ROWS):
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO fts VALUES(?, ?)", rows[start : start + FLUSH_ROWS])
        connection.execute("COMMIT")
    took = time.perf_counter() - begun
    assert connection.execute("SELECT count(*) FROM fts").fetchone() == (records,)
    connection.close()
    return records / took


def build(engine: Engine, records: int, workers: int) -> tuple[float, float]:
    """One build without load, cancelled when BUILT: seconds of its copy, and of all."""
    config = {"backend": "fts5", "tokenizer": "porter", "parallel_workers": workers, "shards": workers}
    begun = time.perf_counter()
    shadow = engine.start_build(BRANCH, KIND, [TYPE], config, seed="never").shadow_index_id
    copy_begun = copy_ended = 0.0
    while True:
        seen, now = engine.shadow(shadow), time.perf_counter()
        copying = seen.state is ShadowState.BUILDING and seen.phase == "copying"
        if copying and not copy_begun:
            copy_begun = now
        if not copying and copy_begun and not copy_ended:
            copy_ended = now
        if seen.state not in (ShadowState.PREPARING, ShadowState.BUILDING):
            break
        time.sleep(POLL_S)
    built = time.perf_counter()
    assert seen.state is ShadowState.BUILT, f"{seen.state}: {seen.error}"
    assert seen.record_count == records, f"{seen.record_count} of {records} records"
    engine.cancel_build(shadow, "benchmark")
    return (copy_ended or built) - (copy_begun or begun), built - begun


def rates(report: Report, folder: Path, records: int, rounds: int) -> None:
    """How fast builds are, beside the raw backend."""
    raw = quantile([_apart(folder, n, raw_backend, records) for n in range(rounds)], 0.5)
    plain = quantile([_apart(folder, n, plain_sqlite, records) for n in range(rounds)], 0.5)
    two = quantile([_apart(folder, n, two_raw_backends, records) for n in range(rounds)], 0.5)
    alone = quantile([_apart(folder, n, raw_backend, records // 2) for n in range(rounds)], 0.5)
    limit = two / alone
    report.figure("raw backend, bulk load from memory, one thread", raw, "rows/s", f"median of {rounds}")
    report.figure("raw backend, two processes at once", two, "rows/s", f"{limit:.2f} times one that loads half as much")
    report.figure("plain SQLite FTS5, executemany", plain, "rows/s", f"median of {rounds}")
    copy: dict[int, float] = {}
    with Engine.open(folder / "rates", BENCH_CONFIG) as engine:
        engine.create_branch(BRANCH)
        fill(engine, records)
        before = common.size_mib(folder / "rates" / "generations")
        build(engine, records, 2)  # warm: the worker processes stay
        for workers in (1, 2, 4):
            with watched() as memory:
                times = [build(engine, records, workers) for _ in range(rounds)]
            copy[workers] = records / quantile([seconds for seconds, _ in times], 0.5)
            whole = records / quantile([seconds for _, seconds in times], 0.5)
            report.figure(f"copy, {workers} worker(s)", copy[workers], "rows/s", f"median of {rounds}, no load")
            report.figure(f"whole build to BUILT, {workers} worker(s)", whole, "rows/s", "with validation")
            report.figure(f"peak memory of the workers, {workers}", memory.peak_mib, "MiB", "anonymous, together")
        result = engine.rebuild(BRANCH, KIND, [TYPE], {"backend": "fts5", "tokenizer": "porter"}, seed="never")
        assert result.success, result.message
        index = common.size_mib(Path(result.new_index_path or ""))
        catalog = common.size_mib(folder / "rates" / "catalog")
        report.figure("disk: catalog, one index", f"{catalog:.0f}, {index:.0f}", "MiB", f"{before:.0f} MiB before")
        report.problems += [str(finding) for finding in engine.check()]
    share, gain = copy[1] / raw, copy[2] / copy[1]
    report.target("build with one worker at least 0.8 of the raw backend", f"{share:.2f}", share >= 0.8)
    said = f"{gain:.2f}; two bare loads at once reach {limit:.2f}"
    met = gain >= min(1.6, LIMIT_SHARE * limit)
    report.target("two workers at least 1.6 times one, or 0.9 of what two bare loads reach", said, met)


def _apart(folder: Path, number: int, measure: object, records: int) -> float:
    """In a folder of its own, which is removed."""
    assert callable(measure)
    with common.scratch(str(folder)) as place:
        return float(measure(place, records))


def stalls(report: Report, folder: Path, records: int, rebuilds: int, window_s: float) -> None:
    """What writers and readers feel of whole rebuilds."""
    ours = ShadowSwitch(folder, records, {"backend": "fts5", "tokenizer": "porter", "parallel_workers": 1})
    try:
        spans: list[Window] = []
        with Loops(ours.write, ours.read, WRITERS, READERS) as loops:
            quiet = quiet_windows(4 * rebuilds, window_s)
            for _ in range(rebuilds):
                begun = time.perf_counter()
                config = {"backend": "fts5", "tokenizer": "porter", "parallel_workers": 1}
                result = ours.engine.rebuild(BRANCH, KIND, [TYPE], config, timeout_s=BUILD_S, seed="never")
                spans.append((begun, time.perf_counter()))
                assert result.success, result.message
                quiet += quiet_windows(2 * rebuilds, window_s)
        verdict = ours.ledger.audit_whole(BRANCH, ours.held())
        report.problems += loops.errors + [str(finding) for finding in ours.engine.check()]
        if verdict.lost or verdict.revived:
            report.problems.append(f"{len(verdict.lost)} lost, {len(verdict.revived)} revived")
        for role, gaps in (("writer", loops.writer_gaps), ("reader", loops.reader_gaps)):
            still = gaps(quiet)
            worst = [max(gaps([span])) for span in spans]
            inside = gaps([window for span in spans for window in _cut(span, window_s)])
            report.figure(f"{role} stall, quiet", spread(still), "ms", f"windows of {window_s:g} s: p50 / p99 / max")
            report.figure(f"{role} stall while rebuilding", spread(inside), "ms", f"windows of {window_s:g} s")
            report.figure(f"worst {role} stall of a whole rebuild", quantile(worst, 0.5), "ms", "median over rebuilds")
            if role == "writer":
                ratio = quantile(worst, 0.5) / quantile(still, 0.99)
                said = f"{quantile(worst, 0.5):.1f} ms, quiet p99 {quantile(still, 0.99):.1f} ms: {ratio:.2f} times"
                says = "worst writer stall over a whole rebuild (median) at most 3 times quiet p99"
                report.target(says, said, ratio <= 3.0)
        lengths = [end - begin for begin, end in spans]
        report.figure("rebuild under load, start to switched", quantile(lengths, 0.5), "s", f"median of {rebuilds}")
    finally:
        ours.close()


def _cut(span: Window, window_s: float) -> list[Window]:
    begin, end = span
    pieces = max(1, int((end - begin) / window_s))
    return [(begin + n * window_s, begin + (n + 1) * window_s) for n in range(pieces)]


def main() -> int:
    """The command."""
    parser = common.arguments(__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--rebuilds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3, help="builds of each kind without load")
    parser.add_argument("--window-s", type=float, default=WINDOW_S)
    options = parser.parse_args()
    report = Report("2. Whole rebuild", f"{options.records:,} records of about 200 bytes, fts5 with porter")
    with common.scratch(options.folder) as folder:
        rates(report, folder, options.records, options.rounds)
    with common.scratch(options.folder) as folder:
        stalls(report, folder, options.records, options.rebuilds, options.window_s)
    return common.finish(report, options)


if __name__ == "__main__":
    sys.exit(main())
