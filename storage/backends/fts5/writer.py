"""The writer of an `fts5` shard.

One batch is one transaction of about ten statements for any size: Python's sqlite3 releases the GIL at every step
of a statement, and in a busy host each reacquisition may cost a switch interval (5 ms). So this module uses no
`executemany` and no row-by-row fetch: keys go in as one JSON array, rows as statements with many VALUES, rows found
come back as one JSON value, and the terms move from docs to fts inside SQLite.

Order inside a batch: old versions leave fts and docs in ascending rowid order, new ones get rowids above all others.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from shadowswitch.model.digest import Digest
from shadowswitch.model.records import Item
from shadowswitch.storage.backends.fts5 import store
from shadowswitch.storage.backends.fts5.options import Layout
from shadowswitch.storage.backends.protocol import ShardState

_INSERT_ROWS = (512, 256, 128, 64, 32, 16, 8, 4, 2, 1)
"""Rows of one INSERT, each half of the one before: any batch needs few statements, and all stay prepared."""
_VARIABLES_MAX = 32_766
"""SQLite's default limit of `?` in one statement."""
_CHOSEN = "WHERE rowid IN (SELECT value FROM json_each(?))"

Found = list[tuple[int, int, str, str]]
_decode_found = msgspec.json.Decoder(Found).decode


class Fts5Writer:
    """See `protocol.ShardWriter`. One thread at a time, any thread."""

    def __init__(self, connection: sqlite3.Connection, path: Path, layout: Layout) -> None:
        self._connection = connection
        self._path = path
        self._texts = layout.texts
        self._prepare = layout.prepare
        self._prepare(False)
        self._state = store.read_state(connection, path)
        self._rowid = int(connection.execute("SELECT coalesce(max(rowid), 0) FROM docs").fetchone()[0])
        self._directory_synced = False
        self._width = 5 + len(layout.columns)
        names = ", ".join(layout.columns)
        self._unindex = f"INSERT INTO fts(fts, rowid, {names}) SELECT 'delete', rowid, {names} FROM docs {{}}"
        self._index = f" UNION ALL SELECT NULL, rowid, {names} FROM docs WHERE rowid > ?"
        self._index_only = (
            f"INSERT INTO fts(rowid, {names}) SELECT rowid, {names} FROM docs WHERE rowid > ? ORDER BY rowid"
        )
        row = f"({', '.join('?' * self._width)})"
        sizes = [size for size in _INSERT_ROWS if size * self._width <= _VARIABLES_MAX]
        self._inserts = {size: f"INSERT INTO docs VALUES {', '.join([row] * size)}" for size in sizes}
        for pragma in (
            "synchronous=NORMAL",
            "wal_autocheckpoint=0",
            "secure_delete=OFF",
            "temp_store=MEMORY",
            f"cache_size=-{store.WRITER_CACHE_KIB}",
            f"journal_size_limit={store.WAL_KEEP_BYTES}",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        self._prime_wal()

    def state(self) -> ShardState:
        state = self._state
        return ShardState(state.applied_lsn, state.cursor, state.loaded, state.digest.copy())

    def load(self, items: Sequence[Item], cursor: bytes) -> None:
        state = self._state
        with self._transaction("load") as digest:
            self._merge([item for item in items if item.fields is not None], digest)
            self._save(ShardState(state.applied_lsn, cursor, state.loaded, digest))

    def finish_load(self, applied_lsn: int) -> None:
        state = self._state
        with self._transaction("finish load") as digest:
            self._finish_words()
            self._save(ShardState(max(applied_lsn, state.applied_lsn), state.cursor, True, digest))

    def _finish_words(self) -> None:
        """Inside the transaction that ends the load."""
        self._connection.execute("INSERT INTO fts(fts, rank) VALUES('crisismerge', ?)", (store.CRISISMERGE_SEGMENTS,))

    def apply(self, items: Sequence[Item], applied_lsn: int) -> int:
        state = self._state
        with self._transaction("apply") as digest:
            changed = self._merge([item for item in items if item.lsn > state.applied_lsn], digest)
            self._save(ShardState(max(applied_lsn, state.applied_lsn), state.cursor, state.loaded, digest))
        return changed

    def flush(self) -> int:
        applied_lsn = self._state.applied_lsn
        self._prepare(True)  # a build flushes before it is BUILT, so that no switch waits for it
        with store.translated("flush", self._path):
            store.sync_wal(self._path)
            if not self._directory_synced:
                store.sync_directory(self._path)
                self._directory_synced = True
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._prime_wal()
        return applied_lsn

    def compact(self) -> bool:
        with store.translated("merge segments", self._path):
            before = self._connection.total_changes
            self._connection.execute("INSERT INTO fts(fts, rank) VALUES('merge', ?)", (store.MERGE_PAGES,))
            return self._connection.total_changes - before > 1  # one change is the command itself

    def repair_bucket(self, bucket: int, items: Sequence[Item]) -> None:
        with self._transaction("repair bucket") as digest:
            self._empty(bucket, digest)
            self._merge([item for item in items if item.fields is not None], digest)
            self._save(msgspec.structs.replace(self._state, digest=digest))

    def versions(self, buckets: Collection[int]) -> Iterator[tuple[str, str, int]]:
        with store.translated("read rows", self._path):
            for bucket in buckets:
                yield from self._connection.execute(
                    "SELECT type, id, lsn FROM docs WHERE kh BETWEEN ? AND ?", range_of(bucket)
                )

    def amend(self, items: Sequence[Item]) -> None:
        with self._transaction("amend") as digest:
            self._merge(items, digest, over=True)
            self._save(msgspec.structs.replace(self._state, digest=digest))

    def close(self) -> None:
        if hasattr(self._connection, "setconfig") and hasattr(sqlite3, "SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE"):
            try:
                self._connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
            except sqlite3.Error:
                pass
        self._connection.close()

    @contextmanager
    def _transaction(self, operation: str) -> Iterator[Digest]:
        """Yields a copy of the digest to change. Outcomes: all of it committed and `_state` renewed, or none of it."""
        self._saved: ShardState | None = None
        with store.translated(operation, self._path):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._state.digest.copy()
                self._connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
        if self._saved is not None:
            self._state = self._saved

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            pass

    def _save(self, state: ShardState) -> None:
        self._connection.execute(
            "UPDATE state SET applied_lsn = ?, cursor = ?, loaded = ?, digest = ?",
            (state.applied_lsn, state.cursor, state.loaded, state.digest.encode()),
        )
        self._saved = state

    def _prime_wal(self) -> None:
        """Commit an empty change, so that a WAL starts over here and not in the next `apply`.

        The first commit into a fresh WAL fsyncs its header. BK-4 does not allow that in `apply`.
        """
        with self._transaction("start log"):
            self._connection.execute("UPDATE state SET one = one")

    def _merge(self, items: Sequence[Item], digest: Digest, over: bool = False) -> int:
        """Store the items that are newer than the rows of their keys, or all; returns how many changed the shard."""
        newest: dict[tuple[str, str], Item] = {(item.resource_type, item.id): item for item in items}
        if len(newest) < len(items):
            newest = {(item.resource_type, item.id): item for item in sorted(items, key=_by_lsn)}
        gone: list[int] = []
        deleted = 0
        if newest and digest.count:
            for rowid, lsn, resource_type, id in self._find(newest.values()):
                item = newest.get((resource_type, id))
                if item is None:
                    continue
                if item.lsn <= lsn and not over:
                    del newest[resource_type, id]
                    continue
                gone.append(rowid)
                digest.remove(item.key_hash, lsn)
                deleted += item.fields is None
        fresh = sorted([item for item in newest.values() if item.fields is not None], key=_by_key_hash)
        self._write(gone, fresh)
        for item in fresh:
            digest.add(item.key_hash, item.lsn)
        return deleted + len(fresh)

    def _find(self, items: Iterable[Item]) -> Found:
        keys = msgspec.json.encode([item.key_hash - store.KEY_BIAS for item in items]).decode()
        row = self._connection.execute(
            "SELECT json_group_array(json_array(rowid, lsn, type, id)) FROM docs"
            " WHERE kh IN (SELECT value FROM json_each(?))",
            (keys,),
        ).fetchone()
        return _decode_found(row[0])

    def _write(self, gone: list[int], fresh: list[Item]) -> None:
        """Replace rows. One statement writes fts: FTS5 writes a segment at the end of each statement with many rows."""
        before = self._rowid
        self._insert(fresh)
        keys = msgspec.json.encode(gone).decode()
        if gone:
            self._connection.execute(self._unindex.format(_CHOSEN) + self._index + " ORDER BY rowid", (keys, before))
            self._connection.execute(f"DELETE FROM docs {_CHOSEN}", (keys,))
        elif fresh:
            self._connection.execute(self._index_only, (before,))

    def _insert(self, items: list[Item]) -> None:
        rowid = self._rowid
        texts, width = self._texts, self._width
        values: list[int | str] = []
        for item in items:
            rowid += 1
            values += (rowid, item.key_hash - store.KEY_BIAS, item.lsn, item.resource_type, item.id)
            values += texts(item.fields or {})
        start, left = 0, len(items)
        for size, insert in self._inserts.items():
            while left >= size:
                self._connection.execute(insert, values[start : start + size * width])
                start += size * width
                left -= size
        self._rowid = rowid

    def _empty(self, bucket: int, digest: Digest) -> None:
        chosen = "WHERE kh BETWEEN ? AND ?"
        self._connection.execute(self._unindex.format(chosen) + " ORDER BY rowid", range_of(bucket))
        self._connection.execute(f"DELETE FROM docs {chosen}", range_of(bucket))
        digest.clear(bucket)


def range_of(bucket: int) -> tuple[int, int]:
    """The first and last `kh` of a bucket."""
    first = (bucket << 58) - store.KEY_BIAS
    return first, first + (1 << 58) - 1


def _by_lsn(item: Item) -> int:
    return item.lsn


def _by_key_hash(item: Item) -> int:
    return item.key_hash
