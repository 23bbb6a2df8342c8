"""Batches of changes on their way into the catalog, and the chunks of half a page in which the journal holds them.

    journal key    branch u32, LSN of the chunk's last change u64
    journal value  format u8, changes in the chunk u16, LSN of the batch's last change u64,
                   MessagePack: [[resource type, id, key hash, fields], ...]      fields: nil for a delete

The changes of a chunk have consecutive LSNs and belong to one batch. The thread that calls `write` encodes a chunk; one
call of C code decodes it, in any process. Two of the largest chunks fit into a page of LMDB; a larger change has one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import msgspec

from shadowswitch.model.errors import CorruptData
from shadowswitch.model.records import Change, ChangeKind, Item

FORMAT = 2
CHUNK_BYTES_MAX = 1_900
"""LMDB gives a value of more than 2,018 bytes pages of its own."""
_AROUND_BYTES = 16
"""The most that MessagePack adds to a change, except to a huge one."""

HEADER = struct.Struct(">BHQ")

Fragment = tuple[str, str, int, msgspec.Raw]
_encode = msgspec.msgpack.Encoder().encode
_NIL = msgspec.Raw(b"\xc0")


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """One change, checked and encoded on the caller's thread. A delete has no `fields`; an empty map is one byte."""

    resource_type: str
    key_hash: int
    id: bytes
    fields: bytes


class Batch:
    """Changes that commit together or not at all, with their chunks of the journal."""

    __slots__ = ("changes", "chunks")

    def __init__(self, changes: list[Prepared]) -> None:
        """Encode the chunks, on the caller's thread."""
        self.changes = changes
        self.chunks = list(_chunks(changes))
        """The number of changes in each chunk, and their encoded form."""

    def __len__(self) -> int:
        return len(self.changes)


def _chunks(changes: list[Prepared]) -> Iterator[tuple[int, bytes]]:
    gathered: list[Fragment] = []
    size, of_type, type_bytes = 0, "", 0
    for change in changes:
        if change.resource_type != of_type:
            of_type = change.resource_type
            type_bytes = len(of_type.encode())
        own = len(change.fields) + len(change.id) + type_bytes + _AROUND_BYTES
        if size + own > CHUNK_BYTES_MAX and gathered:
            yield len(gathered), _encode(gathered)
            gathered, size = [], 0
        fields = msgspec.Raw(change.fields) if change.fields else _NIL
        gathered.append((change.resource_type, str(change.id, "utf-8"), change.key_hash, fields))
        size += own
    yield len(gathered), _encode(gathered)


class Entry(msgspec.Struct, array_like=True, gc=False):
    """One change as the journal holds it; `fields` is None for a delete."""

    resource_type: str
    id: str
    key_hash: int
    fields: dict[str, Any] | None
    lsn: int = 0

    def item(self) -> Item:
        """The change for a shard."""
        return Item(self.lsn, self.resource_type, self.id, self.key_hash, self.fields)

    def change(self) -> Change:
        """The change for a subscriber."""
        kind = ChangeKind.PUT if self.fields is not None else ChangeKind.DELETE
        return Change(self.lsn, kind, self.resource_type, self.id, self.fields)


_decode_entries = msgspec.msgpack.Decoder(list[Entry]).decode
_decode_fragments = msgspec.msgpack.Decoder(list[Fragment]).decode


def first_lsn(last: int, value: bytes | memoryview) -> int:
    """The LSN of a chunk's first change. Raises CorruptData."""
    return last - _header(value)[0] + 1


def entries_of(last: int, value: memoryview) -> tuple[list[Entry], int]:
    """The changes of a chunk in order, and the LSN at which their batch ends. Raises CorruptData.

    The result does not refer to `value`, which may be memory of a transaction.
    """
    count, batch_lsn = _header(value)
    try:
        entries = _decode_entries(value[HEADER.size :])
    except msgspec.DecodeError as error:
        raise CorruptData(f"a chunk of the journal does not decode: {error}", hint=_HINT) from error
    if not entries or len(entries) != count or batch_lsn < last:
        raise CorruptData(f"a chunk of the journal has {len(entries)} changes instead of {count}", hint=_HINT)
    lsn = last - count
    for entry in entries:
        lsn += 1
        entry.lsn = lsn
    return entries, batch_lsn


def fragments_of(value: memoryview) -> list[Fragment]:
    """The changes of a chunk that `entries_of` accepted, their fields still encoded."""
    return _decode_fragments(bytes(value[HEADER.size :]))


_HINT = "run `shadowswitch check`"


def _header(value: bytes | memoryview) -> tuple[int, int]:
    """(number of changes, LSN of the batch's end); raises CorruptData for anything else than a chunk."""
    try:
        version, count, batch_lsn = HEADER.unpack_from(value)
    except struct.error as error:
        raise CorruptData(f"a chunk of the journal is cut off: {error}", hint=_HINT) from error
    if version != FORMAT:
        raise CorruptData(f"a chunk of the journal has the unknown format {version}", hint=_HINT)
    return count, batch_lsn
