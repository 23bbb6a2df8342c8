"""Wakes the streams when there are new events. What they send they read from the durable log, each from its own place,
so a stream that is slow or was away misses nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import EngineClosed
from shadowswitch.model.views import Event


def _nothing() -> None:
    return None


class Hub:
    """One subscription for all streams. Methods without a word on threads are for the event loop's."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Event] = set()
        self._leave: Callable[[], None] = _nothing
        self.closed = False
        self.streams = 0

    def open(self) -> None:
        """Begin to listen."""
        self._loop = asyncio.get_running_loop()
        self._leave = self._engine.subscribe(self._heard)

    def close(self) -> None:
        """Let every stream end. Idempotent."""
        self.closed = True
        self._leave()
        self._wake()

    def _heard(self, event: Event) -> None:
        """On the dispatcher's thread; never raises and never waits."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has closed
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for event in self._waiting:
            event.set()

    async def wait(self, woken: asyncio.Event, timeout_s: float) -> None:
        """Return when something new may be there, or after `timeout_s`. `woken` belongs to one stream."""
        if self.closed:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await woken.wait()
        woken.clear()

    @contextlib.contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """For as long as a stream runs: what wakes it. Enter it before the first look at the log."""
        woken = asyncio.Event()
        self._waiting.add(woken)
        self.streams += 1
        try:
            yield woken
        finally:
            self._waiting.discard(woken)
            self.streams -= 1

    def newest(self) -> int:
        """The sequence number of the newest event; any thread. Raises EngineClosed."""
        if self.closed:
            raise EngineClosed("the server stops", hint="connect again")
        return self._engine.event_span()[1]
