"""The structs of the lock table: locks, waiters, endings, and the events of an operation.

Times are monotonic seconds. Times with a name in `_wall` are for people and decide nothing. Every struct is immutable
and encodes as MessagePack; the owner of a table stores its `LockTableState`:

    {"format": 1, "branch": "main", "clock_id": "boot-7", "saved_at": 81.5, "next_token": 9, "locks": [...],
     "waiters": [...], "endings": [...]}
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from shadowswitch.model.locks.targets import LockScope, LockType, Target

STATE_FORMAT = 1


class Progress(msgspec.Struct, frozen=True):
    """The progress that the holder reported. `eta_s` is the holder's own estimate at `at`, if it gave one."""

    percent: float
    at: float
    first_percent: float
    first_at: float
    eta_s: float | None = None
    message: str = ""

    def remaining_s(self, now: float) -> float | None:
        """The measured rest: the holder's own estimate less the time since, else by the rate since the first report.

        None if neither is known. Without new reports the measured rate falls and the estimate grows.
        """
        if self.percent >= 100:
            return 0.0
        if self.eta_s is not None:
            left = self.eta_s - (now - self.at)
            return left if left >= 0 else None
        done, spent = self.percent - self.first_percent, now - self.first_at
        return (100 - self.percent) * spent / done if done > 0 and spent > 0 else None


class ProgressReport(msgspec.Struct, frozen=True):
    """The progress in a heartbeat: percent done, the holder's estimate of the rest, a message for people."""

    percent: float
    eta_s: float | None = None
    message: str = ""


class LockRequest(msgspec.Struct, frozen=True):
    """The request for one lock. The caller makes `lock_id`, unique over all branches.

    A `shared` lock is a write lease: leases do not exclude each other, only exclusive locks, and they block no write.
    `build` names the shadow whose build is the work under the lock: progress and ETA are measured from it.
    """

    lock_id: str
    lock_type: LockType
    target: Target
    ttl_s: float | None = None
    heartbeat_s: float | None = None
    reason: str = ""
    shared: bool = False
    build: str = ""


class Lock(msgspec.Struct, frozen=True):
    """One held lock. `token` is its fence: an operation with another token is refused."""

    lock_id: str
    token: int
    branch: str
    owner: str
    lock_type: LockType
    target: Target
    reason: str
    granted_at: float
    granted_wall: datetime
    expires_at: float | None
    expires_wall: datetime | None
    heartbeat_s: float | None = None
    heartbeat_by: float | None = None
    last_heartbeat: float | None = None
    progress: Progress | None = None
    shared: bool = False
    build: str = ""

    @property
    def scope(self) -> LockScope:
        """The scope of its target."""
        return self.target.scope

    @property
    def resource_type(self) -> str | None:
        """The resource type of its target, if any."""
        return self.target.resource_type

    @property
    def resource_id(self) -> str | None:
        """The id of its record, if the target is one record."""
        return self.target.resource_id

    @property
    def is_claim(self) -> bool:
        """True for a build's claim of an index, which blocks no record."""
        return self.target.scope is LockScope.INDEX

    @property
    def deadline(self) -> float | None:
        """The moment of its expiry: the earlier of its TTL and its next due heartbeat."""
        if self.expires_at is None or self.heartbeat_by is None:
            return self.heartbeat_by if self.expires_at is None else self.expires_at
        return min(self.expires_at, self.heartbeat_by)

    def expired(self, now: float) -> bool:
        """True once it has expired; from then on it blocks no request."""
        deadline = self.deadline
        return deadline is not None and now >= deadline


class Waiter(msgspec.Struct, frozen=True):
    """A waiting request for one or several locks, all or none. It may overlap the locks with the ids in `under`."""

    waiter_id: str
    owner: str
    requests: tuple[LockRequest, ...]
    deadline: float
    since: float
    since_wall: datetime
    under: tuple[str, ...] = ()


class LockEventKind(StrEnum):
    """The events of locks and waiters. EXPIRED is an ending of its own, never a success."""

    GRANTED = "lock.granted"
    EXTENDED = "lock.extended"
    RELEASED = "lock.released"
    EXPIRED = "lock.expired"
    FORCED = "lock.forced"
    WAITING = "lock.waiting"
    WAIT_TIMED_OUT = "lock.wait_timed_out"
    WAIT_DROPPED = "lock.wait_dropped"


ENDINGS = frozenset({LockEventKind.RELEASED, LockEventKind.EXPIRED, LockEventKind.FORCED})
DURABLE = ENDINGS | {LockEventKind.GRANTED, LockEventKind.EXTENDED}


class LockEvent(msgspec.Struct, frozen=True):
    """One event of an operation, for the outbox and the audit history, with its author `by` and its `reason`."""

    kind: LockEventKind
    at_wall: datetime
    lock: Lock | None = None
    waiter: Waiter | None = None
    by: str = ""
    reason: str = ""


class Ending(msgspec.Struct, frozen=True):
    """The ending of a lock, kept for a while for the error that a late holder gets."""

    lock_id: str
    token: int
    owner: str
    kind: LockEventKind
    at: float
    by: str
    reason: str


class Grant(msgspec.Struct, frozen=True):
    """Locks granted together, without a wait."""

    locks: tuple[Lock, ...]


class LockTableState(msgspec.Struct, frozen=True):
    """A whole lock table in its stored form. `clock_id` names the monotonic clock (the boot) of its times."""

    branch: str
    clock_id: str
    saved_at: float
    next_token: int
    locks: tuple[Lock, ...] = ()
    waiters: tuple[Waiter, ...] = ()
    endings: tuple[Ending, ...] = ()
    format: int = STATE_FORMAT
