"""Records and changes, as users write them, the journal holds them and readers get them."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec


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


class Hit(msgspec.Struct, frozen=True):
    """One search result; a higher `score` is better; `lsn` is that of the indexed version of the record."""

    resource_type: str
    id: str
    score: float
    lsn: int


class Item(msgspec.Struct, frozen=True, gc=False):
    """One record version on its way into an index shard; `fields` is None when the record was deleted at `lsn`.

    `key_hash` is `digest.key_hash(resource_type, id)`, computed once, when the item is made.
    """

    lsn: int
    resource_type: str
    id: str
    key_hash: int
    fields: dict[str, Any] | None
