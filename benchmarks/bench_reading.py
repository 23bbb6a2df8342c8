"""Benchmark 5, reading: what a pin costs, searching through a reader beside the raw backend, edit to searchable.

    python -m benchmarks.bench_reading [--records 100000]

The raw backend is its own reader on the same files in the same thread; plain SQLite is a connection of the sqlite3
module that ranks the same words with bm25 and fetches the same columns. Ours opens a reader, searches and closes it
each time. The three take turns over the same queries, and must find the same. Then the index is searched while it is
written to without a pause: housekeeping must keep its pieces few.
"""

from __future__ import annotations

import random
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import common
from benchmarks.common import BENCH_CONFIG, BRANCH, KIND, TYPE, Report, each_us, fill, quantile, record
from benchmarks.contenders import words
from benchmarks.loops import Loops
from benchmarks.paths import BACKEND, OPTIONS
from shadowswitch.engine.engine import Engine
from shadowswitch.storage.backends.fts5.store import FILE

PARTS = 10
PLAIN = (
    "SELECT docs.type, docs.id, bm25(fts), docs.lsn FROM fts JOIN docs ON docs.rowid = fts.rowid"
    " WHERE fts MATCH ? ORDER BY rank LIMIT 10"
)


def pins(report: Report, engine: Engine, times: int) -> None:
    """Opening and closing a reader."""

    def pin() -> None:
        engine.reader(BRANCH, KIND).close()

    cost = each_us(pin, times)
    report.figure("pin and unpin", cost, "µs", f"engine.reader(...).close(), median of 5 rounds of {times // 5}")
    report.target("pin and unpin at most 10 microseconds together", f"{cost:.1f} µs", cost <= 10.0)


def searches(report: Report, engine: Engine, path: Path, queries: list[str], rounds: int) -> None:
    """The same queries three ways, in turns."""
    raw = BACKEND.open_reader([path / "shard-000"], OPTIONS)
    plain = sqlite3.connect(f"file:{path / 'shard-000' / FILE}?mode=ro", uri=True)

    def ours(query: str) -> list[str]:
        with engine.reader(BRANCH, KIND) as reader:
            return [hit.id for hit in reader.search(query, limit=10)]

    def backend(query: str) -> list[str]:
        return [hit.id for hit in raw.search(query, 10)]

    def sql(query: str) -> list[str]:
        return [row[1] for row in plain.execute(PLAIN, (query,)).fetchall()]

    for query in queries:
        if set(ours(query)) != set(backend(query)) or len(ours(query)) != len(sql(query)):
            report.problems.append(f"a search for {query!r} finds another number of records")
    mean = in_turns({"ours": ours, "backend": backend, "sql": sql}, queries, rounds)
    says = f"two words of 5,000; median of {rounds} for each query, mean over the queries"
    report.figure("search through a reader, pin included", mean["ours"], "µs", says)
    report.figure("search, raw backend", mean["backend"], "µs")
    report.figure("search, plain SQLite", mean["sql"], "µs")
    ratio = mean["backend"] / mean["ours"]
    report.target("search at least 0.9 of the raw backend", f"{ratio:.2f}", ratio >= 0.9)
    raw.close()
    plain.close()


def in_turns(ways: dict[str, Callable[[str], object]], queries: list[str], rounds: int) -> dict[str, float]:
    """Microseconds of one search each way; for each query the ways take turns at going first."""
    total = dict.fromkeys(ways, 0.0)
    for query in queries:
        took: dict[str, list[float]] = {name: [] for name in ways}
        order = list(ways)
        for _ in range(rounds):
            order.append(order.pop(0))
            for name in order:
                begun = time.perf_counter()
                ways[name](query)
                took[name].append((time.perf_counter() - begun) * 1e6)
        for name, times in took.items():
            total[name] += quantile(times, 0.5)
    return {name: total[name] / len(queries) for name in ways}


def search_while_written(report: Report, engine: Engine, records: int, seconds: float) -> None:
    """Two writers without an end: what a search takes at first, and what after a while, when the index has been written
    to again and again."""

    def write(chance: random.Random) -> None:
        engine.write(BRANCH, [record(chance.randrange(records), chance)])

    def read(chance: random.Random) -> None:
        with engine.reader(BRANCH, KIND) as reader:
            reader.search(words(chance), limit=10)

    with Loops(write, read, 2, 1) as loops:
        begun = time.perf_counter()
        time.sleep(seconds)
    (loop,) = loops.readers
    taken = list(zip(loop.done, loop.took_ms, strict=True))
    ends = max(loop.done, default=begun)
    share = seconds / PARTS
    first = quantile([ms for done, ms in taken if done <= begun + share], 0.5)
    last = quantile([ms for done, ms in taken if done >= ends - share], 0.5)
    says = f"median of the first and of the last {share:g} s of {seconds:g} s; 2 writers and the reader think 1 ms"
    report.figure("search under steady writing", f"{first:.2f} / {last:.2f}", "ms", says)
    said = f"{last / first:.2f} times" if first else "no search ended"
    report.target("search under steady writing at most twice what it took at first", said, bool(last <= 2 * first))
    report.problems += loops.errors


def edit_to_searchable(report: Report, engine: Engine, records: int, times: int) -> None:
    """From the call of write until a search finds it: by looking again and again, and by asking for the LSN."""
    chance = random.Random(3)
    looking, asking = [], []
    for n in range(times):
        change = record(chance.randrange(records), chance, marker=f"look{n}")
        begun = time.perf_counter()
        lsn = engine.write(BRANCH, [change]).lsn
        while True:
            with engine.reader(BRANCH, KIND) as reader:
                if [hit.lsn for hit in reader.search(f"look{n}")] == [lsn]:
                    break
            time.sleep(0.001)
        looking.append((time.perf_counter() - begun) * 1000)
        change = record(chance.randrange(records), chance, marker=f"ask{n}")
        begun = time.perf_counter()
        lsn = engine.write(BRANCH, [change]).lsn
        with engine.reader(BRANCH, KIND, min_lsn=lsn) as reader:
            found = [hit.lsn for hit in reader.search(f"ask{n}")]
        asking.append((time.perf_counter() - begun) * 1000)
        if found != [lsn]:
            report.problems.append(f"an edit at LSN {lsn} was asked for and not found")
    says = f"write included; refresh_interval_ms {BENCH_CONFIG.refresh_interval_ms:g}"
    for name, times_ms in (("edit to searchable", looking), ("edit to searchable with min_lsn", asking)):
        cuts = f"{quantile(times_ms, 0.5):.1f} / {quantile(times_ms, 0.99):.1f}"
        report.figure(name, cuts, "ms", f"p50 / p99, {says}")


def main() -> int:
    """The command."""
    parser = common.arguments(__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--pins", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--edits", type=int, default=200)
    parser.add_argument("--written-s", type=float, default=30.0)
    options = parser.parse_args()
    report = Report("5. Reading", f"{options.records:,} records of about 200 bytes, fts5 with porter, one shard")
    chance = random.Random(2)
    queries = [words(chance) for _ in range(options.queries)]
    with common.scratch(options.folder) as folder, Engine.open(folder / "data", BENCH_CONFIG) as engine:
        engine.create_branch(BRANCH)
        fill(engine, options.records)
        result = engine.rebuild(BRANCH, KIND, [TYPE], {**OPTIONS, "parallel_workers": 1})
        assert result.success, result.message
        pins(report, engine, options.pins)
        searches(report, engine, Path(result.new_index_path or ""), queries, options.rounds)
        search_while_written(report, engine, options.records, options.written_s)
        edit_to_searchable(report, engine, options.records, options.edits)
        report.problems += [str(finding) for finding in engine.check()]
    return common.finish(report, options)


if __name__ == "__main__":
    sys.exit(main())
