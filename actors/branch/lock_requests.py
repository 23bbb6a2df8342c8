"""LockRequests: the requests of lock holders. They acquire, renew and release. On the thread of the BranchActor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from shadowswitch.actors.branch.lock_progress import conflict_with_progress
from shadowswitch.actors.branch.lock_waiters import AcquireLock
from shadowswitch.actors.branch.locks import BranchLocks, answer
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.model.errors import LockConflict
from shadowswitch.model.locks.info import Lock, lock_info
from shadowswitch.model.locks.records import ProgressReport
from shadowswitch.model.locks.step import Queued
from shadowswitch.model.metrics import Metrics


class AbandonLocks(msgspec.Struct, frozen=True):
    """To a BranchActor: the sender of this AcquireLock has left. Undo the message, whatever its outcome was."""

    request: AcquireLock


class HeartbeatLock(msgspec.Struct, frozen=True):
    """To a BranchActor: the holder lives; the message may carry its progress. Reply: the lock, or LockLost."""

    lock_id: str
    token: int
    progress: ProgressReport | None
    reply: Reply[Lock]


class ExtendLock(msgspec.Struct, frozen=True):
    """To a BranchActor: add to the time to live. Reply: the lock, or LockLost."""

    lock_id: str
    token: int
    extra_s: float
    reply: Reply[Lock]


class ReleaseLock(msgspec.Struct, frozen=True):
    """To a BranchActor: give a lock back. Reply: the lock as it was, or LockLost."""

    lock_id: str
    token: int
    reply: Reply[Lock]


class ForceUnlock(msgspec.Struct, frozen=True):
    """To a BranchActor: take away every lock; kept in the audit history. Reply: the locks that were held."""

    by: str
    reason: str
    reply: Reply[tuple[Lock, ...]]


class LockRequests:
    """Computes each step from the table of the BranchLocks and has it stored and adopted there."""

    def __init__(self, metrics: Metrics, locks: BranchLocks) -> None:
        self._metrics = metrics
        self._locks = locks

    def handlers(self) -> dict[type, Callable[[Any], None]]:
        """The handlers by message type, for the BranchActor."""
        answered: dict[type, Callable[[Any], Any]] = {
            HeartbeatLock: self._heartbeat,
            ExtendLock: self._extend,
            ReleaseLock: self._release,
            ForceUnlock: self._force,
        }
        return {
            AcquireLock: self._acquire,
            AbandonLocks: self._abandon,
            **{kind: partial(answer, handler) for kind, handler in answered.items()},
        }

    def _acquire(self, message: AcquireLock) -> None:
        if not message.reply.set_running_or_notify_cancel():
            return
        locks = self._locks
        now, wall = locks.moment()
        waiter_id = message.requests[0].lock_id
        try:
            step = locks.held.table.acquire(
                now,
                wall,
                message.requests,
                owner=message.owner,
                wait_s=message.wait_s,
                waiter_id=waiter_id,
                under=message.under,
                known_types=locks.known_types(),
            )
        except LockConflict as error:
            locks.note_refusal("lock", message.owner, error.blocked)
            raise conflict_with_progress(error, locks.with_build_progress) from None
        if isinstance(step.value, Queued):
            locks.waiters.add(waiter_id, message)
            locks.take(step, now, wall, "wait for a lock")
            return
        locks.take(step, now, wall, "acquire a lock")
        self._metrics.count("locks_granted")
        message.reply.set_result(tuple(lock_info(lock, now, wall) for lock in step.value.locks))

    def _abandon(self, message: AbandonLocks) -> None:
        locks, requests = self._locks, message.request.requests
        now, wall = locks.moment()
        if locks.waiters.remove(requests[0].lock_id):
            dropped = locks.held.table.drop_waiter(now, wall, requests[0].lock_id, reason="the caller left")
            locks.take(dropped, now, wall, "leave")
        held = [locks.held.table.locks[r.lock_id] for r in requests if r.lock_id in locks.held.table.locks]
        if held:
            pairs = [(lock.lock_id, lock.token) for lock in held]
            locks.take(locks.held.table.release(now, wall, *pairs, reason="the caller left"), now, wall, "leave")

    def _heartbeat(self, message: HeartbeatLock) -> Lock:
        now, wall = self._locks.moment()
        step = self._locks.held.table.heartbeat(now, wall, message.lock_id, message.token, message.progress)
        return lock_info(self._locks.take(step, now, wall, "heartbeat"), now, wall)

    def _extend(self, message: ExtendLock) -> Lock:
        now, wall = self._locks.moment()
        step = self._locks.held.table.extend(now, wall, message.lock_id, message.token, message.extra_s)
        return lock_info(self._locks.take(step, now, wall, "extend a lock"), now, wall)

    def _release(self, message: ReleaseLock) -> Lock:
        now, wall = self._locks.moment()
        step = self._locks.held.table.release(now, wall, (message.lock_id, message.token))
        (lock,) = self._locks.take(step, now, wall, "release a lock")
        return lock_info(lock, now, wall)

    def _force(self, message: ForceUnlock) -> tuple[Lock, ...]:
        now, wall = self._locks.moment()
        step = self._locks.held.table.force_unlock(now, wall, by=message.by, reason=message.reason)
        taken = [{"lock_id": lock.lock_id, "owner": lock.owner, "target": str(lock.target)} for lock in step.value]
        audit = ("lock.forced", {"by": message.by, "reason": message.reason, "locks": taken})
        return tuple(lock_info(lock, now, wall) for lock in self._locks.take(step, now, wall, "force unlock", audit))
