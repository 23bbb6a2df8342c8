"""The event log on disk: how it is bounded, and fsck of it.

The databases `outbox` and `audit` hold one `EventRow` for each sequence number, in the order of the transactions that
told of something (EV-1). Rows are added by `Commit.emit` and `Commit.audit`, and only the oldest are ever removed.
The database `positions` holds, by the hash of a name, the last event that somebody outside took.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

from shadowswitch.model.views import Finding
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.keys import SEQUENCE
from shadowswitch.storage.catalog.transaction import Commit

COUNTERS = {"outbox": "event", "audit": "audit"}
"""Which counter of `meta` numbers the rows of which database."""
SLICE = 2000


def trim_events(commit: Commit, database: str, keep: int, limit: int) -> int:
    """Remove up to `limit` of the oldest rows, so that the newest `keep` stay; returns how many went."""
    oldest, newest = commit.catalog.span_in(commit.txn, database)
    last = min(newest - keep, oldest + limit - 1)
    for sequence in range(oldest, last + 1):
        commit.txn.delete(SEQUENCE.pack(sequence), db=commit.db[database])
    return max(0, last - oldest + 1)


def event_position(catalog: Catalog, name: str) -> int | None:
    """The last event that somebody outside noted as taken, or None if nothing was noted."""
    with catalog.read() as txn:
        value = txn.get(_position_key(name), db=catalog.db["positions"])
        return int(SEQUENCE.unpack(value)[0]) if value is not None else None


def note_position(commit: Commit, name: str, sequence: int) -> None:
    """Remember the last event that somebody outside took."""
    commit.txn.put(_position_key(name), SEQUENCE.pack(sequence), db=commit.db["positions"])


def _position_key(name: str) -> bytes:
    """A name may be long, or hold what nobody else should read."""
    return blake2b(name.encode(), digest_size=16).digest()


def check_events(catalog: Catalog) -> Iterator[Finding]:
    """fsck: numbers without gaps, the newest the one given last (EV-1)."""
    for database, counter in COUNTERS.items():
        with catalog.read() as txn:
            oldest, newest = catalog.span_in(txn, database)
            given = catalog.number(counter, txn)
        if newest != given:
            yield Finding("EV-1", database, f"the newest has number {newest}, and {given} were given")
        after = oldest - 1
        while rows := catalog.events(after, SLICE, database):
            for row in rows:
                if row.sequence != after + 1 and row.sequence > catalog.span(database)[0]:
                    yield Finding("EV-1", database, f"number {row.sequence} comes after {after}")
                after = row.sequence
