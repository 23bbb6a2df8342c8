"""A lock table while an operation changes it: expiry, the queue, grants, endings.

The queue is first come first served: a request, new or waiting, goes through only when it overlaps no lock that is
held and no earlier request that still waits. So a stream of narrow requests cannot starve a wide one. One exception:
a request made under a lock of the same owner passes those who wait for that very lock; they could not go first anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import msgspec

from shadowswitch.model.locks.index import LockIndex
from shadowswitch.model.locks.records import Ending, Grant, Lock, LockEvent, LockEventKind, LockRequest, Waiter
from shadowswitch.model.locks.targets import DEFAULT_TTL_S, LEASE_TTL_S, MISSED_HEARTBEATS_MAX, overlaps

ENDINGS_KEPT = 64
"""How many endings a table remembers: enough to tell late holders what happened, small enough to store every time."""


def clash(one: Sequence[LockRequest] | Sequence[Lock], other: Sequence[LockRequest] | Sequence[Lock]) -> bool:
    """Whether any of one set excludes any of the other: overlapping targets, not both shared."""
    return any(not (a.shared and b.shared) and overlaps(a.target, b.target) for a in one for b in other)


class Draft:
    """The parts of a table, free to change; thrown away when the operation is refused."""

    __slots__ = ("_index", "branch", "endings", "events", "grants", "locks", "next_token", "now", "waiters", "wall")

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
        self.grants: list[Grant] = []
        self._index: LockIndex | None = index

    @property
    def index(self) -> LockIndex:
        """The held locks by what they cover, as of now."""
        if self._index is None:
            self._index = LockIndex(self.locks.values())
        return self._index

    def settle(self) -> None:
        """Bring the table up to now: expire locks, give up waiters past their deadline, grant whose turn it is."""
        due = [lock for lock in self.locks.values() if lock.expired(self.now)]
        for lock in sorted(due, key=lambda lock: (lock.deadline or 0.0, lock.token)):
            self.end(lock, LockEventKind.EXPIRED, by="", reason=_why_expired(lock))
        late = [waiter for waiter in self.waiters if self.now >= waiter.deadline]
        for waiter in late:
            self.drop(waiter, LockEventKind.WAIT_TIMED_OUT, "its deadline passed")
        if due or late:
            self.grant_waiters()

    def end(self, lock: Lock, kind: LockEventKind, *, by: str, reason: str) -> None:
        """Take a lock away and remember how it ended. Call `grant_waiters` when all that ends has ended."""
        del self.locks[lock.lock_id]
        self._index = None
        at = lock.deadline if kind is LockEventKind.EXPIRED else None
        ending = Ending(lock.lock_id, lock.token, lock.owner, kind, self.now if at is None else at, by, reason)
        self.endings = [*self.endings[-(ENDINGS_KEPT - 1) :], ending]
        self.events.append(LockEvent(kind, self.wall, lock=lock, by=by, reason=reason))

    def queue(self, waiter: Waiter) -> None:
        """Let a request wait behind all that wait already."""
        self.waiters.append(waiter)
        self.events.append(LockEvent(LockEventKind.WAITING, self.wall, waiter=waiter, by=waiter.owner))

    def drop(self, waiter: Waiter, kind: LockEventKind, reason: str) -> None:
        """Take a waiter out of the queue. Call `grant_waiters` afterwards."""
        self.waiters.remove(waiter)
        self.events.append(LockEvent(kind, self.wall, waiter=waiter, by=waiter.owner, reason=reason))

    def obstacles(
        self, requests: Sequence[LockRequest], under: Sequence[str], ahead: Iterable[Waiter]
    ) -> list[Lock | Waiter]:
        """What stands in the way of a set of requests: held locks, then requests that have waited longer."""
        found: dict[str, Lock | Waiter] = {}
        for request in requests:
            for lock_id in self.index.overlapping(request.target):
                if lock_id not in under and not (request.shared and self.locks[lock_id].shared):
                    found[lock_id] = self.locks[lock_id]
        mine = [self.locks[lock_id] for lock_id in under if lock_id in self.locks]
        in_line = [w for w in ahead if clash(requests, w.requests) and not _waits_for(w, mine)]
        return [*found.values(), *in_line]

    def grant(self, owner: str, requests: Sequence[LockRequest], waiter_id: str = "") -> Grant:
        """Grant all of a set of requests, each with a token of its own."""
        locks = tuple(self._granted(owner, request) for request in requests)
        self._index = None
        for lock in locks:
            self.locks[lock.lock_id] = lock
            self.events.append(LockEvent(LockEventKind.GRANTED, self.wall, lock=lock, by=owner, reason=lock.reason))
        grant = Grant(locks, waiter_id)
        if waiter_id:
            self.grants.append(grant)
        return grant

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
        """Grant, in order of arrival, every waiter with nothing in its way; the others stay where they are."""
        ahead: list[Waiter] = []
        for waiter in self.waiters:
            if self.obstacles(waiter.requests, waiter.under, ahead):
                ahead.append(waiter)
            else:
                self.grant(waiter.owner, waiter.requests, waiter.waiter_id)
        self.waiters = ahead

    def replace(self, lock: Lock) -> Lock:
        """Put a new version of a held lock, covering the same, in its place."""
        self.locks[lock.lock_id] = lock
        return lock

    def tell(self, kind: LockEventKind, lock: Lock, *, by: str = "", reason: str = "") -> None:
        """Note an event of a lock that goes on."""
        self.events.append(LockEvent(kind, self.wall, lock=lock, by=by, reason=reason))


def _waits_for(waiter: Waiter, locks: Sequence[Lock]) -> bool:
    return clash(waiter.requests, [lock for lock in locks if lock.lock_id not in waiter.under])


def ttl_of(request: LockRequest) -> float | None:
    """How long a lock lives unless extended; None for a claim without a TTL: its build ends it."""
    if request.ttl_s is not None:
        return request.ttl_s
    if request.target.index_type is not None:
        return None
    return LEASE_TTL_S if request.shared else DEFAULT_TTL_S[request.lock_type]


def _why_expired(lock: Lock) -> str:
    if lock.heartbeat_by is not None and lock.deadline == lock.heartbeat_by:
        return f"no heartbeat for {MISSED_HEARTBEATS_MAX} intervals of {lock.heartbeat_s:g} s"
    return "its time to live is over"


def revived(lock: Lock, *, now: float, shift_s: float, same_clock: bool, grace_s: float) -> Lock:
    """A lock after a restart: its times on the present clock, and one grace interval for the holder to be heard.

    On the same clock a TTL is what it was. On another one nobody knows how much of it went by unseen: what was left
    when the table was saved is left now, and the grace interval at least. A missed heartbeat is forgiven for the
    grace interval, because nobody was listening.
    """
    expires_at = lock.expires_at
    if expires_at is not None and not same_clock:
        expires_at = max(expires_at + shift_s, now + grace_s)
    beat = lock.heartbeat_by
    progress = lock.progress
    return msgspec.structs.replace(
        lock,
        granted_at=lock.granted_at + shift_s,
        expires_at=expires_at,
        heartbeat_by=None if beat is None else max(beat + shift_s, now + grace_s),
        last_heartbeat=None if lock.last_heartbeat is None else lock.last_heartbeat + shift_s,
        progress=progress
        and msgspec.structs.replace(progress, at=progress.at + shift_s, first_at=progress.first_at + shift_s),
    )
