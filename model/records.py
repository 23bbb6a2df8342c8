"""Records and changes, as users write them, the journal holds them and readers get them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from shadowswitch.model.search.snippets import Snippet

DEPTH_MAX = 64
"""Levels of nesting in the fields of a record, in a build_config, and in the data of an event."""
JSON_DEPTH_MAX = 100
"""Levels of nesting in a JSON text: a record at its limit, in its request. Less than each interpreter takes."""
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_OTHER = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_SLICE = 1 << 14


def nests_too_deep(text: bytes) -> bool:
    """Is a JSON text nested deeper than `JSON_DEPTH_MAX`? Ask before a parser does: its own limit is its interpreter's.

    Takes time in proportion to the text, in slices of a millisecond. A text that is no JSON has an answer, too.
    """
    if text.count(b"[") + text.count(b"{") <= JSON_DEPTH_MAX:
        return False
    marks = (_ESCAPE.sub(b"", text) if b"\\" in text else text).translate(None, _OTHER)
    marks = b"".join(marks.split(b'"')[::2])  # what is outside of strings
    depth = 0
    for begin in range(0, len(marks), _SLICE):
        for mark in marks[begin : begin + _SLICE]:
            depth += _STEP[mark]
            if depth > JSON_DEPTH_MAX:
                return True
    return False


def is_deeper(value: Any, most: int = DEPTH_MAX) -> bool:
    """Has a value of mappings and lists more than `most` levels? Needs no stack of the interpreter."""
    level = [value]
    for _ in range(most + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, Mapping | list | tuple)
            for inner in (outer.values() if isinstance(outer, Mapping) else outer)
        ]
        if not level:
            return False
    return True


class Put(msgspec.Struct, frozen=True):
    """Store the full image of one record, in place of an earlier one. `fields` is JSON-like with string keys."""

    resource_type: str
    id: str
    fields: dict[str, Any]


class Delete(msgspec.Struct, frozen=True):
    """Remove one record; no error if it does not exist."""

    resource_type: str
    id: str


class Record(msgspec.Struct, frozen=True):
    """One record as stored; `lsn` is that of the change that wrote it."""

    resource_type: str
    id: str
    fields: dict[str, Any]
    lsn: int


class RecordPage(msgspec.Struct, frozen=True):
    """Some records of a scan; `cursor` is the argument for the next page, None at the end."""

    records: list[Record]
    cursor: str | None


class ChangeKind(StrEnum):
    """The kinds of a change."""

    PUT = "put"
    DELETE = "delete"


class Change(msgspec.Struct, frozen=True):
    """One journal entry. `kind` is "put" or "delete"; `fields` is None for a delete."""

    lsn: int
    kind: ChangeKind
    resource_type: str
    id: str
    fields: dict[str, Any] | None


class Receipt(msgspec.Struct, frozen=True):
    """Proof of a committed batch: `lsn` is the LSN of its last change, `count` the number of its changes."""

    lsn: int
    count: int


class Hit(msgspec.Struct, frozen=True, omit_defaults=True):
    """One search result; a higher `score` is better; `lsn` is that of the indexed version of the record."""

    resource_type: str
    id: str
    score: float
    lsn: int
    fields: dict[str, Any] | None = None
    """Fields of that version, if the search asked for them."""
    highlights: dict[str, Snippet] | None = None
    """Where the query was found, by field, if the search asked for it."""


class Item(msgspec.Struct, frozen=True, gc=False):
    """One record version on its way into an index shard; `fields` is None when the record was deleted at `lsn`.

    `key_hash` is `digest.key_hash(resource_type, id)`, computed once, when the item is made.
    """

    lsn: int
    resource_type: str
    id: str
    key_hash: int
    fields: dict[str, Any] | None
