"""Batches of changes on their way into the catalog, and the chunks of half a page in which the journal holds them.

    journal key    branch u32, LSN of the chunk's last change u64
    journal value  format u8, changes in the chunk u16, LSN of the batch's last change u64, checksum u32,
                   MessagePack: [[resource type, id, key hash, fields], ...]      fields: nil for a delete

The changes of a chunk have consecutive LSNs and belong to one batch. The thread that calls `write` encodes a chunk; one
call of C code decodes it, in any process. Two of the largest chunks fit into a page of LMDB; a larger change has one.

The checksum is a CRC-32 over the MessagePack, then the other header fields and the LSN of the key (decision 0012). A
chunk of format 2 has no checksum, and is otherwise the same.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any
from zlib import crc32

import msgspec

from shadowswitch.model.errors import CorruptData
from shadowswitch.model.records import Change, ChangeKind, Item
from shadowswitch.storage.catalog.keys import CHECKSUM, REPAIR

FORMAT = 3
FORMAT_BARE = 2
"""Chunks without a checksum, of an older version."""
CHUNK_BYTES_MAX = 1_900
"""LMDB gives a value of more than 2,018 bytes pages of its own."""
_AROUND_BYTES = 16
"""The most that MessagePack adds to a change, except to a huge one."""

HEADER = struct.Struct(">BHQ")
_LAST = struct.Struct(">Q")

Fragment = tuple[str, str, int, msgspec.Raw]
Chunk = tuple[int, bytes, int]
"""The number of changes, their encoded form, and its checksum."""
_encode = msgspec.msgpack.Encoder().encode
_NIL = msgspec.Raw(b"\xc0")


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """One change, checked and encoded on the caller's thread. A delete has no `fields`; an empty map is one byte."""

    resource_type: str
    key_hash: int
    id: bytes
    fields: bytes
    checksum: int
    """The `body_checksum` of the record; 0 for a delete."""


class Batch:
    """Changes that commit together or not at all, with their chunks of the journal."""

    __slots__ = ("changes", "chunks")

    def __init__(self, changes: list[Prepared]) -> None:
        """Encode the chunks, on the caller's thread."""
        self.changes = changes
        self.chunks = list(chunks_of(changes))

    def __len__(self) -> int:
        return len(self.changes)

    @property
    def size_bytes(self) -> int:
        """The bytes of its journal, about as many as those of its records."""
        return sum(len(body) for _, body, _ in self.chunks)


def chunks_of(changes: list[Prepared]) -> Iterator[Chunk]:
    """The changes, which are one at least, as chunks."""
    gathered: list[Fragment] = []
    size, of_type, type_bytes = 0, "", 0
    for change in changes:
        if change.resource_type != of_type:
            of_type = change.resource_type
            type_bytes = len(of_type.encode())
        own = len(change.fields) + len(change.id) + type_bytes + _AROUND_BYTES
        if size + own > CHUNK_BYTES_MAX and gathered:
            body = _encode(gathered)
            yield len(gathered), body, crc32(body)
            gathered, size = [], 0
        fields = msgspec.Raw(change.fields) if change.fields else _NIL
        gathered.append((change.resource_type, str(change.id, "utf-8"), change.key_hash, fields))
        size += own
    body = _encode(gathered)
    yield len(gathered), body, crc32(body)


def chunk_value(last: int, count: int, batch_lsn: int, body: bytes, checksum: int) -> bytes:
    """A chunk as it is stored under the LSN of its last change; `checksum` is that of its encoded form."""
    header = HEADER.pack(FORMAT, count, batch_lsn)
    return header + CHECKSUM.pack(crc32(header + _LAST.pack(last), checksum)) + body


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
    count, batch_lsn, body = _parts(last, value)
    try:
        entries = _decode_entries(body)
    except ValueError as error:
        raise CorruptData(f"a chunk of the journal does not decode: {error}", hint=REPAIR) from error
    if not entries or len(entries) != count or batch_lsn < last:
        raise CorruptData(f"a chunk of the journal has {len(entries)} changes instead of {count}", hint=REPAIR)
    lsn = last - count
    for entry in entries:
        lsn += 1
        entry.lsn = lsn
    return entries, batch_lsn


CHUNK_CHANGES_MAX = CHUNK_BYTES_MAX // _AROUND_BYTES
"""Each change in a chunk of several counts for `_AROUND_BYTES` at least."""


def claimed(value: memoryview | bytes) -> tuple[int, int]:
    """(number of changes, LSN of the batch's end) in the header of a chunk, also of a damaged one."""
    if len(value) < HEADER.size:
        return 0, 0
    _, count, batch_lsn = HEADER.unpack_from(value)
    return count, batch_lsn


def has_checksum(value: memoryview | bytes) -> bool:
    """Has the chunk a checksum?"""
    return value[0] == FORMAT


def fragments_of(value: memoryview) -> list[Fragment]:
    """The changes of a chunk that `entries_of` accepted, their fields still encoded."""
    return _decode_fragments(bytes(_body(value)))


def _body(value: memoryview) -> memoryview:
    return value[HEADER.size + (CHECKSUM.size if has_checksum(value) else 0) :]


def _parts(last: int, value: memoryview) -> tuple[int, int, memoryview]:
    """(number of changes, LSN of the batch's end, encoded changes), as they were written. Raises CorruptData."""
    count, batch_lsn = _header(value)
    body = _body(value)
    if has_checksum(value):
        (stored,) = CHECKSUM.unpack_from(value, HEADER.size)
        if crc32(b"".join((value[: HEADER.size], _LAST.pack(last))), crc32(body)) != stored:
            changes = f"the chunk of the journal up to LSN {last}"
            raise CorruptData(f"{changes} is damaged: its checksum is not that of its content", hint=REPAIR)
    return count, batch_lsn, body


def _header(value: bytes | memoryview) -> tuple[int, int]:
    """(number of changes, LSN of the batch's end); raises CorruptData for anything else than a chunk."""
    try:
        version, count, batch_lsn = HEADER.unpack_from(value)
    except struct.error as error:
        raise CorruptData(f"a chunk of the journal is cut off: {error}", hint=REPAIR) from error
    if version not in (FORMAT, FORMAT_BARE) or (version == FORMAT and len(value) < HEADER.size + CHECKSUM.size):
        what = "is cut off" if version == FORMAT else f"has the unknown format {version}"
        raise CorruptData(f"a chunk of the journal {what}", hint=REPAIR)
    return count, batch_lsn
