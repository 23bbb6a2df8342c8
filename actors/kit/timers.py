"""One thread that calls functions later. Actors have no clock of their own: a timer sends them a message."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Callable

from shadowswitch.actors.kit.service_thread import ServiceThread
from shadowswitch.storage.clock import Clock

logger = logging.getLogger("shadowswitch")

JOIN_S = 2.0


class Timers(ServiceThread):
    """Calls functions after a delay, on its own thread. A function must be quick: it sends a message. Any thread."""

    def __init__(self, clock: Clock) -> None:
        super().__init__("timers")
        self._clock = clock
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._wake = threading.Condition()
        self._closed = False
        self.start()

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call once, `delay_s` seconds from now."""
        with self._wake:
            entry = (self._clock.monotonic() + delay_s, next(self._order), call)
            heapq.heappush(self._heap, entry)
            if self._heap[0] is entry:
                self._wake.notify()

    def every(self, period_s: float, call: Callable[[], None]) -> None:
        """Call again and again, with `period_s` seconds between, until closed."""

        def again() -> None:
            if not self._closed:
                self.after(period_s, again)
                call()

        self.after(period_s, again)

    def close(self) -> None:
        """Drop every planned call and end the thread. Idempotent."""
        with self._wake:
            self._closed = True
            self._heap.clear()
            self._wake.notify()
        self.join(JOIN_S)

    def run(self) -> None:
        """Wait for the next call, make it; an exception of a call is logged."""
        while True:
            with self._wake:
                while not self._closed and (not self._heap or self._heap[0][0] > self._clock.monotonic()):
                    self._wake.wait(self._heap[0][0] - self._clock.monotonic() if self._heap else None)
                if self._closed:
                    return
                _, _, call = heapq.heappop(self._heap)
            try:
                call()
            except Exception:
                logger.exception("a timer failed")
