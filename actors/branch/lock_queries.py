"""Questions about the locks of one branch: may I write, do I still hold this, who holds what. On its actor's thread."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from shadowswitch.actors.branch.locks import BranchLocks, answer
from shadowswitch.actors.messages import CheckWrite, ConfirmLock, ListLocks
from shadowswitch.model.errors import LockConflict
from shadowswitch.model.locks.info import lock_info, waiter_info
from shadowswitch.model.locks.records import Grant
from shadowswitch.model.locks.refusal import ALLOWED, WritePermission


class LockQueries:
    """Answers from the table that a BranchLocks holds, brought up to now first."""

    def __init__(self, keeper: BranchLocks) -> None:
        self._keeper = keeper

    def handlers(self) -> dict[type, Callable[[Any], None]]:
        """What the BranchActor leaves to this, by message type."""
        return {
            CheckWrite: partial(answer, self._check),
            ConfirmLock: partial(answer, self._confirm),
            ListLocks: partial(answer, self._list),
        }

    def _check(self, message: CheckWrite) -> WritePermission:
        """Without a lease: the truth of this moment. With one: granted in the same step, or refused with the reason."""
        now, wall = self._keeper.moment()
        keys = [(message.resource_type, message.resource_id)]
        permission = self._keeper.permission(now, wall, keys, message.owner, message.tokens, message.action)
        if message.lease is None or not permission.allowed or message.action == "read":
            return permission
        try:
            step = self._keeper.held.table.acquire(
                now, wall, (message.lease,), owner=message.owner, under=message.tokens,
                known_types=self._keeper.known_types(),
            )  # fmt: skip
        except LockConflict as error:
            blocked = self._keeper.retold(error.blocked)
            return WritePermission(False, blocked.message, blocked)
        granted = self._keeper.take(step, now, wall, "give a write lease")
        assert isinstance(granted, Grant), "LK-5 without a wait it is granted or refused"
        lease = lock_info(granted.locks[0], now, wall)
        return WritePermission(True, ALLOWED.reason, None, lease.lock_id, lease.token, lease.expires_at)

    def _confirm(self, message: ConfirmLock) -> Any:
        now, wall = self._keeper.moment()
        lock = self._keeper.held.table.require(now, message.lock_id, message.token)
        return lock_info(self._keeper.measured(lock), now, wall)

    def _list(self, _: ListLocks) -> Any:
        now, wall = self._keeper.moment()
        table = self._keeper.held.table
        locks = tuple(lock_info(self._keeper.measured(lock), now, wall) for lock in table.live(now))
        return locks, tuple(waiter_info(waiter, table.branch, now, wall) for waiter in table.waiters)
