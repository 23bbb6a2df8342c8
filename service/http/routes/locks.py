"""`/branch-locks`: acquire, extend and release locks; list them; check a write.

A client acts as the holder if it is the owner, or has the scope `admin`.
If it sends a fencing token, the token must be that of the lock.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any

import msgspec
from litestar import Request
from litestar.params import Parameter

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.locks.info import Lock
from shadowswitch.model.locks.records import ProgressReport
from shadowswitch.model.locks.targets import LockType
from shadowswitch.service.http.access import Caller, Forbidden, Scope
from shadowswitch.service.http.bodies import locks as bodies
from shadowswitch.service.http.bodies.locks import branch_lock, lock_health, lock_waiter
from shadowswitch.service.http.host import Host
from shadowswitch.service.http.idempotency import mark_undone
from shadowswitch.service.http.middleware import decode_segment
from shadowswitch.service.http.problems import NoSuchLock, blocked_members
from shadowswitch.service.http.routes.presence import while_present
from shadowswitch.service.http.routes.shadows import Branch, Limit
from shadowswitch.service.http.routing import PREFIX, changes, permitted_branch, reads, removes

BASE = f"{PREFIX}/branch-locks"
ONE = f"{BASE}/locks/{{lock_id:str}}"
RECENT = 10
LOCKS_MAX = 10_000
"""The locks of the longest page, which is what a client gets that does not ask for pages."""
AfterPlace = Annotated[str, Parameter(required=False, max_length=200, description="Begin after this place.")]


def visible(
    host: Host, caller: Caller, branch: str | None = None, limit: int | None = None, after: str = ""
) -> list[Lock]:
    """The locks of the branches that a caller reaches, by page. Raises Forbidden for another branch."""
    if branch is not None:
        caller.require(Scope.READ, branch)
    return host.engine.locks(branch, limit, after, caller.wanted)


def find(host: Host, caller: Caller, lock_id: str, scope: Scope) -> Lock:
    """A held lock of a branch for which the caller has a scope. Raises NoSuchLock, Forbidden."""
    found = host.engine.find_lock(decode_segment(lock_id))
    if found is None or not caller.reaches(found.branch):
        raise NoSuchLock(f"lock {lock_id!r:.80} is not held", hint="it expired, was released, or never existed")
    caller.require(scope, found.branch)
    return found


def find_own(host: Host, caller: Caller, lock_id: str, token: int | None) -> Lock:
    """A held lock of the caller. Raises NoSuchLock, Forbidden, and LockLost for a stale or wrong token."""
    found = _confirmed(host, caller, decode_segment(lock_id), token) or find(host, caller, lock_id, Scope.LOCK)
    if not caller.owns(found.owner) and not caller.may(Scope.ADMIN, found.branch):
        raise Forbidden(f"the lock belongs to {found.owner}", hint="its owner can do this, or the scope admin")
    return found


def _confirmed(host: Host, caller: Caller, lock_id: str, token: int | None) -> Lock | None:
    """A lock by its token, None without one. Raises LockLost for a lock that ended, with the owner, time and reason."""
    branch = host.engine.branch_of_lock(lock_id)
    if token is None or branch is None or not caller.may(Scope.LOCK, branch):
        return None
    return host.engine.confirm_lock(lock_id, token)


@changes(f"{BASE}/acquire", Scope.LOCK)
async def acquire(data: bodies.Acquire, host: Host, caller: Caller, request: Request[Any, Any, Any]) -> bodies.Acquired:
    """Acquire a lock, at once or within `wait_s`, first come, first served. 409 names the lock in the way.

    A client that disconnects while it waits leaves the queue.
    """
    caller.require(Scope.LOCK, data.branch_name)
    if data.lock_type is LockType.MANUAL:
        caller.require(Scope.ADMIN, data.branch_name)
    if data.timeout_hours is not None and data.ttl_s is not None:
        raise InvalidConfig("timeout_hours and ttl_s are the same setting", hint="send one of them")
    ttl_s = data.timeout_hours * 3600 if data.timeout_hours is not None else data.ttl_s

    def take(present: Callable[[], bool]) -> Lock:
        return host.engine.acquire_lock(
            data.branch_name,
            data.lock_type,
            caller.owner(data.owner),
            data.lock_scope,
            data.resource_type,
            data.resource_id,
            ttl_s,
            data.heartbeat_s,
            data.reason,
            data.wait_s,
            tokens=data.tokens,
            shadow_index_id=data.shadow_index_id,
            present=present,
        )

    with host.long_call(caller) if data.wait_s else contextlib.nullcontext():
        lock = await while_present(request, host, caller, take)
    message = f"{data.branch_name} is locked ({lock.scope})"
    return bodies.Acquired(lock.lock_id, lock.token, message, lock.expires_at, branch_lock(lock))


@reads(f"{BASE}/locks")
def list_all(
    host: Host, caller: Caller, branch_name: Branch = "", limit: Limit = LOCKS_MAX, after: AfterPlace = ""
) -> list[bodies.BranchLock]:
    """The held locks, of one branch or of all. The next page begins behind the `place` of the last lock."""
    return [branch_lock(lock) for lock in visible(host, caller, branch_name or None, limit, after)]


@reads([f"{BASE}/health-summary", f"{BASE}/locks/health-summary"])
def health_summary(host: Host, caller: Caller, limit: Limit = LOCKS_MAX) -> bodies.HealthSummary:
    """Whether the heartbeats of all locks come in time. The counts are of all, the details of the first `limit`."""
    details = [lock_health(lock) for lock in visible(host, caller)]
    counts = Counter(one.heartbeat_health for one in details if one.heartbeat_health)
    summary = {name: counts[name] for name in ("healthy", "warning", "critical")}
    return bodies.HealthSummary(len(details), sum(one.heartbeat_enabled for one in details), summary, details[:limit])


@reads(f"{BASE}/waiters")
def waiters(host: Host, caller: Caller, branch_name: Branch = "", limit: Limit = LOCKS_MAX) -> list[bodies.Waiter]:
    """The first waiters for locks, of one branch or of all; those of a branch in the order in which they are served."""
    if branch_name:
        caller.require(Scope.READ, branch_name)
    found = (one for one in host.engine.lock_waiters(branch_name or None) if caller.reaches(one.branch))
    return [lock_waiter(one) for one in islice(found, limit)]


@reads(ONE)
def one(lock_id: str, host: Host, caller: Caller) -> bodies.BranchLock:
    """A held lock."""
    return branch_lock(find(host, caller, lock_id, Scope.READ))


@removes(ONE, Scope.LOCK)
def release(lock_id: str, host: Host, caller: Caller) -> bodies.Said:
    """Release a lock."""
    lock = find_own(host, caller, lock_id, None)
    host.engine.release_lock(lock.lock_id, lock.token)
    return bodies.Said(f"lock {lock.lock_id} is released")


@changes(f"{ONE}/heartbeat", Scope.LOCK)
def heartbeat(lock_id: str, data: bodies.Heartbeat, host: Host, caller: Caller) -> bodies.Heard:
    """The heartbeat of a holder, with the progress of its work. It does not extend the time to live."""
    lock = find_own(host, caller, lock_id, data.token)
    host.engine.heartbeat(lock.lock_id, lock.token, _progress(data))
    return bodies.Heard(True, "heard", datetime.now(UTC))


class _ReportedProgress(msgspec.Struct):
    percent: float | None = None
    progress_percent: float | None = None
    eta_seconds: float | None = None
    message: str = ""


def _progress(data: bodies.Heartbeat) -> ProgressReport | None:
    """The progress in a heartbeat; None without a percentage. Raises InvalidConfig."""
    try:
        found = msgspec.convert(data.progress_info or {}, _ReportedProgress)
    except msgspec.ValidationError as error:
        raise InvalidConfig(f"progress_info: {error}", hint="send percent, eta_seconds and message") from error
    percent = found.percent if found.percent is not None else found.progress_percent
    message = found.message or (data.status if data.status != "healthy" else "")
    return None if percent is None else ProgressReport(percent, found.eta_seconds, message)


@reads(f"{ONE}/health")
def health(lock_id: str, host: Host, caller: Caller) -> bodies.LockHealth:
    """Whether the heartbeats of a lock come in time."""
    return lock_health(find(host, caller, lock_id, Scope.READ))


@changes(f"{ONE}/extend-ttl", Scope.LOCK)
def extend(lock_id: str, data: bodies.Extend, host: Host, caller: Caller) -> bodies.Extended:
    """Extend the time to live of a lock."""
    lock = find_own(host, caller, lock_id, data.token)
    longer = host.engine.extend_lock(lock.lock_id, lock.token, data.extension_hours * 3600)
    return bodies.Extended(True, "extended", lock.lock_id, longer.expires_at, caller.name, data.reason)


@changes(f"{BASE}/force-unlock/{{branch_name:str}}", Scope.FORCE_UNLOCK)
def force_unlock(branch_name: str, data: bodies.ForceUnlock, host: Host, caller: Caller) -> bodies.Unlocked:
    """Release every lock of a branch by force. The audit keeps the caller and the reason."""
    branch = permitted_branch(branch_name, caller, Scope.FORCE_UNLOCK)
    gone = host.engine.force_unlock(branch, caller.author, data.reason)
    return bodies.Unlocked(f"{len(gone)} locks of {branch} were taken away", len(gone), data.reason)


@changes([f"{BASE}/cleanup-expired", f"{BASE}/cleanup-heartbeat-expired"], Scope.ADMIN)
def clean_up() -> bodies.Said:
    """Nothing to do, for existing clients: a lock ends at the moment it expires."""
    return bodies.Said("nothing to do: a lock ends at the moment it expires")


@changes(f"{BASE}/check-write", Scope.READ)
def check_write(
    data: bodies.CheckWrite, host: Host, caller: Caller, request: Request[Any, Any, Any]
) -> bodies.Permission:
    """Whether a write is admitted at this moment. Only `write` checks and commits in one step."""
    caller.require(Scope.READ if data.lease_s is None else Scope.LOCK, data.branch_name)
    found = host.engine.check_write(
        data.branch_name, data.action, data.resource_type, data.resource_id, caller.owner(data.owner),
        tokens=data.tokens, lease_s=data.lease_s,
    )  # fmt: skip
    if not found.lock_id:
        mark_undone(request)
    blocked: dict[str, Any] | None = blocked_members(found.blocked) if found.blocked is not None else None
    lease = (found.lock_id, found.token, found.expires_at) if found.lock_id else (None, None, None)
    return bodies.Permission(found.allowed, found.reason, blocked, *lease)


@reads(f"{BASE}/dashboard")
def overview(host: Host, caller: Caller) -> bodies.LockOverview:
    """The locks, newest first."""
    found = visible(host, caller)
    newest = sorted(found, key=lambda lock: lock.granted_at, reverse=True)[:RECENT]
    return bodies.LockOverview(
        total_active_locks=len(found),
        locked_branches=sorted({lock.branch for lock in found}),
        locks_by_type=dict(Counter(str(lock.lock_type) for lock in found)),
        recent_locks=[branch_lock(lock) for lock in newest],
    )


HANDLERS = (
    acquire, list_all, health_summary, waiters, one, release, heartbeat, health, extend, force_unlock, clean_up,
    check_write, overview,
)  # fmt: skip
