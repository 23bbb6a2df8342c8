"""The writer of a `vector` shard: each vector lies under the LSN of its row, so that a reader finds the newest ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lmdb

from shadowswitch.model.digest import Digest
from shadowswitch.model.records import Item
from shadowswitch.storage.backends.derived import entries
from shadowswitch.storage.backends.derived.writer import DerivedWriter, derived_of
from shadowswitch.storage.backends.kv import store
from shadowswitch.storage.backends.kv.writer import Project
from shadowswitch.storage.backends.vector.options import vector_of
from shadowswitch.storage.backends.vector.places import MARK, of_lsn


class VectorWriter(DerivedWriter):
    """See `protocol.SeedableWriter`. One thread at a time, any thread."""

    def __init__(self, environment: store.Environment, project: Project, options: Mapping[str, Any]) -> None:
        super().__init__(environment, project, lambda *_: ())
        self._options = options

    def _stored(self, transaction: lmdb.Transaction[bytes], key: bytes, item: Item) -> None:
        vector = vector_of((item.fields or {}).get(self._options["vector_field"]), self._options)
        if vector is not None:
            value = (item.resource_type, item.id, item.lsn, vector.astype("<f4").tobytes())
            entries.store(transaction, derived_of(self._opened()), key, [(of_lsn(item.lsn), value)])

    def _merge(
        self, transaction: lmdb.Transaction[bytes], digest: Digest, items: Sequence[Item], over: bool = False
    ) -> int:
        if over:
            self._mark(transaction)
        return super()._merge(transaction, digest, items, over)

    def _empty(self, transaction: lmdb.Transaction[bytes], digest: Digest, bucket: int, keys: list[bytes]) -> None:
        self._mark(transaction)
        super()._empty(transaction, digest, bucket, keys)

    def _mark(self, transaction: lmdb.Transaction[bytes]) -> None:
        """Rows change below LSNs that readers have read: they begin anew."""
        meta = self._opened().meta
        times = int.from_bytes(transaction.get(MARK, db=meta) or b"", "big")
        transaction.put(MARK, (times + 1).to_bytes(8, "big"), db=meta)
