"""Events from outside and their outcomes, so that an event that arrives twice is handled once.

    received    b"k" + BLAKE2b-128 of source, NUL, id + BLAKE2b-128 of branch, NUL, sender -> ReceivedRow
                b"t" + number u64 -> that key

An outcome belongs to the sender and the branch of its event: an event of another sender, or about another branch, with
the same source and id has an outcome of its own. The sender "" is the host itself: its outcome holds for every sender,
as does the row of an older version, which has no sender and no second half of its key. Numbers rise in the order of
arrival. The oldest rows of the senders with most rows are removed first (`ReceivedNumbers`). While the row of an event
is kept, the event has one outcome (EV-3).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import islice
from typing import Any

import lmdb
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


LOOK_SLICE = 1000
"""Events that one read transaction looks at."""
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


def forget_received(commit: Commit, numbers: Iterable[int]) -> int:
    """Remove the rows of these numbers; returns the number removed."""
    removed = 0
    for number in numbers:
        key = commit.txn.pop(b"t" + SEQUENCE.pack(number), db=commit.db["received"])
        if key is not None:
            commit.txn.delete(bytes(key), db=commit.db["received"])
            removed += 1
    return removed


def count_received(catalog: Catalog) -> int:
    """The number of events kept."""
    with catalog.read() as txn:
        return int(txn.stat(catalog.db["received"])["entries"]) // 2


class ReceivedNumbers:
    """The numbers of the kept events in memory, to choose which go. One thread.

    While there are too many, a sender that has more than an equal share loses its oldest; of its events, those of a
    branch and source that have more than an equal share of it. So no sender, and no source of a sender, pushes out the
    events of one that has fewer.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._numbers: dict[str | None, dict[bytes, list[int]]] = {}
        """By sender, and by the hash of branch and source, in the order of arrival."""
        self._newest = 0

    def surplus(self, keep: int, limit: int) -> list[int]:
        """Up to `limit` numbers of events that go first, so that `keep` stay."""
        self._look()
        counts = {by: sum(map(len, groups.values())) for by, groups in self._numbers.items()}
        share = _equal_share(counts.values(), keep)
        going: list[int] = []
        for by, groups in self._numbers.items():
            if counts[by] > share:
                part = _equal_share(map(len, groups.values()), share)
                own = sorted(number for numbers in groups.values() for number in numbers[: max(0, len(numbers) - part)])
                going += own[: counts[by] - share]
        return sorted(going)[: min(limit, max(0, sum(counts.values()) - keep))]

    def forget(self, gone: Iterable[int]) -> None:
        """These events were removed."""
        removed = set(gone)
        for by, groups in list(self._numbers.items()):
            left = {group: [one for one in numbers if one not in removed] for group, numbers in groups.items()}
            self._numbers[by] = {group: numbers for group, numbers in left.items() if numbers}
            if not self._numbers[by]:
                del self._numbers[by]

    def _look(self) -> None:
        """Read the events that came since the last call, in slices."""
        more = True
        while more:
            with self._catalog.read() as txn:
                more = self._look_at_slice(txn)

    def _look_at_slice(self, txn: lmdb.Transaction) -> bool:
        """False at the end. An event that does not decode is one of a sender without a name."""
        database = self._catalog.db["received"]
        cursor = txn.cursor(database)
        if not cursor.set_range(b"t" + SEQUENCE.pack(self._newest + 1)):
            return False
        for number_key, key in islice(cursor, LOOK_SLICE):
            self._newest = int(SEQUENCE.unpack(number_key[1:])[0])
            by: str | None = None
            group = b""
            value = txn.get(bytes(key), db=database)
            with contextlib.suppress(msgspec.MsgspecError, ValueError):
                row = decode_received(value or b"")
                by, group = row.by, _hash(row.outcome.branch_name, row.outcome.source)
            self._numbers.setdefault(by, {}).setdefault(group, []).append(self._newest)
        return True


def _equal_share(counts: Iterable[int], keep: int) -> int:
    """The largest number that each group may keep so that all together keep at most `keep`."""
    waiting = sorted(counts)
    for at, count in enumerate(waiting):
        groups = len(waiting) - at
        if count * groups > keep:
            return keep // groups
        keep -= count
    return waiting[-1] if waiting else keep


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
