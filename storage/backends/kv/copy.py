"""Copies of `kv` shards for other programs: all shards as of one moment, made by LMDB, while their writer continues.

Only LMDB opens and closes descriptors of its files: any other close would drop its locks (see `store`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lmdb

from shadowswitch.storage.backends.kv import store


class KvSnapshot:
    """See `protocol.Snapshot`."""

    def __init__(self, shards: Sequence[Path], options: Mapping[str, Any]) -> None:
        self._sources: list[tuple[store.Environment, lmdb.Transaction]] = []
        try:
            for path in shards:
                environment = store.open_environment(path, options)
                try:
                    with store.translated("snapshot", path):
                        self._sources.append((environment, environment.map.begin(lasting=True)))
                except BaseException:
                    store.release(environment)
                    raise
        except BaseException:
            self.close()
            raise

    def copy(self, targets: Sequence[Path]) -> None:
        for (environment, transaction), target in zip(self._sources, targets, strict=True):
            with store.translated("copy", environment.path):
                folder = target / store.FOLDER
                for made in (target, folder):
                    made.mkdir(mode=0o700)
                environment.env.copy(os.fspath(folder), compact=True, txn=transaction)

    def close(self) -> None:
        while self._sources:
            environment, transaction = self._sources.pop()
            transaction.abort()
            environment.map.ended(lasting=True)
            store.release(environment)
