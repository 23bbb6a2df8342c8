"""The clock of an engine: one object for every duration, deadline and stored time, so that a test can replace it.

Durations and deadlines use `monotonic`. Times for people to read, stored or shown, use `wall`.
"""

from __future__ import annotations

import time


class Clock:
    """The clock of the operating system. Safe on any thread."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes backwards."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC. Jumps when an operator sets the clock."""
        return time.time()

    def sleep(self, delay_s: float) -> None:
        """Block the calling thread."""
        time.sleep(delay_s)


SYSTEM = Clock()
"""The default clock, and the clock of functions outside an engine, such as those of the command line."""
