"""How far generations are on disk, and in which boot of the machine they were opened: rows that no state depends on."""

from __future__ import annotations

import msgspec

from shadowswitch.storage.catalog.transaction import Commit


def note_durable(commit: Commit, durable: dict[int, int]) -> None:
    """Remember up to where generations are durable, before the journal is trimmed by it (ST-6)."""
    for number, lsn in durable.items():
        if commit.txn.get(number.to_bytes(8, "big"), db=commit.db["generations"]) is None:
            continue
        row = commit.generation(number)
        if lsn > row.durable_lsn:
            commit.put_generation(msgspec.structs.replace(row, durable_lsn=lsn))


def note_boot(commit: Commit, numbers: list[int], boot: str) -> None:
    """Remember in which boot of the machine generations are open; "": they were closed with everything on disk."""
    for number in numbers:
        if commit.txn.get(number.to_bytes(8, "big"), db=commit.db["generations"]) is not None:
            commit.put_generation(msgspec.structs.replace(commit.generation(number), boot_id=boot))
