"""The state that all routes of a server share: the engine, the options, the event hub, the daemon."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Annotated

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import InvalidConfig, ShadowSwitchError
from shadowswitch.service.daemon.daemon import NOTHING, UpkeepStatus
from shadowswitch.service.http.access import Access, Caller
from shadowswitch.service.http.hub import Hub

Count = Annotated[int, msgspec.Meta(ge=1)]
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Overloaded(ShadowSwitchError):
    """The server has no room for the request; nothing was done."""

    recoverable = True


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
    """Of these, long calls at once: switches, rollbacks, waits for a lock."""
    queue_max: Count = 1000
    """Requests that wait for a thread; one more is answered with 503."""
    streams_max: Count = 200
    backends: tuple[str, ...] = ()
    """Backends (`module:attribute`) that a client may name. No other module is imported for a client."""
    body_max_bytes: Count = 16 << 20
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


class Host:
    """The engine of a server and its surroundings."""

    def __init__(self, engine: Engine, access: Access, options: Options) -> None:
        self.engine = engine
        self.access = access
        self.options = options
        self.hub = Hub(engine)
        self.started = time.time()
        self.draining = threading.Event()
        """Set once a stop was requested: the middleware admits no more requests."""
        self.in_flight = 0
        self.daemon_status: Callable[[], UpkeepStatus] = lambda: NOTHING
        """The status of the daemon beside the API; set once the daemon has started."""
        self._long = threading.BoundedSemaphore(options.long_calls_max)

    @contextlib.contextmanager
    def long_call(self) -> Iterator[None]:
        """Around a long call, so that long calls never hold every thread. Raises Overloaded at once."""
        if not self._long.acquire(blocking=False):
            raise Overloaded(
                "too many long calls are under way",
                hint="try again when one of them has ended",
            )
        try:
            yield
        finally:
            self._long.release()

    def daemon_status_for(self, caller: Caller) -> UpkeepStatus:
        """The part of the daemon's status that a caller may see."""
        found = self.daemon_status()
        return found if "*" in caller.branches else found.of_branches(caller.reaches)
