"""Where the edges of a record lie among the entries, see `backend`."""

from __future__ import annotations

from shadowswitch.model.kinds.asking import Key
from shadowswitch.storage.backends.derived.entries import hashed, shortened
from shadowswitch.storage.backends.kv.store import full_key

OUT, IN = b"o", b"i"
KIND_BYTES, KEY_BYTES = 100, 340
"""Of the text of a kind, and of a key, in a place. A longer one ends with its hash."""


def of_node(direction: bytes, node: Key) -> bytes:
    """How the places of all edges from a record (or to it) begin."""
    return direction + hashed(full_key(*node))


def of_kind(direction: bytes, node: Key, kind: str) -> bytes:
    """How the places of those of a kind begin."""
    return of_node(direction, node) + shortened(kind.encode().replace(b"\0", b"\1"), KIND_BYTES) + b"\0"


def place(direction: bytes, node: Key, kind: str, other: Key) -> bytes:
    """The place of an edge, of which `other` is the other end."""
    return of_kind(direction, node, kind) + shortened(full_key(*other), KEY_BYTES) + b"\0"
