"""The writer of a `kv` shard: one LMDB transaction for each batch, items in key order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import lmdb
import msgspec

from shadowswitch.model.digest import Digest, bucket_of, key_hash
from shadowswitch.model.errors import CorruptData, EngineClosed
from shadowswitch.model.records import Item
from shadowswitch.storage.backends.kv import kept, store
from shadowswitch.storage.backends.protocol import ShardState

T = TypeVar("T")
_SCAN_ROWS = 4096

Project = Callable[[Mapping[str, Any]], dict[str, Any]]


class KvWriter:
    """See `protocol.ShardWriter`. One thread at a time, any thread."""

    def __init__(self, environment: store.Environment, project: Project) -> None:
        self._environment: store.Environment | None = environment
        self._path = environment.path
        self._project = project
        with store.translated("open shard", self._path), environment.map.transaction() as transaction:
            self._meta = environment.read_meta(transaction)
        if len(self._meta.digest) != len(Digest().encode()):
            raise CorruptData("the digest of the shard is damaged", object=str(self._path))

    def state(self) -> ShardState:
        return store.state_of(self._meta)

    def load(self, items: Sequence[Item], cursor: bytes) -> None:
        def work(transaction: lmdb.Transaction[bytes], digest: Digest) -> None:
            self._merge(transaction, digest, [item for item in items if item.fields is not None])
            self._save(transaction, digest, cursor=cursor)

        self._commit("load", work)

    def finish_load(self, applied_lsn: int) -> None:
        def work(transaction: lmdb.Transaction[bytes], digest: Digest) -> None:
            self._save(transaction, digest, applied_lsn=max(applied_lsn, self._meta.applied_lsn), loaded=True)

        self._commit("finish load", work)

    def apply(self, items: Sequence[Item], applied_lsn: int) -> int:
        before = self._meta.applied_lsn

        def work(transaction: lmdb.Transaction[bytes], digest: Digest) -> int:
            changed = self._merge(transaction, digest, [item for item in items if item.lsn > before])
            self._save(transaction, digest, applied_lsn=max(applied_lsn, before))
            return changed

        return self._commit("apply", work)

    def flush(self) -> int:
        applied_lsn = self._meta.applied_lsn
        environment = self._opened()
        with store.translated("flush", self._path), environment.map.used():
            environment.env.sync(True)
            environment.env.reader_check()
        kept.give_back()  # here, where its caller waits for the disk
        return applied_lsn

    def compact(self) -> bool:
        self._opened()
        return False  # LMDB defers nothing

    def repair_bucket(self, bucket: int, items: Sequence[Item]) -> None:
        keys = [key for key, *_ in self._rows_of((bucket,))]

        def work(transaction: lmdb.Transaction[bytes], digest: Digest) -> None:
            self._empty(transaction, digest, bucket, keys)
            self._merge(transaction, digest, [item for item in items if item.fields is not None])
            self._save(transaction, digest)

        self._commit("repair bucket", work)

    def versions(self, buckets: Collection[int]) -> Iterator[tuple[str, str, int]]:
        chosen = frozenset(buckets)
        return ((resource_type, id, lsn) for _, resource_type, id, lsn in self._rows_of(chosen))

    def amend(self, items: Sequence[Item]) -> None:
        def work(transaction: lmdb.Transaction[bytes], digest: Digest) -> None:
            self._merge(transaction, digest, items, over=True)
            self._save(transaction, digest)

        self._commit("amend", work)

    def close(self) -> None:
        if self._environment is not None:
            store.release(self._environment)
            self._environment = None
            kept.give_back()

    def _opened(self) -> store.Environment:
        if self._environment is None:
            raise EngineClosed("the shard was closed", object=str(self._path), hint="open it again")
        return self._environment

    def _commit(self, operation: str, work: Callable[[lmdb.Transaction[bytes], Digest], T]) -> T:
        """Outcomes: all of it committed and `_meta` renewed, or none of it. A full map grows, and `work` runs again.

        Raises StorageFull when it cannot grow.
        """
        environment = self._opened()
        with store.translated(operation, self._path):
            while True:
                self._saved = self._meta
                try:
                    result = environment.map.write(lambda txn: work(txn, Digest.decode(self._meta.digest)))
                    break
                except lmdb.MapFullError as error:
                    hindered = environment.map.grow()
                    if hindered:
                        raise store.map_full(self._path, operation, hindered) from error
        self._meta = self._saved
        return result

    def _save(self, transaction: lmdb.Transaction[bytes], digest: Digest, **values: Any) -> None:
        self._saved = msgspec.structs.replace(self._meta, digest=digest.encode(), **values)
        self._opened().write_meta(transaction, self._saved)

    def _merge(
        self, transaction: lmdb.Transaction[bytes], digest: Digest, items: Sequence[Item], over: bool = False
    ) -> int:
        """Store the items that are newer than the rows of their keys, or all; returns how many changed the shard."""
        rows = self._opened().rows
        keyed = [(store.stored_key(store.full_key(item.resource_type, item.id)), item.lsn, item) for item in items]
        keyed.sort(key=_by_key_and_lsn)
        changed = 0
        for key, lsn, item in keyed:
            old = transaction.get(key, db=rows)
            if old is not None:
                stored_lsn = int.from_bytes(old[:8], "big")
                if lsn <= stored_lsn and not over:
                    continue
                digest.remove(item.key_hash, stored_lsn)
                self._left(transaction, key)
            if item.fields is not None:
                value = store.encode_row(key, lsn, item.resource_type, item.id, self._project(item.fields))
                transaction.put(key, value, db=rows)
                digest.add(item.key_hash, lsn)
                self._stored(transaction, key, item)
            elif old is not None:
                transaction.delete(key, db=rows)
            else:
                continue
            changed += 1
        return changed

    def _empty(self, transaction: lmdb.Transaction[bytes], digest: Digest, bucket: int, keys: list[bytes]) -> None:
        rows = self._opened().rows
        for key in keys:
            transaction.delete(key, db=rows)
            self._left(transaction, key)
        digest.clear(bucket)

    def _stored(self, transaction: lmdb.Transaction[bytes], key: bytes, item: Item) -> None:
        """A row was stored. For a writer that derives more from it."""

    def _left(self, transaction: lmdb.Transaction[bytes], key: bytes) -> None:
        """A row is replaced or removed."""

    def _rows_of(self, buckets: Collection[int]) -> Iterator[tuple[bytes, str, str, int]]:
        """Key, type, id and LSN of the rows of some buckets, read in short transactions: a long one would keep LMDB
        from reusing old pages."""
        start = b""
        while True:
            page = self._page(start)
            for key, value in page:
                resource_type, id, lsn = store.version_of(key, value)
                if bucket_of(key_hash(resource_type, id)) in buckets:
                    yield key, resource_type, id, lsn
            if len(page) < _SCAN_ROWS:
                return
            start = page[-1][0] + b"\0"

    def _page(self, start: bytes) -> list[tuple[bytes, bytes]]:
        environment = self._opened()
        page: list[tuple[bytes, bytes]] = []
        with store.translated("scan", self._path), environment.map.transaction() as transaction:
            cursor = transaction.cursor(db=environment.rows)
            found = cursor.set_range(start) if start else cursor.first()
            while found and len(page) < _SCAN_ROWS:
                page.append(cursor.item())
                found = cursor.next()
        return page


def _by_key_and_lsn(entry: tuple[bytes, int, Item]) -> tuple[bytes, int]:
    return entry[:2]
