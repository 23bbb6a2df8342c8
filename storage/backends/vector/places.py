"""Where vectors lie among the entries: v, LSN (8 bytes) -> resource type, id, LSN, floats of 4 bytes, little-endian."""

from __future__ import annotations

import lmdb

from shadowswitch.storage.backends.kv import store

VECTOR = b"v"
MARK = b"vectors"
"""In `meta`: how often rows were changed below LSNs that readers may have read."""


def mark_of(environment: store.Environment, transaction: lmdb.Transaction[bytes]) -> int:
    """The `MARK` of a shard."""
    return int.from_bytes(transaction.get(MARK, db=environment.meta) or b"", "big")


def of_lsn(lsn: int) -> bytes:
    """How the place of a vector begins; those of later LSNs lie behind it."""
    return VECTOR + lsn.to_bytes(8, "big")
