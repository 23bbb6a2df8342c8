"""Events from outside and their outcomes, so that an event that arrives twice is handled once.

    received    b"k" + BLAKE2b-128 of source, NUL, id -> ReceivedRow     b"t" + number u64 -> that key

Numbers rise in the order of arrival, and the oldest rows are removed first. While the row of an event is kept, the
event has one outcome (EV-3).
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import msgspec

from shadowswitch.model.inbound_events import EventOutcome
from shadowswitch.model.views import Finding
from shadowswitch.storage.catalog import rows
from shadowswitch.storage.catalog.environment import Catalog, scan_prefix
from shadowswitch.storage.catalog.keys import SEQUENCE
from shadowswitch.storage.catalog.transaction import Commit


class ReceivedRow(msgspec.Struct, array_like=True, frozen=True):
    """An event and its outcome."""

    v: int
    number: int
    outcome: EventOutcome


_decode = msgspec.msgpack.Decoder(ReceivedRow).decode


def received_key(source: str, id: str) -> bytes:
    """The key of an event."""
    return b"k" + blake2b(f"{source}\0{id}".encode(), digest_size=16).digest()


def find_received(catalog: Catalog, source: str, id: str) -> EventOutcome | None:
    """The outcome of an event, or None if the event was never seen or its row was removed."""
    with catalog.read() as txn:
        value = txn.get(received_key(source, id), db=catalog.db["received"])
        return _decode(value).outcome if value is not None else None


def save_received(commit: Commit, outcome: EventOutcome) -> None:
    """Store the outcome of an event, and emit an event of it."""
    key = received_key(outcome.source, outcome.id)
    number = commit.next_number("received")
    commit.txn.put(key, rows.encode_row(ReceivedRow(rows.FORMAT, number, outcome)), db=commit.db["received"])
    commit.txn.put(b"t" + SEQUENCE.pack(number), key, db=commit.db["received"])
    data: dict[str, Any] = {
        "source": outcome.source,
        "id": outcome.id,
        "type": outcome.type,
        "outcome": outcome.outcome,
        "message": outcome.message,
        "branch_name": outcome.branch_name,
    }
    commit.emit("incoming.handled", outcome.shadow_index_id or outcome.branch_name, data)
    commit.audit("incoming.handled", outcome.shadow_index_id or outcome.branch_name, data)
    if outcome.merged or outcome.unmet:
        considered = {"branch_name": outcome.branch_name, "merged": outcome.merged, "unmet": list(outcome.unmet)}
        commit.emit("branch.merge_considered", outcome.branch_name, considered)


def trim_received(commit: Commit, keep: int, limit: int) -> int:
    """Remove up to `limit` of the oldest rows, so that the newest `keep` stay; returns the number removed."""
    newest = commit.catalog.number("received", commit.txn)
    cursor = commit.txn.cursor(commit.db["received"])
    removed = 0
    while removed < limit and cursor.set_range(b"t"):
        if int(SEQUENCE.unpack(cursor.key()[1:])[0]) > newest - keep:
            break
        key = bytes(cursor.value())
        cursor.delete()
        commit.txn.delete(key, db=commit.db["received"])
        removed += 1
    return removed


def count_received(catalog: Catalog) -> int:
    """The number of events kept."""
    with catalog.read() as txn:
        return int(txn.stat(catalog.db["received"])["entries"]) // 2


def check_received(catalog: Catalog) -> Iterator[Finding]:
    """fsck: every row decodes, lies under the key of its event, and is found by its number (ST-4, EV-3)."""
    if "received" not in catalog.db:
        return
    with catalog.read() as txn:
        by_number = {bytes(value): bytes(key)[1:] for key, value in scan_prefix(txn, catalog.db["received"], b"t")}
        for key, value in scan_prefix(txn, catalog.db["received"], b"k"):
            try:
                row = _decode(value)
            except (msgspec.MsgspecError, ValueError) as error:
                yield Finding("ST-4", "received events", f"a row does not decode: {error}")
                continue
            if bytes(key) != received_key(row.outcome.source, row.outcome.id):
                yield Finding("EV-3", "received events", f"event {row.outcome.id!r} is stored under the key of another")
            if by_number.pop(bytes(key), None) != SEQUENCE.pack(row.number):
                yield Finding("EV-3", "received events", f"event {row.outcome.id!r} has no entry for its number")
    for number in by_number.values():
        yield Finding("EV-3", "received events", f"number {SEQUENCE.unpack(number)[0]} refers to no event")
