"""Attention: whether this process listened.

While it is stopped (SIGSTOP, a VM that is paused, a machine that sleeps), no heartbeat and no report can reach it, and
the monotonic clock may go on.

So silence in that time is no sign of death. A part that judges by silence calls `look` first, and grants after a pause
what a start of the engine grants: a lock one grace interval, an external build its whole time, a validation the time
that was missing.
"""

from __future__ import annotations

import threading

from shadowswitch.storage.clock import Clock

PAUSE_S = 5.0
"""The timers look once a second. After so long without a look the process did not run."""


class Attention:
    """One for each engine. Any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._looked_at = clock.monotonic()
        self._pauses = 0
        self._away_s = 0.0
        self.resumed_at = self._looked_at
        """When the last pause was found to have ended."""

    def look(self) -> int:
        """How many pauses there were, the one that ends now included. The first to look after a pause finds it."""
        with self._lock:
            now = self._clock.monotonic()
            passed_s, self._looked_at = now - self._looked_at, max(now, self._looked_at)
            if passed_s >= PAUSE_S:
                self._pauses += 1
                self._away_s += passed_s
                self.resumed_at = now
            return self._pauses

    def away_s(self) -> float:
        """How long all pauses were together."""
        self.look()
        return self._away_s
