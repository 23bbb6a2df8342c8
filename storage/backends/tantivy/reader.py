"""The readers of a `tantivy` generation.

A search takes a snapshot of the rows (SQLite) first, and then words that cover it. Words that carried out a deletion
which the snapshot does not have lack a row that it has; then another snapshot is taken, which has the deletion.
A hit of the words counts if its rowid is in `docs`, and not behind `covers`: those are hits of the delta.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import tantivy

from shadowswitch.model.errors import EngineClosed, InvalidConfig, Timeout
from shadowswitch.model.records import Hit
from shadowswitch.model.search.bounds import UNLIMITED, TimeLimit, check_page
from shadowswitch.model.search.where import Where
from shadowswitch.storage.backends.fts5 import store
from shadowswitch.storage.backends.fts5.frozen import Fts5FreezingReader
from shadowswitch.storage.backends.fts5.reader import Fts5Reader
from shadowswitch.storage.backends.tantivy import words as words_module
from shadowswitch.storage.backends.tantivy.delta import Coverage, Delta, coverage
from shadowswitch.storage.backends.tantivy.files import translated
from shadowswitch.storage.backends.tantivy.matching import Statistics, is_long, query_of, within
from shadowswitch.storage.backends.tantivy.options import WordsLayout
from shadowswitch.storage.backends.tantivy.plan import Part, Planner
from shadowswitch.storage.backends.tantivy.words import ROW, View, Words

Row = tuple[str, str, float, int]
Scored = tuple[int, float]
SNAPSHOTS_MAX = 20
"""A new snapshot is behind no deletion of the words that were there before it, so one or two are enough."""
MORE = 2
"""Hits beyond those that are wanted: some may be gone, or have the score of the last one."""
MAPPED_BYTES = 1 << 31
"""Of the file of the rows. Each hit is a row of a page that no other hit is on: to read them costs more than to search.
The files of the words are mapped, too."""
GROWTH = 4
DIGITS = 6
"""Of a score. Tantivy adds the scores of words in an order that depends on the page."""


class _Asked(NamedTuple):
    """What a shard is asked: the best `wanted` rows."""

    part: Part
    types: list[str] | None
    wanted: int
    time_limit: TimeLimit


class TantivyReader(Fts5Reader):
    """See `protocol.IndexReader`. One thread at a time, any thread. Scores are bm25 within each shard."""

    layout_type = WordsLayout

    def __init__(self, shards: Sequence[Path], options: Mapping[str, Any]) -> None:
        self._words: list[Words | None] = [None] * len(shards)
        """Opened by the first search: rows are read without them."""
        self._views: list[View | None] = [None] * len(shards)
        super().__init__(shards, options)
        layout = self._layout
        assert isinstance(layout, WordsLayout)
        self._words_layout = layout
        words, extra = words_module.analyzers(layout)
        self._planner = Planner(layout, words.analyze, extra.analyze)

    def search(
        self,
        query: str,
        limit: int,
        *,
        offset: int = 0,
        resource_types: Sequence[str] | None = None,
        where: Where | None = None,
        time_limit: TimeLimit = UNLIMITED,
    ) -> list[Hit]:
        check_page(limit, offset)
        if where is not None:
            raise InvalidConfig("a tantivy index holds texts, and no field to filter by", operation="search")
        if self._closed:
            raise EngineClosed("the reader was closed", operation="search", hint="open another")
        part = self._planner.plan(query)
        types = None if resource_types is None else [name for name in resource_types if _is_text(name)]
        if part is None or types == []:
            return []
        best = partial(self._best_of, _Asked(part, types, offset + limit, time_limit))
        found = sorted(chain.from_iterable(map(best, range(len(self._paths)))), key=_best_first)
        return [Hit(*row) for row in found[offset : offset + limit]]

    def close(self) -> None:
        super().close()
        for words in filter(None, self._words):
            words_module.given_back(words)
        self._words = [None] * len(self._words)
        self._views = [None] * len(self._views)

    def _connect(self, path: Path) -> sqlite3.Connection:
        connection = super()._connect(path)
        connection.execute(f"PRAGMA mmap_size={MAPPED_BYTES}").fetchall()
        return connection

    @contextmanager
    def _moment(self, shard: int) -> Iterator[tuple[sqlite3.Connection, Coverage, View]]:
        """The rows and the words of a shard, as of one moment."""
        connection = self._connections[shard]
        for _ in range(SNAPSHOTS_MAX):
            connection.execute(self._begin)
            try:
                wanted = coverage(connection)
                view = self._view(shard, wanted)
                if view.state.deleted <= wanted.deleted:
                    yield connection, wanted, view
                    return
            finally:
                connection.execute(self._rollback)
        raise Timeout("the index was written to again and again", operation="search", hint="try again")

    def _words_of(self, shard: int) -> Words:
        words = self._words[shard]
        if words is None:
            words = self._words[shard] = words_module.taken(self._paths[shard], self._words_layout)
        return words

    def _view(self, shard: int, wanted: Coverage) -> View:
        return self._words_of(shard).view(wanted.covers, wanted.uid)

    def _best_of(self, asked: _Asked, shard: int) -> list[Row]:
        """The best hits of one shard."""
        time_limit = asked.time_limit
        time_limit.check()
        try:
            self._running.limit = time_limit
            with self._moment(shard) as (connection, wanted, view):
                return self._rows_at(shard, connection, wanted, view, asked)
        except store.SQLITE_ERRORS as error:
            if time_limit.ended:
                raise time_limit.error() from error
            raise store.translate(error, "search", self._paths[shard]) from error
        finally:
            self._running.limit = UNLIMITED

    def _rows_at(
        self, shard: int, connection: sqlite3.Connection, wanted: Coverage, view: View, asked: _Asked
    ) -> list[Row]:
        path, time_limit = self._paths[shard], asked.time_limit
        statistics = Statistics(self._words_of(shard), view)
        with translated("search", path):
            long = is_long(asked.part, statistics)
            query = within(time_limit, long, partial(query_of, asked.part, statistics, asked.types))
            found = self._in_delta(shard, connection, wanted, statistics, asked) if wanted.last > wanted.covers else []
        most = max(1, view.searcher.num_docs)
        asking = min(asked.wanted + MORE, most)
        while True:
            with translated("search", path):
                hits = within(time_limit, long, partial(_hits, view.searcher, query, asking))
            is_all = len(hits) < asking or asking == most
            rows = [] if _is_tied(hits, asked.wanted) and not is_all else self._joined(connection, hits, wanted.covers)
            found_here = sorted(rows, key=_best_first)[: asked.wanted]
            if is_all or (len(found_here) == asked.wanted and found_here[-1][2] > _rounded(hits[-1][1])):
                return sorted(found + found_here, key=_best_first)[: asked.wanted]
            asking = min(asking * GROWTH, most)

    def _in_delta(
        self, shard: int, connection: sqlite3.Connection, wanted: Coverage, statistics: Statistics, asked: _Asked
    ) -> list[Row]:
        delta = Delta(self._words_of(shard), self._words_layout)
        hits = delta.search(connection, wanted.covers, asked.part, statistics, asked.types, asked.time_limit)
        return [(hit.resource_type, hit.id, _rounded(hit.score), hit.lsn) for hit in hits]

    def _joined(self, connection: sqlite3.Connection, hits: Sequence[Scored], covers: int) -> list[Row]:
        """The hits that are rows, up to `covers`."""
        scores = {rowid: score for rowid, score in hits if 0 < rowid <= covers}
        rowids = msgspec.json.encode(list(scores)).decode()
        select = "SELECT docs.rowid, docs.type, docs.id, lsn FROM json_each(?) CROSS JOIN docs ON docs.rowid = value"
        rows = connection.execute(select, (rowids,))
        return [(resource_type, id, _rounded(scores[rowid]), lsn) for rowid, resource_type, id, lsn in rows]


class TantivyFreezingReader(Fts5FreezingReader, TantivyReader):
    """See `protocol.FreezingReader`."""

    def freeze(self) -> None:
        super().freeze()
        for shard, connection in enumerate(self._connections):
            with store.translated("freeze", self._paths[shard]):
                wanted = coverage(connection)
            self._views[shard] = self._words_of(shard).view(wanted.covers, wanted.uid)

    def _view(self, shard: int, wanted: Coverage) -> View:
        return self._views[shard] or super()._view(shard, wanted)


def _hits(searcher: tantivy.Searcher, query: tantivy.Query, limit: int) -> list[Scored]:
    """Rowid and score of the best documents, best first."""
    hits = searcher.search(query, limit, count=False).hits
    rowids = searcher.fast_field_values(ROW, [address for _, address in hits])
    return [(rowid or 0, score) for rowid, (score, _) in zip(rowids, hits, strict=True)]  # type: ignore[misc]


def _rounded(score: float) -> float:
    return float(f"{score:.{DIGITS}g}")


def _is_tied(hits: Sequence[Scored], wanted: int) -> bool:
    """Whether a document behind the last hit may belong before the last one that is wanted."""
    return _rounded(hits[min(wanted, len(hits)) - 1][1]) <= _rounded(hits[-1][1]) if hits else False


def _best_first(row: Row) -> tuple[float, str, str]:
    return -row[2], row[0], row[1]


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
