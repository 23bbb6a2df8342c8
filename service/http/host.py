"""What the routes share: the engine, its options, who listens to events. One for each server."""

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
    """More is asked than is answered; nothing was done."""

    recoverable = True


class Options(msgspec.Struct, frozen=True):
    """How to serve. Sizes are bytes, times seconds."""

    host: str = "127.0.0.1"
    port: int = 8740
    """0: any free one."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names under which the server may be addressed; "*" is any."""
    threads: Count = 32
    """Calls of the engine that are under way at once."""
    long_calls_max: Count = 12
    """How many of them may be such as take long: switches, rollbacks, waiting for a lock."""
    queue_max: Count = 1000
    """Requests that wait for a thread; more are answered with 503."""
    streams_max: Count = 200
    backends: tuple[str, ...] = ()
    """Backends of your own (`module:attribute`) that a client may name; any other module is never imported for one."""
    body_max_bytes: Count = 16 << 20
    rate_per_s: float = 2000.0
    """Requests of one token (or address) per second, on average; bursts of as many are fine."""
    failures_per_min: float = 60.0
    """Refused tokens of one address per minute before its requests are answered with 429."""
    stop_s: float = 2.0
    """How long requests that are under way may take after a stop was asked for."""
    log_requests: bool = True

    @property
    def public(self) -> bool:
        """Whether others than this machine can reach it."""
        return self.host not in LOOPBACK

    def check(self, access: Access) -> None:
        """Raise InvalidConfig for what must not be served."""
        if self.public and access.open:
            raise InvalidConfig(
                f"{self.host} can be reached from other machines and there is no token",
                hint="give --token-file (shadowswitch token makes an entry), or listen on 127.0.0.1",
            )
        if not 0 <= self.port <= 65535:
            raise InvalidConfig(f"{self.port} is no port", hint="0 to 65535; 0 is any free one")


class Host:
    """The engine that is served, and how."""

    def __init__(self, engine: Engine, access: Access, options: Options) -> None:
        self.engine = engine
        self.access = access
        self.options = options
        self.hub = Hub(engine)
        self.started = time.time()
        self.draining = threading.Event()
        """Set when a stop was asked for: no request is admitted any more."""
        self.in_flight = 0
        self.upkeep: Callable[[], UpkeepStatus] = lambda: NOTHING
        """What is kept going beside the API: known once the server answers."""
        self._long = threading.BoundedSemaphore(options.long_calls_max)

    @contextlib.contextmanager
    def long_call(self) -> Iterator[None]:
        """Around a call that may take long, so that such calls never hold every thread. Raises Overloaded at once."""
        if not self._long.acquire(blocking=False):
            raise Overloaded("too many long calls are under way", hint="try again when one of them has ended")
        try:
            yield
        finally:
            self._long.release()


def upkeep_of(host: Host, caller: Caller) -> UpkeepStatus:
    """What a caller may see of it."""
    found = host.upkeep()
    return found if "*" in caller.branches else found.of_branches(caller.reaches)
