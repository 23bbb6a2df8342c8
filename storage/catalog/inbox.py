"""Events from outside and their outcomes, so that an event that arrives twice is handled once.

    received    b"k" + BLAKE2b-128 of source, NUL, id + BLAKE2b-128 of branch, NUL, sender -> ReceivedRow
                b"t" + number u64 -> that key

An outcome belongs to the sender and the branch of its event: an event of another sender, or about another branch, with
the same source and id has an outcome of its own. The sender "" is the host itself: its outcome holds for every sender,
as does the row of an older version, which has no sender and no second half of its key. Numbers rise in the order of
arrival, and the oldest rows are removed first. While the row of an event is kept, the event has one outcome (EV-3).
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
    by: str | None = None
    """The sender; None in a row of an older version."""


HOST = ""
"""The sender of events that the embedding program hands over without another name."""
decode_received = msgspec.msgpack.Decoder(ReceivedRow).decode


def received_key(source: str, id: str, branch: str, by: str | None) -> bytes:
    """The key of an event. Without a sender: that of an older version, the first half of every other."""
    own = _hash(branch, by) if by is not None else b""
    return b"k" + _hash(source, id) + own


def _hash(first: str, second: str) -> bytes:
    return blake2b(f"{first}\0{second}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def find_received(
    catalog: Catalog, source: str, id: str, branch: str | None = None, by: str | None = None
) -> EventOutcome | None:
    """The newest outcome of an event, of a branch and a sender if they are given. None if the event was never seen or
    its row was removed."""
    older, holds = received_key(source, id, "", None), (None, HOST, by)
    with catalog.read() as txn:
        if branch is not None and by is not None:
            keys = {older, *(received_key(source, id, branch, sender) for sender in (HOST, by))}
            found = [txn.get(key, db=catalog.db["received"]) for key in keys]
        else:
            found = [value for _, value in scan_prefix(txn, catalog.db["received"], older)]
        known = [decode_received(value) for value in found if value is not None]
    fits = [row for row in known if branch in (None, row.outcome.branch_name) and (by is None or row.by in holds)]
    return max(fits, key=lambda row: row.number).outcome if fits else None


def save_received(commit: Commit, outcome: EventOutcome, by: str) -> None:
    """Store the outcome of an event of a sender, and emit an event of it."""
    key = received_key(outcome.source, outcome.id, outcome.branch_name, by)
    number = commit.next_number("received")
    commit.txn.put(key, rows.encode_row(ReceivedRow(rows.FORMAT, number, outcome, by)), db=commit.db["received"])
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
    """fsck: every row decodes, and lies under the key of its event (ST-4, EV-3)."""
    if "received" not in catalog.db:
        return
    with catalog.read() as txn:
        for key, value in scan_prefix(txn, catalog.db["received"], b"k"):
            try:
                row = decode_received(value)
            except (msgspec.MsgspecError, ValueError) as error:
                yield Finding("ST-4", "received events", f"a row does not decode: {error}")
                continue
            if bytes(key) != received_key(row.outcome.source, row.outcome.id, row.outcome.branch_name, row.by):
                yield Finding("EV-3", "received events", f"event {row.outcome.id!r} is stored under the key of another")
