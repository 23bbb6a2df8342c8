"""Bodies of the branch locks, under the names of the field's existing clients.

Only the answer to `acquire` and to a lease contains a fencing token.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec

from shadowswitch.model.locks.info import Lock, LockWaiter
from shadowswitch.model.locks.targets import LockScope, LockType
from shadowswitch.model.views import derive
from shadowswitch.service.http.bodies.fields import Body, BranchName, Name, RecordId, ResourceType, Text, Tokens, Whole

MISSED_MAX = 3
"""Heartbeats that a holder may miss."""
HOURS_MAX = 720.0
Hours = Annotated[float, msgspec.Meta(gt=0, le=HOURS_MAX)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=HOURS_MAX * 3600)]
Scopes = Literal["BRANCH", "RESOURCE_TYPE", "RESOURCE"]


class Acquire(Body, frozen=True):
    """The lock to acquire. It may overlap locks of the same `owner` whose fencing tokens are in `tokens`.

    With `shadow_index_id` its progress is that of the build.
    """

    branch_name: BranchName
    lock_type: LockType
    lock_scope: Scopes = "BRANCH"
    resource_type: ResourceType | None = None
    resource_id: RecordId | None = None
    reason: Text = ""
    timeout_hours: Hours | None = None
    ttl_s: Seconds | None = None
    heartbeat_s: Seconds | None = None
    wait_s: Annotated[float, msgspec.Meta(ge=0, le=300)] = 0.0
    owner: Name = ""
    tokens: Tokens = []
    shadow_index_id: Name = ""


class BranchLock(msgspec.Struct, frozen=True):
    """A held lock; `metadata` has the progress reported by its holder."""

    id: str
    branch_name: str
    lock_type: LockType
    lock_scope: LockScope
    resource_type: str | None
    resource_id: str | None
    locked_by: str
    locked_at: datetime
    expires_at: datetime | None
    reason: str
    heartbeat_interval: int
    last_heartbeat: datetime | None
    heartbeat_source: str | None
    metadata: dict[str, Any]
    is_active: bool = True
    released_at: datetime | None = None
    released_by: str | None = None
    auto_release_enabled: bool = True
    tags: list[str] = []
    place: str = ""


LOCK_NAMES = {
    "lock_id": "id", "branch": "branch_name", "scope": "lock_scope", "owner": "locked_by", "granted_at": "locked_at",
}  # fmt: skip
"""Fields of a Lock under the names of the field's existing clients."""


def branch_lock(lock: Lock) -> BranchLock:
    """A lock of the engine as an answer, without its token."""
    heard = heartbeat_at(lock)
    done = lock.progress_percent
    progress = {"progress_percent": done, "eta_seconds": lock.eta_s, "message": lock.progress_message}
    return derive(
        BranchLock,
        lock,
        LOCK_NAMES,
        heartbeat_interval=math.ceil(lock.heartbeat_s or 0),
        last_heartbeat=heard,
        heartbeat_source=lock.owner if heard is not None else None,
        metadata=progress if done is not None else {},
        place=lock.place,
    )


def heartbeat_at(lock: Lock) -> datetime | None:
    """The time of the last heartbeat, or of the grant."""
    if lock.heartbeat_s is None or lock.heartbeat_by is None:
        return None
    return lock.heartbeat_by - timedelta(seconds=MISSED_MAX * lock.heartbeat_s)


class Acquired(msgspec.Struct, frozen=True):
    """The acquired lock. `token` is its fencing token: send it with every request under the lock."""

    lock_id: str
    token: int
    message: str
    expires_at: datetime | None
    lock: BranchLock


class Said(msgspec.Struct, frozen=True):
    """A completed operation."""

    message: str


class ForceUnlock(Body, frozen=True):
    """The reason to release all locks of a branch by force."""

    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]


class Unlocked(msgspec.Struct, frozen=True):
    """The number of locks released by force."""

    message: str
    locks_released: int
    reason: str


class Heartbeat(Body, frozen=True):
    """The heartbeat of a holder. `progress_info` may have `percent`, `eta_seconds` and `message`."""

    service_name: Name = ""
    status: Literal["healthy", "warning", "error"] = "healthy"
    progress_info: dict[str, Any] | None = None
    token: Whole | None = None


class Heard(msgspec.Struct, frozen=True):
    """The time of the heartbeat."""

    success: bool
    message: str
    last_heartbeat: datetime


class Extend(Body, frozen=True):
    """The extension of the time to live of a lock."""

    extension_hours: Hours
    reason: Text = ""
    token: Whole | None = None


class Extended(msgspec.Struct, frozen=True):
    """The new end of a lock."""

    success: bool
    message: str
    lock_id: str
    new_expires_at: datetime | None
    extended_by: str
    reason: str


class LockHealth(msgspec.Struct, frozen=True):
    """Whether the heartbeats of a lock come in time."""

    lock_id: str
    is_active: bool
    heartbeat_enabled: bool
    last_heartbeat: datetime | None
    heartbeat_source: str | None
    ttl_expired: bool
    heartbeat_expired: bool
    auto_release_enabled: bool
    seconds_since_last_heartbeat: int | None
    heartbeat_health: Literal["healthy", "warning", "critical"] | None
    seconds_until_ttl_expiry: int | None


def lock_health(lock: Lock) -> LockHealth:
    """The health of a held lock: healthy below one interval without a heartbeat, a warning up to three."""
    now, heard = datetime.now(UTC), heartbeat_at(lock)
    silence = (now - heard).total_seconds() if heard is not None else None
    health: Literal["healthy", "warning", "critical"] | None = None
    if silence is not None and lock.heartbeat_s is not None:
        intervals = silence / lock.heartbeat_s
        health = "healthy" if intervals < 1 else "warning" if intervals <= MISSED_MAX else "critical"
    left = (lock.expires_at - now).total_seconds() if lock.expires_at is not None else None
    return LockHealth(
        lock_id=lock.lock_id,
        is_active=True,
        heartbeat_enabled=heard is not None,
        last_heartbeat=heard,
        heartbeat_source=lock.owner if heard is not None else None,
        ttl_expired=False,
        heartbeat_expired=False,
        auto_release_enabled=True,
        seconds_since_last_heartbeat=None if silence is None else max(0, math.floor(silence)),
        heartbeat_health=health,
        seconds_until_ttl_expiry=None if left is None else max(0, math.floor(left)),
    )


class HealthSummary(msgspec.Struct, frozen=True):
    """The health of all locks."""

    total_locks: int
    heartbeat_enabled_locks: int
    health_summary: dict[str, int]
    lock_details: list[LockHealth]


class LockOverview(msgspec.Struct, frozen=True):
    """The held locks, newest first."""

    total_active_locks: int
    locked_branches: list[str]
    locks_by_type: dict[str, int]
    recent_locks: list[BranchLock]


class CheckWrite(Body, frozen=True):
    """A write to check. With `lease_s` the answer holds for that time, or until the lease is released."""

    branch_name: BranchName
    resource_type: ResourceType
    action: Literal["read", "write", "create", "update", "delete"] = "write"
    resource_id: RecordId | None = None
    owner: Name = ""
    tokens: Tokens = []
    lease_s: Annotated[float, msgspec.Meta(gt=0, le=60)] | None = None


class Permission(msgspec.Struct, frozen=True):
    """The result of the check. `blocked` has the members of a 423; `lock_id` and `token` are those of a lease."""

    allowed: bool
    reason: str
    blocked: dict[str, Any] | None = None
    lock_id: str | None = None
    token: int | None = None
    expires_at: datetime | None = None


class Waiter(msgspec.Struct, frozen=True):
    """An owner that waits for locks, all or none."""

    branch_name: str
    owner: str
    wants: tuple[str, ...]
    reason: str
    since: datetime
    deadline: datetime


def lock_waiter(waiter: LockWaiter) -> Waiter:
    """A waiter of the engine as an answer."""
    return derive(Waiter, waiter, {"branch": "branch_name"})
