"""The clocks of a host, moved from outside while it runs: two offsets in a file that the host maps.

    bytes 0 to 7     by how many seconds the wall clock is ahead; may be below zero
    bytes 8 to 15    by how many seconds the monotonic clock is ahead; only grows

The file outlives the host: the next host of the same directory has the same clocks, so no monotonic clock goes back.
What moves is what the product reads. A thread that sleeps wakes when the real time is over.
"""

from __future__ import annotations

import mmap
import time
from pathlib import Path

import pytest

from tests.support import inside

_BYTES = 16
_WALL, _MONOTONIC = 0, 1


class Clocks:
    """The offsets of one data directory. Any process."""

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            if file.seek(0, 2) < _BYTES:
                file.truncate(_BYTES)
            self._ahead_s = memoryview(mmap.mmap(file.fileno(), _BYTES)).cast("d")

    def set_wall(self, ahead_s: float) -> None:
        """Set the wall clock to so many seconds ahead of the real one."""
        self._ahead_s[_WALL] = ahead_s

    def suspend(self, for_s: float) -> None:
        """Move the monotonic clock forward."""
        assert for_s >= 0, "a monotonic clock never goes back"
        self._ahead_s[_MONOTONIC] += for_s

    def take_over(self, patch: pytest.MonkeyPatch) -> None:
        """From now on the product of this process reads these clocks."""
        wall, monotonic = time.time, time.monotonic
        inside.replace(patch, inside.Step.WALL_CLOCK, lambda clock: wall() + self._ahead_s[_WALL])
        inside.replace(patch, inside.Step.MONOTONIC_CLOCK, lambda clock: monotonic() + self._ahead_s[_MONOTONIC])
