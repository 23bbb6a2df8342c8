"""Benchmark 15, search: the query language beside bare SQLite, filters, pages, what is shown of hits, Korean.

    python -m benchmarks.bench_search [--records 100000] [--rounds 5]

The words of the records are distributed as in a language (Zipf). Bare SQLite is a connection of the sqlite3 module on
the same files, which gets the same expression, ranks with bm25 and fetches the same columns; the two take turns.
Ours is `Reader.search` of an open reader. Then the costliest queries of 4,000 characters, beside a plain one.

Korean: 1,500 paragraphs with 20 judged queries, where SHADOWSWITCH_KOREAN names a folder with `korean-paragraphs.jsonl`
and `korean-judgments.jsonl`; the truth is that each word of the query begins a word of the text.
"""

from __future__ import annotations

import json
import math
import os
import random
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.common import BATCH, BENCH_CONFIG, BRANCH, KIND, TYPE, Report, quantile
from benchmarks.paths import BACKEND
from shadowswitch.engine.engine import Engine
from shadowswitch.engine.reader import Reader
from shadowswitch.model.records import Put
from shadowswitch.storage.backends.fts5 import nouns
from shadowswitch.storage.backends.fts5.options import Layout
from shadowswitch.storage.backends.fts5.query import parse
from shadowswitch.storage.backends.fts5.store import FILE

VOCABULARY = 20_000
ZIPF = 1.07
WORDS = [f"w{rank}" for rank in range(1, VOCABULARY + 1)]
WEIGHTS = list(accumulate(1 / rank**ZIPF for rank in range(1, VOCABULARY + 1)))
KOREAN = "SHADOWSWITCH_KOREAN"
PLAIN = (
    "SELECT docs.type, docs.id, bm25(fts), docs.lsn FROM fts JOIN docs ON docs.rowid = fts.rowid"
    " WHERE fts MATCH ? ORDER BY rank LIMIT 10"
)
TRIES = 7
"""Of each of the costliest queries."""


def text(chance: random.Random, words: int) -> str:
    """So many words."""
    return " ".join(chance.choices(WORDS, cum_weights=WEIGHTS, k=words))


def records(count: int) -> Iterator[list[Put]]:
    """The records in batches; a tenth of them has `tenth` 0."""
    chance = random.Random(7)
    for first in range(0, count, BATCH):
        numbers = range(first, min(count, first + BATCH))
        yield [
            Put(TYPE, f"r{n:07d}", {"title": text(chance, 4), "body": text(chance, 30), "tenth": n % 10})
            for n in numbers
        ]


def middle(chance: random.Random) -> str:
    """A word that is neither one of the commonest nor one of the rarest."""
    return WORDS[chance.randrange(20, 2000)]


KINDS: dict[str, Callable[[random.Random], str]] = {
    "a word": middle,
    "two words": lambda chance: f"{middle(chance)} {WORDS[chance.randrange(5, 100)]}",
    "a phrase": lambda chance: f'"{WORDS[chance.randrange(0, 30)]} {WORDS[chance.randrange(0, 30)]}"',
    "a prefix": lambda chance: f"{WORDS[chance.randrange(100, 999)]}*",
    "OR": lambda chance: f"{middle(chance)} OR {middle(chance)}",
    "NOT": lambda chance: f"{middle(chance)} -{WORDS[chance.randrange(0, 30)]}",
    "a group": lambda chance: f"({middle(chance)} OR {middle(chance)}) {WORDS[chance.randrange(0, 50)]}",
}


def ms(call: Callable[[], object]) -> float:
    """How long one call takes."""
    begun = time.perf_counter()
    call()
    return (time.perf_counter() - begun) * 1000


def rows_of(plain: sqlite3.Connection, expression: str) -> list[Any]:
    """The best ten rows by bare SQLite."""
    return plain.execute(PLAIN, (expression,)).fetchall()


def beside_sqlite(report: Report, reader: Reader, shard: Path, layout: Layout, queries: int, rounds: int) -> None:
    """Each kind of query, ours and bare SQLite in turns."""
    plain = sqlite3.connect(f"file:{shard / FILE}?mode=ro", uri=True)
    chance, ratios, lines = random.Random(3), [], []
    for kind, made in KINDS.items():
        ours, bare = list[float](), list[float]()
        for number in range(queries):
            query = made(chance)
            expression = parse(query, layout).match
            found, rows = reader.search(query, 10), rows_of(plain, expression)
            if len(found) != len(rows):
                report.problems.append(f"{query!r} finds {len(found)} records, and {len(rows)} in bare SQLite")
            ways = [(ours, partial(reader.search, query, 10)), (bare, partial(rows_of, plain, expression))]
            for turn in range(rounds):
                for times, call in ways if (turn + number) % 2 else reversed(ways):
                    times.append(ms(call))
        ratios.append(quantile(bare, 0.5) / quantile(ours, 0.5))
        cells = [f"{quantile(times, cut):.2f}" for times in (ours, bare) for cut in (0.5, 0.99)]
        lines.append(f"| {kind} | {' | '.join(cells)} | {ratios[-1]:.2f} |")
    plain.close()
    head = "| ten hits of | ours p50 | p99 | bare SQLite p50 | p99 | bare / ours |\n|---|---|---|---|---|---|\n"
    report.text += head + "\n".join(lines) + "\n\nMilliseconds.\n"
    mean = sum(ratios) / len(ratios)
    report.target("search at least 0.9 of bare SQLite", f"{mean:.2f}, the least {min(ratios):.2f}", mean >= 0.9)


def shown(report: Report, reader: Reader, queries: int) -> None:
    """What pages, filters, fields and highlights add to a search."""
    chance = random.Random(4)
    ways: dict[str, Callable[[str], object]] = {
        "first page": lambda query: reader.search(query, 10),
        "tenth page": lambda query: reader.search(query, 10, offset=90),
        "first page, a tenth passes the filter": lambda query: reader.search(query, 10, where={"tenth": 0}),
        "first page with fields": lambda query: reader.search(query, 10, fields=True),
        "first page with highlights": lambda query: reader.search(query, 10, highlight=True),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(queries):
        query = middle(chance)
        for name, way in ways.items():
            way(query)
            took[name].append(ms(partial(way, query)))
    for name, times in took.items():
        report.figure(name, f"{quantile(times, 0.5):.2f} / {quantile(times, 0.99):.2f}", "ms", "p50 / p99, one word")
    plain, filtered = (quantile(took[name], 0.5) for name in ("first page", "first page, a tenth passes the filter"))
    says = f"{filtered / plain:.2f} times"
    report.target("a filter that a tenth passes at most twice the time of none", says, filtered <= 2 * plain)


def costliest(report: Report, reader: Reader) -> None:
    """Queries of at most 4,000 characters beside one common word."""
    plain = quantile([ms(lambda: reader.search("w1", 10)) for _ in range(TRIES)], 0.5)
    common_words = WORDS[:300]
    hostile = {
        "256 common words": " ".join(common_words),
        "256 common words, each of them enough": " OR ".join(common_words),
        "a word 1,000 times": "w1 " * 1000,
        "a word 1,000 times, each enough": "w1 OR " * 600 + "w1",
        "prefixes of one letter": "w* " * 900,
        "prefixes, each enough": " OR ".join(f"w{n}*" for n in range(1, 256)),
        "pairs, each enough": " OR ".join(f"({one} {two})" for one, two in pairwise(common_words)),
        "a long phrase": '"' + " ".join(common_words) + '"',
        "exclusions": "w1 " + " ".join(f"-{word}" for word in common_words[1:]),
        "nested groups": "(w1 OR " * 200 + "w2" + ")" * 200,
    }
    worst, lines = 0.0, []
    for name, query in hostile.items():
        took = quantile([ms(partial(reader.search, query[:4000], 10)) for _ in range(TRIES)], 0.5)
        worst = max(worst, took / plain)
        lines.append(f"| {name} | {took:.1f} | {took / plain:.1f} |")
    report.text += (
        f"\n| a query of up to 4,000 characters | ms | times one common word ({plain:.1f} ms) |\n|---|---|---|\n"
    )
    report.text += "\n".join(lines) + "\n"
    report.target("no query costs more than 20 times a plain one", f"{worst:.1f} times", worst <= 20)


def by_shards(report: Report, engine: Engine, queries: int) -> None:
    """What the statistics of two shards change of the first ten hits, beside those of the whole index in one shard."""
    chance = random.Random(5)
    asked = [KINDS["two words"](chance) for _ in range(queries)]
    found: dict[int, list[set[str]]] = {}
    for shards in (1, 2):
        build_config = {"parallel_workers": shards, "shards": shards}
        assert engine.rebuild(BRANCH, KIND, [TYPE], build_config).success
        with engine.reader(BRANCH, KIND) as reader:
            found[shards] = [{hit.id for hit in reader.search(query, 10)} for query in asked]
    same = [len(one & two) / len(one) for one, two in zip(found[1], found[2], strict=True) if one]
    says = "the share of the first ten hits that an index of one shard has as well; two words"
    report.figure("hits of two shards, as of one", f"{sum(same) / max(1, len(same)):.3f}", "", says)


def korean(report: Report, engine: Engine, folder: Path) -> None:
    """Recall, precision and nDCG@10 of each way to read Korean."""
    paragraphs, judged = (_lines(folder / f"korean-{name}.jsonl") for name in ("paragraphs", "judgments"))
    engine.create_branch("korean")
    engine.write("korean", [Put(one["resource_type"], one["id"], one["fields"]) for one in paragraphs])
    types = sorted({one["resource_type"] for one in paragraphs})
    ways: dict[str, dict[str, Any]] = {
        "whole words": {"cjk": "word"},
        "the default": {},
        "`cjk`": {"tokenizer": "cjk"},
        "`trigram`": {"tokenizer": "trigram"},
    }
    if nouns.is_installed():
        ways["`korean`"] = {"tokenizer": "korean"}
    lines = []
    for name, build_config in ways.items():
        assert engine.rebuild("korean", KIND, types, build_config).success
        with engine.reader("korean", KIND) as reader:
            scores = [_scores(reader, one["query"], set(one["relevant"])) for one in judged]
        recall, precision, ndcg = (sum(column) / len(scores) for column in zip(*scores, strict=True))
        lines.append(f"| {name} | {recall:.3f} | {precision:.3f} | {ndcg:.3f} |")
        if name == "the default":
            met = recall >= 0.97 and ndcg >= 0.97
            report.target("Korean by default: recall and nDCG@10 at least 0.97", f"{recall:.3f}, {ndcg:.3f}", met)
    report.text += "\n| Korean | recall | precision | nDCG@10 |\n|---|---|---|---|\n" + "\n".join(lines) + "\n"


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _scores(reader: Reader, query: str, relevant: set[str]) -> tuple[float, float, float]:
    hits = [hit.id for hit in reader.search(query, 2000)]
    right = len(relevant.intersection(hits))
    gained = sum(1 / math.log2(rank + 2) for rank, id in enumerate(hits[:10]) if id in relevant)
    best = sum(1 / math.log2(rank + 2) for rank in range(min(10, len(relevant))))
    return right / len(relevant), right / max(1, len(hits)), gained / best


def main() -> int:
    """The command."""
    parser = common.arguments(__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    report = Report("15. Search", f"{options.records:,} records of 34 words, Zipf {ZIPF}, of {VOCABULARY:,}; one shard")
    with common.scratch(options.folder) as folder, Engine.open(folder / "data", BENCH_CONFIG) as engine:
        engine.create_branch(BRANCH)
        for batch in records(options.records):
            engine.write(BRANCH, batch)
        result = engine.rebuild(BRANCH, KIND, [TYPE], {"parallel_workers": 1})
        assert result.success, result.message
        shard = Path(result.new_index_path or "") / "shard-000"
        layout = Layout(BACKEND.configure({}))
        with engine.reader(BRANCH, KIND) as reader:
            beside_sqlite(report, reader, shard, layout, options.queries, options.rounds)
            shown(report, reader, options.queries)
            costliest(report, reader)
        by_shards(report, engine, options.queries)
        if os.environ.get(KOREAN):
            korean(report, engine, Path(os.environ[KOREAN]))
        report.problems += [str(finding) for finding in engine.check()]
    return common.finish(report, options)


if __name__ == "__main__":
    sys.exit(main())
