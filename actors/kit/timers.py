"""One thread that sends messages later. Actors have no clock of their own."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger("shadowswitch")


class Timers:
    """Calls functions after a delay, on its own thread; the functions must be quick (send a message)."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="shadowswitch-timers", daemon=True)
        self._thread.start()

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call once, `delay_s` seconds from now."""
        with self._wake:
            entry = (time.monotonic() + delay_s, next(self._order), call)
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
        """Forget everything that was planned. Idempotent."""
        with self._wake:
            self._closed = True
            self._heap.clear()
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=2)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._closed and (not self._heap or self._heap[0][0] > time.monotonic()):
                    self._wake.wait(self._heap[0][0] - time.monotonic() if self._heap else None)
                if self._closed:
                    return
                _, _, call = heapq.heappop(self._heap)
            try:
                call()
            except Exception:
                logger.exception("a timer failed")
