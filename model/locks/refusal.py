"""The refusal of a write or a lock: its cause, its progress and its alternatives.

Progress and ETA come only from reports of the holder. A TTL is the time after which the engine gives up on the holder.
It says nothing about the work, so it is never shown as progress, ETA or time to retry.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

import msgspec

from shadowswitch.model.locks.branch_state import BranchState, BranchStatus
from shadowswitch.model.locks.records import Lock, Waiter
from shadowswitch.model.locks.targets import LockScope, LockType, Target

RETRY_S = 30.0
"""The time to the next attempt while the ETA is unknown: a polling interval, not a forecast."""

RETRY_MIN_S = 1.0
RETRY_MAX_S = 300.0
"""The longest time to the next attempt: a distant ETA is rough, and the holder may finish early."""


class BlockCause(StrEnum):
    """The cause of a refusal: a held lock, an earlier waiter, or the state of the branch."""

    LOCK = "LOCK"
    QUEUE = "QUEUE"
    STATE = "STATE"


class Blocked(msgspec.Struct, frozen=True):
    """The details of a refusal: cause, holder, start, progress, time to the next attempt, alternatives.

    `resource_type` and `resource_id` are those of the request, `scope` and `lock_type` those of the obstacle.
    `retry_after_s` is None when a wait alone cannot help. `waiting` counts the waiters for an overlapping target.
    """

    branch: str
    cause: BlockCause
    resource_type: str | None
    resource_id: str | None
    scope: LockScope | None
    lock_type: LockType | None
    lock_id: str | None
    holder: str
    reason: str
    since: datetime | None
    progress_percent: float | None
    eta_s: float | None
    retry_after_s: float | None
    free_resource_types: tuple[str, ...]
    alternatives: tuple[str, ...]
    waiting: int
    state: BranchState | None
    message: str


class WritePermission(msgspec.Struct, frozen=True):
    """The answer to "may I write this", as of now; `blocked` is set exactly when `allowed` is False.

    With a lease the answer holds until `expires_at`, or until the release of the lease: overlapping locks wait. Without
    a lease, `lock_id` is "" and `token` 0, and the answer may be outdated when it arrives.
    """

    allowed: bool
    reason: str
    blocked: Blocked | None = None
    lock_id: str = ""
    token: int = 0
    expires_at: datetime | None = None


ALLOWED = WritePermission(True, "nothing is in the way")


def in_words(seconds: float) -> str:
    """A duration for people: "8 s", "4 min", "2 h 5 min"."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def free_types(known_types: Iterable[str], held: Iterable[Lock]) -> tuple[str, ...]:
    """The known resource types that no exclusive lock covers as a whole, sorted."""
    covering = [lock for lock in held if not lock.shared and not lock.is_claim]
    if any(lock.scope is LockScope.BRANCH for lock in covering):
        return ()
    taken = {lock.resource_type for lock in covering if lock.scope is LockScope.RESOURCE_TYPE}
    return tuple(sorted(set(known_types) - taken))


def retry_after(eta_s: float | None) -> float:
    """The time to the next attempt: the measured ETA, within bounds; a polling interval without one."""
    return RETRY_S if eta_s is None else min(max(eta_s, RETRY_MIN_S), RETRY_MAX_S)


def blocked_by_lock(
    lock: Lock, asked: Target, now: float, *, held: Iterable[Lock], known_types: Iterable[str], waiting: int
) -> Blocked:
    """The refusal of `asked` because of a held lock."""
    progress = lock.progress
    eta_s = progress.remaining_s(now) if progress else None
    free = tuple(name for name in free_types(known_types, held) if name != asked.resource_type)
    return Blocked(
        branch=lock.branch,
        cause=BlockCause.LOCK,
        resource_type=asked.resource_type,
        resource_id=asked.resource_id,
        scope=lock.scope,
        lock_type=lock.lock_type,
        lock_id=lock.lock_id,
        holder=lock.owner,
        reason=lock.reason,
        since=lock.granted_wall,
        progress_percent=progress.percent if progress else None,
        eta_s=eta_s,
        retry_after_s=retry_after(eta_s),
        free_resource_types=free,
        alternatives=_alternatives(lock, asked, eta_s, free, waiting),
        waiting=waiting,
        state=None,
        message=_sentence(lock, eta_s),
    )


def _place(target: Target, branch: str) -> str:
    return f"branch {branch}" if target.scope is LockScope.BRANCH else f"{target} of branch {branch}"


def _sentence(lock: Lock, eta_s: float | None) -> str:
    kind = "a write lease on" if lock.shared else f"a lock ({lock.lock_type}) on"
    parts = [f"{lock.owner or 'somebody'} holds {kind} {_place(lock.target, lock.branch)}"]
    parts.append(f"since {lock.granted_wall:%H:%M:%S} UTC")
    if lock.reason:
        parts.append(f"reason: {lock.reason}")
    if lock.progress:
        parts.append(f"{lock.progress.percent:.0f} % done")
    if eta_s is not None:
        parts.append(f"about {in_words(eta_s)} left")
    return ", ".join(parts)


def _alternatives(
    lock: Lock, asked: Target, eta_s: float | None, free: tuple[str, ...], waiting: int
) -> tuple[str, ...]:
    if lock.is_claim:
        return (f"follow or cancel the build of {lock.target.index_type} that is under way",)
    ways = []
    if eta_s is not None:
        ways.append(f"wait about {in_words(eta_s)}, measured from the progress that {lock.owner} reports")
    if lock.scope is LockScope.RESOURCE and asked.scope is LockScope.RESOURCE:
        ways.append(f"change other records of {lock.resource_type}, only {lock.resource_id} is locked")
    if free:
        ways.append(f"work on {', '.join(free)}: not locked now")
    if asked.scope is LockScope.BRANCH and lock.scope is not LockScope.BRANCH:
        ways.append("take a narrower lock that does not overlap")
    if lock.scope is LockScope.BRANCH:
        ways.append("create another branch and work there")
    queue = f", {waiting} waiting already" if waiting else ""
    ways.append(f"wait in line: acquire a lock with wait_s{queue}")
    if not lock.shared:
        ways.append(f"ask {lock.owner or 'the holder'} to release it; if they are gone, force_unlock frees the branch")
    return tuple(ways)


def blocked_by_waiter(
    waiter: Waiter,
    asked: Target,
    *,
    branch: str,
    held: Iterable[Lock],
    known_types: Iterable[str],
    waiting: int,
) -> Blocked:
    """The refusal of a free lock because of an earlier waiter."""
    first = waiter.requests[0]
    free = tuple(name for name in free_types(known_types, held) if name != asked.resource_type)
    return Blocked(
        branch=branch,
        cause=BlockCause.QUEUE,
        resource_type=asked.resource_type,
        resource_id=asked.resource_id,
        scope=first.target.scope,
        lock_type=first.lock_type,
        lock_id=None,
        holder=waiter.owner,
        reason=first.reason,
        since=waiter.since_wall,
        progress_percent=None,
        eta_s=None,
        retry_after_s=RETRY_S,
        free_resource_types=free,
        alternatives=(
            f"wait in line: acquire with wait_s, {waiting} waiting already",
            "take a lock that does not overlap",
        ),
        waiting=waiting,
        state=None,
        message=f"{waiter.owner or 'somebody'} has been waiting longer for {_place(first.target, branch)}",
    )


STATE_ADVICE: dict[BranchState, tuple[str, ...]] = {
    BranchState.ARCHIVED: ("create another branch and work there", "read it: an archived branch stays readable"),
    BranchState.MERGED: ("reopen the branch and go on", "create another branch and work there"),
    BranchState.ERROR: ("recover the branch once the cause is gone", "run the indexing again, it leads out of ERROR"),
}
"""The states that admit no write, with the alternatives. In LOCKED_FOR_WRITE the lock refuses, not the state."""


def blocked_by_state(status: BranchStatus, asked: Target) -> Blocked:
    """The refusal of a write because of the state of the branch."""
    why = f", reason: {status.reason}" if status.reason else ""
    return Blocked(
        branch=status.branch,
        cause=BlockCause.STATE,
        resource_type=asked.resource_type,
        resource_id=asked.resource_id,
        scope=None,
        lock_type=None,
        lock_id=None,
        holder=status.by,
        reason=status.reason,
        since=status.since,
        progress_percent=None,
        eta_s=None,
        retry_after_s=None,
        free_resource_types=(),
        alternatives=STATE_ADVICE[status.state],
        waiting=0,
        state=status.state,
        message=f"branch {status.branch} is {status.state} and admits no write{why}",
    )
