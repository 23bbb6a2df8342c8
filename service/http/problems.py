"""Errors as application/problem+json (RFC 9457): the error, and a hint to the next step.

    {"type": "urn:shadowswitch:problem:duplicate-build", "title": "Duplicate build", "status": 409,
     "detail": "...", "hint": "switch to it, or cancel it", "shadow_index_id": "5f0c...", "request_id": "1b9e..."}

A blocked write has more members, under the names of the field's existing clients: `error`, `holder`, `retry_after`, ...
"""

from __future__ import annotations

import math
import re
from http import HTTPStatus
from typing import Any

import msgspec

from shadowswitch.model import errors
from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.model.locks.refusal import Blocked
from shadowswitch.service.hints import in_http
from shadowswitch.service.http.access import Forbidden, Unauthorized
from shadowswitch.service.http.limits.shares import Overloaded

MEDIA_TYPE = "application/problem+json"
TYPE = "urn:shadowswitch:problem:"
DETAIL_CHARS_MAX = 2000
RETRY_S = 1
"""The pause before a retry after a lack of room or time, unless the error knows better."""


class TooManyRequests(ShadowSwitchError):
    """The requests of one client come too fast; nothing was done."""

    recoverable = True


class BadRequest(ShadowSwitchError, ValueError):
    """A request that cannot be understood."""


class RequestTimeout(ShadowSwitchError):
    """The body of a request did not come in time; nothing was done."""

    recoverable = True


class RequestEntityTooLarge(ShadowSwitchError):
    """The body of a request is too long."""


class UnsupportedMediaType(ShadowSwitchError):
    """The body of a request is not JSON."""


class RequestHeaderFieldsTooLarge(ShadowSwitchError):
    """The header of a request is too long."""


class NoSuchLock(ShadowSwitchError, LookupError):
    """No lock of that id is held."""


class KeyReused(ShadowSwitchError):
    """The Idempotency-Key belongs to another request."""


STATUS: tuple[tuple[type[ShadowSwitchError], int], ...] = (
    (Unauthorized, 401),
    (Forbidden, 403),
    (TooManyRequests, 429),
    (Overloaded, 503),
    (BadRequest, 400),
    (RequestTimeout, 408),
    (RequestEntityTooLarge, 413),
    (UnsupportedMediaType, 415),
    (RequestHeaderFieldsTooLarge, 431),
    (errors.BranchExists, 409),
    (errors.InvalidName, 422),
    (errors.InvalidChange, 422),
    (errors.InvalidConfig, 422),
    (errors.InvalidEvent, 422),
    (NoSuchLock, 404),
    (errors.UnknownBranch, 404),
    (errors.UnknownShadow, 404),
    (errors.UnknownGroup, 404),
    (errors.UnknownIndex, 404),
    (errors.WriteBlocked, 423),
    (errors.StorageFull, 507),
    (errors.JournalTrimmed, 410),
    (errors.PlaceLost, 410),
    (errors.EngineClosed, 503),
    (errors.DirectoryLost, 503),
    (errors.Timeout, 503),
    (errors.ResourceExhausted, 503),
    (errors.CorruptData, 503),
    (errors.InternalFailure, 500),
)
"""Every other error is about the present state of things: 409."""


class Problem(msgspec.Struct, omit_defaults=True):
    """The members of every problem; some problems have more."""

    type: str
    title: str
    status: int
    detail: str
    hint: str = ""
    operation: str = ""
    object: str = ""
    recoverable: bool = False
    request_id: str = ""


def status_of(error: ShadowSwitchError) -> int:
    """The HTTP status of an error of the library."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 409)


def problem(error: ShadowSwitchError, request_id: str = "") -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, body and headers for an error of the library."""
    status = status_of(error)
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    body = Problem(
        type=TYPE + words.replace(" ", "-"),
        title=words.capitalize(),
        status=status,
        detail=error.message[:DETAIL_CHARS_MAX],
        hint=in_http(error.hint)[:DETAIL_CHARS_MAX],
        operation=error.operation,
        object=error.object,
        recoverable=error.recoverable,
        request_id=request_id,
    )
    members: dict[str, Any] = msgspec.to_builtins(body)
    headers = {}
    blocked = getattr(error, "blocked", None)
    if isinstance(blocked, Blocked):
        members |= blocked_members(blocked)
        if blocked.retry_after_s is not None:
            headers["Retry-After"] = str(members["retry_after"])
    elif error.recoverable:
        headers["Retry-After"] = str(RETRY_S)
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="shadowswitch"'
    for name in ("shadow_index_id", "oldest_lsn", "problems", "uses"):
        if getattr(error, name, None):
            members[name] = getattr(error, name)
    return status, members, headers


def blocked_members(blocked: Blocked) -> dict[str, Any]:
    """The lock in the way: holder, reason, progress, alternatives, under the names of the field's existing clients."""
    return {
        "error": "SchemaFrozen",
        "message": blocked.message,
        "reason": blocked.reason,
        "branch": blocked.branch,
        "resource_type": blocked.resource_type,
        "resource_id": blocked.resource_id,
        "lock_scope": str(blocked.scope).lower() if blocked.scope is not None else "branch",
        "lock_type": blocked.lock_type,
        "lock_id": blocked.lock_id,
        "holder": blocked.holder,
        "since": blocked.since,
        "other_resources_available": bool(blocked.free_resource_types),
        "available_resource_types": blocked.free_resource_types,
        "indexing_progress": None if blocked.progress_percent is None else math.floor(blocked.progress_percent),
        "eta_seconds": None if blocked.eta_s is None else math.ceil(blocked.eta_s),
        "retry_after": None if blocked.retry_after_s is None else math.ceil(blocked.retry_after_s),
        "alternative_actions": [in_http(way) for way in blocked.alternatives],
    }


def plain_problem(status: int, detail: str, hint: str = "", request_id: str = "", **more: Any) -> dict[str, Any]:
    """A problem with the name that HTTP gives to its status."""
    title = HTTPStatus(status).phrase
    kind = TYPE + re.sub(r"[^a-z]+", "-", title.lower())
    found = msgspec.to_builtins(Problem(kind, title, status, detail[:DETAIL_CHARS_MAX], hint, request_id=request_id))
    return {**found, **more}
