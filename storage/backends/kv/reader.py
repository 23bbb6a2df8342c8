"""The reader of a `kv` generation: a short read transaction for each call and shard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import lmdb

from shadowswitch.model.errors import EngineClosed, InvalidConfig
from shadowswitch.model.records import Hit, Record
from shadowswitch.model.search.bounds import UNLIMITED, TimeLimit, check_query
from shadowswitch.storage.backends.kv import store
from shadowswitch.storage.backends.protocol import ShardState
from shadowswitch.storage.clock import SYSTEM

T = TypeVar("T")
Found = tuple[bytes, int]
"""A full key and the LSN of its row."""
SLICE_ROWS = 256
"""Well under a millisecond of Python."""


class KvReader:
    """See `protocol.IndexReader`. One thread at a time, any thread. A query is the beginning of ids."""

    def __init__(self, shards: Sequence[Path], options: Mapping[str, Any]) -> None:
        self._paths = tuple(shards)
        self._environments: list[store.Environment] = []
        self._closed = False
        try:
            for path in self._paths:
                self._environments.append(store.open_environment(path, options))
        except BaseException:
            self.close()
            raise

    def search(self, query: str, limit: int, *, time_limit: TimeLimit = UNLIMITED) -> list[Hit]:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise InvalidConfig(f"limit is {limit!r}", operation="search", hint="ask for at least one hit")
        try:
            prefix = check_query(query).encode()
        except UnicodeEncodeError:
            return []
        found = merge(*(self._beginning_with(environment, prefix, limit, time_limit) for environment in self._opened()))
        return [_hit(full, lsn) for full, lsn in islice(found, min(limit, 1 << 31))]

    def get(self, resource_type: str, id: str) -> Record | None:
        try:
            key = store.stored_key(store.full_key(resource_type, id))
        except UnicodeEncodeError:
            return None
        for environment in self._opened():
            with store.translated("get", environment.path), environment.map.transaction() as transaction:
                value = transaction.get(key, db=environment.rows)
            if value is not None:
                return _record(key, value)
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
        return self._snapshot(shard, _record)

    def shard_versions(self, shard: int) -> tuple[ShardState, Iterator[tuple[str, str, int]]]:
        return self._snapshot(shard, store.version_of)

    def _snapshot(self, shard: int, made: Callable[[bytes, bytes], T]) -> tuple[ShardState, _Snapshot[T]]:
        environment = store.share(self._opened()[shard])
        try:
            with store.translated("scan", environment.path):
                transaction = environment.map.begin(lasting=True)
            try:
                state = store.state_of(environment.read_meta(transaction))
            except BaseException:
                transaction.abort()
                environment.map.ended(lasting=True)
                raise
        except BaseException:
            store.release(environment)
            raise
        return state, _Snapshot(environment, transaction, made)

    def close(self) -> None:
        self._closed = True
        while self._environments:
            store.release(self._environments.pop())

    def _opened(self) -> list[store.Environment]:
        if self._closed:
            raise EngineClosed("the reader was closed", hint="open another")
        return self._environments

    def _states(self) -> Iterator[ShardState]:
        for environment in self._opened():
            with store.translated("read state", environment.path), environment.map.transaction() as transaction:
                meta = environment.read_meta(transaction)
            yield store.state_of(meta)

    def _beginning_with(
        self, environment: store.Environment, prefix: bytes, limit: int, time_limit: TimeLimit
    ) -> list[Found]:
        with store.translated("search", environment.path), environment.map.transaction() as transaction:
            cursor = transaction.cursor(db=environment.rows)
            return list(islice(_walk(cursor, prefix, Slices(time_limit)), min(limit, 1 << 31)))


class Slices:
    """The slices of a walk over rows: behind each one the time limit is checked, and another thread gets the GIL."""

    def __init__(self, time_limit: TimeLimit) -> None:
        self._time_limit = time_limit
        self._left = 0

    def count(self) -> None:
        """One more row. Raises Timeout when the time has passed."""
        if self._left == 0:
            self._time_limit.check()
            SYSTEM.sleep(0)
            self._left = SLICE_ROWS
        self._left -= 1


def _walk(cursor: lmdb.Cursor, prefix: bytes, slices: Slices) -> Iterator[Found]:
    """Full keys whose id begins with `prefix`, in order; skips keys that cannot match."""
    found = cursor.first()
    while found:
        slices.count()
        key = bytes(cursor.key())
        if len(key) > store.HEAD_BYTES:
            group, found = _group(cursor, slices)
            yield from (entry for entry in group if entry[0].partition(b"\0")[2].startswith(prefix))
            continue
        resource_type, _, id = key.partition(b"\0")
        if id.startswith(prefix):
            yield key, int.from_bytes(cursor.value()[:8], "big")
            found = cursor.next()
            continue
        goal = (resource_type + b"\0" + prefix)[: store.HEAD_BYTES] if id < prefix else resource_type + b"\1"
        found = cursor.set_range(goal) if goal > key else cursor.next()


def _group(cursor: lmdb.Cursor, slices: Slices) -> tuple[list[Found], bool]:
    """All rows that share the first 460 bytes with the row under the cursor, sorted by their full keys.

    Long keys are stored by hash, so only the whole group can be sorted. The cursor ends behind it.
    """
    head = bytes(cursor.key())[: store.HEAD_BYTES]
    group: list[Found] = []
    found = True
    while found and bytes(cursor.key()).startswith(head):
        slices.count()
        key, value = map(bytes, cursor.item())
        if store.is_shortened(key):
            resource_type, id, lsn, _ = store.decode_row(key, value)
            group.append((store.full_key(resource_type, id), lsn))
        else:
            group.append((key, int.from_bytes(value[:8], "big")))
        found = cursor.next()
    return sorted(group), found


class _Snapshot(Iterator[T], Generic[T]):
    """All rows of a shard as of one transaction, each made by `made`. The transaction ends when the iterator does."""

    def __init__(
        self, environment: store.Environment, transaction: lmdb.Transaction, made: Callable[[bytes, bytes], T]
    ) -> None:
        self._environment: store.Environment | None = environment
        self._transaction = transaction
        self._rows = iter(transaction.cursor(db=environment.rows))
        self._made = made

    def __next__(self) -> T:
        environment = self._environment
        if environment is None:
            raise StopIteration
        with store.translated("scan", environment.path):
            row = next(self._rows, None)
        if row is None:
            self.close()
            raise StopIteration
        return self._made(bytes(row[0]), bytes(row[1]))

    def close(self) -> None:
        """End the transaction. Idempotent."""
        environment, self._environment = self._environment, None
        if environment is not None:
            self._transaction.abort()
            environment.map.ended(lasting=True)
            store.release(environment)

    __del__ = close


def _record(key: bytes, value: bytes) -> Record:
    resource_type, id, lsn, fields = store.decode_row(key, value)
    return Record(resource_type, id, fields, lsn)


def _hit(full: bytes, lsn: int) -> Hit:
    return Hit(*store.split_key(full), 1.0, lsn)
