"""LockQueries: questions about the locks of one branch. On the thread of its BranchActor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from shadowswitch.actors.branch.locks import BranchLocks, answer
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.model.errors import LockConflict
from shadowswitch.model.locks.info import Lock, LockWaiter, lock_info, waiter_info
from shadowswitch.model.locks.records import Grant, LockRequest
from shadowswitch.model.locks.refusal import ALLOWED, WritePermission
from shadowswitch.model.locks.table import ACTIONS


class CheckWrite(msgspec.Struct, frozen=True):
    """To a BranchActor: is this write allowed now, or for as long as a lease? Reply: WritePermission."""

    action: str
    resource_type: str
    resource_id: str | None
    owner: str
    tokens: tuple[int, ...]
    reply: Reply[WritePermission]
    lease: LockRequest | None = None

    @property
    def is_plain(self) -> bool:
        """It relies on no lock and asks for none: where nothing is locked, the answer is yes."""
        return self.lease is None and not self.tokens and (self.action == "read" or self.action in ACTIONS)


class ConfirmLock(msgspec.Struct, frozen=True):
    """To a BranchActor: is this lock still held under this token? Reply: the lock, or LockLost."""

    lock_id: str
    token: int
    reply: Reply[Lock]


class ListLocks(msgspec.Struct, frozen=True):
    """To a BranchActor: list holders and waiters. Reply: the locks in order of grant, the waiters in line."""

    reply: Reply[tuple[tuple[Lock, ...], tuple[LockWaiter, ...]]]


class LockQueries:
    """Answers from the table of the BranchLocks, which is brought up to now first."""

    def __init__(self, locks: BranchLocks) -> None:
        self._locks = locks

    def handlers(self) -> dict[type, Callable[[Any], None]]:
        """The handlers by message type, for the BranchActor."""
        return {
            CheckWrite: partial(answer, self._check),
            ConfirmLock: partial(answer, self._confirm),
            ListLocks: partial(answer, self._list),
        }

    def _check(self, message: CheckWrite) -> WritePermission:
        """Without a lease: the answer is true at this moment. With a lease: it is granted in the same step, or refused
        with the reason."""
        now, wall = self._locks.moment()
        keys = [(message.resource_type, message.resource_id)]
        permission = self._locks.permission(now, wall, keys, message.owner, message.tokens, message.action)
        if message.lease is None or not permission.allowed or message.action == "read":
            return permission
        try:
            step = self._locks.held.table.acquire(
                now, wall, (message.lease,), owner=message.owner, under=message.tokens,
                known_types=self._locks.known_types(),
            )  # fmt: skip
        except LockConflict as error:
            blocked = self._locks.with_build_progress(error.blocked)
            return WritePermission(False, blocked.message, blocked)
        granted = self._locks.take(step, now, wall, "give a write lease")
        assert isinstance(granted, Grant), "LK-5 without a wait it is granted or refused"
        lease = lock_info(granted.locks[0], now, wall)
        return WritePermission(True, ALLOWED.reason, None, lease.lock_id, lease.token, lease.expires_at)

    def _confirm(self, message: ConfirmLock) -> Lock:
        now, wall = self._locks.moment()
        lock = self._locks.held.table.require(now, message.lock_id, message.token)
        return lock_info(self._locks.with_progress(lock), now, wall)

    def _list(self, _: ListLocks) -> tuple[tuple[Lock, ...], tuple[LockWaiter, ...]]:
        now, wall = self._locks.moment()
        table = self._locks.held.table
        locks = tuple(lock_info(self._locks.with_progress(lock), now, wall) for lock in table.live(now))
        return locks, tuple(waiter_info(waiter, table.branch, now, wall) for waiter in table.waiters)
