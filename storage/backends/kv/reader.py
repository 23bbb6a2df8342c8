"""The reader of a `kv` generation: a short read transaction for each call and shard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import lmdb

from shadowswitch.model.errors import EngineClosed, InvalidConfig
from shadowswitch.model.records import Hit, Record
from shadowswitch.model.search.bounds import QUERY_CHARS_MAX, UNLIMITED, TimeLimit, check_page, check_query
from shadowswitch.model.search.where import Where
from shadowswitch.storage.backends.kv import store
from shadowswitch.storage.backends.protocol import ShardState
from shadowswitch.storage.clock import SYSTEM

T = TypeVar("T")
Found = tuple[bytes, int]
"""A full key and the LSN of its row."""
SLICE_ROWS = 1024
"""About a millisecond of Python."""
_LIMIT_MAX = 1 << 31


class KvReader:
    """See `protocol.IndexReader`. One thread at a time, any thread. A query is the beginning of ids."""

    def __init__(self, shards: Sequence[Path], options: Mapping[str, Any]) -> None:
        self._paths = tuple(shards)
        self._fields: list[str] | None = options["fields"]
        self._environments: list[store.Environment] = []
        self._closed = False
        try:
            for path in self._paths:
                self._environments.append(store.open_environment(path, options))
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
        unknown = sorted(field for field in where.fields if not self.holds(field)) if where is not None else []
        if unknown:
            raise InvalidConfig(f"the index holds no {', '.join(unknown)}, only {self._fields}", operation="search")
        try:
            prefix = check_query(query).encode()
        except UnicodeEncodeError:
            return []
        if len(query) > QUERY_CHARS_MAX:  # no id is that long
            return []
        types = None if resource_types is None else frozenset(name.encode() for name in resource_types)
        wanted = min(offset + limit, _LIMIT_MAX)
        asked = _Asked(prefix, types, where, wanted, Slices(time_limit))
        found = merge(*(self._best(environment, asked) for environment in self._opened()))
        return [_hit(full, lsn) for full, lsn in islice(found, min(offset, wanted), wanted)]

    def holds(self, field: str) -> bool:
        return self._fields is None or field in self._fields

    def get(self, resource_type: str, id: str) -> Record | None:
        try:
            key = store.stored_key(store.full_key(resource_type, id))
        except UnicodeEncodeError:
            return None
        for environment in self._opened():
            with store.translated("get", environment.path), self._reading(environment) as transaction:
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

    def _snapshot(self, shard: int, made: Callable[[bytes, bytes], T]) -> tuple[ShardState, Iterator[T]]:
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

    def _reading(self, environment: store.Environment) -> AbstractContextManager[lmdb.Transaction[bytes]]:
        """A transaction for one call."""
        return environment.map.transaction()

    def _states(self) -> Iterator[ShardState]:
        for environment in self._opened():
            with store.translated("read state", environment.path), self._reading(environment) as transaction:
                meta = environment.read_meta(transaction)
            yield store.state_of(meta)

    def _best(self, environment: store.Environment, asked: _Asked) -> list[Found]:
        with store.translated("search", environment.path), self._reading(environment) as transaction:
            cursor = transaction.cursor(db=environment.rows)
            return list(islice(_walk(cursor, asked), asked.wanted))


class Slices:
    """The slices of a walk over rows: behind each one the time limit is checked, and another thread gets the GIL.

    Raises Timeout, also at its beginning, when the time has passed.
    """

    def __init__(self, time_limit: TimeLimit) -> None:
        time_limit.check()
        self._time_limit = time_limit
        self._left = SLICE_ROWS

    def count(self) -> None:
        """One more row."""
        if self._left == 0:
            self._time_limit.check()
            SYSTEM.sleep(0)
            self._left = SLICE_ROWS
        self._left -= 1


class _Asked(NamedTuple):
    """What a shard is asked: the first `wanted` rows whose ids begin with `prefix`, of those that pass the filters."""

    prefix: bytes
    types: frozenset[bytes] | None
    where: Where | None
    wanted: int
    slices: Slices

    def has(self, resource_type: bytes) -> bool:
        return self.types is None or resource_type in self.types

    def passes(self, key: bytes, value: bytes) -> bool:
        return self.where is None or self.where.matches(store.decode_row(key, value)[3])


def _walk(cursor: lmdb.Cursor, asked: _Asked) -> Iterator[Found]:
    """Full keys that are asked for, in order; skips keys that cannot match."""
    prefix = asked.prefix
    found = cursor.first()
    while found:
        asked.slices.count()
        key = bytes(cursor.key())
        resource_type, _, id = key.partition(b"\0")
        is_asked = asked.has(resource_type)
        if is_asked and len(key) > store.HEAD_BYTES:
            group, found = _group(cursor, asked)
            yield from group
            continue
        if is_asked and id.startswith(prefix):
            value = bytes(cursor.value())
            if asked.passes(key, value):
                yield key, int.from_bytes(value[:8], "big")
            found = cursor.next()
            continue
        before = is_asked and id < prefix
        goal = (resource_type + b"\0" + prefix)[: store.HEAD_BYTES] if before else resource_type + b"\1"
        found = cursor.set_range(goal) if goal > key else cursor.next()


def _group(cursor: lmdb.Cursor, asked: _Asked) -> tuple[list[Found], bool]:
    """The rows asked for that share the first 460 bytes with the row under the cursor, sorted by their full keys.

    Long keys are stored by hash, so only the whole group can be sorted. The cursor ends behind it.
    """
    head = bytes(cursor.key())[: store.HEAD_BYTES]
    group: list[Found] = []
    found = True
    while found and bytes(cursor.key()).startswith(head):
        asked.slices.count()
        key, value = map(bytes, cursor.item())
        full = store.full_key(*store.decode_row(key, value)[:2]) if store.is_shortened(key) else key
        resource_type, _, id = full.partition(b"\0")
        if asked.has(resource_type) and id.startswith(asked.prefix) and asked.passes(key, value):
            group.append((full, int.from_bytes(value[:8], "big")))
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
