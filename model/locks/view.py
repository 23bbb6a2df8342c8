"""A lock table at one moment: its content, its stored form, and the queries that change nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Self

import msgspec

from shadowswitch.model.locks.branch_state import BranchStatus
from shadowswitch.model.locks.checks import lost
from shadowswitch.model.locks.draft import clash, forgiven, revived
from shadowswitch.model.locks.index import LockIndex
from shadowswitch.model.locks.records import Ending, Lock, LockRequest, LockTableState, Waiter
from shadowswitch.model.locks.refusal import (
    ALLOWED,
    Blocked,
    WritePermission,
    blocked_by_lock,
    blocked_by_state,
    blocked_by_waiter,
)
from shadowswitch.model.locks.targets import LockScope, Target, check_duration, overlaps, resource_target, type_target


class LockView:
    """The locks and waiters of one branch at one moment."""

    __slots__ = ("_due", "_index", "branch", "clock_id", "endings", "locks", "next_token", "waiters")

    def __init__(
        self,
        branch: str,
        *,
        next_token: int = 1,
        clock_id: str = "",
        locks: Iterable[Lock] = (),
        waiters: Iterable[Waiter] = (),
        endings: Iterable[Ending] = (),
        index: LockIndex | None = None,
    ) -> None:
        self.branch = branch
        self.clock_id = clock_id
        self.next_token = next_token
        self.locks = {lock.lock_id: lock for lock in locks}
        self.waiters = tuple(waiters)
        self.endings = tuple(endings)
        self._index = index if index is not None else LockIndex(self.locks.values())
        dues = [lock.deadline for lock in self.locks.values()] + [waiter.deadline for waiter in self.waiters]
        self._due = min((due for due in dues if due is not None), default=None)

    def dump(self, now: float) -> LockTableState:
        """The whole table in its stored form."""
        return LockTableState(
            branch=self.branch,
            clock_id=self.clock_id,
            saved_at=now,
            next_token=self.next_token,
            locks=tuple(self.locks.values()),
            waiters=self.waiters,
            endings=self.endings,
        )

    @classmethod
    def resume(cls, state: LockTableState) -> Self:
        """The same table in the same process, for the actor that succeeds an idle one."""
        return cls(
            state.branch,
            next_token=state.next_token,
            clock_id=state.clock_id,
            locks=state.locks,
            waiters=state.waiters,
            endings=state.endings,
        )

    @classmethod
    def load(cls, state: LockTableState, now: float, grace_s: float, *, clock_id: str = "") -> Self:
        """The table after a restart of the process: holders keep their locks for a grace interval, waiters are dropped.

        `clock_id` names the present monotonic clock, say the boot id; "" never counts as the same clock.
        """
        grace_s = check_duration("grace_s", grace_s, zero=True)
        same = bool(clock_id) and clock_id == state.clock_id
        shift_s = 0.0 if same else now - state.saved_at
        locks = [revived(lock, now=now, shift_s=shift_s, same_clock=same, grace_s=grace_s) for lock in state.locks]
        endings = [msgspec.structs.replace(ending, at=ending.at + shift_s) for ending in state.endings]
        return cls(state.branch, next_token=state.next_token, clock_id=clock_id, locks=locks, endings=endings)

    def forgiven(self, now: float, grace_s: float) -> Self:
        """The table after a time in which no heartbeat could arrive: holders have a grace interval for the next one."""
        locks = tuple(forgiven(lock, now, grace_s) for lock in self.locks.values())
        return self.resume(msgspec.structs.replace(self.dump(now), locks=locks))

    def next_due(self) -> float | None:
        """The moment of the next expiry or waiter's deadline: call `expire_due` then."""
        return self._due

    def live(self, now: float) -> tuple[Lock, ...]:
        """The locks held now, in order of grant, without the expired ones."""
        return tuple(lock for lock in self.locks.values() if not lock.expired(now))

    def require(self, now: float, lock_id: str, token: int, *, owner: str | None = None) -> Lock:
        """The live lock of that id and token (and owner): the fence. Raises LockLost with the lock's ending."""
        lock = self.locks.get(lock_id)
        if lock is None or lock.token != token or lock.expired(now) or (owner is not None and lock.owner != owner):
            raise lost(lock_id, token, lock, self.endings, now)
        return lock

    def waiting_for(self, target: Target) -> int:
        """The number of waiters whose targets overlap this one."""
        return sum(any(overlaps(r.target, target) for r in waiter.requests) for waiter in self.waiters)

    def permission(
        self,
        now: float,
        keys: Iterable[tuple[str, str | None]],
        status: BranchStatus,
        owner: str,
        tokens: Collection[int],
        known_types: Iterable[str],
    ) -> WritePermission:
        """See `LockTable.check_write`; the table must be up to now."""
        mine = self.opened_by(owner, tokens, now)
        for resource_type, id in keys:
            asked = type_target(resource_type) if id is None else resource_target(resource_type, id)
            if not status.admits_writes:
                blocked = blocked_by_state(status, asked)
                return WritePermission(False, blocked.message, blocked)
            for lock_id in self._index.overlapping(asked) if self.locks else ():
                lock = self.locks[lock_id]
                if lock.shared or lock_id in mine or (id is None and lock.scope is LockScope.RESOURCE):
                    continue
                waiting = self.waiting_for(asked)
                held = self.locks.values()
                blocked = blocked_by_lock(lock, asked, now, held=held, known_types=known_types, waiting=waiting)
                return WritePermission(False, blocked.message, blocked)
        return ALLOWED

    def opened_by(self, owner: str, tokens: Collection[int], now: float) -> tuple[str, ...]:
        """The ids of the owner's locks with these tokens. Raises LockLost for a token that is not valid."""
        if not tokens:
            return ()
        held = {lock.token: lock for lock in self.locks.values() if lock.owner == owner and not lock.expired(now)}
        for token in tokens:
            if token not in held:
                stranger = next((lock for lock in self.locks.values() if lock.token == token), None)
                raise lost("", token, stranger, self.endings, now)
        return tuple(held[token].lock_id for token in tokens)

    def refusal(
        self, obstacle: Lock | Waiter, requests: Sequence[LockRequest], now: float, known_types: Iterable[str]
    ) -> Blocked:
        """The refusal of these requests because of an obstacle."""
        theirs = (obstacle,) if isinstance(obstacle, Lock) else obstacle.requests
        asked = next(r.target for r in requests if clash((r,), theirs))
        held, waiting = self.locks.values(), self.waiting_for(asked)
        if isinstance(obstacle, Lock):
            return blocked_by_lock(obstacle, asked, now, held=held, known_types=known_types, waiting=waiting)
        return blocked_by_waiter(
            obstacle, asked, branch=self.branch, held=held, known_types=known_types, waiting=waiting
        )
