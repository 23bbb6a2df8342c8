"""A reader of an `fts5` generation that shows one moment: each connection keeps a read transaction open.

The log of a shard (WAL) cannot start over meanwhile: it grows with what the writer commits.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from shadowswitch.storage.backends.fts5 import store
from shadowswitch.storage.backends.fts5.reader import Fts5Reader
from shadowswitch.storage.backends.protocol import ShardState

T = TypeVar("T")


class Fts5FreezingReader(Fts5Reader):
    """See `protocol.FreezingReader`."""

    def freeze(self) -> None:
        """See `protocol.FreezingReader`."""
        self._begin, self._rollback = "SAVEPOINT search", "RELEASE search"
        for path, connection in zip(self._paths, self._connections, strict=True):
            with store.translated("freeze", path):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                connection.execute("BEGIN")
                store.read_state(connection, path)  # the first read begins the transaction

    def _snapshot(
        self, shard: int, select: str, made: Callable[[Any], T], fetched: int
    ) -> tuple[ShardState, Iterator[T]]:
        """From the connection itself, which shows the moment, and not from one of its own."""
        path, connection = self._paths[shard], self._connections[shard]
        if not connection.in_transaction:
            return super()._snapshot(shard, select, made, fetched)
        with store.translated("scan", path):
            state = store.read_state(connection, path)
            cursor = connection.execute(select)
        cursor.arraysize = fetched
        return state, self._rows_of(cursor, path, made)

    def _rows_of(self, cursor: sqlite3.Cursor, path: Any, made: Callable[[Any], T]) -> Iterator[T]:
        try:
            while True:
                with store.translated("scan", path):
                    rows = cursor.fetchmany()
                if not rows:
                    return
                yield from map(made, rows)
        finally:
            cursor.close()
