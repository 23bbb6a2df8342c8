"""A lock in the public form: times are of the wall clock, for people; the fence is `lock_id` and `token`."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from shadowswitch.model.locks import records as lock_records
from shadowswitch.model.locks.targets import LockScope, LockType


class Lock(msgspec.Struct, frozen=True):
    """A held lock. It ends at `expires_at` unless extended, and at `heartbeat_by` without a heartbeat.

    `eta_s` is measured from the progress that the holder reports; None without a report.
    """

    lock_id: str
    token: int
    branch: str
    owner: str
    lock_type: LockType
    scope: LockScope
    resource_type: str | None
    resource_id: str | None
    reason: str
    granted_at: datetime
    expires_at: datetime | None
    heartbeat_s: float | None = None
    heartbeat_by: datetime | None = None
    progress_percent: float | None = None
    progress_message: str = ""
    eta_s: float | None = None
    shared: bool = False
    build: str = ""

    @property
    def place(self) -> str:
        """The place in the list of locks; it keeps its meaning when the lock has ended."""
        return f"{self.granted_at.isoformat()}/{self.lock_id}"


class LockSpec(msgspec.Struct, frozen=True):
    """One of several locks in one request; the fields are the arguments of `Engine.acquire_lock`."""

    lock_type: LockType | str
    scope: LockScope | str = "BRANCH"
    resource_type: str | None = None
    resource_id: str | None = None
    ttl_s: float | None = None
    heartbeat_s: float | None = None
    reason: str = ""
    shadow_index_id: str = ""


class LockWaiter(msgspec.Struct, frozen=True):
    """An owner that waits for locks of a branch, all or none: the locks, the start and the deadline of the wait."""

    branch: str
    owner: str
    wants: tuple[str, ...]
    reason: str
    since: datetime
    deadline: datetime


def waiter_info(waiter: lock_records.Waiter, branch: str, now: float, wall: datetime) -> LockWaiter:
    """The public form of a waiter, at `now` (monotonic) and `wall` (the same moment)."""
    return LockWaiter(
        branch=branch,
        owner=waiter.owner,
        wants=tuple(f"{request.lock_type} on {request.target}" for request in waiter.requests),
        reason=waiter.requests[0].reason,
        since=waiter.since_wall,
        deadline=wall + timedelta(seconds=waiter.deadline - now),
    )


def lock_info(lock: lock_records.Lock, now: float, wall: datetime) -> Lock:
    """The public form of a held lock, at `now` (monotonic) and `wall` (the same moment)."""

    def moment(at: float | None) -> datetime | None:
        return None if at is None else wall + timedelta(seconds=at - now)

    progress = lock.progress
    return Lock(
        lock_id=lock.lock_id,
        token=lock.token,
        branch=lock.branch,
        owner=lock.owner,
        lock_type=lock.lock_type,
        scope=lock.scope,
        resource_type=lock.resource_type,
        resource_id=lock.resource_id,
        reason=lock.reason,
        granted_at=lock.granted_wall,
        expires_at=moment(lock.expires_at),
        heartbeat_s=lock.heartbeat_s,
        heartbeat_by=moment(lock.heartbeat_by),
        progress_percent=progress.percent if progress else None,
        progress_message=progress.message if progress else "",
        eta_s=progress.remaining_s(now) if progress else None,
        shared=lock.shared,
        build=lock.build,
    )
