"""The names of resource types in memory, so that no call reads the whole table.

Types are only added; a repair may name one again. Each of these transactions raises the number `types` of `meta`, by
which a reader sees that its table is old. Invariant: ST-4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import lmdb

from shadowswitch.storage.catalog.keys import BRANCH

VERSION = "types"
"""The number of `meta`; 0 in a directory in which an older version named every type."""


class TypeTable:
    """The names as of one version. Never changed, so any thread may read it."""

    def __init__(self, version: int, names: dict[int, str]) -> None:
        self.version = version
        self.names = names
        """Name by number."""
        self.numbers = {name: number for number, name in names.items()}
        """Number by name."""

    def at(self, version: int, txn: lmdb.Transaction, db: Any) -> TypeTable:
        """The table as of a version, with the transaction that has it. Costs as much as types were added since."""
        if version == self.version:
            return self
        added = dict(rows_from(txn, db, max(self.names, default=0) + 1))
        if self.version >= 0 and len(added) == version - self.version:
            return TypeTable(version, {**self.names, **added})
        return TypeTable(version, dict(rows_from(txn, db, 0)))


UNREAD = TypeTable(-1, {})
"""The table of a catalog that no call has asked for types yet."""


def rows_from(txn: lmdb.Transaction, db: Any, number: int) -> Iterator[tuple[int, str]]:
    """The stored names from a number on, in order."""
    cursor = txn.cursor(db)
    if cursor.set_range(BRANCH.pack(number)):
        for key, value in cursor:
            yield BRANCH.unpack(key)[0], str(value, "utf-8", "replace")  # a damaged name must not hinder its repair


def numbered(types: Mapping[int, str], names: Iterable[str]) -> dict[int, str]:
    """Of the types by number, those of the names. Costs as much as there are types, however many names are given."""
    wanted = set(names)
    return {number: name for number, name in types.items() if name in wanted}
