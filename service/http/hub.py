"""Wakes the event streams. Each stream reads the durable log from its own place, so a slow stream misses nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import EngineClosed
from shadowswitch.model.views import Event


class Hub:
    """One subscription for all streams. A method runs on the event loop unless its docstring names a thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Event] = set()
        self._leave: Callable[[], object] = lambda: None
        self.closed = False

    def open(self) -> None:
        """Subscribe to the engine."""
        self._loop = asyncio.get_running_loop()
        self._leave = self._engine.subscribe(self._on_event)

    def close(self) -> None:
        """End every stream. Idempotent."""
        self.closed = True
        self._leave()
        self.wake()

    def _on_event(self, event: Event) -> None:
        """On the thread of the dispatcher; never raises and never waits."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has closed
                self._loop.call_soon_threadsafe(self.wake)

    def wake(self) -> None:
        """Let every stream look for new events, and at its token."""
        for event in self._waiting:
            event.set()

    async def wait(self, woken: asyncio.Event, timeout_s: float) -> None:
        """Return when there may be new events, or after `timeout_s`. `woken` belongs to one stream."""
        if self.closed:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await woken.wait()
        woken.clear()

    @contextlib.contextmanager
    def subscription(self) -> Iterator[asyncio.Event]:
        """The event that wakes a stream while it runs. Enter it before the first read of the log."""
        woken = asyncio.Event()
        self._waiting.add(woken)
        try:
            yield woken
        finally:
            self._waiting.discard(woken)

    def newest(self) -> int:
        """The sequence number of the newest event; any thread. Raises EngineClosed."""
        if self.closed:
            raise EngineClosed("the server stops", hint="connect again")
        return self._engine.event_span()[1]
