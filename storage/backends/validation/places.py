"""Where violations lie among the entries, see `backend`."""

from __future__ import annotations

from shadowswitch.storage.backends.derived.entries import hashed, shortened

RECORD, RULE = b"v", b"r"
ID_BYTES = 300
"""Of the id of a record, in a place. A longer one ends with its hash."""


def of_type(resource_type: str) -> bytes:
    """How the places of the records of a type begin."""
    return resource_type.encode() + b"\0"


def of_record(resource_type: str, id: str) -> bytes:
    """How the places of a record begin."""
    return of_type(resource_type) + shortened(id.encode(), ID_BYTES) + b"\0"


def of_rule(rule: str) -> bytes:
    """How the entries of a rule begin."""
    return RULE + hashed(rule.encode())
