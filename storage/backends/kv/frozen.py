"""A reader of a `kv` generation that shows one moment: it keeps a read transaction of each shard.

LMDB does not use the pages of that moment again meanwhile, and the map of the shard cannot grow, see `growth`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from shadowswitch.storage.backends.kv import store
from shadowswitch.storage.backends.kv.reader import KvReader
from shadowswitch.storage.backends.protocol import ShardState

T = TypeVar("T")


class KvFreezingReader(KvReader):
    """See `protocol.FreezingReader`."""

    def __init__(self, shards: Sequence[Path], options: Mapping[str, Any]) -> None:
        self._kept: dict[store.Environment, lmdb.Transaction[bytes]] = {}
        super().__init__(shards, options)

    def freeze(self) -> None:
        """See `protocol.FreezingReader`."""
        self._let_go()
        for environment in self._opened():
            with store.translated("freeze", environment.path):
                self._kept[environment] = environment.map.begin(lasting=True)

    def _let_go(self) -> None:
        while self._kept:
            environment, transaction = self._kept.popitem()
            transaction.abort()
            environment.map.ended(lasting=True)

    def _reading(self, environment: store.Environment) -> AbstractContextManager[lmdb.Transaction[bytes]]:
        kept = self._kept.get(environment)
        return nullcontext(kept) if kept is not None else super()._reading(environment)

    def _snapshot(self, shard: int, made: Callable[[bytes, bytes], T]) -> tuple[ShardState, Iterator[T]]:
        environment = self._opened()[shard]
        kept = self._kept.get(environment)
        if kept is None:
            return super()._snapshot(shard, made)
        with store.translated("scan", environment.path):
            state = store.state_of(environment.read_meta(kept))
        return state, self._rows_of(environment, kept, made)

    def _rows_of(
        self, environment: store.Environment, kept: lmdb.Transaction[bytes], made: Callable[[bytes, bytes], T]
    ) -> Iterator[T]:
        with kept.cursor(db=environment.rows) as cursor:
            there = cursor.first()
            while there:
                yield made(bytes(cursor.key()), bytes(cursor.value()))
                there = cursor.next()

    def close(self) -> None:
        """Release everything. Idempotent."""
        self._let_go()
        super().close()
