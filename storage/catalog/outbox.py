"""The event log on disk: its bounds, the positions of its readers, and its fsck.

The databases `outbox` and `audit` hold one `EventRow` for each sequence number, in the order of the transactions that
added them (EV-1). `Commit.emit` and `Commit.audit` add rows; only the oldest rows are ever removed. The database
`positions` holds, by the hash of a reader's name, the last event that this reader has taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

import lmdb

from shadowswitch.model.views import Finding
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.keys import SEQUENCE
from shadowswitch.storage.catalog.transaction import Commit

COUNTERS = {"outbox": "event", "audit": "audit"}
"""For each database, the counter of `meta` that numbers its rows."""
SLICE = 2000
RESTORED_GAP = 1 << 32
"""A data directory that was restored from a backup numbers its events so far behind those of the backup: a reader of
events that came after the backup finds a gap (`transitions.restoring`)."""


def trim_events(commit: Commit, database: str, keep: int, limit: int) -> int:
    """Remove up to `limit` of the oldest rows, so that the newest `keep` stay; returns the number removed."""
    surplus = max(0, min(kept_events(commit.catalog, commit.txn, database) - keep, limit))
    cursor = commit.txn.cursor(commit.db[database])
    for _ in range(surplus if cursor.first() else 0):
        cursor.delete()  # it moves to the next row
    return surplus


def kept_events(catalog: Catalog, txn: lmdb.Transaction, database: str) -> int:
    """The number of rows."""
    return int(txn.stat(catalog.db[database])["entries"])


def event_position(catalog: Catalog, name: str) -> int | None:
    """The sequence number of the last event that this reader has taken, or None before the first."""
    with catalog.read() as txn:
        value = txn.get(_position_key(name), db=catalog.db["positions"])
        return int(SEQUENCE.unpack(value)[0]) if value is not None else None


def note_position(commit: Commit, name: str, sequence: int) -> None:
    """Store the sequence number of the last event that this reader has taken."""
    commit.txn.put(_position_key(name), SEQUENCE.pack(sequence), db=commit.db["positions"])


def _position_key(name: str) -> bytes:
    """The hash of a name: the name may be long, or hold a secret."""
    return blake2b(name.encode(), digest_size=16).digest()


def check_events(catalog: Catalog) -> Iterator[Finding]:
    """fsck: the numbers have no gaps (EV-1), but for those of a restore."""
    for database in COUNTERS:
        after = catalog.span(database)[0] - 1
        while rows := catalog.events(after, SLICE, database):
            for row in rows:
                gap = row.sequence - after - 1
                if gap and gap != RESTORED_GAP and row.sequence > catalog.span(database)[0]:
                    yield Finding("EV-1", database, f"number {row.sequence} comes after {after}")
                after = row.sequence
