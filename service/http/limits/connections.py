"""Connections: each address has a share of them, and the header of a request has a time and a size limit.

A connection waits while it is idle, or while its next bytes are up to the client: the rest of a header or of a body. If
an address has more than its share, or all addresses together have too many, the connection that waits longest is closed
for the newest one. So connections that send nothing lock no client out.
"""

from __future__ import annotations

import asyncio
import ipaddress
import sys
from typing import Any

import h11
import msgspec
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from shadowswitch.service.http.problems import MEDIA_TYPE, plain_problem

SPARE = 64
"""Connections beyond a limit that are answered with a refusal; more are closed unanswered."""
WAITS_FOR_CLIENT = "shadowswitch.waits_for_client"
"""In the scope of a request: the server waits for bytes of the client, or reads the rest of a refused body."""


def client_of(address: str) -> str:
    """The client behind an address, for counting: a network of 64 bits for IPv6, where each client has a whole one."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:  # of an IPv4 client, at a socket for both
        return str(ip.ipv4_mapped)
    return str(ipaddress.IPv6Network((ip, 64), strict=False))


class Connections:
    """The open connections by address. On the event loop."""

    def __init__(self, total: int, header_s: float) -> None:
        self.total = total
        self.header_s = header_s
        self.each = max(1, total // 2)
        """The share of one address. A proxy is one address."""
        self._by_address: dict[str, dict[Connection, None]] = {}

    def crowded(self, address: str) -> bool:
        """Whether an address has more than its share, and none of its connections could be closed for it."""
        return len(self._by_address.get(address, ())) > self.each

    def add(self, one: Connection) -> None:
        """Count a connection. Beyond a limit, close the one that waits longest, else refuse the new one."""
        its = self._by_address.setdefault(one.address, {})
        its[one] = None
        count = sum(map(len, self._by_address.values()))
        if len(its) > self.each:
            self._make_room(its, one, len(its) > self.each + SPARE)
        elif count >= self.total:
            most = max(self._by_address.values(), key=len)
            self._make_room(most, one, count > self.total + SPARE)

    def remove(self, one: Connection) -> None:
        """Forget a connection."""
        its = self._by_address.get(one.address, {})
        its.pop(one, None)
        if not its:
            self._by_address.pop(one.address, None)

    def _make_room(self, among: dict[Connection, None], newest: Connection, full: bool) -> None:
        waiting = [one for one in among if one is not newest and one.waits]
        if waiting:
            oldest = min(waiting, key=lambda one: one.heard_at)
            self.remove(oldest)
            oldest.transport.abort()
        elif full:
            newest.transport.abort()


class Connection(H11Protocol):
    """uvicorn's connection with a time limit for headers, and problems as answers."""

    def __init__(self, *given: Any, connections: Connections, **more: Any) -> None:
        super().__init__(*given, **more)
        self._bounds = connections
        self._timer: asyncio.TimerHandle | None = None
        self.heard_at = 0.0
        """The moment of the last byte."""

    @property
    def address(self) -> str:
        """The client, by its address."""
        return client_of(self.client[0]) if self.client else ""

    @property
    def waits(self) -> bool:
        """Whether the next step is up to the client."""
        return self._idle or bool(self.scope and self.scope.get(WAITS_FOR_CLIENT))

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self.heard_at = self.loop.time()
        self._bounds.add(self)
        self._limit_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._bounds.remove(self)
        self._end_limit()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        self.heard_at = self.loop.time()
        super().data_received(data)
        if self._idle:
            self._limit_header()
        else:
            self._end_limit()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no request of HTTP, called where the error of the parser is handled: 431 or 400."""
        status = getattr(sys.exc_info()[1], "error_status_hint", 400)
        if status == 431:
            problem = plain_problem(
                431, "the header of the request is too long", "send less in headers and in the query"
            )
        else:
            status, problem = 400, plain_problem(400, "this is no request of HTTP/1.1", "GET /schema has the requests")
        content = msgspec.json.encode(problem)
        headers = [("content-type", MEDIA_TYPE), ("content-length", str(len(content))), ("connection", "close")]
        answer: list[h11.Event] = [
            h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status]),
            h11.Data(data=content),
            h11.EndOfMessage(),
        ]
        for event in answer:
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _limit_header(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self._bounds.header_s, self._give_up)

    def _end_limit(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self._idle:
            self.transport.abort()
