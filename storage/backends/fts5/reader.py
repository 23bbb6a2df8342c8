"""The reader of an `fts5` generation: one read-only connection for each shard, no transaction open between calls.

An open read transaction keeps the writer's WAL from starting over. So every statement is read to its end at once, and a
long scan has a connection of its own.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from shadowswitch.model.digest import key_hash
from shadowswitch.model.errors import EngineClosed, InvalidConfig
from shadowswitch.model.records import Hit, Record
from shadowswitch.model.search.bounds import UNLIMITED, TimeLimit, check_page
from shadowswitch.model.search.where import Where
from shadowswitch.storage.backends.fts5 import store
from shadowswitch.storage.backends.fts5.marks import marks
from shadowswitch.storage.backends.fts5.options import Layout
from shadowswitch.storage.backends.fts5.query import Query, parse
from shadowswitch.storage.backends.protocol import Marked, ShardState
from shadowswitch.storage.data_directory import refuse_another
from shadowswitch.storage.disk import Identity, identity

T = TypeVar("T")
Row = tuple[str, str, float, int]

RECORDS_FETCHED = 8
"""Whole records held at a time by a scan: they may be large."""
VERSIONS_FETCHED = 500
STEPS = 20_000
"""SQLite asks for the time limit after so many steps of its machine: about 2 ms of a search that sorts its hits, half a
second of one for a phrase of many tokens. Each time it needs the GIL, so not more often."""
_LIMIT_MAX = (1 << 31) - 1
_OF_QUERY = re.compile("fts5:|parser stack|xpression tree")
"""In an error of SQLite about the statement, and not about the file: it is no damage of the index."""


class Fts5Reader:
    """See `protocol.IndexReader`. One thread at a time, any thread. Scores are bm25 within each shard."""

    _begin, _rollback = "BEGIN", "ROLLBACK"
    """Around the statements of a search, which are as of one moment."""
    layout_type: type[Layout] = Layout

    def __init__(self, shards: Sequence[Path], options: Mapping[str, Any], steps: int = STEPS) -> None:
        self._paths = tuple(shards)
        self._options = options
        self._layout = layout = self.layout_type(options)
        self._closed = False
        self._running = _Running()
        self._connections: list[sqlite3.Connection] = []
        self._files: list[Identity] = []
        names = ", ".join(layout.shown)
        self._get = f"SELECT type, id, lsn, {names} FROM docs WHERE kh = ? AND type = ? AND id = ?"
        self._all = f"SELECT type, id, lsn, {names} FROM docs NOT INDEXED ORDER BY rowid"
        self._versions = "SELECT type, id, lsn FROM docs NOT INDEXED ORDER BY rowid"
        score = f"bm25(fts, {', '.join(map(repr, layout.weights))})"
        best = f"SELECT rowid AS r, {score} AS s FROM fts WHERE fts MATCH ?"
        cut = "(SELECT max(s) FROM (SELECT s FROM found ORDER BY s LIMIT ?))"
        self._search = (
            f"WITH found AS MATERIALIZED ({best}) SELECT type, id, s, lsn FROM found CROSS JOIN docs ON docs.rowid = r"
            f" WHERE s <= {cut} ORDER BY s, type, id LIMIT ? OFFSET ?"
        )
        text = " || char(10) || ".join(layout.shown)
        rows = f"SELECT rowid AS n, type, id, lsn, {names}, {text} AS t FROM docs"
        self._checked = f"SELECT type, id, s, lsn FROM ({best}) CROSS JOIN ({rows}) ON n = r WHERE "
        self._scanned = f"SELECT type, id, 0.0 AS s, lsn FROM ({rows}) WHERE "
        try:
            for path in self._paths:
                self._connections.append(self._connect(path))
                self._connections[-1].set_progress_handler(self._running.is_over, steps)
                with store.translated("open shard", path):
                    self._files.append(identity(path / store.FILE))
        except BaseException:
            self.close()
            raise

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
            raise InvalidConfig("an fts5 index holds texts, and no field to filter by", operation="search")
        with store.translated("search", self._paths[0]):
            parsed = parse(query, self._layout)
        if not (parsed.match or parsed.condition):
            return []
        wanted, shards = min(offset + limit, _LIMIT_MAX), range(len(self._paths))
        skipped = min(offset, wanted) if len(shards) == 1 else 0
        best = partial(self._best, _Asked(parsed, resource_types, wanted, skipped), time_limit)
        found = sorted(chain.from_iterable(map(best, shards)), key=_best_first)
        page = found[offset - skipped : wanted - skipped]
        return [Hit(resource_type, id, 0.0 - score, lsn) for resource_type, id, score, lsn in page]

    def marks(self, query: str, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Marked]]:
        with store.translated("mark", self._paths[0]):
            return marks(query, self._layout, records)

    def holds(self, field: str) -> bool:
        return False  # the text of a column does not say what value it came from

    def get(self, resource_type: str, id: str) -> Record | None:
        try:
            key = (key_hash(resource_type, id) - store.KEY_BIAS, resource_type, id)
        except UnicodeEncodeError:
            return None
        for path, connection in zip(self._paths, self._connections, strict=True):
            try:
                rows = connection.execute(self._get, key).fetchall()
            except store.SQLITE_ERRORS as error:
                raise store.translate(error, "get", path) from error
            if rows:
                return self._record(rows[0])
        return None

    def count(self) -> int:
        return sum(state.digest.count for state in self._states())

    def applied_lsn(self) -> int:
        return min(state.applied_lsn for state in self._states())

    def scan(self) -> Iterator[Record]:
        for shard in range(len(self._paths)):
            _, records = self.shard_snapshot(shard)
            yield from records

    def shard_snapshot(self, shard: int) -> tuple[ShardState, Iterator[Record]]:
        return self._snapshot(shard, self._all, self._record, RECORDS_FETCHED)

    def shard_versions(self, shard: int) -> tuple[ShardState, Iterator[tuple[str, str, int]]]:
        return self._snapshot(shard, self._versions, tuple, VERSIONS_FETCHED)

    def _snapshot(
        self, shard: int, select: str, made: Callable[[Any], T], fetched: int
    ) -> tuple[ShardState, Iterator[T]]:
        path = self._paths[shard]
        if self._closed:
            raise EngineClosed("the reader was closed", operation="scan", object=str(path), hint="open another")
        connection = self._connect(path)
        try:
            refuse_another(path / store.FILE, self._files[shard], "scan")
            with store.translated("scan", path):
                connection.execute("BEGIN")
                state = store.read_state(connection, path)
                cursor = connection.execute(select)
        except BaseException:
            connection.close()
            raise
        cursor.arraysize = fetched
        return state, _Snapshot(connection, cursor, path, made)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        self._closed = True

    def _connect(self, path: Path) -> sqlite3.Connection:
        connection = store.open_existing(path, self._options, "ro")
        try:
            with store.translated("open shard", path):
                connection.execute("PRAGMA query_only=ON")
                connection.execute(f"PRAGMA cache_size=-{store.READER_CACHE_KIB}")
                connection.execute("PRAGMA temp_store=MEMORY")  # a search writes nothing: 20 bytes for each hit
        except BaseException:
            connection.close()
            raise
        return connection

    def _best(self, asked: _Asked, time_limit: TimeLimit, shard: int) -> list[Row]:
        """The best hits of one shard."""
        path, connection = self._paths[shard], self._connections[shard]
        time_limit.check()
        try:
            connection.execute(self._begin)
            try:
                self._running.limit = time_limit
                return self._rows(connection, asked)
            finally:
                self._running.limit = UNLIMITED
                connection.execute(self._rollback)
        except store.SQLITE_ERRORS as error:
            if time_limit.ended:  # whatever FTS5 made of the interruption: it is no damage
                raise time_limit.error() from error
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR and _OF_QUERY.search(str(error)):
                raise InvalidConfig(f"the query cannot be used: {error}", operation="search") from error
            raise store.translate(error, "search", path) from error

    def _rows(self, connection: sqlite3.Connection, asked: _Asked) -> list[Row]:
        query, wanted, skipped = asked.query, asked.wanted, asked.skipped
        if query.condition or asked.types is not None:
            conditions = [query.condition] if query.condition else []
            parameters = [*([query.match] if query.match else []), *query.parameters]
            if asked.types is not None:
                conditions.append("type IN (SELECT value FROM json_each(?))")
                parameters.append(msgspec.json.encode(asked.types).decode())
            select = self._checked if query.match else self._scanned
            statement = f"{select}{' AND '.join(conditions)} ORDER BY s, type, id LIMIT ? OFFSET ?"
            return connection.execute(statement, (*parameters, wanted - skipped, skipped)).fetchall()
        return connection.execute(self._search, (query.match, wanted, wanted - skipped, skipped)).fetchall()

    def _states(self) -> Iterator[ShardState]:
        for path, connection in zip(self._paths, self._connections, strict=True):
            with store.translated("read state", path):
                yield store.read_state(connection, path)

    def _record(self, row: Sequence[Any]) -> Record:
        return Record(row[0], row[1], dict(zip(self._layout.names, row[3:], strict=True)), row[2])


class _Asked(NamedTuple):
    """What a shard is asked: its best `wanted` rows, without the first `skipped` of them."""

    query: Query
    types: Sequence[str] | None
    wanted: int
    skipped: int


class _Running:
    """The time limit of the search that runs; SQLite calls `is_over` beneath it, and stops when that is true."""

    def __init__(self) -> None:
        self.limit = UNLIMITED

    def is_over(self) -> bool:
        return self.limit.is_over()


class _Snapshot(Iterator[T], Generic[T]):
    """All rows of a shard as of one transaction, each made by `made`. The transaction ends when the iterator does."""

    def __init__(
        self, connection: sqlite3.Connection, cursor: sqlite3.Cursor, path: Path, made: Callable[[Any], T]
    ) -> None:
        self._connection = connection
        self._cursor = cursor
        self._path = path
        self._open = True
        self._made = made
        self._fetched: Iterator[T] = iter(())

    def __next__(self) -> T:
        for row in self._fetched:
            return row
        if not self._open:
            raise StopIteration
        try:
            rows = self._cursor.fetchmany()
        except store.SQLITE_ERRORS as error:
            self.close()
            raise store.translate(error, "scan", self._path) from error
        if not rows:
            self.close()
        self._fetched = map(self._made, rows)
        return next(self._fetched)

    def close(self) -> None:
        """End the transaction. Idempotent."""
        self._open = False
        self._fetched = iter(())
        self._connection.close()

    __del__ = close


def _best_first(row: Row) -> tuple[float, str, str]:
    return row[2], row[0], row[1]
