"""Batches of changes on their way into the catalog, and how the journal holds them: in pieces of half a page.

    journal key    branch u32, LSN of the piece's last change u64
    journal value  format u8, changes in the piece u16, LSN of the batch's last change u64,
                   MessagePack: [[resource type, id, key hash, fields], ...]      fields: nil for a delete

The changes of a piece have consecutive LSNs and are of one batch. A piece is encoded on the thread of the caller who
writes it, and decoded by one call of C code, whichever process replays it. Two of the largest fit into a page of LMDB;
a change that is larger has a piece to itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import msgspec

from shadowswitch.model.errors import CorruptData
from shadowswitch.model.records import Change, Item

FORMAT = 2
PIECE_BYTES_MAX = 1_900
"""A value of more than 2,018 bytes would have pages of its own."""
_AROUND_BYTES = 16
"""What MessagePack adds to a change, at most, for all but huge ones."""

HEADER = struct.Struct(">BHQ")

Fragment = tuple[str, str, int, msgspec.Raw]
_encode = msgspec.msgpack.Encoder().encode
_NIL = msgspec.Raw(b"\xc0")


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """One change, checked and encoded by the caller's thread. A delete has no `fields`; an empty map is a byte."""

    resource_type: str
    key_hash: int
    id: bytes
    fields: bytes


class Batch:
    """Changes that are committed together or not at all, with their pieces of the journal."""

    __slots__ = ("changes", "pieces")

    def __init__(self, changes: list[Prepared]) -> None:
        """Encode the pieces; on the thread of the caller who writes."""
        self.changes = changes
        self.pieces = list(_pieces(changes))
        """How many changes each has, and their encoded form."""

    def __len__(self) -> int:
        return len(self.changes)


def _pieces(changes: list[Prepared]) -> Iterator[tuple[int, bytes]]:
    gathered: list[Fragment] = []
    size, of_type, type_bytes = 0, "", 0
    for change in changes:
        if change.resource_type != of_type:
            of_type = change.resource_type
            type_bytes = len(of_type.encode())
        own = len(change.fields) + len(change.id) + type_bytes + _AROUND_BYTES
        if size + own > PIECE_BYTES_MAX and gathered:
            yield len(gathered), _encode(gathered)
            gathered, size = [], 0
        fields = msgspec.Raw(change.fields) if change.fields else _NIL
        gathered.append((change.resource_type, str(change.id, "utf-8"), change.key_hash, fields))
        size += own
    yield len(gathered), _encode(gathered)


class Entry(msgspec.Struct, array_like=True, gc=False):
    """One change as the journal has it; `fields` is None for a delete."""

    resource_type: str
    id: str
    key_hash: int
    fields: dict[str, Any] | None
    lsn: int = 0

    def item(self) -> Item:
        """As a shard takes it."""
        return Item(self.lsn, self.resource_type, self.id, self.key_hash, self.fields)

    def change(self) -> Change:
        """As a subscriber gets it."""
        return Change(
            self.lsn, "put" if self.fields is not None else "delete", self.resource_type, self.id, self.fields
        )


_decode_entries = msgspec.msgpack.Decoder(list[Entry]).decode
_decode_fragments = msgspec.msgpack.Decoder(list[Fragment]).decode


def first_lsn(last: int, value: bytes | memoryview) -> int:
    """The LSN of a piece's first change. Raises CorruptData."""
    return last - _header(value)[0] + 1


def entries_of(last: int, value: memoryview) -> tuple[list[Entry], int]:
    """The changes of a piece in order, and the LSN at which their batch ends. Raises CorruptData.

    Nothing of what is returned refers to `value`, which may be memory of a transaction."""
    count, batch_lsn = _header(value)
    try:
        entries = _decode_entries(value[HEADER.size :])
    except msgspec.DecodeError as error:
        raise CorruptData(f"a piece of the journal does not decode: {error}", hint=_HINT) from error
    if not entries or len(entries) != count or batch_lsn < last:
        raise CorruptData(f"a piece of the journal has {len(entries)} changes instead of {count}", hint=_HINT)
    lsn = last - count
    for entry in entries:
        lsn += 1
        entry.lsn = lsn
    return entries, batch_lsn


def fragments_of(value: memoryview) -> list[Fragment]:
    """The changes of a piece that `entries_of` took, their fields still encoded."""
    return _decode_fragments(bytes(value[HEADER.size :]))


_HINT = "run `shadowswitch check`"


def _header(value: bytes | memoryview) -> tuple[int, int]:
    """(number of changes, LSN of the batch's end); raises CorruptData for anything that is no piece."""
    try:
        version, count, batch_lsn = HEADER.unpack_from(value)
    except struct.error as error:
        raise CorruptData(f"a piece of the journal is cut off: {error}", hint=_HINT) from error
    if version != FORMAT:
        raise CorruptData(f"a piece of the journal has the unknown format {version}", hint=_HINT)
    return count, batch_lsn
