"""Benchmark 16, the tantivy backend beside bare Tantivy and fts5: build and search, side by side on the same records.

    python -m benchmarks.bench_tantivy [--sizes 100000,1000000] [--rounds 3,1]

Bare Tantivy has the same fields, analyzed alike, and stores type and id of each document. A machine that is busy makes
all of them slower, so read the ratios.
"""

from __future__ import annotations

import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import accumulate
from pathlib import Path

import tantivy

from benchmarks import common
from benchmarks.common import Report, quantile
from shadowswitch.model.digest import key_hash
from shadowswitch.model.records import Item
from shadowswitch.storage.backends import registry
from shadowswitch.storage.backends.protocol import IndexReader

SLICE, HITS, TURNS = 1_000, 10, 3
WORDS = 30_000
NAMES = {"bare": "bare Tantivy", "tantivy": "`tantivy`", "fts5": "`fts5`"}
Search = Callable[[str], int]


def items_of(count: int) -> list[Item]:
    """Records of 5 to 60 words, which are as frequent as their rank says (Zipf)."""
    chance, weights = random.Random(1), list(accumulate(1 / rank for rank in range(1, WORDS + 1)))
    words = [f"w{rank}" for rank in range(WORDS)]
    texts = (" ".join(chance.choices(words, cum_weights=weights, k=chance.randint(5, 60))) for _ in range(count))
    keys = [f"id-{number}" for number in range(count)]
    return [
        Item(lsn, "doc", id, key_hash("doc", id), {"text": text})
        for lsn, (id, text) in enumerate(zip(keys, texts, strict=True), 1)
    ]


def queries() -> list[str]:
    """One word, and two."""
    chance = random.Random(2)
    one = [f"w{int(10 ** chance.uniform(0.5, 4))}" for _ in range(150)]
    return one + [f"w{int(10 ** chance.uniform(0.5, 3.3))} w{int(10 ** chance.uniform(0.5, 3.3))}" for _ in range(150)]


def bare(folder: Path, items: list[Item]) -> tuple[float, Search]:
    """Bare Tantivy: the seconds of its build, and its search."""
    builder = tantivy.SchemaBuilder().add_text_field("type", stored=True, tokenizer_name="raw", index_option="basic")
    builder = builder.add_text_field("id", stored=True, tokenizer_name="raw", index_option="basic")
    schema = builder.add_text_field("text").build()
    index = tantivy.Index(schema, str(folder))
    begun = time.perf_counter()
    writer = index.writer(50_000_000, 1)
    for item in items:
        document = tantivy.Document()
        document.add_text("type", item.resource_type)
        document.add_text("id", item.id)
        document.add_text("text", (item.fields or {})["text"])
        writer.add_document(document)
    writer.commit()
    taken = time.perf_counter() - begun
    index.reload()
    searcher = index.searcher()

    def search(query: str) -> int:
        words = [tantivy.Query.term_query(schema, "text", word) for word in query.split()]
        wanted = tantivy.Query.boolean_query([(tantivy.Occur.Must, word) for word in words])
        hits = searcher.search(wanted, HITS, count=False).hits
        return len([(searcher.doc(address).to_dict(), score) for score, address in hits])

    return taken, search


def ours(backend: str, folder: Path, items: list[Item]) -> tuple[float, IndexReader]:
    """A shard of a backend: the seconds of its load, and a reader."""
    found = registry.backend(backend)
    options = found.configure({})
    found.create_shard(folder / "shard", options)
    with closing(found.open_writer(folder / "shard", options)) as writer:
        begun = time.perf_counter()
        for first in range(0, len(items), SLICE):
            writer.load(items[first : first + SLICE], b"c")
        writer.finish_load(len(items))
        taken = time.perf_counter() - begun
    return taken, found.open_reader([folder / "shard"], options)


def times_of(search: Search) -> Iterator[float]:
    """The milliseconds of each query, by the processor time of this thread. Each is asked several times: a host is up
    for long, and its pages are in memory."""
    for query in queries() * TURNS:
        begun = time.thread_time()
        search(query)
        yield (time.thread_time() - begun) * 1000


def one_round(folder: Path, items: list[Item]) -> dict[str, tuple[float, list[float]]]:
    """By way: the records that it builds in a second, and the milliseconds of its searches."""
    (folder / "bare").mkdir()
    seconds, search = bare(folder / "bare", items)
    found = {"bare": (len(items) / seconds, list(times_of(search)))}
    for backend in ("tantivy", "fts5"):
        (folder / backend).mkdir()
        seconds, reader = ours(backend, folder / backend, items)
        with closing(reader):
            found[backend] = len(items) / seconds, list(times_of(partial(_count, reader)))
    return found


def _count(reader: IndexReader, query: str) -> int:
    return len(reader.search(query, HITS))


def measure(report: Report, records: int, count: int, folder: Path) -> None:
    """So many rounds with so many records."""
    items, rounds = items_of(records), []
    for number in range(count):
        place = folder / f"{records}-{number}"
        place.mkdir()
        rounds.append(one_round(place, items))
        shutil.rmtree(place)
    rate = {way: quantile([found[way][0] for found in rounds], 0.5) for way in rounds[0]}
    times = {way: [ms for found in rounds for ms in found[way][1]] for way in rounds[0]}
    lines = []
    for way in rounds[0]:
        cuts = " | ".join(f"{quantile(times[way], cut):.2f}" for cut in (0.5, 0.99))
        lines.append(f"| {NAMES[way]} | {rate[way]:,.0f} | {rate[way] / rate['bare']:.2f} | {cuts} |")
    what = f"{records:,} records, {len(rounds)} rounds"
    head = f"| {what} | records/s of a build | by bare | search p50 ms | p99 |\n|---|---|---|---|---|\n"
    report.text += head + "\n".join(lines) + "\n\n"
    ratio = quantile(times["tantivy"], 0.5) / quantile(times["bare"], 0.5)
    report.target(f"search p50 at most 1.2 times bare Tantivy, {records:,} records", f"{ratio:.2f}", ratio <= 1.2)
    built = rate["tantivy"] / rate["bare"]
    report.target(f"build at least 0.8 of bare Tantivy, {records:,} records", f"{built:.2f}", built >= 0.8)


def main() -> int:
    """The command."""
    parser = common.arguments(__doc__)
    parser.add_argument("--sizes", default="100000,1000000")
    parser.add_argument("--rounds", default="3,1", help="of each size")
    options = parser.parse_args()
    report = Report("16. Tantivy", "records of 5 to 60 words, Zipf; one shard, one thread")
    sizes, rounds = (list(map(int, given.split(","))) for given in (options.sizes, options.rounds))
    with common.scratch(options.folder) as folder:
        for records, count in zip(sizes, rounds, strict=True):
            measure(report, records, count, folder)
    report.text += "Searches by the time of their thread.\n"
    return common.finish(report, options)


if __name__ == "__main__":
    sys.exit(main())
