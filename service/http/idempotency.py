"""Idempotency keys: a POST or DELETE that is repeated with the same `Idempotency-Key` gets the first answer again.

Answers are kept in memory, by caller, method, path and key: at most `ANSWERS_MAX` answers of `SIZE_MAX_BYTES` together,
each for `KEPT_S` seconds. A restart forgets them. A write repeated after a restart is one more version of the same
content, and a repeated start of a build or switch is refused, so a retry loses nothing.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import OrderedDict
from typing import Any

import msgspec

from shadowswitch.model.errors import InvalidTransition, ShadowSwitchError
from shadowswitch.service.http.host import Host
from shadowswitch.service.http.middleware import CALLER, REQUEST_ID, refuse
from shadowswitch.service.http.problems import BadRequest, KeyReused

ANSWERS_MAX = 10_000
SIZE_MAX_BYTES = 64 << 20
KEPT_S = 24 * 3600.0
HEADER = b"idempotency-key"
REPLAYED = (b"idempotency-replayed", b"true")
_KEY = re.compile(rb"[\x21-\x7e]{1,200}")


class Answer(msgspec.Struct):
    """The first answer to a key; `status` is 0 until the routes have answered."""

    request: bytes
    at: float
    status: int = 0
    headers: list[tuple[bytes, bytes]] = []
    body: bytes = b""


class Idempotency:
    """The ASGI application between the middleware and the routes. On the event loop."""

    def __init__(self, app: Any, host: Host) -> None:
        self._app = app
        self._host = host
        self._answers: OrderedDict[tuple[str, str, str, bytes], Answer] = OrderedDict()
        self._size = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        keys = [value for name, value in scope["headers"] if name == HEADER] if scope["type"] == "http" else []
        if not keys or scope["method"] not in ("POST", "DELETE"):
            await self._app(scope, receive, send)
            return
        try:
            messages, body = await self._read(receive)
            if messages is None:  # the body is too long or the client has gone: the routes answer
                await self._app(
                    scope, _replayed([{"type": "http.request", "body": body, "more_body": True}], receive), send
                )
                return
            caller = scope[CALLER].name if scope[CALLER] is not None else ""
            known = self._find((caller, scope["method"], scope["path"], keys[0]), body, scope["query_string"])
        except ShadowSwitchError as error:
            await refuse(error, scope[REQUEST_ID], send)
            return
        if known.status:
            await send({"type": "http.response.start", "status": known.status, "headers": [*known.headers, REPLAYED]})
            await send({"type": "http.response.body", "body": known.body})
            return
        await self._ask(known, scope, _replayed(messages, receive), send)

    async def _read(self, receive: Any) -> tuple[list[Any] | None, bytes]:
        messages, body = [], b""
        while True:
            message = await receive()
            messages.append(message)
            body += message.get("body", b"")
            if message["type"] != "http.request" or len(body) > self._host.options.body_max_bytes:
                return None, body
            if not message.get("more_body"):
                return messages, body

    def _find(self, key: tuple[str, str, str, bytes], body: bytes, query: bytes) -> Answer:
        """The answer to a key; of a new key with status 0. Raises BadRequest, KeyReused, InvalidTransition."""
        if not _KEY.fullmatch(key[3]):
            raise BadRequest("Idempotency-Key must be 1 to 200 printable ASCII characters", hint="send a UUID")
        request = hashlib.sha256(query + b"\n" + body).digest()
        found = self._answers.get(key)
        if found is not None and found.at < time.monotonic() - KEPT_S:
            self._forget(key)
            found = None
        if found is None:
            found = self._answers[key] = Answer(request, time.monotonic())
            while len(self._answers) > ANSWERS_MAX or self._size > SIZE_MAX_BYTES:
                self._forget(next(iter(self._answers)))
            return found
        if found.request != request:
            raise KeyReused("this Idempotency-Key belongs to another request", hint="use a new key")
        if not found.status:
            raise InvalidTransition(
                "the first request with this Idempotency-Key is still under way", hint="repeat the request in a moment"
            )
        return found

    def _forget(self, key: tuple[str, str, str, bytes]) -> None:
        gone = self._answers.pop(key, None)
        self._size -= len(gone.body) if gone is not None else 0

    async def _ask(self, answer: Answer, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request to the routes and keep their answer, unless a retry could be answered differently."""
        status, headers, body = 0, [], b""

        async def keep(message: Any) -> None:
            nonlocal status, headers, body
            if message["type"] == "http.response.start":
                status, headers = message["status"], [tuple(one) for one in message["headers"]]
            else:
                body += message.get("body", b"")
                if not message.get("more_body") and status and status < 500 and status not in (401, 403, 423, 429):
                    answer.status, answer.headers, answer.body = status, headers, body
                    self._size += len(body)
            await send(message)

        try:
            await self._app(scope, receive, keep)
        finally:
            if not answer.status:
                for key, kept in list(self._answers.items()):
                    if kept is answer:
                        self._forget(key)


def _replayed(messages: list[Any], receive: Any) -> Any:
    """A `receive` that gives the messages that were read already, then the next ones."""
    rest = iter(messages)

    async def next_message() -> Any:
        return next(rest, None) or await receive()

    return next_message
