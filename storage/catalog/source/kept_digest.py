"""The digest over several types of a branch, kept while a switch is under way. Invariants: ST-3, SW-3."""

from __future__ import annotations

from collections.abc import Collection

import lmdb

from shadowswitch.model.digest import Digest, DigestSum
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.keys import TYPE_PREFIX


class KeptDigest:
    """The digest over some types of a branch. Once it is read, a look costs as much as types were written to since."""

    def __init__(self, catalog: Catalog, branch: int, types: Collection[int]) -> None:
        """Reads the digest of each type: 2 us each. Any thread. To be closed."""
        self._catalog = catalog
        self._branch = branch
        self._sum = DigestSum()
        self._added: dict[int, bytes | None] = {}
        self._changed = catalog.dirty.watch_digests()  # before the transaction: no commit is missed
        with catalog.read() as txn:
            for number in types:
                self._add(txn, number)

    def _add(self, txn: lmdb.Transaction, number: int) -> None:
        value = txn.get(TYPE_PREFIX.pack(self._branch, number), db=self._catalog.db["heads"])
        encoded = self._added[number] = bytes(value) if value is not None else None
        self._sum.add(encoded)

    def look(self) -> tuple[int, Digest]:
        """Head LSN and digest, both as of now. On the thread of the JournalWriter, which notes what it commits."""
        changed = [number for branch, number in self._changed if branch == self._branch and number in self._added]
        self._changed.clear()
        with self._catalog.read() as txn:
            for number in changed:
                self._sum.remove(self._added[number])
                self._add(txn, number)
            return self._catalog.head_in(txn, self._branch)[0], self._sum.digest()

    def close(self) -> None:
        """Commits are noted no more."""
        self._catalog.dirty.forget_watch(self._changed)
