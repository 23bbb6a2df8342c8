"""The LockRegistry: the BranchLocks of all branches, loaded from the catalog at the start of an engine."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from shadowswitch.actors.branch.lock_progress import BuildProgress
from shadowswitch.actors.branch.locks import BranchLocks, Held, SendSoon
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.timers import Timers
from shadowswitch.model.errors import CorruptData
from shadowswitch.model.locks.branch_state import BranchStatus
from shadowswitch.model.locks.table import LockTable
from shadowswitch.storage.catalog.locks import LOCK_TOKENS, all_locks
from shadowswitch.storage.catalog.rows import BranchRow


class LockRegistry:
    """The BranchLocks of every branch that has stored locks, or whose actor runs. Any thread reads; the BranchRouter
    makes and forgets."""

    def __init__(self, context: EngineContext, timers: Timers, send_soon: SendSoon, progress: BuildProgress) -> None:
        self._context = context
        self._timers = timers
        self._send_soon = send_soon
        self._progress = progress
        self._branches: dict[int, BranchLocks] = {}
        self._token_of_a_first_lock = 1
        self.tracked: dict[int, tuple[str, ...]] = {}
        """The builds that make their branch READY when they are switched to, by branch number."""

    def of(self, row: BranchRow) -> BranchLocks:
        """The locks of a branch, made if there are none. For the BranchRouter, which starts its actor."""
        locks = self._branches.get(row.number)
        if locks is None:
            status = BranchStatus(row.name, datetime.fromtimestamp(row.created_at, UTC))
            clock_id = self._context.clock.boot()
            table = LockTable(row.name, next_token=self._token_of_a_first_lock, clock_id=clock_id)
            locks = self._make(row, Held(0, table, status))
        return locks

    def _make(self, row: BranchRow, held: Held) -> BranchLocks:
        made = BranchLocks(self._context, self._timers, self._send_soon, self._progress, self.tracked, row, held)
        self._branches[row.number] = made
        return made

    def find(self, branch: int) -> BranchLocks | None:
        """The locks of a branch, if it has any or its actor runs."""
        return self._branches.get(branch)

    def get(self, branch: int) -> BranchLocks:
        """The locks of a branch whose actor runs."""
        return self._branches[branch]

    def forget(self, branch: int) -> None:
        """The branch has no lock, and its actor stops."""
        del self._branches[branch]

    def discard(self, branch: int) -> None:
        """The branch was dropped."""
        self._branches.pop(branch, None)
        self.tracked.pop(branch, None)

    def all(self) -> list[BranchLocks]:
        """The locks of every branch, by branch number."""
        return [locks for _, locks in sorted(self._branches.copy().items())]

    def load(self) -> None:
        """At the start of an engine: load the stored locks of all branches. Each holder has one grace interval to send
        a heartbeat. Raises CorruptData."""
        catalog = self._context.catalog
        try:
            found = all_locks(catalog)
            with catalog.read() as txn:
                self._token_of_a_first_lock = catalog.number(LOCK_TOKENS, txn) + 1
        except (msgspec.MsgspecError, ValueError) as error:
            raise CorruptData(
                f"the locks in the catalog do not decode: {error}", operation="open", hint="restore it from a backup"
            ) from error
        if not found:
            return
        branches = {row.number: row for row in catalog.branches()}
        now, clock_id = self._context.clock.monotonic(), self._context.clock.boot()
        for stored in found:
            table = LockTable.load(stored.table, now, self._context.config.lock_grace_s, clock_id=clock_id)
            self._make(branches[stored.branch], Held(stored.revision, table, stored.status))
