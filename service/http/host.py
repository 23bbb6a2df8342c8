"""The state that all routes of a server share: the engine, the options, the event hub, the daemon."""

from __future__ import annotations

import asyncio
import resource
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import InvalidConfig
from shadowswitch.service.daemon.daemon import NOTHING, UpkeepStatus
from shadowswitch.service.http.access import Access, Caller, now
from shadowswitch.service.http.hub import Hub
from shadowswitch.service.http.limits.connections import Connections
from shadowswitch.service.http.limits.shares import Shares
from shadowswitch.service.http.limits.turns import Turns
from shadowswitch.service.http.token_source import TokenSource

Count = Annotated[int, msgspec.Meta(ge=1)]
HEADER_BYTES_MAX = 64 << 10
CONNECTIONS_MAX = 4000
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Options(msgspec.Struct, frozen=True):
    """How to serve. Sizes are bytes, times seconds."""

    host: str = "127.0.0.1"
    port: int = 8740
    """0: any free one."""
    allowed_hosts: tuple[str, ...] = ()
    """More names of the server, for the Host header; "*" is any."""
    threads: Count = 32
    """Calls of the engine at once."""
    long_calls_max: Count = 12
    """Of these, long calls at once: switches, rollbacks, waits for a lock. One token has at most three quarters."""
    searches_max: Count = 8
    """Of the threads, searches at once; others wait, without a thread. One token has at most three quarters."""
    queue_max: Count = 1000
    """Requests that wait for a thread; one more is answered with 503."""
    streams_max: Count = 200
    """Open event streams. One token has at most a quarter of them."""
    backends: tuple[str, ...] = ()
    """Backends and embedders (`module:attribute`) that a client may name. No other module is imported for a client."""
    body_max_bytes: Count = 16 << 20
    header_s: float = 30.0
    """The time for the header of a request, from the connection or from its first byte."""
    body_s: float = 30.0
    """The time for the body of a request, and one second more for each MiB that has come."""
    rate_per_s: float = 2000.0
    """Requests of one token (or address) per second, on average; a burst may be as large."""
    failures_per_min: float = 60.0
    """Refused tokens of one address per minute; the next one is answered with 429."""
    stop_s: float = 2.0
    """The time that requests under way have after a stop was requested."""
    log_requests: bool = True

    @property
    def public(self) -> bool:
        """Whether other machines can reach the server."""
        return self.host not in LOOPBACK

    def check(self, access: Access) -> None:
        """Raise InvalidConfig for options with which no server may start."""
        if self.public and access.open:
            raise InvalidConfig(
                f"{self.host} can be reached from other machines and there is no token",
                hint="give --token-file (shadowswitch token makes an entry), or listen on 127.0.0.1",
            )
        if not 0 <= self.port <= 65535:
            raise InvalidConfig(f"{self.port} is no port", hint="0 to 65535; 0 is any free one")


def connections_max() -> int:
    """The limit of connections at once: the engine needs file descriptors as well."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS_MAX if soft == resource.RLIM_INFINITY else min(CONNECTIONS_MAX, soft // 2)


class Host:
    """The engine of a server and its surroundings."""

    def __init__(self, engine: Engine, access: Access, options: Options, tokens: TokenSource | None = None) -> None:
        self.engine = engine
        self._access = access
        self._tokens = tokens
        self.options = options
        self.hub = Hub(engine)
        self.started = time.time()
        self._started = time.monotonic()
        self.draining = threading.Event()
        """Set once a stop was requested: the middleware admits no more requests."""
        self.connections = Connections(connections_max(), options.header_s)
        self.in_flight = 0
        self.reading = 0
        """The requests in flight whose body has not come yet."""
        self.streams = Shares("event streams", options.streams_max, max(1, options.streams_max // 4))
        self.daemon_status: Callable[[], UpkeepStatus] = lambda: NOTHING
        """The status of the daemon beside the API; set once the daemon has started."""
        searches = options.searches_max
        self.searches = Turns("searches", searches, max(1, searches * 3 // 4), max(1, options.queue_max // 4))
        self._long = Shares("long calls", options.long_calls_max, max(1, options.long_calls_max * 3 // 4))

    @property
    def access(self) -> Access:
        """The tokens that are known now."""
        return self._tokens.access if self._tokens is not None else self._access

    async def follow_tokens(self) -> None:
        """Read the token file again if it has changed."""
        if self._tokens is not None and self._tokens.changed():
            await asyncio.to_thread(self._tokens.reload)

    def admits(self, caller: Caller) -> bool:
        """Whether the token of a caller is still known, as it was, and has not expired. Any thread."""
        return self.access.admits(caller, now())

    def uptime_s(self) -> float:
        """Seconds since the start, whatever was done to the wall clock."""
        return time.monotonic() - self._started

    def long_call(self, caller: Caller) -> AbstractContextManager[None]:
        """Around a long call, so that long calls never hold every thread. Raises Overloaded at once."""
        return self._long.place(self.share_of(caller))

    def share_of(self, caller: Caller) -> str:
        """The name under which the share of a caller is counted; "" if the caller may take all places."""
        return "" if caller.trusted else caller.name

    def daemon_status_for(self, caller: Caller) -> UpkeepStatus:
        """The part of the daemon's status that a caller may see."""
        found = self.daemon_status()
        return found if "*" in caller.branches else found.of_branches(caller.reaches)
