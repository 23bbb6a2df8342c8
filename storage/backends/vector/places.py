"""Where vectors lie among the entries: v, LSN (8 bytes) -> resource type, id, LSN, floats of 4 bytes, little-endian."""

from __future__ import annotations

VECTOR = b"v"
MARK = b"vectors"
"""In `meta`: how often rows were changed below LSNs that readers may have read."""


def of_lsn(lsn: int) -> bytes:
    """How the place of a vector begins; those of later LSNs lie behind it."""
    return VECTOR + lsn.to_bytes(8, "big")
