"""The activity of branches: in which slots of five minutes a branch was written to, for half a year.

The unnamed database has one bitmap for each branch and week: b":activity" + branch u32 + week u16 -> 252 bytes, a bit
for each slot. The Janitor stores a slot once it is over, in one transaction for many branches, so a write costs nothing
more. The slot that runs when the process ends is lost.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from shadowswitch.model.operating.quiet_hours import MONDAY_S, WEEK_S, Histogram, backtest
from shadowswitch.model.views import QuietHours
from shadowswitch.storage.catalog.environment import Catalog, meta_key, scan_prefix
from shadowswitch.storage.catalog.rows import BranchRow
from shadowswitch.storage.catalog.transaction import Commit

SLOT_S = 300
SLOTS = WEEK_S // SLOT_S
KEEP_WEEKS = 26
_KEY = struct.Struct(">IH")


def slot_of(at: float) -> int:
    """The number of the slot of a moment; the slots of a week, from Monday 00:00 UTC, follow each other."""
    return int(at - MONDAY_S) // SLOT_S


def note_activity(commit: Commit, active: Mapping[int, set[int]]) -> None:
    """Store the slots in which branches were written to, and remove the weeks that are too old."""
    for branch, slots in active.items():
        for week in sorted({slot // SLOTS for slot in slots}):
            key = _prefix() + _KEY.pack(branch, week)
            bits = bytearray(commit.txn.get(key, db=commit.catalog.meta) or bytes(SLOTS // 8))
            for at in (slot % SLOTS for slot in slots if slot // SLOTS == week):
                bits[at // 8] |= 1 << at % 8
            commit.txn.put(key, bytes(bits), db=commit.catalog.meta)
        _forget(commit, branch, max(slots) // SLOTS - KEEP_WEEKS)


def forget_activity(commit: Commit, branch: int) -> None:
    """Remove every week of a branch."""
    _forget(commit, branch, 1 << 16)


def _forget(commit: Commit, branch: int, below: int) -> None:
    prefix = _prefix() + _KEY.pack(branch, 0)[:4]
    found = [bytes(key) for key, _ in scan_prefix(commit.txn, commit.catalog.meta, prefix)]
    for key in found:
        if _KEY.unpack(key[-_KEY.size :])[1] < below:
            commit.txn.delete(key, db=commit.catalog.meta)


def activity(catalog: Catalog, branch: int) -> list[int]:
    """The slots in which a branch was written to, ascending."""
    slots = []
    with catalog.read() as txn:
        for key, value in scan_prefix(txn, catalog.meta, _prefix() + _KEY.pack(branch, 0)[:4]):
            first = _KEY.unpack(bytes(key)[-_KEY.size :])[1] * SLOTS
            bits = int.from_bytes(value, "little")
            while bits:
                low = bits & -bits
                slots.append(first + low.bit_length() - 1)
                bits ^= low
    return slots


def quiet_hours(
    catalog: Catalog, branch: BranchRow, now: float, within_s: float, calm_s: float, pause: Callable[[], None]
) -> QuietHours:
    """The advice for a branch, with its backtest. `pause` is called between pieces of some milliseconds."""
    commits = [float(slot * SLOT_S + MONDAY_S) for slot in activity(catalog, branch.number)]
    pause()
    tested = backtest(commits, calm_s, within_s, pause=pause)
    histogram = Histogram()
    for at in commits:
        histogram.add(at)
    return QuietHours(
        branch_name=branch.name,
        advised=tested.beats,
        switch_at=datetime.fromtimestamp(histogram.quietest(now, within_s), UTC) if tested.beats else None,
        message=tested.message(calm_s),
        within_s=within_s,
        calm_s=calm_s,
        weeks=tested.weeks,
        moments=tested.moments,
        adviser_hits=tested.adviser,
        rule_hits=tested.rule,
        error=tested.error,
        mean_wait_s=tested.wait_s,
        rule_for_s=tested.rule_for_s,
        hours=[round(share, 5) for share in histogram.shares()],
    )


def _prefix() -> bytes:
    return meta_key("activity")
