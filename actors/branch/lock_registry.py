"""The locks of all branches: loaded from the catalog when an engine starts, made when a branch is first used."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from shadowswitch.actors.branch.locks import BranchLocks, Held
from shadowswitch.model.errors import CorruptData
from shadowswitch.model.locks.branch_state import BranchStatus
from shadowswitch.model.locks.table import LockTable
from shadowswitch.storage.catalog.locks import all_locks
from shadowswitch.storage.catalog.rows import BranchRow
from shadowswitch.storage.data_directory import boot_id

if TYPE_CHECKING:
    from shadowswitch.actors.house import House


class LockRegistry:
    """The BranchLocks of each branch that ever had a lock, or whose actor runs. Any thread."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._branches: dict[int, BranchLocks] = {}
        self.tracked: dict[int, tuple[str, ...]] = {}
        """The builds that make their branch READY when they are switched to, by branch number."""

    def of(self, row: BranchRow) -> BranchLocks:
        """The locks of a branch, made if there are none; for the router that starts its actor."""
        locks = self._branches.get(row.number)
        if locks is None:
            status = BranchStatus(row.name, datetime.fromtimestamp(row.created_at, UTC))
            held = Held(0, LockTable(row.name, clock_id=boot_id()), status)
            locks = self._branches[row.number] = BranchLocks(self._house, row, held)
        return locks

    def find(self, branch: int) -> BranchLocks | None:
        """The locks of a branch, if it has any or its actor runs."""
        return self._branches.get(branch)

    def get(self, branch: int) -> BranchLocks:
        """The locks of a branch whose actor runs."""
        return self._branches[branch]

    def forget(self, branch: int) -> None:
        """The branch has no lock, and its actor stops."""
        del self._branches[branch]

    def all(self) -> list[BranchLocks]:
        """The locks of every branch, by branch number."""
        return [locks for _, locks in sorted(self._branches.copy().items())]

    def load(self) -> None:
        """At the start of an engine: the stored locks of all branches; each holder has one grace interval to be heard.

        Raises CorruptData.
        """
        try:
            found = all_locks(self._house.catalog)
        except (msgspec.MsgspecError, ValueError) as error:
            raise CorruptData(
                f"the locks in the catalog do not decode: {error}", operation="open", hint="restore it from a backup"
            ) from error
        if not found:
            return
        branches = {row.number: row for row in self._house.catalog.branches()}
        now, clock_id = self._house.clock.monotonic(), boot_id()
        for stored in found:
            table = LockTable.load(stored.table, now, self._house.config.lock_grace_s, clock_id=clock_id)
            held = Held(stored.revision, table, stored.status)
            self._branches[stored.branch] = BranchLocks(self._house, branches[stored.branch], held)
