"""Keys of the catalog and headers of records, in fixed binary form: a scan reads them without decoding.

    record key     branch u32, type u32, bucket u8, id bytes       00000007 00000001 2a "User"
    record value   format u8, lsn u64, id length u16, checksum u32, id bytes, fields (MessagePack)
    journal key    branch u32, lsn u64                     the value: see `journal_format`
    digest key     branch u32, type u32

All integers are big-endian, so that LMDB's order is the order of numbers. Records are ordered by bucket: a shard is a
few contiguous ranges, and a bucket can be read and repaired alone. An LMDB key has at most 511 bytes. The key of an id
longer than `ID_IN_KEY_MAX` bytes holds the beginning of the id and a 256-bit hash, so it is longer than any short key.

The checksum of a record is a CRC-32 over id and fields, then format, LSN, id length and key (decision 0012). A record
of format 1 has no checksum, and is otherwise the same.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Any
from zlib import crc32

import msgspec

from shadowswitch.model.errors import CorruptData

FORMAT = 2
FORMAT_BARE = 1
"""Records without a checksum, of an older version."""
ID_IN_KEY_MAX = 400
REPAIR = "run `shadowswitch check --repair`"

BRANCH = struct.Struct(">I")
TYPE_PREFIX = struct.Struct(">II")
RECORD_PREFIX = struct.Struct(">IIB")
RECORD_HEADER = struct.Struct(">BQH")
CHECKSUM = struct.Struct(">I")
_HEADER_BYTES = RECORD_HEADER.size
_BEGIN = _HEADER_BYTES + CHECKSUM.size
JOURNAL_KEY = struct.Struct(">IQ")
SEQUENCE = struct.Struct(">Q")
HEAD = struct.Struct(">QQ")
COUNT = struct.Struct(">Q")
"""Behind a HEAD. An older version stored none."""

_decode_fields = msgspec.msgpack.Decoder(dict[str, Any]).decode


def record_key(branch: int, type_number: int, bucket: int, id: bytes) -> bytes:
    """The key of a record; never longer than LMDB allows."""
    if len(id) > ID_IN_KEY_MAX:
        id = id[:ID_IN_KEY_MAX] + blake2b(id, digest_size=32).digest()
    return RECORD_PREFIX.pack(branch, type_number, bucket) + id


def body_checksum(id: bytes, fields: bytes) -> int:
    """The part of a record's checksum that does not depend on its LSN."""
    return crc32(fields, crc32(id))


def record_value(key: bytes, lsn: int, id: bytes, fields: bytes, body: int) -> bytes:
    """A record as it is stored; `body` is its `body_checksum`."""
    header = RECORD_HEADER.pack(FORMAT, lsn, len(id))
    return header + CHECKSUM.pack(crc32(key, crc32(header, body))) + id + fields


def tombstone(key: bytes, lsn: int, id: bytes) -> bytes:
    """The value in the place of a record that a fork deleted: a record without fields, which no put can be."""
    return record_value(key, lsn, id, b"", crc32(id))


def is_tombstone(value: bytes | memoryview) -> bool:
    """Is the value of a record a tombstone?"""
    return len(value) >= _BEGIN and value[0] == FORMAT and len(value) == _BEGIN + RECORD_HEADER.unpack_from(value)[2]


def split_record(key: bytes | memoryview, value: bytes | memoryview) -> tuple[int, str, memoryview]:
    """The record at a key: LSN, id, encoded fields, which refer to the memory of the value.

    Raises CorruptData for anything else than what was written there.
    """
    view = memoryview(value)
    try:
        version, lsn, length = RECORD_HEADER.unpack_from(view)
        if version == FORMAT:
            (stored,) = CHECKSUM.unpack_from(view, _HEADER_BYTES)
            if crc32(key, crc32(view[:_HEADER_BYTES], crc32(view[_BEGIN:]))) != stored:
                raise CorruptData("its checksum is not that of its content", hint=REPAIR)
            end = _BEGIN + length
            return lsn, str(view[_BEGIN:end], "utf-8"), view[end:]
        return lsn, *_split_bare(key, view, version, length)
    except struct.error as error:
        raise CorruptData(f"it is cut off: {error}", hint=REPAIR) from error
    except UnicodeDecodeError as error:
        raise CorruptData(f"its id is no text: {error}", hint=REPAIR) from error


def _split_bare(key: bytes | memoryview, view: memoryview, version: int, length: int) -> tuple[str, memoryview]:
    if version != FORMAT_BARE:
        raise CorruptData(f"it has the unknown format {version}", hint=REPAIR)
    end = _HEADER_BYTES + length
    id, inside = view[_HEADER_BYTES:end], key[RECORD_PREFIX.size :]
    if len(inside) <= ID_IN_KEY_MAX and id != inside:
        raise CorruptData("it has the id of another record", hint=REPAIR)
    return str(id, "utf-8"), view[end:]


def has_checksum(value: bytes | memoryview) -> bool:
    """Has the record a checksum?"""
    return value[0] != FORMAT_BARE


def claimed_lsn(value: bytes | memoryview) -> int:
    """The LSN in the header of a record, also of a damaged one; 0 if the header is cut off."""
    return int(RECORD_HEADER.unpack_from(value)[1]) if len(value) >= RECORD_HEADER.size else 0


def claimed_content(value: bytes | memoryview) -> bytes:
    """The id and the encoded fields of a record, also of a damaged one."""
    return bytes(value[_BEGIN if value[:1] and has_checksum(value) else _HEADER_BYTES :])


def claimed_id(key: bytes | memoryview, value: bytes | memoryview) -> str:
    """The id of a record, also of a damaged one: from its key, or from the value if the id is longer than a key."""
    inside = bytes(key[RECORD_PREFIX.size :])
    if len(inside) > ID_IN_KEY_MAX and len(value) >= RECORD_HEADER.size:
        inside = claimed_content(value)[: RECORD_HEADER.unpack_from(value)[2]]
    return inside.decode("utf-8", "replace")


def decode_fields(data: bytes | memoryview) -> dict[str, Any]:
    """The fields of a record; raises CorruptData for anything that is not a MessagePack map."""
    try:
        return _decode_fields(data)
    except ValueError as error:
        raise CorruptData(f"its fields do not decode: {error}", hint=REPAIR) from error
