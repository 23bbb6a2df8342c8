"""The states of a branch, as its BranchActor changes them: each in the transaction that changes its locks, too."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from shadowswitch.actors.branch.lock_progress import with_progress
from shadowswitch.actors.branch.locks import BranchLocks, answer
from shadowswitch.actors.house import House
from shadowswitch.actors.messages import EndIndexing, MoveBranch, SettleBuild, StartIndexing, TrackBuild
from shadowswitch.model.errors import DuplicateBuild, LockConflict
from shadowswitch.model.locks.branch_state import (
    WHOLE,
    BranchOperation,
    BranchState,
    BranchStatus,
    Completion,
    IndexingWork,
    after_locks,
    complete_indexing,
    fail_indexing,
    forget_shadow,
    move,
    start_indexing,
)
from shadowswitch.model.locks.info import Lock, lock_info
from shadowswitch.model.locks.records import Grant
from shadowswitch.model.locks.records import Lock as LockRecord
from shadowswitch.model.locks.refusal import blocked_by_lock
from shadowswitch.model.locks.table import LockTable
from shadowswitch.model.locks.targets import BRANCH, LockScope
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.storage.catalog.rows import ShadowRow

CLOSING = (BranchOperation.ARCHIVE, BranchOperation.MERGE)
"""Operations after which nobody may write: they wait for those who hold something."""


class BranchLife:
    """Changes the status that a BranchLocks holds. On the BranchActor's thread."""

    def __init__(self, house: House, keeper: BranchLocks) -> None:
        self._house = house
        self._keeper = keeper

    def handlers(self) -> dict[type, Callable[[Any], None]]:
        """What the BranchActor leaves to this, by message type."""
        return {
            MoveBranch: partial(answer, self._move),
            StartIndexing: partial(answer, self._start),
            EndIndexing: partial(answer, self._end),
            TrackBuild: partial(answer, self._track),
            SettleBuild: partial(answer, self._settle),
        }

    def _move(self, message: MoveBranch) -> BranchState:
        now, wall = self._keeper.moment()
        held = self._keeper.held
        status = move(held.status, message.operation, wall, by=message.by, reason=message.reason)
        in_the_way = next((lock for lock in held.table.live(now) if not lock.is_claim), None)
        if message.operation in CLOSING and in_the_way is not None:
            raise self._still_held(in_the_way, message.operation, now)
        what = {"operation": str(message.operation), "by": message.by, "reason": message.reason}
        self._keeper.store(held.table, status, (), now, "change the state of the branch", ("branch.state", what))
        return status.state

    def _still_held(self, lock: LockRecord, operation: BranchOperation, now: float) -> LockConflict:
        """Whoever holds a lock or a lease relies on the branch being open."""
        lock = self._keeper.measured(lock)
        table = self._keeper.held.table
        blocked = blocked_by_lock(lock, BRANCH, now, held=table.locks.values(), known_types=(), waiting=0)
        return LockConflict(
            f"branch {lock.branch} cannot be closed now: {blocked.message}",
            blocked=blocked,
            operation=operation.lower(),
            object=lock.branch,
            hint="wait until it is released, or force_unlock first",
        )

    def _start(self, message: StartIndexing) -> tuple[Lock, ...]:
        """Locks and works in one transaction, or neither."""
        now, wall = self._keeper.moment()
        table, status = self._keeper.held.table, self._keeper.held.status
        locks: tuple[Any, ...] = ()
        events: tuple[Any, ...] = ()
        if message.requests:
            try:
                step = table.acquire(
                    now, wall, message.requests, owner=message.owner, known_types=self._keeper.known_types()
                )
            except LockConflict as error:
                raise with_progress(error, self._keeper.retold) from None
            assert isinstance(step.value, Grant), "LK-5 without a wait it is granted whole or refused"
            table, locks, events = step.table, step.value.locks, step.events
            status = after_locks(status, events, wall, held=table.locks.values())
        by_type = {lock.resource_type or WHOLE: lock for lock in locks}
        works = [
            IndexingWork(
                name,
                message.owner,
                wall,
                lock_id=by_type[name].lock_id if by_type else "",
                whole_branch=bool(by_type) and by_type[name].scope is LockScope.BRANCH,
                track_ready=message.track_ready,
            )
            for name in message.resource_types or (WHOLE,)
        ]
        status = start_indexing(status, wall, works, reason=message.reason)
        self._keeper.store(table, status, events, now, "start indexing", None)
        return tuple(lock_info(lock, now, wall) for lock in locks)

    def _end(self, message: EndIndexing) -> Completion:
        """What is done no longer needs its locks; the last of it makes the branch READY, or ERROR.

        Tokens are compared once more in the transaction, as those of a write are: this process may have stood still.
        """
        now, wall = self._keeper.moment()
        table = self._keeper.held.table
        owner = message.owner or _owner_of(table, message.tokens)
        under = table.opened_by(owner, message.tokens, now) if message.tokens else None
        end = fail_indexing if message.failed else complete_indexing
        done = end(
            self._keeper.held.status,
            wall,
            by=message.owner,
            resource_types=message.resource_types,
            owner=message.owner or None,
            under=under,
            reason=message.reason,
            held=table.locks.values(),
        )
        status = done.status
        events: tuple[Any, ...] = ()
        held = [(lock_id, table.locks[lock_id].token) for lock_id in done.release if lock_id in table.locks]
        if held:
            step = table.release(now, wall, *held, reason="indexing failed" if message.failed else "indexing completed")
            table, events = step.table, step.events
            status = after_locks(status, events, wall, held=table.locks.values())
        fence = partial(self._keeper.fence, owner, message.tokens) if message.tokens else None
        self._keeper.store(table, status, events, now, "end indexing", None, fence)
        return done

    def _track(self, message: TrackBuild) -> ShadowRow:
        """The claim of a build and what its switch will complete: one transaction."""
        now, wall = self._keeper.moment()
        table, status = self._keeper.held.table, forget_shadow(self._keeper.held.status, message.shadow_id)
        for shadow_id in {work.shadow_id: None for work in status.indexing if work.shadow_id}:
            status = self._settled(status, shadow_id, wall)
        self._refuse_duplicate(status, message)
        works = [
            IndexingWork(name, message.owner, wall, index_type=message.index_type, shadow_id=message.shadow_id)
            for name in message.resource_types
        ]
        status = start_indexing(status, wall, works, reason=f"build of {message.index_type}")
        row = self._keeper.store(table, status, (), now, "start build", None, message.claim)
        assert row is not None, "what the transaction of the claim gave"
        return row

    def _settle(self, message: SettleBuild) -> BranchState:
        """Live and verified: completed. Failed, cancelled or gone back from: failed. Under way: nothing yet."""
        now, wall = self._keeper.moment()
        held = self._keeper.held
        status = self._settled(held.status, message.shadow_id, wall)
        if status is not held.status:
            self._keeper.store(held.table, status, (), now, "end indexing", None)
        return status.state

    def _settled(self, status: BranchStatus, shadow_id: str, wall: datetime) -> BranchStatus:
        """The status with what became of a tracked build; the same one while that may yet become live."""
        succeeded = outcome_of(self._house, shadow_id)
        if succeeded is None or not any(work.shadow_id == shadow_id for work in status.indexing):
            return status
        end = complete_indexing if succeeded else fail_indexing
        locks = self._keeper.held.table.locks.values()
        return end(status, wall, by="shadowswitch", shadow_id=shadow_id, held=locks).status

    def _refuse_duplicate(self, status: BranchStatus, message: TrackBuild) -> None:
        other = next((w for w in status.indexing if w.shadow_id and w.index_type == message.index_type), None)
        if other is not None:
            raise DuplicateBuild(
                f"{other.index_type} of branch {status.branch!r} is being built by shadow {other.shadow_id}",
                shadow_index_id=other.shadow_id,
                operation="start_build",
                object=status.branch,
                hint="wait for it, switch it or cancel it first",
            )


def _owner_of(table: LockTable, tokens: tuple[int, ...]) -> str:
    """Who holds the lock of one of these tokens: for those who show it and do not say who they are."""
    return next((lock.owner for lock in table.locks.values() if lock.token in tokens), "")


def outcome_of(house: House, shadow_id: str) -> bool | None:
    """Whether a build has become live for good (True), never will (False), or may yet (None). Any thread."""
    row = house.catalog.find_shadow(shadow_id)
    if row is None or row.state in (ShadowState.FAILED, ShadowState.CANCELLED, ShadowState.CLEANUP):
        return False
    if row.state != ShadowState.ACTIVE or house.switches.has(shadow_id):
        return None
    index = house.catalog.index(row.branch, row.index_type)
    return index is not None and index.live == row.generation
