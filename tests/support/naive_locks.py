"""A naive lock table, to compare the real one with.

It has no scopes: a target is the set of points it covers, and two targets overlap when they share a point.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shadowswitch.model.locks.records import LockRequest
from shadowswitch.model.locks.targets import DEFAULT_TTL_S, LEASE_TTL_S, LockScope, Target

TYPES, IDS = ("a", "b"), ("1", "2")


def points(target: Target) -> frozenset[tuple[str, ...]]:
    """The points of a target; a type also covers records without a name here."""
    match target.scope:
        case LockScope.INDEX:
            return frozenset({("index", str(target.index_type))})
        case LockScope.RESOURCE:
            return frozenset({(str(target.resource_type), str(target.resource_id))})
        case LockScope.RESOURCE_TYPE:
            return frozenset((str(target.resource_type), i) for i in (*IDS, "other"))
        case LockScope.BRANCH:
            return frozenset((t, i) for t in (*TYPES, "other") for i in (*IDS, "other"))


@dataclass
class Held:
    token: int
    owner: str
    points: frozenset[tuple[str, ...]]
    shared: bool
    granted: float
    expires: float
    beat_s: float | None
    beat_by: float
    under: frozenset[str]

    def dead(self, now: float) -> bool:
        return now >= min(self.expires, self.beat_by)


@dataclass
class Waiting:
    owner: str
    requests: list[LockRequest]
    deadline: float
    under: frozenset[str]


def excludes(one: Any, other: Any) -> bool:
    return not (one.shared and other.shared) and bool(one.points & other.points)


@dataclass
class Model:
    next_token: int = 1
    held: dict[str, Held] = field(default_factory=dict)
    waiting: dict[str, Waiting] = field(default_factory=dict)

    def in_the_way(self, requests: list[LockRequest], under: frozenset[str], ahead: list[Waiting]) -> bool:
        wanted = [as_held(r) for r in requests]
        if any(excludes(w, h) for w in wanted for i, h in self.held.items() if i not in under):
            return True
        mine = {i: h for i, h in self.held.items() if i in under}
        for waiter in ahead:
            theirs = [as_held(r) for r in waiter.requests]
            behind_me = any(excludes(t, h) for t in theirs for i, h in mine.items() if i not in waiter.under)
            if not behind_me and any(excludes(w, t) for w in wanted for t in theirs):
                return True
        return False

    def settle(self, now: float) -> None:
        self.held = {i: h for i, h in self.held.items() if not h.dead(now)}
        self.waiting = {i: w for i, w in self.waiting.items() if now < w.deadline}
        self.serve(now)

    def serve(self, now: float) -> None:
        ahead: list[Waiting] = []
        for waiter_id, waiter in list(self.waiting.items()):
            if self.in_the_way(waiter.requests, waiter.under, ahead):
                ahead.append(waiter)
            else:
                del self.waiting[waiter_id]
                self.grant(now, waiter.owner, waiter.requests, waiter.under)

    def grant(self, now: float, owner: str, requests: list[LockRequest], under: frozenset[str]) -> None:
        group = frozenset(r.lock_id for r in requests)
        for request in requests:
            lock = as_held(request)
            lock.token, lock.owner, lock.granted, lock.under = self.next_token, owner, now, under | group
            lock.expires, lock.beat_by = lock.expires + now, lock.beat_by + now
            self.held[request.lock_id] = lock
            self.next_token += 1


def as_held(request: LockRequest) -> Held:
    default = LEASE_TTL_S if request.shared else DEFAULT_TTL_S[request.lock_type]
    if request.target.scope is LockScope.INDEX:
        default = float("inf")
    ttl = default if request.ttl_s is None else request.ttl_s
    by = float("inf") if request.heartbeat_s is None else 3 * request.heartbeat_s
    nothing: frozenset[str] = frozenset()
    return Held(0, "", points(request.target), request.shared, 0, ttl, request.heartbeat_s, by, nothing)
