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
from shadowswitch.storage.backends.vector import hnsw
from shadowswitch.storage.backends.vector.embedder import embedder_of, text_of
from shadowswitch.storage.backends.vector.options import vector_of
from shadowswitch.storage.backends.vector.places import MARK, mark_of, of_lsn


class VectorWriter(DerivedWriter):
    """See `protocol.SeedableWriter`. One thread at a time, any thread."""

    def __init__(self, environment: store.Environment, project: Project, options: Mapping[str, Any]) -> None:
        super().__init__(environment, project, lambda *_: ())
        self._options = options
        self._embedder = embedder_of(options, self._path) if "embedder" in options else None
        self._embedded: dict[tuple[str, str, int], bytes] = {}
        """The vectors of the items of the batch that is stored."""

    def finish_load(self, applied_lsn: int) -> None:
        hnsw.build(self._opened(), self._options)  # before: a build that is killed here makes it when it goes on
        super().finish_load(applied_lsn)

    def load(self, items: Sequence[Item], cursor: bytes) -> None:
        self._embed(items)
        super().load(items, cursor)

    def apply(self, items: Sequence[Item], applied_lsn: int) -> int:
        before = self.state().applied_lsn
        self._embed([item for item in items if item.lsn > before])
        return super().apply(items, applied_lsn)

    def amend(self, items: Sequence[Item]) -> None:
        self._embed(items)
        super().amend(items)

    def repair_bucket(self, bucket: int, items: Sequence[Item]) -> None:
        self._embed(items)
        super().repair_bucket(bucket, items)

    def _embed(self, items: Sequence[Item]) -> None:
        """Before the transaction: an embedder takes its time. Raises as `Embedder.vectors`."""
        if self._embedder is None:
            return
        names = self._options["field"]
        texts = [(item, text) for item in items if (text := text_of(item.fields or {}, names))]
        vectors = self._embedder.vectors([text for _, text in texts]) if texts else []
        self._embedded = {
            (item.resource_type, item.id, item.lsn): vector for (item, _), vector in zip(texts, vectors, strict=True)
        }

    def _vector(self, item: Item) -> bytes | None:
        if self._embedder is not None:
            return self._embedded.get((item.resource_type, item.id, item.lsn)) or None
        vector = vector_of((item.fields or {}).get(self._options["vector_field"]), self._options)
        return vector.astype("<f4").tobytes() if vector is not None else None

    def _stored(self, transaction: lmdb.Transaction[bytes], key: bytes, item: Item) -> None:
        floats = self._vector(item)
        if floats is not None:
            value = (item.resource_type, item.id, item.lsn, floats)
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
        environment = self._opened()
        transaction.put(MARK, (mark_of(environment, transaction) + 1).to_bytes(8, "big"), db=environment.meta)
