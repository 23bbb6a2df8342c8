"""Where types and uses lie among the entries, see `backend`."""

from __future__ import annotations

from shadowswitch.storage.backends.derived.entries import hashed, shortened

TYPE, USE = b"t", b"u"
NAME_BYTES = 200
"""Of a name, in a place. A longer one ends with its hash."""


def of_type(name: str) -> bytes:
    """The place of a type."""
    return TYPE + shortened(name.encode(), NAME_BYTES) + b"\0"


def of_uses(name: str) -> bytes:
    """How the places of all uses of a type begin."""
    return USE + hashed(name.encode())


def of_use(name: str, property: str) -> bytes:
    """How the places of the uses of a property begin; of the type itself for ""."""
    return of_uses(name) + shortened(property.encode(), NAME_BYTES) + b"\0"
