"""LockWaiters: the AcquireLock messages of one branch that wait for their locks.

They belong to the BranchLocks, not to the actor, so a successor of a dead actor answers them (LK-4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import datetime

import msgspec

from shadowswitch.actors.branch.lock_progress import conflict_with_progress
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.model.errors import EngineClosed, LockConflict, ShadowSwitchError, Timeout
from shadowswitch.model.locks.info import Lock, lock_info
from shadowswitch.model.locks.records import LockRequest
from shadowswitch.model.locks.refusal import Blocked
from shadowswitch.model.locks.table import LockTable
from shadowswitch.model.metrics import Metrics


class AcquireLock(msgspec.Struct, frozen=True):
    """To a BranchActor: grant all of these locks or none, within `wait_s`. Reply: the locks, or LockConflict."""

    requests: tuple[LockRequest, ...]
    owner: str
    wait_s: float
    under: tuple[int, ...]
    reply: Reply[tuple[Lock, ...]]


class LockWaiters:
    """The waiters by id. On the thread of the BranchActor; any thread asks whether there are some."""

    def __init__(
        self,
        metrics: Metrics,
        known_types: Callable[[], Iterator[str]],
        with_build_progress: Callable[[Blocked], Blocked],
    ) -> None:
        """The callables serve the refusal of a waiter whose deadline passed."""
        self._metrics = metrics
        self._known_types = known_types
        self._with_build_progress = with_build_progress
        self._waiting: dict[str, AcquireLock] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, waiter_id: str, message: AcquireLock) -> None:
        """The message waits in the line of the table."""
        self._waiting[waiter_id] = message

    def remove(self, waiter_id: str) -> bool:
        """Drop a waiter without an answer; False if there is none of that id."""
        return self._waiting.pop(waiter_id, None) is not None

    def answer(self, table: LockTable, now: float, wall: datetime) -> None:
        """Answer every waiter that the table does not have in its line any more: granted, or past its deadline."""
        queued = {waiter.waiter_id for waiter in table.waiters}
        for waiter_id in [i for i in self._waiting if i not in queued]:
            message = self._waiting.pop(waiter_id)
            locks = [table.locks[r.lock_id] for r in message.requests if r.lock_id in table.locks]
            if len(locks) == len(message.requests):
                self._metrics.count("locks_granted")
                message.reply.set_result(tuple(lock_info(lock, now, wall) for lock in locks))
            else:
                message.reply.set_exception(self._refusal(message, table, now, wall))

    def _refusal(self, message: AcquireLock, table: LockTable, now: float, wall: datetime) -> ShadowSwitchError:
        """The error of a waiter whose deadline passed: the lock that is in its way.

        What became due since the table was stored has not happened yet: a grant that follows from it may never be.
        """
        due = table.next_due()
        try:
            table.acquire(
                now if due is None or now < due else math.nextafter(due, -math.inf),
                wall,
                message.requests,
                owner=message.owner,
                under=message.under,
                known_types=self._known_types(),
            )
        except LockConflict as error:
            return conflict_with_progress(error, self._with_build_progress)
        except ShadowSwitchError as error:
            return error
        return Timeout(
            f"the lock did not become free within {message.wait_s:g} s",
            operation="lock",
            hint="it is free now: try again",
        )

    def close(self) -> None:
        """Answer every waiter: the engine closes."""
        waiting, self._waiting = list(self._waiting.values()), {}
        for message in waiting:
            message.reply.set_exception(EngineClosed("the engine was closed while you waited", hint="open it again"))
