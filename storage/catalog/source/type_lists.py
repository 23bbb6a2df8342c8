"""Long lists of resource types, stored once: the rows of shadows and generations refer to them by their hash.

    meta: "type list <hash>" -> MessagePack array of names          a row: resource_types ["\\0<hash>"]

A switch stores four of these rows. With the names in each, it would write them in the line of writes. A list is never
changed, and stays as long as the shadows that name it: for ever. Invariant: ST-4.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, TypeVar

import lmdb
import msgspec

from shadowswitch.model.errors import CorruptData
from shadowswitch.storage.catalog import rows
from shadowswitch.storage.catalog.rows import GenerationRow, ShadowRow

Row = TypeVar("Row", ShadowRow, GenerationRow)
INLINE_MAX = 64
"""Up to so many names stand in the row itself."""
_MARK = "\0"
"""Begins the name that stands for a list. No resource type holds a NUL."""
_LISTS_MAX = 256
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[str]).decode


class TypeLists:
    """The long lists in memory, by hash. Any thread; a list is never changed."""

    def __init__(self, meta: Any) -> None:
        """`meta` is the unnamed database."""
        self._meta = meta
        self._known: dict[str, list[str]] = {}

    def shadow(self, value: Any, txn: lmdb.Transaction) -> ShadowRow:
        """A stored shadow row, with its names. Raises CorruptData."""
        return self._whole(rows.decode_shadow(value), txn)

    def generation(self, value: Any, txn: lmdb.Transaction) -> GenerationRow:
        """A stored generation row, with its names. Raises CorruptData."""
        return self._whole(rows.decode_generation(value), txn)

    def _whole(self, row: Row, txn: lmdb.Transaction) -> Row:
        names = row.resource_types
        if len(names) != 1 or not names[0].startswith(_MARK):
            return row
        return msgspec.structs.replace(row, resource_types=self._list(names[0], txn))

    def shortened(self, row: Row, txn: lmdb.Transaction) -> Row:
        """A row as it is stored; its list is stored first if it is a new one. In a write transaction."""
        names = row.resource_types
        if len(names) <= INLINE_MAX:
            return row
        mark = next((mark for mark, known in self._known.copy().items() if known is names), None)
        if mark is None or not txn.cursor(self._meta).set_key(_key(mark)):  # its first transaction may have failed
            encoded = _encode(names)
            mark = _mark(encoded)
            txn.put(_key(mark), encoded, db=self._meta)
        return msgspec.structs.replace(row, resource_types=[mark])

    def _list(self, mark: str, txn: lmdb.Transaction) -> list[str]:
        known = self._known.get(mark)
        if known is None:
            encoded = bytes(txn.get(_key(mark), db=self._meta) or b"")
            if _mark(encoded) != mark:
                raise CorruptData(
                    f"the list of resource types {mark[1:]} is missing or damaged",
                    operation="read",
                    hint="restore the data directory from a backup",
                )
            if len(self._known) >= _LISTS_MAX:
                self._known = {}
            known = self._known[mark] = _decode(encoded)
        return known


def _key(mark: str) -> bytes:
    return b":type list " + mark[1:].encode()


def _mark(encoded: bytes) -> str:
    return _MARK + blake2b(encoded, digest_size=16).hexdigest()
