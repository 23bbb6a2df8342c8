"""The lock table of one branch: its locks, its waiters, its answers to writers. Pure; its owner persists and adopts.

    step = table.acquire(now, wall, [request], owner="alice", wait_s=30)
    if step.must_persist: store(step.table.dump(now)) in the transaction that also stores the events
    table = step.table                                    # adopt only after that commit

A `LockTable` never changes. An operation returns a `Step`: the next table, the answer, and the events (expired locks,
granted waiters). A discarded step has no effect. A refused operation raises and has no step.

Rule for the owner: store the step with an expiry before any answer that relies on the expiry leaves the engine. Then a
restart cannot revive the lock.

Invariants:
    LK-1 two exclusive locks that overlap are held only if the later was requested under the earlier
    LK-2 the token of a grant is larger than every token granted before on this branch, also over restarts
    LK-3 an expired lock blocks no request, and its token is not valid
    LK-4 only requests that do not overlap a waiter, or are made under the locks it waits for, pass it
    LK-5 several locks requested together are granted in one step or not at all
    LK-6 after every step no waiter could be granted
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import TypeVar

import msgspec

from shadowswitch.model.errors import InvalidConfig, LockConflict
from shadowswitch.model.locks.branch_state import BranchStatus
from shadowswitch.model.locks.checks import check_extension, check_reason, check_requests, progress_of
from shadowswitch.model.locks.draft import Draft
from shadowswitch.model.locks.records import Grant, Lock, LockEventKind, LockRequest, ProgressReport, Waiter
from shadowswitch.model.locks.refusal import ALLOWED, WritePermission
from shadowswitch.model.locks.step import Queued, Step
from shadowswitch.model.locks.targets import MISSED_HEARTBEATS_MAX, check_duration
from shadowswitch.model.locks.view import LockView

U = TypeVar("U")

WAITERS_MAX = 1000
"""Requests that may wait on one branch; further ones are refused, because a longer queue would only time out."""

LOCKS_MAX = 10_000
"""The most locks held on one branch: each change stores the whole table."""

ACTIONS = frozenset({"write", "create", "update", "delete"})


class LockTable(LockView):
    """The locks and waiters of one branch, and the operations on them. Any thread may use one, it never changes."""

    __slots__ = ()

    def check_write(
        self,
        now: float,
        wall: datetime,
        keys: Iterable[tuple[str, str | None]],
        *,
        status: BranchStatus,
        owner: str = "",
        tokens: Collection[int] = (),
        known_types: Iterable[str] = (),
        action: str = "write",
    ) -> Step[LockTable, WritePermission]:
        """The permission to write these records, (resource_type, id), as of now.

        Locks of `owner` do not refuse when their tokens are given; a token that is not valid raises LockLost. An id of
        None stands for the type at large: locks of single records do not refuse it.
        """
        if action == "read":
            return Step(self, ALLOWED)
        if action not in ACTIONS:
            raise InvalidConfig(f"unknown action {action!r}", hint=f"one of read, {', '.join(sorted(ACTIONS))}")
        step = self.expire_due(now, wall)
        answer = step.table.permission(now, keys, status, owner, tokens, known_types)
        return Step(step.table, answer, step.events)

    def acquire(
        self,
        now: float,
        wall: datetime,
        requests: Sequence[LockRequest],
        *,
        owner: str,
        wait_s: float = 0.0,
        waiter_id: str = "",
        under: Collection[int] = (),
        known_types: Iterable[str] = (),
    ) -> Step[LockTable, Grant | Queued]:
        """Take all of these locks or none: now or, with `wait_s`, in the order of the queue before the deadline.

        The requests may overlap the locks of the same owner whose tokens are in `under`. Raises LockConflict for an
        obstacle without `wait_s`, and for a full queue; LockLost when a token in `under` is not valid.
        """
        check_requests(requests, owner)
        wait_s = check_duration("wait_s", wait_s, zero=True)
        draft = self._draft(now, wall)
        self._check_new(draft, requests, waiter_id if wait_s else None)
        settled = self._adopt(draft)
        exempt = settled.opened_by(owner, under, now)
        obstacles = draft.obstacles(requests, exempt, draft.waiters)
        if len(draft.locks) + len(requests) > LOCKS_MAX:
            raise InvalidConfig(
                f"branch {self.branch} has {len(draft.locks)} locks, and may have {LOCKS_MAX}",
                operation="lock",
                object=self.branch,
                hint="lock the resource type instead of so many records",
            )
        if not obstacles:
            grant = draft.grant(owner, requests)
            return self._step(draft, grant)
        blocked = settled.refusal(obstacles[0], requests, now, known_types)
        if not wait_s or len(draft.waiters) >= WAITERS_MAX:
            raise LockConflict(
                blocked.message, blocked=blocked, operation="lock", object=self.branch, hint=blocked.alternatives[0]
            )
        waiter = Waiter(waiter_id, owner, tuple(requests), now + wait_s, now, wall, exempt)
        ahead = sum(isinstance(obstacle, Waiter) for obstacle in obstacles)
        draft.queue(waiter)
        return self._step(draft, Queued(waiter, ahead, blocked))

    def _check_new(self, draft: Draft, requests: Sequence[LockRequest], waiter_id: str | None) -> None:
        waiting = {request.lock_id for waiter in draft.waiters for request in waiter.requests}
        for request in requests:
            if request.lock_id in draft.locks or request.lock_id in waiting:
                raise InvalidConfig(f"lock id {request.lock_id} is in use", hint="make a new id for each request")
        if waiter_id is not None and (not waiter_id or any(w.waiter_id == waiter_id for w in draft.waiters)):
            raise InvalidConfig(f"waiter id {waiter_id!r} is empty or in use", hint="make a new id for each wait")

    def heartbeat(
        self, now: float, wall: datetime, lock_id: str, token: int, progress: ProgressReport | None = None
    ) -> Step[LockTable, Lock]:
        """A heartbeat of the holder, perhaps with its progress. Does not extend the TTL. Raises LockLost."""
        lock = self.require(now, lock_id, token)
        draft = self._draft(now, wall)
        beat = lock.heartbeat_s
        alive = msgspec.structs.replace(
            lock,
            last_heartbeat=now,
            heartbeat_by=None if beat is None else now + MISSED_HEARTBEATS_MAX * beat,
            progress=progress_of(lock.progress, progress, now),
        )
        return self._step(draft, draft.replace(alive))

    def extend(self, now: float, wall: datetime, lock_id: str, token: int, extra_s: float) -> Step[LockTable, Lock]:
        """Add to the TTL, up to the longest life of a lock. Raises LockLost; InvalidConfig for a bad `extra_s`."""
        lock = self.require(now, lock_id, token)
        expires_at, expires_wall = check_extension(lock, extra_s)
        draft = self._draft(now, wall)
        longer = msgspec.structs.replace(lock, expires_at=expires_at, expires_wall=expires_wall)
        draft.add_event(LockEventKind.EXTENDED, draft.replace(longer), by=lock.owner, reason=f"by {extra_s:g} s")
        return self._step(draft, longer)

    def release(
        self, now: float, wall: datetime, *held: tuple[str, int], reason: str = ""
    ) -> Step[LockTable, tuple[Lock, ...]]:
        """Release locks, each by (lock_id, token), all or none. Raises LockLost."""
        locks = tuple(self.require(now, lock_id, token) for lock_id, token in dict.fromkeys(held))
        draft = self._draft(now, wall)
        for lock in locks:
            draft.end(lock, LockEventKind.RELEASED, by=lock.owner, reason=reason)
        draft.grant_waiters()
        return self._step(draft, locks)

    def force_unlock(
        self, now: float, wall: datetime, *, by: str, reason: str, claims: bool = False
    ) -> Step[LockTable, tuple[Lock, ...]]:
        """End every lock of the branch; their tokens are no longer valid. Waiters are granted in their order.

        Builds keep their claims unless `claims`: a claim blocks no writer, and the cancellation of its build ends it.
        """
        check_reason(by, reason)
        draft = self._draft(now, wall)
        taken = tuple(lock for lock in draft.locks.values() if claims or not lock.is_claim)
        for lock in taken:
            draft.end(lock, LockEventKind.FORCED, by=by, reason=reason)
        draft.grant_waiters()
        return self._step(draft, taken)

    def expire_due(self, now: float, wall: datetime) -> Step[LockTable, tuple[Lock, ...]]:
        """Bring the table up to now; the answer is the expired locks. Cheap while nothing is due."""
        if self._due is None or now < self._due:
            return Step(self, ())
        draft = self._draft(now, wall)
        expired = tuple(e.lock for e in draft.events if e.lock is not None and e.kind is LockEventKind.EXPIRED)
        return self._step(draft, expired)

    def drop_waiter(
        self, now: float, wall: datetime, waiter_id: str, *, reason: str = "it left"
    ) -> Step[LockTable, bool]:
        """Remove a waiter from the queue, for example of a dead process; False when it is not in the queue."""
        draft = self._draft(now, wall)
        waiter = next((w for w in draft.waiters if w.waiter_id == waiter_id), None)
        if waiter is not None:
            draft.drop(waiter, LockEventKind.WAIT_DROPPED, reason)
            draft.grant_waiters()
        return self._step(draft, waiter is not None)

    def _draft(self, now: float, wall: datetime) -> Draft:
        draft = Draft(
            self.branch,
            now,
            wall,
            next_token=self.next_token,
            locks=dict(self.locks),
            waiters=self.waiters,
            endings=self.endings,
            index=self._index,
        )
        draft.settle()
        return draft

    def _adopt(self, draft: Draft) -> LockTable:
        return LockTable(
            self.branch,
            next_token=draft.next_token,
            clock_id=self.clock_id,
            locks=draft.locks.values(),
            waiters=draft.waiters,
            endings=draft.endings,
            index=draft.index,
        )

    def _step(self, draft: Draft, value: U) -> Step[LockTable, U]:
        return Step(self._adopt(draft), value, tuple(draft.events))
