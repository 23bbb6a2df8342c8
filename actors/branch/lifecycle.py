"""BranchLife: the states of a branch. The transaction that changes a state also changes the locks of the branch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from shadowswitch.actors.branch.lock_progress import conflict_with_progress
from shadowswitch.actors.branch.locks import Audit, BranchLocks, answer
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.switch.running_switches import RunningSwitches
from shadowswitch.model.errors import LockConflict
from shadowswitch.model.events import ENGINE
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
from shadowswitch.model.locks.records import Grant, LockRequest
from shadowswitch.model.locks.records import Lock as LockRecord
from shadowswitch.model.locks.refusal import blocked_by_lock
from shadowswitch.model.locks.table import LockTable
from shadowswitch.model.locks.targets import BRANCH, LockScope
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.rows import ShadowRow
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.catalog.transitions.builds import duplicate

CLOSING = (BranchOperation.ARCHIVE, BranchOperation.MERGE)
"""Operations after which no write is admitted. They are refused while a lock or a lease is held."""


class MoveBranch(msgspec.Struct, frozen=True):
    """To a BranchActor: change the state of the branch. Reply: the new state, or InvalidTransition."""

    operation: BranchOperation
    by: str
    reason: str
    reply: Reply[BranchState]


class StartIndexing(msgspec.Struct, frozen=True):
    """To a BranchActor: indexing begins under all of these locks; in a shadow under none. Reply: the locks."""

    requests: tuple[LockRequest, ...]
    resource_types: tuple[str, ...] | None
    owner: str
    track_ready: bool
    reason: str
    reply: Reply[tuple[Lock, ...]]
    author: tuple[str, str]
    """Author and reason, for the audit history."""


class EndIndexing(msgspec.Struct, frozen=True):
    """To a BranchActor: indexing of these types (None: of all) has ended. Reply: Completion, or InvalidTransition.

    With `tokens` only the indexing under the locks of these tokens ends; LockLost if a token opens no lock.
    """

    resource_types: tuple[str, ...] | None
    owner: str
    failed: bool
    reason: str
    reply: Reply[Completion]
    tokens: tuple[int, ...]
    author: tuple[str, str]
    """Author and reason, for the audit history."""


class TrackBuild(msgspec.Struct, frozen=True):
    """To a BranchActor: claim a build, and note what its switch will complete, in one transaction. Reply: ShadowRow."""

    shadow_id: str
    index_type: str
    resource_types: tuple[str, ...]
    owner: str
    claim: Callable[[Commit], ShadowRow]
    reply: Reply[ShadowRow]


class SettleBuild(msgspec.Struct, frozen=True):
    """To a BranchActor: a tracked build may have ended; complete or fail what it indexed. Reply: the new state."""

    shadow_id: str
    reply: Reply[BranchState]


class BranchLife:
    """Changes the status that the BranchLocks holds. On the thread of the BranchActor."""

    def __init__(self, catalog: Catalog, switches: RunningSwitches, locks: BranchLocks) -> None:
        self._catalog = catalog
        self._switches = switches
        self._locks = locks

    def handlers(self) -> dict[type, Callable[[Any], None]]:
        """The handlers by message type, for the BranchActor."""
        return {
            MoveBranch: partial(answer, self._move),
            StartIndexing: partial(answer, self._start),
            EndIndexing: partial(answer, self._end),
            TrackBuild: partial(answer, self._track),
            SettleBuild: partial(answer, self._settle),
        }

    def _move(self, message: MoveBranch) -> BranchState:
        now, wall = self._locks.moment()
        held = self._locks.held
        status = move(held.status, message.operation, wall, by=message.by, reason=message.reason)
        in_the_way = next((lock for lock in held.table.live(now) if not lock.is_claim), None)
        if message.operation in CLOSING and in_the_way is not None:
            raise self._still_held(in_the_way, message.operation, now)
        what = {"operation": str(message.operation), "by": message.by, "reason": message.reason}
        self._locks.store(held.table, status, (), now, "change the state of the branch", ("branch.state", what))
        return status.state

    def _still_held(self, lock: LockRecord, operation: BranchOperation, now: float) -> LockConflict:
        """The holder of a lock or a lease relies on an open branch."""
        lock = self._locks.with_progress(lock)
        table = self._locks.held.table
        blocked = blocked_by_lock(lock, BRANCH, now, held=table.locks.values(), known_types=(), waiting=0)
        return LockConflict(
            f"branch {lock.branch} cannot be closed now: {blocked.message}",
            blocked=blocked,
            operation=operation.lower(),
            object=lock.branch,
            hint="wait until it is released, or force_unlock first",
        )

    def _start(self, message: StartIndexing) -> tuple[Lock, ...]:
        """Locks and works, both in one transaction."""
        now, wall = self._locks.moment()
        table, status = self._locks.held.table, self._locks.held.status
        locks: tuple[Any, ...] = ()
        events: tuple[Any, ...] = ()
        if message.requests:
            try:
                step = table.acquire(
                    now, wall, message.requests, owner=message.owner, known_types=self._locks.known_types()
                )
            except LockConflict as error:
                raise conflict_with_progress(error, self._locks.with_build_progress) from None
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
        what = {"locks": [lock.lock_id for lock in locks], "shadow": not locks}
        audit = _audit("indexing.started", message, message.resource_types or (WHOLE,), what)
        self._locks.store(table, status, events, now, "start indexing", audit)
        return tuple(lock_info(lock, now, wall) for lock in locks)

    def _end(self, message: EndIndexing) -> Completion:
        """Indexing that has ended releases its locks. The last of it makes the branch READY, or ERROR.

        The transaction compares the tokens once more, as for a write: this process may have been stopped meanwhile.
        """
        now, wall = self._locks.moment()
        table = self._locks.held.table
        owner = message.owner or _owner_of(table, message.tokens)
        under = table.opened_by(owner, message.tokens, now) if message.tokens else None
        end = fail_indexing if message.failed else complete_indexing
        done = end(
            self._locks.held.status,
            wall,
            by=message.owner or message.author[0],
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
        fence = partial(self._locks.fence, owner, message.tokens) if message.tokens else None
        action = "indexing.failed" if message.failed else "indexing.completed"
        audit = _audit(action, message, done.completed, {"remaining": list(done.remaining)})
        self._locks.store(table, status, events, now, "end indexing", audit, fence)
        return done

    def _track(self, message: TrackBuild) -> ShadowRow:
        """The claim of a build, and the works that its switch will complete: one transaction."""
        now, wall = self._locks.moment()
        table, status = self._locks.held.table, forget_shadow(self._locks.held.status, message.shadow_id)
        for shadow_id in {work.shadow_id: None for work in status.indexing if work.shadow_id}:
            status = self._settled(status, shadow_id, wall)
        self._refuse_duplicate(status, message)
        works = [
            IndexingWork(name, message.owner, wall, index_type=message.index_type, shadow_id=message.shadow_id)
            for name in message.resource_types
        ]
        status = start_indexing(status, wall, works, reason=f"build of {message.index_type}")
        row = self._locks.store(table, status, (), now, "start build", None, message.claim)
        assert row is not None, "the transaction returns the row of the claim"
        return row

    def _settle(self, message: SettleBuild) -> BranchState:
        """Live and verified: completed. Failed, cancelled or reverted: failed. Under way: no change yet."""
        now, wall = self._locks.moment()
        held = self._locks.held
        status = self._settled(held.status, message.shadow_id, wall)
        if status is not held.status:
            self._locks.store(held.table, status, (), now, "end indexing", None)
        return status.state

    def _settled(self, status: BranchStatus, shadow_id: str, wall: datetime) -> BranchStatus:
        """The status with the end of a tracked build; the same status while the build may become live."""
        succeeded = outcome_of(self._catalog, self._switches, shadow_id)
        if succeeded is None or not any(work.shadow_id == shadow_id for work in status.indexing):
            return status
        end = complete_indexing if succeeded else fail_indexing
        locks = self._locks.held.table.locks.values()
        reason = f"shadow {shadow_id} {'is live' if succeeded else 'did not go live'}"
        return end(status, wall, by=ENGINE, reason=reason, shadow_id=shadow_id, held=locks).status

    def _refuse_duplicate(self, status: BranchStatus, message: TrackBuild) -> None:
        other = next((w for w in status.indexing if w.shadow_id and w.index_type == message.index_type), None)
        if other is not None:
            raise duplicate(self._catalog.shadow(other.shadow_id), "start_build")


def _audit(action: str, message: StartIndexing | EndIndexing, types: Iterable[str], what: dict[str, Any]) -> Audit:
    """An entry of the audit history. The owner did the work, the author said so."""
    by, reason = message.author
    return action, {"resource_types": list(types), "owner": message.owner, **what, "by": by, "reason": reason}


def _owner_of(table: LockTable, tokens: tuple[int, ...]) -> str:
    """The owner of the lock of one of these tokens, for a caller that gives a token and no owner."""
    return next((lock.owner for lock in table.locks.values() if lock.token in tokens), "")


def outcome_of(catalog: Catalog, switches: RunningSwitches, shadow_id: str) -> bool | None:
    """True: the build is live for good. False: it never will be. None: it may become live. Any thread."""
    row = catalog.find_shadow(shadow_id)
    if row is None or row.state in (ShadowState.FAILED, ShadowState.CANCELLED, ShadowState.CLEANUP):
        return False
    if row.state != ShadowState.ACTIVE or switches.has(shadow_id):
        return None
    index = catalog.index(row.branch, row.index_type)
    return index is not None and index.live == row.generation
