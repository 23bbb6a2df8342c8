"""Bodies: read whole before a route runs, and only for a caller that the route admits.

    route         no such path or method: the body is not read, the routes answer with 404 or 405
    scope         401 or 403 before the first byte of the body is read
    media type    415 for a body that is not JSON; 413 for one that announces too much
    time          `Options.body_s`, and one second more for each MiB that has come: then 408
    size          413 beyond `body_max_bytes`; one caller holds at most `EACH` such bodies at once, all callers `ALL`
    text          400 unless it is UTF-8

A body that has stalled gives way to one that moves when the caller holds too much: 408 for it. If none has stalled, the
request that would hold too much is refused with 429 or 503.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from litestar import Litestar

from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.model.records import JSON_DEPTH_MAX, nests_too_deep
from shadowswitch.service.http.access import Unauthorized
from shadowswitch.service.http.host import Host
from shadowswitch.service.http.limits.connections import WAITS_FOR_CLIENT, client_of
from shadowswitch.service.http.limits.shares import Overloaded
from shadowswitch.service.http.middleware import CALLER, REQUEST_ID, refuse
from shadowswitch.service.http.problems import (
    BadRequest,
    RequestEntityTooLarge,
    RequestTimeout,
    TooManyRequests,
    UnsupportedMediaType,
)
from shadowswitch.service.http.routing import check_scope, route_of, takes_body

BODY = "shadowswitch.body"
"""In the scope of a request: its body, once it was read."""
EACH, ALL = 4, 16
STALLED_S = 1.0
BYTES_PER_S = 1 << 20
_JSON = re.compile(r"application/(?:json|[!#$&^_.+\w-]+\+json)", re.ASCII | re.IGNORECASE)
_UTF_8 = frozenset({"", "utf-8", "utf8", "us-ascii"})


def is_json(media_type: str) -> bool:
    """Whether a Content-Type is that of JSON in UTF-8: `application/json`, or any `application/...+json`."""
    kind, *parameters = (part.strip() for part in media_type.split(";"))
    charsets = [
        part.partition("=")[2].strip(' "').lower() for part in parameters if part.lower().startswith("charset=")
    ]
    return _JSON.fullmatch(kind) is not None and all(charset in _UTF_8 for charset in charsets)


class _Reading:
    """A body that is being read, or is held by its request."""

    def __init__(self, caller: str, moment: float) -> None:
        self.caller = caller
        self.size = 0
        self.moved_at = moment
        self.timeout: asyncio.Timeout | None = None


class Bodies:
    """The ASGI application between the middleware and the idempotency keys. On the event loop."""

    def __init__(self, app: Any, routes: Litestar, host: Host) -> None:
        self._app = app
        self._routes = routes
        self._host = host
        self._max = host.options.body_max_bytes
        self._held: dict[_Reading, None] = {}
        self._size = 0
        """The bytes of all bodies that are held."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        handler = route_of(self._routes, scope["path"], scope["method"]) if scope["type"] == "http" else None
        if handler is None or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        client = client_of(scope["client"][0]) if scope.get("client") else ""
        caller = scope[CALLER]
        key = f"address {client}" if caller is None or caller.trusted else caller.name
        reading = _Reading(key, asyncio.get_running_loop().time())
        self._held[reading] = None
        try:
            try:
                check_scope(caller, handler)
                body = await self._read(scope, receive, reading, takes_body(handler))
                if caller is not None and not self._host.admits(caller):
                    raise Unauthorized("the token was revoked while the body came", hint="use another token")
            except ShadowSwitchError as error:
                await refuse(error, scope[REQUEST_ID], send)
                return
            if body is not None:
                scope[BODY] = body
                await self._app(scope, _replayed(body, receive), send)
        finally:
            self._release(reading)

    async def _read(self, scope: Any, receive: Any, reading: _Reading, is_taken: bool) -> bytes | None:
        """The body; None if the client has gone. Raises an error for a body that is refused."""
        headers = dict(scope["headers"])
        announced = headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self._max:
            raise self._too_long()
        media_type = headers.get(b"content-type", b"").decode("latin-1")
        if is_taken and announced != b"0":
            _check_media_type(media_type)
        self._host.reading += 1
        scope[WAITS_FOR_CLIENT] = True
        try:
            body = await self._gather(receive, reading)
        finally:
            scope[WAITS_FOR_CLIENT] = False
            self._host.reading -= 1
        if body and is_taken:
            _check_media_type(media_type)
            try:
                body.decode()
            except UnicodeDecodeError as error:
                raise BadRequest(
                    f"the body is not UTF-8: {error.reason} at byte {error.start}", hint="send JSON in UTF-8"
                ) from error
            if nests_too_deep(body):
                raise BadRequest(f"the JSON is nested deeper than {JSON_DEPTH_MAX} levels", hint="send flatter fields")
        return body

    async def _gather(self, receive: Any, reading: _Reading) -> bytes | None:
        chunks: list[bytes] = []
        loop = asyncio.get_running_loop()
        end = loop.time() + self._host.options.body_s
        try:
            async with asyncio.timeout_at(end) as reading.timeout:
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    if chunk := message.get("body", b""):
                        chunks.append(chunk)
                        reading.moved_at = loop.time()
                        self._hold(reading, len(chunk))
                        reading.timeout.reschedule(end + reading.size / BYTES_PER_S)
                    if not message.get("more_body"):
                        return b"".join(chunks)
        except TimeoutError as error:
            raise RequestTimeout("the body did not come in time", hint="send it again, or less at once") from error
        finally:
            reading.timeout = None

    def _hold(self, reading: _Reading, more: int) -> None:
        """Count bytes. Raises an error for bytes beyond a limit."""
        reading.size += more
        self._size += more
        if reading.size > self._max:
            raise self._too_long()
        if self._size > EACH * self._max:
            its = [one for one in self._held if one.caller == reading.caller]
            if not self._fits(its, EACH, reading):
                raise TooManyRequests(
                    f"{reading.caller} holds {EACH} times the longest body already", hint="send less at once"
                )
            if not self._fits(list(self._held), ALL, reading):
                raise Overloaded("too many bodies are held already", hint="try again in a moment")

    def _fits(self, among: list[_Reading], count: int, newest: _Reading) -> bool:
        """Whether the bodies fit, at the latest after those gave way that have stalled, longest first."""
        size = sum(one.size for one in among)
        now = asyncio.get_running_loop().time()
        for one in sorted(among, key=lambda one: one.moved_at):
            if size <= count * self._max:
                break
            if one.timeout is not None and one is not newest and one.moved_at < now - STALLED_S:
                one.timeout.reschedule(now)
                size -= one.size
                self._release(one)
        return size <= count * self._max

    def _release(self, one: _Reading) -> None:
        self._held.pop(one, None)
        self._size -= one.size
        one.size = 0

    def _too_long(self) -> RequestEntityTooLarge:
        return RequestEntityTooLarge(
            f"the body is longer than {self._max} bytes", hint="send less at once, in several requests"
        )


def _check_media_type(media_type: str) -> None:
    if not is_json(media_type):
        raise UnsupportedMediaType(
            f"the body is {media_type[:100]!r}, not JSON in UTF-8", hint="send JSON with Content-Type: application/json"
        )


def _replayed(body: bytes, receive: Any) -> Any:
    """A `receive` that gives the body, then the next messages: the disconnect of the client."""
    first: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Any:
        return first.pop() if first else await receive()

    return next_message
