"""The middleware: the checks of every request before a route sees it, in this order.

    header size    431 beyond 64 KiB
    request id     the client's X-Request-ID if it is well-formed, else a new one; in the answer and in the log
    path           a slash that was sent as %2F stays part of its segment: a branch name may contain one
    host           the Host header must name this server, so a page that rebinds its name to this address is refused
    origin         the request of a browser must come from this server's own page
    stop           once a stop was requested no request is admitted; a request that outlasts it is answered with 503
    address        a limit of connections of one address
    queue          a limit of requests at once
    token          the caller; refused tokens are counted by address
    rate           a limit of requests by token

A refusal is application/problem+json, as from a route. If it comes before the body, the rest of the body is read for a
moment and dropped, so that the client gets to the answer, and the connection is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
import uuid
from collections import OrderedDict
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit

import msgspec

from shadowswitch.model.errors import EngineClosed, ShadowSwitchError
from shadowswitch.service.http.access import Caller, Forbidden, Unauthorized, now
from shadowswitch.service.http.host import HEADER_BYTES_MAX, Host
from shadowswitch.service.http.limits.connections import WAITS_FOR_CLIENT, client_of
from shadowswitch.service.http.limits.shares import Overloaded
from shadowswitch.service.http.problems import (
    MEDIA_TYPE,
    BadRequest,
    RequestHeaderFieldsTooLarge,
    TooManyRequests,
    problem,
)

logger = logging.getLogger("shadowswitch.http")

CALLER = "shadowswitch.caller"
REQUEST_ID = "shadowswitch.request_id"
CLEANUP = "shadowswitch.cleanup"
"""In the scope of a request: an ExitStack that is closed when the request has ended, however it ends."""
LINGER_S = 2.0
"""The time for the rest of a body that is not wanted."""
_REQUEST_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
NEVER_REFUSED = frozenset({"/health", "/health/live", "/health/ready"})
"""Health checks are answered however busy the server is."""
BUCKETS_MAX = 10_000
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
)

BY, REASON = "x-audit-by", "x-audit-reason"
"""Author and reason of a request for the audit history; percent-encoded UTF-8."""
BY_CHARS_MAX, REASON_CHARS_MAX = 120, 500


class Buckets:
    """Token buckets by key, the least recently used forgotten first. On the event loop."""

    def __init__(self, rate_per_s: float, burst: float) -> None:
        self._rate = rate_per_s
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def left(self, key: str) -> float:
        """The tokens left."""
        level, at = self._buckets.get(key, (self._burst, time.monotonic()))
        return min(self._burst, level + (time.monotonic() - at) * self._rate)

    def take(self, key: str) -> bool:
        """Take one token; False when none is left."""
        left = self.left(key)
        self._buckets[key] = (left - 1 if left >= 1 else left, time.monotonic())
        self._buckets.move_to_end(key)
        if len(self._buckets) > BUCKETS_MAX:
            self._buckets.popitem(last=False)
        return left >= 1


class Middleware:
    """The outermost ASGI application."""

    def __init__(self, app: Any, host: Host) -> None:
        self._app = app
        self._host = host
        options = host.options
        self._rates = Buckets(options.rate_per_s, max(1.0, options.rate_per_s))
        self._failures = Buckets(options.failures_per_min / 60, max(1.0, options.failures_per_min))
        names = {"localhost", "127.0.0.1", "::1"} if not options.public else set()
        self._names = names | {options.host.lower(), *(name.lower() for name in options.allowed_hosts)}
        self._any_name = "*" in options.allowed_hosts or (options.public and not options.allowed_hosts)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        request_id = scope[REQUEST_ID] = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        status = 0
        rest = _Rest(scope, headers, receive)

        async def answer(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name for name, _ in message["headers"]}
                added = [(b"x-request-id", request_id.encode()), *HEADERS, (b"cache-control", b"no-store")]
                added += [(b"connection", b"close")] if rest.to_come else []
                message["headers"] = [*message["headers"], *(one for one in added if one[0] not in present)]
            elif rest.to_come and not message.get("more_body"):
                await send({**message, "more_body": True})
                await rest.drop()
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        self._host.in_flight += 1
        try:
            try:
                await self._host.follow_tokens()
                self._admit(scope, headers)
            except ShadowSwitchError as error:
                await refuse(error, request_id, answer)
            else:
                with contextlib.ExitStack() as scope[CLEANUP]:
                    await self._app(scope, rest.receive, answer)
        except asyncio.CancelledError:
            if not self._host.draining.is_set():
                raise
            if not status:  # an answer that has begun is a stream, and ends
                await refuse(_stopped(), request_id, answer)
        finally:
            self._host.in_flight -= 1
            if self._host.options.log_requests:
                self._log(scope, request_id, status, begun)

    def _admit(self, scope: Any, headers: dict[str, str]) -> None:
        host = self._host
        scope[CALLER] = None
        scope["path"] = routing_path(scope)
        _check_size(scope)
        self._check_names(scope["method"], headers)
        address = client_of(scope["client"][0]) if scope.get("client") else ""
        if scope["path"] in NEVER_REFUSED:
            return
        if host.draining.is_set():
            raise EngineClosed("the server stops", hint="try again in a moment")
        if host.connections.crowded(address):
            raise TooManyRequests("too many connections came from this address", hint="close some, or use them again")
        if host.in_flight - host.reading > host.options.threads + host.options.queue_max:
            raise Overloaded("too many requests wait already", hint="try again in a moment")
        try:
            caller = host.access.caller(headers.get("authorization"), now())
            scope[CALLER] = caller = _speaking(caller, headers) if caller is not None else None
        except Unauthorized as error:
            if self._failures.take(address):
                raise
            raise TooManyRequests("too many wrong tokens came from this address", hint="wait a minute") from error
        if not self._rates.take(caller.name if caller is not None and not host.access.open else address):
            raise TooManyRequests("requests come faster than allowed", hint="slow down, or raise --rate")

    def _check_names(self, method: str, headers: dict[str, str]) -> None:
        authority = headers.get("host", "")
        try:
            name = (urlsplit(f"//{authority}").hostname or "").lower()
        except ValueError:
            name = ""
        if not self._any_name and name not in self._names:
            raise Forbidden(
                f"this server is not called {name!r:.100}", hint="use its address, or name it with --allowed-host"
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit_host(origin) != authority.lower():
            raise Forbidden("pages of other servers may not call this one", hint="use the dashboard, or no browser")
        if method not in SAFE_METHODS and headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Forbidden("pages of other sites may not change anything here", hint="use the dashboard")

    def _log(self, scope: Any, request_id: str, status: int, begun: float) -> None:
        caller = scope.get(CALLER)
        logger.info(
            "request",
            extra={
                "fields": {
                    "request_id": request_id,
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "ms": round((time.perf_counter() - begun) * 1000, 1),
                    "caller": caller.name if caller is not None else None,
                }
            },
        )


def _speaking(caller: Caller, headers: dict[str, str]) -> Caller:
    """The caller with the author and the reason that it names for the audit history. Raises BadRequest."""
    said = {}
    for field, name, most in (("by", BY, BY_CHARS_MAX), ("reason", REASON, REASON_CHARS_MAX)):
        try:
            text = unquote_to_bytes(headers.get(name, "")).decode().strip()
        except UnicodeError as error:
            raise BadRequest(f"{name} is not valid UTF-8", hint="percent-encode it as UTF-8") from error
        if len(text) > most:
            raise BadRequest(f"{name} has more than {most} characters", hint="shorten it")
        said[field] = text
    return msgspec.structs.replace(caller, **said) if any(said.values()) else caller


class _Rest:
    """The rest of the body of a request."""

    def __init__(self, scope: Any, headers: dict[str, str], receive: Any) -> None:
        self._scope = scope
        self._receive = receive
        self.to_come = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"

    async def receive(self) -> Any:
        """The next message of the client."""
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body"):
            self.to_come = False
        return message

    async def drop(self) -> None:
        """Read the rest for up to LINGER_S."""
        self._scope[WAITS_FOR_CLIENT] = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while self.to_come:
                    await self.receive()


def _check_size(scope: Any) -> None:
    """Raise an error for a header beyond the limit. uvicorn limits only a header that comes in parts."""
    size = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    if size + len(scope.get("raw_path") or b"") + len(scope["query_string"]) > HEADER_BYTES_MAX:
        raise RequestHeaderFieldsTooLarge(
            "the header of the request is too long", hint="send less in headers and in the query"
        )


def _stopped() -> EngineClosed:
    """The answer to a request that outlasts `Options.stop_s`. Its thread goes on until the engine closes, so its
    outcome is not known here."""
    return EngineClosed(
        "the engine is stopping and this was not finished in time; its outcome is not known",
        hint="when the server is back, read the present state first, then try again if it was not done",
    )


def urlsplit_host(origin: str) -> str:
    """Host and port of an Origin header, "" for `null` and for a malformed one."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def routing_path(scope: Any) -> str:
    """The path for routing: decoded, but for slashes and percent signs that were sent encoded (see `decode_segment`).

    `scope["path"]` is decoded already: `feature%2Fx` looks like `feature/x` in it. `raw_path` is as sent.
    """
    raw = (scope.get("raw_path") or quote(scope["path"]).encode()).partition(b"?")[0]
    try:
        parts = [unquote_to_bytes(part).decode() for part in raw.split(b"/")]
    except UnicodeDecodeError as error:
        raise BadRequest("the path is not valid UTF-8", hint="percent-encode names as UTF-8") from error
    return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)


def decode_segment(segment: str) -> str:
    """A name, from a segment of the routing path."""
    return segment.replace("%2F", "/").replace("%25", "%")


async def refuse(error: ShadowSwitchError, request_id: str, send: Any) -> None:
    """Answer with a problem."""
    status, body, headers = problem(error, request_id)
    content = msgspec.json.encode(body)
    lines = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(content)).encode())]
    lines += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": content})
