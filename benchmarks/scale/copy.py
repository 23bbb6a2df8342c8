"""The load of an fts5 index as it grows, beside bare FTS5 with a table of the same columns.

The segments of FTS5 grow, and so does the cost of merging them. The load is judged by what bare FTS5 keeps of its rate.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.common import BENCH_CONFIG, TYPE, Report, record
from benchmarks.paths import BACKEND, OPTIONS, SHARD, create, item_of
from benchmarks.scale.sizes import Sizes
from shadowswitch.model.digest import key_hash
from shadowswitch.model.records import Item

PART, PARTS = 100_000, 5
SHARE_MIN = 0.8
SLICE_ROWS, FLUSH_ROWS = BENCH_CONFIG.copy_slice_rows, BENCH_CONFIG.copy_flush_rows

Load = Callable[[Sequence[Item], bool], None]
"""Store a slice; after the last slice of a flush batch, force all of them to disk."""


def measure(sizes: Sizes, folder: Path, report: Report) -> None:
    """Rows for each second of CPU of this process: over the first part of a load, and over all of it."""
    part = max(1, min(PART, sizes.records // PARTS))
    ours = _ours(folder / "ours", part)
    bare = _bare(folder, part)
    for name, rates in (("backend fts5", ours), ("bare FTS5", bare)):
        for count, found in ((part, rates[0]), (PARTS * part, rates[-1])):
            report.figure(f"copy: {name}, {count:,} rows", found, "rows/s of CPU", f"slices of {SLICE_ROWS:,}")
    kept, bare_kept = ours[-1] / ours[0], bare[-1] / bare[0]
    says = f"from {part:,} to {PARTS * part:,} rows at least {SHARE_MIN:g} of what bare FTS5 keeps of its rate"
    measured = f"{kept / bare_kept:.2f}: {kept:.2f} and {bare_kept:.2f}"
    report.target(says, measured, sizes.judged(kept >= SHARE_MIN * bare_kept))


def _ours(path: Path, part: int) -> list[float]:
    writer = BACKEND.open_writer(create(path) / SHARD, OPTIONS)

    def load(items: Sequence[Item], flush: bool) -> None:
        writer.load(items, b"x")
        if flush:
            writer.flush()

    rates = _rates(load, part)
    assert writer.state().digest.count == PARTS * part
    writer.close()
    return rates


def _bare(folder: Path, part: int) -> list[float]:
    connection = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
    for statement in (
        "PRAGMA journal_mode=WAL",
        "PRAGMA synchronous=NORMAL",
        "CREATE TABLE docs(rowid INTEGER PRIMARY KEY, kh INTEGER NOT NULL, lsn INTEGER NOT NULL, type TEXT NOT NULL,"
        " id TEXT NOT NULL, text TEXT NOT NULL)",
        "CREATE INDEX docs_by_key ON docs(kh)",
        "CREATE VIRTUAL TABLE fts USING fts5(text, content='docs', content_rowid='rowid', tokenize='porter')",
    ):
        connection.execute(statement)
    rows = 0

    def load(items: Sequence[Item], flush: bool) -> None:
        nonlocal rows
        texts = [(rows + n, "\n".join(map(str, (one.fields or {}).values()))) for n, one in enumerate(items)]
        # as the backend stores it: SQLite has no unsigned numbers of 64 bits
        kept = [
            (number, one.key_hash - (1 << 63), one.lsn, one.resource_type, one.id, text)
            for one, (number, text) in zip(items, texts, strict=True)
        ]
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO docs VALUES(?, ?, ?, ?, ?, ?)", kept)
        connection.executemany("INSERT INTO fts(rowid, text) VALUES(?, ?)", texts)
        connection.execute("COMMIT")
        rows += len(items)
        if flush:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    rates = _rates(load, part)
    assert connection.execute("SELECT count(*) FROM fts").fetchone() == (PARTS * part,)
    connection.close()
    return rates


def _rates(load: Load, part: int) -> list[float]:
    """The rate from the first row to the end of each part. All rows come by bucket, as the catalog has them.

    The making of a part does not count. The rate of a single part says little: a merge falls into one of them.
    """
    chance, rates, spent = random.Random(1), [], 0.0
    order = sorted(range(PARTS * part), key=lambda n: key_hash(TYPE, f"r{n:07d}") >> 58)
    for first in range(0, PARTS * part, part):
        items = [item_of(record(n, chance), n + 1) for n in order[first : first + part]]
        begun = time.process_time()
        for start in range(0, part, SLICE_ROWS):
            load(items[start : start + SLICE_ROWS], (start + SLICE_ROWS) % FLUSH_ROWS < SLICE_ROWS)
        spent += time.process_time() - begun
        rates.append((first + part) / max(spent, 1e-9))
    return rates
