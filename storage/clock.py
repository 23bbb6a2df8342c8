"""The clock of an engine: one object, handed to everything that measures, waits or stamps. A test replaces it.

Durations and deadlines use `monotonic`; only what people read, and what is stored for them, uses `wall`.
"""

from __future__ import annotations

import time


class Clock:
    """The clock of the operating system. Safe on any thread."""

    def monotonic(self) -> float:
        """Seconds since a moment of no meaning; never goes back."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC. Jumps when an operator sets the clock."""
        return time.time()

    def sleep(self, delay_s: float) -> None:
        """Block the calling thread."""
        time.sleep(delay_s)


SYSTEM = Clock()
"""The clock of functions that run outside an engine, such as the command line's."""
