"""A lock table during an operation: expiry, the queue, grants, endings.

The queue is first come, first served: a request, new or waiting, is granted only when it overlaps no held lock and no
earlier waiting request. So a stream of narrow requests cannot starve a wide one. One exception: a request under a lock
of the same owner passes the waiters for that very lock, which must wait for its end anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import msgspec

from shadowswitch.model.locks.index import LockIndex
from shadowswitch.model.locks.records import Ending, Grant, Lock, LockEvent, LockEventKind, LockRequest, Waiter
from shadowswitch.model.locks.targets import DEFAULT_TTL_S, LEASE_TTL_S, MISSED_HEARTBEATS_MAX, overlaps

ENDINGS_KEPT = 64
"""Endings that a table remembers: enough for the errors of late holders, few enough to store with each change."""


def clash(one: Sequence[LockRequest] | Sequence[Lock], other: Sequence[LockRequest] | Sequence[Lock]) -> bool:
    """True if a lock of one set excludes one of the other: overlapping targets, not both shared."""
    return any(not (a.shared and b.shared) and overlaps(a.target, b.target) for a in one for b in other)


class Draft:
    """The mutable parts of a table; discarded when the operation is refused."""

    __slots__ = ("_index", "branch", "endings", "events", "locks", "next_token", "now", "waiters", "wall")

    def __init__(
        self,
        branch: str,
        now: float,
        wall: datetime,
        *,
        next_token: int,
        locks: dict[str, Lock],
        waiters: Iterable[Waiter],
        endings: Iterable[Ending],
        index: LockIndex,
    ) -> None:
        self.branch, self.now, self.wall, self.next_token = branch, now, wall, next_token
        self.locks = locks
        self.waiters = list(waiters)
        self.endings = list(endings)
        self.events: list[LockEvent] = []
        self._index: LockIndex | None = index

    @property
    def index(self) -> LockIndex:
        """The held locks by their targets, as of now."""
        if self._index is None:
            self._index = LockIndex(self.locks.values())
        return self._index

    def settle(self) -> None:
        """Bring the table up to now: expire locks, drop waiters past their deadline, grant waiters."""
        due = [lock for lock in self.locks.values() if lock.expired(self.now)]
        for lock in sorted(due, key=lambda lock: (lock.deadline or 0.0, lock.token)):
            self.end(lock, LockEventKind.EXPIRED, by="", reason=_why_expired(lock))
        late = [waiter for waiter in self.waiters if self.now >= waiter.deadline]
        for waiter in late:
            self.drop(waiter, LockEventKind.WAIT_TIMED_OUT, "its deadline passed")
        if due or late:
            self.grant_waiters()

    def end(self, lock: Lock, kind: LockEventKind, *, by: str, reason: str) -> None:
        """End a lock and remember the ending. Call `grant_waiters` after the last one."""
        del self.locks[lock.lock_id]
        self._index = None
        at = lock.deadline if kind is LockEventKind.EXPIRED else None
        ending = Ending(lock.lock_id, lock.token, lock.owner, kind, self.now if at is None else at, by, reason)
        self.endings = [*self.endings[-(ENDINGS_KEPT - 1) :], ending]
        self.events.append(LockEvent(kind, self.wall, lock=lock, by=by, reason=reason))

    def queue(self, waiter: Waiter) -> None:
        """Add a waiter at the end of the queue."""
        self.waiters.append(waiter)
        self.events.append(LockEvent(LockEventKind.WAITING, self.wall, waiter=waiter, by=waiter.owner))

    def drop(self, waiter: Waiter, kind: LockEventKind, reason: str) -> None:
        """Remove a waiter from the queue. Call `grant_waiters` afterwards."""
        self.waiters.remove(waiter)
        self.events.append(LockEvent(kind, self.wall, waiter=waiter, by=waiter.owner, reason=reason))

    def obstacles(
        self, requests: Sequence[LockRequest], under: Sequence[str], ahead: Iterable[Waiter]
    ) -> list[Lock | Waiter]:
        """The obstacles for a set of requests: held locks, then earlier waiters."""
        found: dict[str, Lock | Waiter] = {}
        for request in requests:
            for lock_id in self.index.overlapping(request.target):
                if lock_id not in under and not (request.shared and self.locks[lock_id].shared):
                    found[lock_id] = self.locks[lock_id]
        mine = [self.locks[lock_id] for lock_id in under if lock_id in self.locks]
        in_line = [w for w in ahead if clash(requests, w.requests) and not _waits_for(w, mine)]
        return [*found.values(), *in_line]

    def grant(self, owner: str, requests: Sequence[LockRequest]) -> Grant:
        """Grant a set of requests, each with a token of its own."""
        locks = tuple(self._granted(owner, request) for request in requests)
        self._index = None
        for lock in locks:
            self.locks[lock.lock_id] = lock
            self.events.append(LockEvent(LockEventKind.GRANTED, self.wall, lock=lock, by=owner, reason=lock.reason))
        return Grant(locks)

    def _granted(self, owner: str, request: LockRequest) -> Lock:
        token, self.next_token = self.next_token, self.next_token + 1
        ttl_s = ttl_of(request)
        beat = request.heartbeat_s
        return Lock(
            lock_id=request.lock_id,
            token=token,
            branch=self.branch,
            owner=owner,
            lock_type=request.lock_type,
            target=request.target,
            reason=request.reason,
            granted_at=self.now,
            granted_wall=self.wall,
            expires_at=None if ttl_s is None else self.now + ttl_s,
            expires_wall=None if ttl_s is None else self.wall + timedelta(seconds=ttl_s),
            heartbeat_s=beat,
            heartbeat_by=None if beat is None else self.now + MISSED_HEARTBEATS_MAX * beat,
            shared=request.shared,
            build=request.build,
        )

    def grant_waiters(self) -> None:
        """Grant, in order of arrival, every waiter without an obstacle; the others stay in the queue."""
        ahead: list[Waiter] = []
        for waiter in self.waiters:
            if self.obstacles(waiter.requests, waiter.under, ahead):
                ahead.append(waiter)
            else:
                self.grant(waiter.owner, waiter.requests)
        self.waiters = ahead

    def replace(self, lock: Lock) -> Lock:
        """Replace a held lock by a new version with the same target."""
        self.locks[lock.lock_id] = lock
        return lock

    def add_event(self, kind: LockEventKind, lock: Lock, *, by: str = "", reason: str = "") -> None:
        """Add an event of a lock that stays held."""
        self.events.append(LockEvent(kind, self.wall, lock=lock, by=by, reason=reason))


def _waits_for(waiter: Waiter, locks: Sequence[Lock]) -> bool:
    return clash(waiter.requests, [lock for lock in locks if lock.lock_id not in waiter.under])


def ttl_of(request: LockRequest) -> float | None:
    """The time to live of a lock; None for a claim without a TTL, which the end of its build releases."""
    if request.ttl_s is not None:
        return request.ttl_s
    if request.target.index_type is not None:
        return None
    return LEASE_TTL_S if request.shared else DEFAULT_TTL_S[request.lock_type]


def _why_expired(lock: Lock) -> str:
    if lock.heartbeat_by is not None and lock.deadline == lock.heartbeat_by:
        return f"no heartbeat for {MISSED_HEARTBEATS_MAX} intervals of {lock.heartbeat_s:g} s"
    return "its time to live is over"


def forgiven(lock: Lock, now: float, grace_s: float) -> Lock:
    """A lock after a time in which no heartbeat could arrive: one grace interval for the next one. The TTL stays."""
    beat = lock.heartbeat_by
    return lock if beat is None else msgspec.structs.replace(lock, heartbeat_by=max(beat, now + grace_s))


def revived(lock: Lock, *, now: float, shift_s: float, same_clock: bool, grace_s: float) -> Lock:
    """A lock after a restart: its times on the present clock, and one grace interval for the next heartbeat.

    On the same clock the TTL is unchanged. On another clock the elapsed time is unknown: the rest of the TTL at the
    time of the save remains, and the grace interval at least. A heartbeat that was missed while no engine was open
    is forgiven for the grace interval.
    """
    lock = forgiven(lock, now - shift_s, grace_s)
    expires_at = lock.expires_at
    if expires_at is not None and not same_clock:
        expires_at = max(expires_at + shift_s, now + grace_s)
    beat = lock.heartbeat_by
    progress = lock.progress
    return msgspec.structs.replace(
        lock,
        granted_at=lock.granted_at + shift_s,
        expires_at=expires_at,
        heartbeat_by=None if beat is None else beat + shift_s,
        last_heartbeat=None if lock.last_heartbeat is None else lock.last_heartbeat + shift_s,
        progress=progress
        and msgspec.structs.replace(progress, at=progress.at + shift_s, first_at=progress.first_at + shift_s),
    )
