"""The entries of a shard: what is derived from its rows, in two databases beside them.

    entries   begin, hash of the key of the row (16 bytes)   ->  MessagePack of a value
    owned     key of the row                                 ->  MessagePack of [[key, CRC-32 of the value], ...]

`begin` is what the backend looks for. It has at most `BEGIN_BYTES_MAX` bytes; entries lie in its order. A row without
entries has no row in `owned`.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any
from zlib import crc32

import lmdb
import msgspec

from shadowswitch.model.errors import CorruptData

Entry = tuple[bytes, Any]
"""`begin`, and a value that MessagePack has. Of entries of one record with the same `begin` the last one counts."""
HASH_BYTES = 16
BEGIN_BYTES_MAX = 480
"""LMDB allows keys of 511 bytes."""
Owned = list[tuple[bytes, int]]

_decode_owned = msgspec.msgpack.Decoder(Owned).decode
_encode = msgspec.msgpack.Encoder().encode
decode_value = msgspec.msgpack.Decoder().decode


def hashed(text: bytes) -> bytes:
    """16 bytes that stand for a text of any length."""
    return blake2b(text, digest_size=HASH_BYTES).digest()


def shortened(text: bytes, most: int) -> bytes:
    """A text of at most so many bytes; a longer one ends with its hash."""
    return text if len(text) <= most else text[: most - HASH_BYTES] + hashed(text)


def store(transaction: lmdb.Transaction[bytes], databases: tuple[Any, ...], key: bytes, found: Iterable[Entry]) -> None:
    """Store the entries of a row, which has none."""
    entries, owned = databases
    owner, held = hashed(key), dict[bytes, int]()
    for begin, value in found:
        place, encoded = begin[:BEGIN_BYTES_MAX] + owner, _encode(value)
        transaction.put(place, encoded, db=entries)
        held[place] = crc32(encoded)
    if held:
        transaction.put(key, _encode(list(held.items())), db=owned)


def remove(transaction: lmdb.Transaction[bytes], databases: tuple[Any, ...], key: bytes) -> None:
    """Remove the entries of a row. Raises CorruptData."""
    entries, owned = databases
    held = transaction.pop(key, db=owned)
    if held is not None:
        for place, _ in owned_of(key, held):
            transaction.delete(place, db=entries)


def owned_of(key: bytes, value: bytes) -> Owned:
    """Place and checksum of each entry of a row. Raises CorruptData."""
    try:
        return _decode_owned(value)
    except msgspec.DecodeError as error:
        hint = "build the index again"
        raise CorruptData(f"the entries of the row {key[:80]!r} are damaged", hint=hint, cause=error) from error
