"""The states of a branch, as its BranchActor changes them: each in the transaction that changes its locks, too."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from shadowswitch.actors.lock_keeper import LockKeeper, answer
from shadowswitch.actors.messages import EndIndexing, MoveBranch, StartIndexing
from shadowswitch.model.branch_states import (
    WHOLE,
    BranchState,
    Completion,
    IndexingWork,
    after_locks,
    complete_indexing,
    fail_indexing,
    move,
    start_indexing,
)
from shadowswitch.model.lock_info import Lock, lock_info
from shadowswitch.model.lock_records import Grant
from shadowswitch.model.lock_scopes import LockScope


class BranchLife:
    """Changes the status that a LockKeeper holds. On the BranchActor's thread."""

    def __init__(self, keeper: LockKeeper) -> None:
        self._keeper = keeper

    def handlers(self) -> dict[type, Callable[[Any], None]]:
        """What the BranchActor leaves to this, by message type."""
        return {
            MoveBranch: partial(answer, self._move),
            StartIndexing: partial(answer, self._start),
            EndIndexing: partial(answer, self._end),
        }

    def _move(self, message: MoveBranch) -> BranchState:
        now, wall = self._keeper.moment()
        held = self._keeper.held
        status = move(held.status, message.operation, wall, by=message.by, reason=message.reason)
        what = {"operation": str(message.operation), "by": message.by, "reason": message.reason}
        self._keeper.store(held.table, status, (), now, "change the state of the branch", ("branch.state", what))
        return status.state

    def _start(self, message: StartIndexing) -> tuple[Lock, ...]:
        """Locks and works in one transaction, or neither."""
        now, wall = self._keeper.moment()
        table, status = self._keeper.held.table, self._keeper.held.status
        locks: tuple[Any, ...] = ()
        events: tuple[Any, ...] = ()
        if message.requests:
            step = table.acquire(now, wall, message.requests, owner=message.owner)
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
        """What is done no longer needs its locks; the last of it makes the branch READY, or ERROR."""
        now, wall = self._keeper.moment()
        table = self._keeper.held.table
        end = fail_indexing if message.failed else complete_indexing
        done = end(
            self._keeper.held.status,
            wall,
            by=message.owner,
            resource_types=message.resource_types,
            owner=message.owner or None,
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
        self._keeper.store(table, status, events, now, "end indexing", None)
        return done
