"""Retention: the changes that the journal must keep for subscribers and for generations (ST-6).

The database `holds` has one row for each (branch, name): (branch u32, BLAKE2b-128 of the name) -> HoldRow. The hold of
a subscriber at LSN L keeps every change above L, until the hold is moved, released, or given up because it keeps too
much. A hold that was given up keeps nothing. Its row stays, so that the subscriber learns the reason.

A generation keeps every change above its `durable_lsn`, which `note_durable` stores before a trim.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import islice
from typing import Any

import lmdb
import msgspec

from shadowswitch.model.errors import CorruptData, InvalidConfig
from shadowswitch.model.shadow_state import GenerationRole, ShadowState
from shadowswitch.model.views import Finding
from shadowswitch.storage.catalog import journal_format, keys, rows
from shadowswitch.storage.catalog.environment import Catalog, name_key, scan_prefix
from shadowswitch.storage.catalog.journal import chunks, trimmed
from shadowswitch.storage.catalog.keys import BRANCH
from shadowswitch.storage.catalog.rows import BranchRow, GenerationRow, HoldRow
from shadowswitch.storage.catalog.transaction import Commit

HOLDS_MAX = 100
"""Holds of one branch. A hold belongs to a subscriber, not to each of its readers."""


def holds(catalog: Catalog, branch: int | None = None) -> list[HoldRow]:
    """All holds, of one branch or of all."""
    with catalog.read() as txn:
        return list(_holds_in(txn, catalog, branch))


def holds_of(catalog: Catalog, branches: set[int]) -> list[HoldRow]:
    """The holds of these branches. Costs as much as there are branches or holds, whichever is less."""
    with catalog.read() as txn:
        if txn.stat(catalog.db["holds"])["entries"] <= len(branches):
            return [row for row in _holds_in(txn, catalog, None) if row.branch in branches]
        return [row for branch in branches for row in _holds_in(txn, catalog, branch)]


def _holds_in(txn: lmdb.Transaction, catalog: Catalog, branch: int | None) -> Iterator[HoldRow]:
    prefix = BRANCH.pack(branch) if branch is not None else b""
    for _, value in scan_prefix(txn, catalog.db["holds"], prefix):
        yield rows.decode_hold(value)


def hold(commit: Commit, branch: BranchRow, name: str, after_lsn: int) -> HoldRow:
    """Make a hold, or move it. Raises JournalTrimmed when changes after `after_lsn` are gone; InvalidConfig."""
    commit.branch(branch.number)
    head, oldest = commit.head(branch.number)
    if after_lsn > head:
        raise InvalidConfig(f"LSN {after_lsn} is beyond the head of branch {branch.name!r}, {head}", operation="hold")
    if after_lsn + 1 < oldest and after_lsn < head:
        raise trimmed(after_lsn, oldest)
    now = commit.now()
    present = {row.name: row for row in _holds_in(commit.txn, commit.catalog, branch.number)}
    if name not in present:
        _make_room(commit, branch, list(present.values()))
        commit.audit("hold.made", branch.name, {"name": name, "after_lsn": after_lsn})
    made = present[name].created_at if name in present else now
    row = HoldRow(rows.FORMAT, branch.number, name, after_lsn, made, now)
    _put(commit, row)
    return row


def _make_room(commit: Commit, branch: BranchRow, present: list[HoldRow]) -> None:
    if len(present) < HOLDS_MAX:
        return
    gone = [row for row in present if row.given_up]
    if not gone:
        raise InvalidConfig(
            f"branch {branch.name!r} has {len(present)} holds already",
            operation="hold",
            object=branch.name,
            hint="release unused holds with release_changes",
        )
    _delete(commit, min(gone, key=lambda row: row.moved_at))


def release(commit: Commit, branch: BranchRow, name: str) -> bool:
    """Remove a hold; False when there was none of that name."""
    for row in list(_holds_in(commit.txn, commit.catalog, branch.number)):
        if row.name == name:
            _delete(commit, row)
            commit.audit("hold.released", branch.name, {"name": name, "after_lsn": row.after_lsn})
            return True
    return False


def give_up_holds(commit: Commit, branch: BranchRow, most: int) -> list[HoldRow]:
    """Give up every hold that lags by more than `most` LSNs; returns their rows, with the reason."""
    head, _ = commit.head(branch.number)
    given_up = []
    for row in list(_holds_in(commit.txn, commit.catalog, branch.number)):
        lag = head - row.after_lsn
        if not row.given_up and lag > most:
            reason = f"it held back {lag} LSNs of the journal, more than {most} (Config.hold_changes_max)"
            row = msgspec.structs.replace(row, given_up=reason)
            _put(commit, row)
            what = {"branch_name": branch.name, "name": row.name, "after_lsn": row.after_lsn, "reason": reason}
            commit.emit("hold.given_up", branch.name, what)
            commit.audit("hold.given_up", branch.name, what)
            given_up.append(row)
    return given_up


def held_from(commit: Commit, branch: int) -> int | None:
    """The lowest LSN of the holds of a branch, as of this transaction; None without a hold."""
    held = (row.after_lsn for row in _holds_in(commit.txn, commit.catalog, branch) if not row.given_up)
    return min(held, default=None)


def keeps_journal(catalog: Catalog, row: GenerationRow) -> bool:
    """Must the journal keep every change above the durable LSN of a generation?

    Not for a build that waits in the queue to begin: it takes the head of its branch as of its beginning.
    """
    if not row.needs_journal or row.role is not GenerationRole.BUILDING:
        return row.needs_journal
    shadow = catalog.find_shadow(row.shadow_id)
    return shadow is None or shadow.state != ShadowState.PREPARING or shadow.started_at is not None


def trim_journal(commit: Commit, branch: int, below: int, limit: int) -> int:
    """Remove up to `limit` chunks whose LSNs are all under `below`; returns the number of changes removed."""
    cursor = commit.txn.cursor(commit.db["journal"])
    removed = oldest = 0
    cursor.set_range(keys.BRANCH.pack(branch))
    for _ in range(limit):
        key = cursor.key()  # the key of the next chunk, or b"" behind the last one
        number, last = keys.JOURNAL_KEY.unpack(key) if key else (0, 0)
        if number != branch or last >= below:
            break
        oldest = last + 1
        removed += oldest - _first(last, cursor.value())  # a damaged chunk below `below` is removed as well
        cursor.delete()
    if oldest:
        commit.set_oldest(branch, oldest)
    return removed


def note_durable(commit: Commit, durable: dict[int, int]) -> None:
    """Store the LSN up to which each of these generations is on disk, before the journal is trimmed by it (ST-6)."""
    for number, lsn in durable.items():
        row = commit.find_generation(number)
        if row is not None and lsn > row.durable_lsn:
            commit.put_generation(msgspec.structs.replace(row, durable_lsn=lsn))


def note_boot(commit: Commit, numbers: list[int], boot: str) -> None:
    """Store the boot of the machine in which these generations are open; "": closed with everything on disk."""
    for number in numbers:
        row = commit.find_generation(number)
        if row is not None:
            commit.put_generation(msgspec.structs.replace(row, boot_id=boot))


def check_holds(catalog: Catalog) -> Iterator[Finding]:
    """fsck: the journal has every change that a hold keeps (ST-6); every hold is of a branch (ST-4)."""
    with catalog.read() as txn:
        branches = {rows.decode_branch(value).number for _, value in txn.cursor(catalog.db["branches"])}
        for row in _holds_in(txn, catalog, None):
            where = f"hold {row.name!r} of branch {row.branch}"
            head, oldest = catalog.head_in(txn, row.branch)
            if row.branch not in branches:
                yield Finding("ST-4", where, "its branch does not exist")
            elif not row.given_up and row.after_lsn + 1 < oldest and row.after_lsn < head:
                yield Finding("ST-6", where, f"it is at LSN {row.after_lsn}, the journal begins at {oldest}")


def _key(row: HoldRow) -> bytes:
    return BRANCH.pack(row.branch) + name_key(row.name)


def _put(commit: Commit, row: HoldRow) -> None:
    commit.dirty.branches.add(row.branch)
    commit.txn.put(_key(row), rows.encode_row(row), db=commit.db["holds"])


def _delete(commit: Commit, row: HoldRow) -> None:
    commit.dirty.branches.add(row.branch)
    commit.txn.delete(_key(row), db=commit.db["holds"])


def hold_lag(row: HoldRow, head: int) -> dict[str, Any]:
    """A hold as `stats()` shows it."""
    return {"hold": row.name, "durable_lsn": row.after_lsn, "changes": head - row.after_lsn}


def carry_over(commit: Commit, soaking: list[int], failed: list[str], soak_s: float) -> None:
    """After a reboot: soaks, and the time for which the files of failed builds stay, begin again."""
    clock = commit.catalog.clock
    for number in soaking:
        commit.put_generation(msgspec.structs.replace(commit.generation(number), soak_ends=clock.moment(soak_s)))
    for shadow_id in failed:
        commit.put_shadow(msgspec.structs.replace(commit.shadow(shadow_id), failed_at=clock.moment()))


class Tail(msgspec.Struct):
    """The newest changes of a branch, which stay for `changes()`. On the thread of the Janitor.

    LSNs number the changes of all branches, so a tail is counted: once from the oldest chunk on, then what came since,
    after the LSN `upto`. Nothing is stored: the next process counts again.
    """

    upto: int = 0
    oldest: int = 0
    """The LSN of the oldest change that the journal holds; 0 before the first look."""
    begin: int = 0
    """The LSN of the oldest change of the tail."""
    changes: int = 0
    size_bytes: int = 0
    surplus_bytes: int = 0
    """The size of what lies before the tail."""

    def follow(
        self, txn: lmdb.Transaction, catalog: Catalog, branch: int, keep_changes: int, keep_bytes: int, limit: int
    ) -> int:
        """Count up to `limit` chunks more, and move the begin; returns how many were counted.

        The tail has whole chunks: at least `keep_changes` changes, unless these have more than `keep_bytes`.
        """
        counted = 0
        for last, value in islice(chunks(txn, catalog, branch, self.upto), limit):
            counted += 1
            first = _first(last, value)
            if not self.oldest:
                self.oldest = self.begin = first
            self.changes += last - first + 1
            self.size_bytes += len(value)
            self.upto = last
        if self.changes > keep_changes or self.size_bytes > keep_bytes:
            self._shed(txn, catalog, branch, keep_changes, keep_bytes)
        return counted

    def _shed(self, txn: lmdb.Transaction, catalog: Catalog, branch: int, keep_changes: int, keep_bytes: int) -> None:
        for last, value in chunks(txn, catalog, branch, self.begin - 1):
            changes = last - _first(last, value) + 1
            if last > self.upto or (self.changes - changes < keep_changes and self.size_bytes <= keep_bytes):
                break
            self.changes -= changes
            self.size_bytes -= len(value)
            self.surplus_bytes += len(value)
            self.begin = last + 1

    def trimmed(self, oldest: int) -> None:
        """The journal begins at that LSN now."""
        self.oldest = oldest
        if oldest >= self.begin:
            self.surplus_bytes = 0


def _first(last: int, value: bytes | memoryview) -> int:
    """The LSN of the first change of a chunk; a damaged one counts as one change."""
    with contextlib.suppress(CorruptData):
        return journal_format.first_lsn(last, value)
    return last
