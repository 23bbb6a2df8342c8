"""Where types and uses lie among the entries, see `backend`."""

from __future__ import annotations

from shadowswitch.model.kinds.asking import Key
from shadowswitch.storage.backends.derived.entries import hashed, shortened
from shadowswitch.storage.backends.kv.store import full_key

TYPE, USE = b"t", b"u"
NAME_BYTES, KEY_BYTES = 120, 120
"""Of a name and of the key of a record, in a place. A longer one ends with its hash."""


def of_type(name: str) -> bytes:
    """The place of a type."""
    return TYPE + shortened(name.encode(), NAME_BYTES) + b"\0"


def of_uses(name: str) -> bytes:
    """How the places of all uses of a type begin."""
    return USE + hashed(name.encode())


def of_use(name: str, property: str) -> bytes:
    """How the places of the uses of a property begin; of the type itself for ""."""
    return of_uses(name) + shortened(property.encode(), NAME_BYTES) + b"\0"


def of_user(record: Key) -> bytes:
    """What follows in the place of a use."""
    return shortened(full_key(*record), KEY_BYTES) + b"\0"
