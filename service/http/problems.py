"""Errors as application/problem+json (RFC 9457): what happened, and what to do next.

    {"type": "urn:shadowswitch:problem:duplicate-build", "title": "Duplicate build", "status": 409,
     "detail": "...", "hint": "switch to it, or cancel it", "shadow_index_id": "5f0c...", "request_id": "1b9e..."}

A blocked write has the members that clients of the field know besides: `error`, `holder`, `retry_after`, ...
"""

from __future__ import annotations

import logging
import math
import re
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException

from shadowswitch.model import errors
from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.model.locks.refusal import Blocked
from shadowswitch.service.hints import in_http
from shadowswitch.service.http.access import Forbidden, Unauthorized
from shadowswitch.service.http.host import Overloaded
from shadowswitch.service.http.methods import allowed

logger = logging.getLogger("shadowswitch")

MEDIA_TYPE = "application/problem+json"
TYPE = "urn:shadowswitch:problem:"
DETAIL_CHARS_MAX = 2000
RETRY_S = 1
"""When to try again what failed for want of room or time, unless the error knows better."""


class TooManyRequests(ShadowSwitchError):
    """One client asks too often; nothing was done."""

    recoverable = True


class BadRequest(ShadowSwitchError, ValueError):
    """A request that cannot be understood."""


class NoSuchLock(ShadowSwitchError, LookupError):
    """No lock of that id is held."""


class PlaceLost(ShadowSwitchError):
    """A place in the event log that is not in it: whoever asks has read another data directory."""


class KeyReused(ShadowSwitchError):
    """An Idempotency-Key came with another request than the first time."""


STATUS: tuple[tuple[type[ShadowSwitchError], int], ...] = (
    (Unauthorized, 401),
    (Forbidden, 403),
    (TooManyRequests, 429),
    (Overloaded, 503),
    (BadRequest, 400),
    (errors.InvalidName, 422),
    (errors.InvalidChange, 422),
    (errors.InvalidConfig, 422),
    (errors.InvalidEvent, 422),
    (NoSuchLock, 404),
    (errors.UnknownBranch, 404),
    (errors.UnknownShadow, 404),
    (errors.UnknownIndex, 404),
    (errors.WriteBlocked, 423),
    (errors.StorageFull, 507),
    (errors.JournalTrimmed, 410),
    (PlaceLost, 410),
    (errors.EngineClosed, 503),
    (errors.Timeout, 503),
    (errors.CorruptData, 503),
    (errors.InternalFailure, 500),
)
"""What is not listed is about the present state of things: 409."""


class Problem(msgspec.Struct, omit_defaults=True):
    """The members that every problem may have; some have more."""

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
    more: dict[str, Any] = msgspec.to_builtins(body)
    headers = {}
    blocked = getattr(error, "blocked", None)
    if isinstance(blocked, Blocked):
        more |= blocked_members(blocked)
        if blocked.retry_after_s is not None:
            headers["Retry-After"] = str(more["retry_after"])
    elif error.recoverable:
        headers["Retry-After"] = str(RETRY_S)
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="shadowswitch"'
    for name in ("shadow_index_id", "oldest_lsn", "problems"):
        if getattr(error, name, None):
            more[name] = getattr(error, name)
    return status, more, headers


def blocked_members(blocked: Blocked) -> dict[str, Any]:
    """Who is in the way, why, how far, and what else can be done, under the names that clients of the field know."""
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
    """A problem that HTTP itself has a name for."""
    title = HTTPStatus(status).phrase
    kind = TYPE + re.sub(r"[^a-z]+", "-", title.lower())
    found = msgspec.to_builtins(Problem(kind, title, status, detail[:DETAIL_CHARS_MAX], hint, request_id=request_id))
    return {**found, **more}


# -- for Litestar --------------------------------------------------------------------------------------------------


def _answer(status: int, body: dict[str, Any], headers: dict[str, str]) -> Response[Any]:
    return Response(body, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def _request_id(request: Request[Any, Any, Any]) -> str:
    return str(request.scope.get("shadowswitch.request_id", ""))


def from_library(request: Request[Any, Any, Any], error: ShadowSwitchError) -> Response[Any]:
    """The answer to an error of the library."""
    if status_of(error) >= 500:
        logger.warning("%s: %s", _request_id(request), error)
    return _answer(*problem(error, _request_id(request)))


HINTS = {
    404: "GET /schema lists what there is",
    405: "GET /schema lists the methods of each path",
    413: "send less at once, in several requests",
    415: "send JSON with Content-Type: application/json",
}


def from_http(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    """The answer to what Litestar refuses: unknown paths and methods, bodies that are not what the schema says."""
    detail, more = str(error.detail), {}
    if error.status_code >= 500:
        return from_anything(request, error)
    if error.status_code == 400:
        fields = [one for one in error.extra or [] if isinstance(one, dict)]
        parts = [_of_body(one) or ": ".join(str(one[k]) for k in ("key", "message") if one.get(k)) for one in fields]
        detail = "; ".join([detail.partition(" for ")[0].strip(), *parts])
        more["errors"] = fields
    hint = HINTS.get(error.status_code, "GET /schema tells what a request must look like")
    body = plain_problem(error.status_code, detail, hint, _request_id(request), **more)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = allowed(request.app, str(request.scope["path"]))
    return _answer(error.status_code, body, headers)


def _of_body(field: dict[str, Any]) -> str:
    """What is wrong with a body as a whole, or inside it; "" for what is no body: Litestar calls that `data`."""
    if field.get("source") != "body":
        return ""
    message = str(field.get("message", ""))
    if message == "'data'":
        return "the body must be a JSON object, and it is empty"
    kind = re.fullmatch(r"Expected `object[^`]*`, got `(\w+)`", message)
    return f"the body must be a JSON object, not {kind[1]}" if kind else f"the body: {message}"


def too_deep(request: Request[Any, Any, Any], error: RecursionError) -> Response[Any]:
    """The answer to JSON that is nested deeper than anything that could be stored."""
    body = plain_problem(400, "the JSON is nested too deep", "send flatter fields", _request_id(request))
    return _answer(400, body, {})


def from_anything(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """The answer to what nobody foresaw. What it says stays in the log."""
    logger.error("%s: unforeseen %s", _request_id(request), type(error).__name__, exc_info=error)
    hint = "the log has it under the request id"
    return _answer(500, plain_problem(500, "something unforeseen happened", hint, _request_id(request)), {})
