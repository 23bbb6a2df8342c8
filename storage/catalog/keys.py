"""Keys of the catalog and headers of records, in fixed binary form: a scan reads them without decoding.

    record key     branch u32, type u32, bucket u8, id bytes       00000007 00000001 2a "User"
    record value   format u8, lsn u64, id length u16, id bytes, fields (MessagePack)
    journal key    branch u32, lsn u64                     the value: see `journal_format`
    digest key     branch u32, type u32

All integers are big-endian, so that LMDB's order is the order of numbers. Records are ordered by bucket: a shard is a
few contiguous ranges, and a bucket can be read and repaired alone. An LMDB key has at most 511 bytes. The key of an id
longer than `ID_IN_KEY_MAX` bytes holds the beginning of the id and a 256-bit hash, so it is longer than any short key.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Any

import msgspec

from shadowswitch.model.errors import CorruptData

FORMAT = 1
ID_IN_KEY_MAX = 400

BRANCH = struct.Struct(">I")
TYPE_PREFIX = struct.Struct(">II")
RECORD_PREFIX = struct.Struct(">IIB")
RECORD_HEADER = struct.Struct(">BQH")
JOURNAL_KEY = struct.Struct(">IQ")
SEQUENCE = struct.Struct(">Q")
HEAD = struct.Struct(">QQ")

_decode_fields = msgspec.msgpack.Decoder(dict[str, Any]).decode


def record_key(branch: int, type_number: int, bucket: int, id: bytes) -> bytes:
    """The key of a record; never longer than LMDB allows."""
    if len(id) > ID_IN_KEY_MAX:
        id = id[:ID_IN_KEY_MAX] + blake2b(id, digest_size=32).digest()
    return RECORD_PREFIX.pack(branch, type_number, bucket) + id


def record_lsn(value: bytes | memoryview) -> int:
    """The LSN of a stored record, without decoding the rest."""
    return _record_header(value)[0]


def _record_header(value: bytes | memoryview) -> tuple[int, int]:
    """(LSN, id length); raises CorruptData for anything else than a record."""
    try:
        version, lsn, length = RECORD_HEADER.unpack_from(value)
    except struct.error as error:
        raise CorruptData(f"a record is cut off: {error}", hint="run `shadowswitch check`") from error
    if version != FORMAT:
        raise CorruptData(f"a record has the unknown format {version}", hint="run `shadowswitch check`")
    return lsn, length


def split_record(value: bytes | memoryview) -> tuple[int, str, memoryview]:
    """A stored record as (lsn, id, encoded fields). Raises CorruptData."""
    view = memoryview(value)
    lsn, length = _record_header(view)
    start = RECORD_HEADER.size
    try:
        return lsn, str(view[start : start + length], "utf-8"), view[start + length :]
    except UnicodeDecodeError as error:
        id = bytes(view[start : start + length])
        raise CorruptData(f"the id {id[:80]!r} is not UTF-8", hint="run `shadowswitch check`") from error


def decode_fields(data: bytes | memoryview) -> dict[str, Any]:
    """The fields of a record; raises CorruptData for anything that is not a MessagePack map."""
    try:
        return _decode_fields(data)
    except msgspec.DecodeError as error:
        raise CorruptData(f"stored fields do not decode: {error}", hint="run `shadowswitch check`") from error
