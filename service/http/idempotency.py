"""Idempotency keys: a POST or DELETE that was done and is repeated with the same `Idempotency-Key` is not done again.

The repetition gets the first answer. Only an answer is kept that would be the same again: to a request that was done,
or to one that is wrong by itself (`WRONG`). The cause of any other refusal may go, and nothing was changed. So may the
cause of a 200 that says that nothing was done; its route calls `mark_undone`.

Answers are kept in memory, by caller, method, path and key: at most `ANSWERS_MAX` answers of `SIZE_MAX_BYTES` together,
each for `KEPT_S` seconds. A caller pushes out its own oldest answers before those of a caller that keeps less. Only a
request that a route admits gets here. A restart forgets the answers. A write repeated after a restart is one more
version of the same content, and a repeated start of a build or switch is refused, so a retry loses nothing.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import OrderedDict
from typing import Any

import msgspec
from litestar import Request

from shadowswitch.model.errors import InvalidTransition, ShadowSwitchError
from shadowswitch.service.http.limits.body import BODY
from shadowswitch.service.http.middleware import CALLER, REQUEST_ID, refuse
from shadowswitch.service.http.problems import BadRequest, KeyReused

ANSWERS_MAX = 10_000
SIZE_MAX_BYTES = 64 << 20
KEPT_S = 24 * 3600.0
HEADER = b"idempotency-key"
REPLAYED = (b"idempotency-replayed", b"true")
WRONG = (400, 422)
"""The statuses of requests that are refused whatever the present state is."""
UNDONE = "shadowswitch.undone"
"""In the scope of a request: it has changed nothing, whatever its status."""
OVERHEAD_BYTES = 1024
"""What an answer takes besides its body, its headers and its path."""
Key = tuple[str, str, bytes]
"""Method, path and Idempotency-Key."""
_KEY = re.compile(rb"[\x21-\x7e]{1,200}")


def mark_undone(request: Request[Any, Any, Any]) -> None:
    """Note that a request has changed nothing: a repetition with its Idempotency-Key is a new request."""
    request.scope[UNDONE] = True  # type: ignore[literal-required]


class Answer(msgspec.Struct, frozen=True):
    """The first answer to a key, and the hash of its request."""

    request: bytes
    at: float
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    size: int


class Kept:
    """The answers of one caller, the oldest first."""

    def __init__(self) -> None:
        self.answers: OrderedDict[Key, Answer] = OrderedDict()
        self.size = 0

    def put(self, key: Key, answer: Answer) -> None:
        """Keep an answer."""
        self.answers[key] = answer
        self.size += answer.size

    def forget(self, key: Key) -> None:
        """Forget the answer to a key."""
        self.size -= self.answers.pop(key).size


class Idempotency:
    """The ASGI application between the bodies and the routes. On the event loop."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._kept: dict[str, Kept] = {}
        self._under_way: dict[tuple[str, Key], bytes] = {}
        """The hashes of the requests that the routes have not answered yet, by caller and key."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        keys = [value for name, value in scope["headers"] if name == HEADER] if BODY in scope else []
        if not keys:
            await self._app(scope, receive, send)
            return
        caller: str = scope[CALLER].name
        key: Key = (scope["method"], scope["path"], keys[0])
        request = hashlib.sha256(scope["query_string"] + b"\n" + scope[BODY]).digest()
        try:
            known = self._find(caller, key, request)
        except ShadowSwitchError as error:
            await refuse(error, scope[REQUEST_ID], send)
            return
        if known is not None:
            await send({"type": "http.response.start", "status": known.status, "headers": [*known.headers, REPLAYED]})
            await send({"type": "http.response.body", "body": known.body})
            return
        self._under_way[caller, key] = request
        try:
            await self._ask(caller, key, request, scope, receive, send)
        finally:
            del self._under_way[caller, key]

    def _find(self, caller: str, key: Key, request: bytes) -> Answer | None:
        """The answer to a key; None for a new key. Raises BadRequest, KeyReused, InvalidTransition."""
        if not _KEY.fullmatch(key[2]):
            raise BadRequest("Idempotency-Key must be 1 to 200 printable ASCII characters", hint="send a UUID")
        kept = self._kept.get(caller)
        found = kept.answers.get(key) if kept is not None else None
        if kept is not None and found is not None and found.at < time.monotonic() - KEPT_S:
            kept.forget(key)
            found = None
        first = found.request if found is not None else self._under_way.get((caller, key), request)
        if first != request:
            raise KeyReused("this Idempotency-Key belongs to another request", hint="use a new key")
        if (caller, key) in self._under_way:
            raise InvalidTransition(
                "the first request with this Idempotency-Key is still under way", hint="repeat the request in a moment"
            )
        return found

    def _keep(self, caller: str, key: Key, answer: Answer) -> None:
        """Keep an answer. Beyond a limit, the caller that keeps the largest part of it forgets its oldest answer."""
        self._kept.setdefault(caller, Kept()).put(key, answer)
        while sum(len(kept.answers) for kept in self._kept.values()) > ANSWERS_MAX:
            self._forget_one(max(self._kept, key=lambda name: len(self._kept[name].answers)))
        while sum(kept.size for kept in self._kept.values()) > SIZE_MAX_BYTES:
            self._forget_one(max(self._kept, key=lambda name: self._kept[name].size))

    def _forget_one(self, caller: str) -> None:
        kept = self._kept[caller]
        kept.forget(next(iter(kept.answers)))
        if not kept.answers:
            del self._kept[caller]

    async def _ask(self, caller: str, key: Key, request: bytes, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request to the routes, and keep their answer if it would be the same again."""
        status, headers, body = 0, [], b""

        async def keep(message: Any) -> None:
            nonlocal status, headers, body
            if message["type"] == "http.response.start":
                status, headers = message["status"], [tuple(one) for one in message["headers"]]
            else:
                body += message.get("body", b"")
                is_final = status in WRONG or (200 <= status < 300 and UNDONE not in scope)
                if not message.get("more_body") and is_final:
                    size = len(body) + len(key[1]) + sum(map(sum, (map(len, one) for one in headers))) + OVERHEAD_BYTES
                    self._keep(caller, key, Answer(request, time.monotonic(), status, headers, body, size))
            await send(message)

        await self._app(scope, receive, keep)
