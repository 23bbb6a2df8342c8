"""Copies of `kv` shards for outsiders: all shards as of one moment, made by LMDB itself, while their writer goes on.

No descriptor of LMDB's files is opened and closed beside it: that would drop its locks (see `kv_store`).
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
                        self._sources.append((environment, environment.env.begin()))
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
                folder.mkdir(mode=0o700, parents=True)
                environment.env.copy(os.fspath(folder), compact=True, txn=transaction)

    def close(self) -> None:
        while self._sources:
            environment, transaction = self._sources.pop()
            transaction.abort()
            store.release(environment)
