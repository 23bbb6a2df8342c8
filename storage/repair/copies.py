"""Copies of damaged records: in the journal and in generations; and what proves that a copy is what was written.

A copy is put back only if one of these proves it:

    the checksum of the record      the copy, under its LSN, gives the checksum that the damaged record still has
    most of that checksum           the record's own content gives three of its four bytes: the fourth is damaged
    the journal entry               its chunk has a checksum, and no later change of the key can be in a damaged chunk
    two sources                     the record itself, journal or generations have the same LSN and the same fields

A generation may hold a part of the fields only, as texts. A text of a generation is tried at the places of the damaged
content where a half of it still stands; the checksum decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations, islice
from typing import Any, NamedTuple

import msgspec

from shadowswitch.model.errors import CorruptData
from shadowswitch.model.records import Record
from shadowswitch.storage.catalog import keys
from shadowswitch.storage.catalog.rows import BranchRow

_encode = msgspec.msgpack.Encoder().encode
PLACES_MAX = 4_096
"""Places tried for the texts of one record: a checksum of 32 bits proves no more than that."""


class Damaged(NamedTuple):
    """A record that is not what was written: where it is, and what is stored there."""

    branch: BranchRow
    resource_type: str
    key: bytes
    value: bytes

    @property
    def id(self) -> str:
        """Its id."""
        return keys.claimed_id(self.key, self.value)

    @property
    def lsn(self) -> int:
        """The LSN in its header."""
        return keys.claimed_lsn(self.value)

    @property
    def name(self) -> str:
        """Its type and id, for messages."""
        return f"{self.resource_type} {self.id[:80]!r}"


class Copy(NamedTuple):
    """What a journal entry or a generation has of a record. `proven`: the source itself has a checksum."""

    source: str
    lsn: int
    fields: dict[str, Any] | None
    encoded: bytes
    proven: bool = False


class Proven(NamedTuple):
    """The record as it was written, as it is to be stored, and how that is known."""

    value: bytes
    proof: str


def of_generation(number: int, held: Record) -> Copy:
    """What a generation holds."""
    return Copy(f"generation {number}", held.lsn, held.fields, _encode(held.fields))


def prove(damaged: Damaged, copies: list[Copy]) -> Proven | None:
    """The first copy that is proven; None if none is."""
    stored = _Stored(damaged)
    for copy in [*copies, Copy("its own content", damaged.lsn, None, stored.fields)]:
        for lsn, encoded in _candidates(copy, stored.fields):
            value = stored.with_content(lsn, encoded)
            if stored.checksum is not None and value[: stored.BEGIN][-4:] == stored.checksum:
                return Proven(value, f"{copy.source}, proven by the checksum of the record")
        if copy.proven:
            return Proven(
                stored.with_content(copy.lsn, copy.encoded), f"{copy.source}, which has a checksum of its own"
            )
    own = stored.with_content(damaged.lsn, stored.fields)
    if stored.checksum is not None and _bytes_apart(own[: stored.BEGIN][-4:], stored.checksum) == 1:
        return Proven(own, "its own content, which gives three of the four bytes of its checksum")
    content = [Copy("its own content", damaged.lsn, stored.decoded(), stored.fields), *copies]
    for one, other in combinations([copy for copy in content if copy.fields is not None], 2):
        if (one.lsn, one.fields) == (other.lsn, other.fields):
            return Proven(stored.with_content(one.lsn, one.encoded), f"{one.source}, which {other.source} has as well")
    return None


class _Stored:
    """The stored parts of a damaged record, as far as they can be separated."""

    BEGIN = keys.RECORD_HEADER.size + keys.CHECKSUM.size

    def __init__(self, damaged: Damaged) -> None:
        self.key, value = damaged.key, damaged.value
        self.id = damaged.id.encode()
        bare = value[:1] == bytes([keys.FORMAT_BARE])
        self.checksum = None if bare else value[keys.RECORD_HEADER.size : self.BEGIN]
        self.fields = keys.claimed_content(value)[len(self.id) :]

    def with_content(self, lsn: int, fields: bytes) -> bytes:
        return keys.record_value(self.key, lsn, self.id, fields, keys.body_checksum(self.id, fields))

    def decoded(self) -> dict[str, Any] | None:
        try:
            return keys.decode_fields(self.fields)
        except CorruptData:
            return None


def _bytes_apart(one: bytes, other: bytes) -> int:
    return sum(a != b for a, b in zip(one, other, strict=False))


def _candidates(copy: Copy, own: bytes) -> Iterator[tuple[int, bytes]]:
    """What the record may have been, by a copy: (LSN, encoded fields)."""
    yield copy.lsn, copy.encoded
    yield copy.lsn, own
    for mended in patched(own, _texts(copy.fields or {})):
        yield copy.lsn, mended


def patched(damaged: bytes, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The content with one piece put where it may have stood: a half of the piece is there, and the whole is not."""
    for at, piece in islice(_places(pieces, damaged), PLACES_MAX):
        yield damaged[:at] + piece + damaged[at + len(piece) :]


def _places(pieces: Iterable[bytes], own: bytes) -> Iterator[tuple[int, bytes]]:
    seen = set()
    for text in pieces:
        middle = len(text) // 2
        for half, before in ((text[:middle], 0), (text[middle:], middle)):
            at = own.find(half) if half else -1
            while at >= 0:
                begin = at - before
                place = (begin, text)
                if 0 <= begin <= len(own) - len(text) and place not in seen:
                    seen.add(place)
                    if own[begin : begin + len(text)] != text:
                        yield place
                at = own.find(half, at + 1)


def _texts(fields: dict[str, Any]) -> Iterator[bytes]:
    """Each text, and each of its lines: an index may hold several fields of a record as the lines of one text."""
    for value in fields.values():
        if isinstance(value, str):
            yield value.encode()
            lines = value.split("\n")
            if len(lines) > 1:
                yield from (line.encode() for line in lines)
