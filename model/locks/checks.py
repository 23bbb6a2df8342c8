"""Checks of the lock table before it looks for conflicts: invalid requests, and tokens that are not valid."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from shadowswitch.model.errors import InvalidConfig, LockLost
from shadowswitch.model.locks.records import Ending, Lock, LockEventKind, LockRequest, Progress, ProgressReport
from shadowswitch.model.locks.refusal import in_words
from shadowswitch.model.locks.targets import DURATION_MAX_S, LEASE_TTL_MAX_S, check_duration, check_target


def check_requests(requests: Sequence[LockRequest], owner: str) -> None:
    """Raise InvalidConfig unless this owner can request these locks together."""
    if not requests:
        raise InvalidConfig("no lock was requested", operation="lock", hint="request at least one")
    if not owner:
        raise InvalidConfig("a lock needs an owner", operation="lock", hint="name the owner, for others to contact")
    ids = [request.lock_id for request in requests]
    if not all(ids) or len(set(ids)) < len(ids):
        raise InvalidConfig("lock ids must be different and not empty", operation="lock", hint="make one for each")
    for request in requests:
        check_target(request.target)
        if request.ttl_s is not None:
            check_duration("ttl_s", request.ttl_s, longest_s=LEASE_TTL_MAX_S if request.shared else DURATION_MAX_S)
        if request.heartbeat_s is not None:
            check_duration("heartbeat_s", request.heartbeat_s)


def check_reason(by: str, reason: str) -> None:
    """Raise InvalidConfig unless admin and reason are given, for the audit history."""
    if not by.strip() or not reason.strip():
        raise InvalidConfig(
            "force_unlock needs an admin and a reason", operation="force unlock", hint="pass admin and reason"
        )


def check_extension(lock: Lock, extra_s: float) -> tuple[float, datetime | None]:
    """The expiry of an extended lock, monotonic and wall. Raises InvalidConfig beyond the longest life."""
    check_duration("extra_s", extra_s)
    if lock.expires_at is None:
        raise InvalidConfig(f"lock {lock.lock_id} has no TTL to extend", hint="the end of its build releases it")
    longest_s = LEASE_TTL_MAX_S if lock.shared else DURATION_MAX_S
    left_s = longest_s - (lock.expires_at - lock.granted_at)
    if extra_s > left_s:
        raise InvalidConfig(
            f"lock {lock.lock_id} may be extended by {max(left_s, 0):g} s more, not by {extra_s:g}",
            operation="extend",
            object=lock.lock_id,
            hint=f"a lock lives {in_words(longest_s)} at most: release it and take a new one",
        )
    wall = lock.expires_wall and lock.expires_wall + timedelta(seconds=extra_s)
    return lock.expires_at + extra_s, wall


def progress_of(before: Progress | None, report: ProgressReport | None, now: float) -> Progress | None:
    """Progress with a new report added. Raises InvalidConfig for a percent outside 0 to 100 or an invalid ETA.

    A smaller percent than before means that the work began anew: the measurement of the rate begins anew as well.
    """
    if report is None:
        return before
    percent = report.percent
    if isinstance(percent, bool) or not isinstance(percent, int | float) or not 0 <= percent <= 100:
        raise InvalidConfig(
            f"progress must be 0 to 100 percent, not {percent!r}", hint="report the part that is done, in percent"
        )
    if report.eta_s is not None:
        check_duration("eta_s", report.eta_s, longest_s=math.inf, zero=True)
    first = before if before is not None and before.percent <= percent else None
    return Progress(
        percent=float(percent),
        at=now,
        first_percent=first.first_percent if first else float(percent),
        first_at=first.first_at if first else now,
        eta_s=report.eta_s,
        message=report.message,
    )


def lost(lock_id: str, token: int, lock: Lock | None, endings: Iterable[Ending], now: float) -> LockLost:
    """The error for a token that is not valid. The message has the end of its lock, while the table remembers it."""
    name = f"lock {lock_id}" if lock_id else f"the lock of token {token}"
    ending = next((e for e in endings if e.token == token and lock_id in ("", e.lock_id)), None)
    hint = "stop all work under it; acquire it again and read the changes since"
    if ending is not None:
        ago = in_words(now - ending.at)
        how = {
            LockEventKind.EXPIRED: f"expired {ago} ago: {ending.reason}",
            LockEventKind.FORCED: f"was taken away by {ending.by} {ago} ago: {ending.reason}",
        }.get(ending.kind, f"was released {ago} ago")
    elif lock is not None and lock.token == token and lock.expired(now):
        how = "expired"
    elif lock is not None and lock.token == token:
        how = f"belongs to {lock.owner}"
        hint = "pass the owner that acquired it"
    elif lock is not None:
        how = "is held under another token"
    else:
        how = "is not held"
    return LockLost(f"{name} {how}", operation="lock", object=lock_id or str(token), hint=hint)
