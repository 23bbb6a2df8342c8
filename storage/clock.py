"""The clock of an engine: one object for every duration, deadline and stored time, so that a test can replace it.

Durations and deadlines use `monotonic`, stored ones too: see `Moment`. Times for people to read, stored or shown, use
`wall`.
"""

from __future__ import annotations

import time
import uuid
from typing import Annotated

import msgspec

from shadowswitch.storage import disk

_PROCESS = uuid.uuid4().hex
"""Names the monotonic clock where the system names no boot."""


class Moment(msgspec.Struct, array_like=True, frozen=True):
    """A moment of the monotonic clock as a row stores it. Setting the clock of the machine does not move it."""

    at: Annotated[float, msgspec.Meta(ge=0)]
    clock_id: str
    """Names the clock: the boot of the machine. Moments of different clocks cannot be compared."""


class Clock:
    """The clock of the operating system. Safe on any thread."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes backwards."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC. Jumps when an operator sets the clock."""
        return time.time()

    def boot(self) -> str:
        """The id of this boot of the machine, "" if the system names none."""
        return disk.boot_id()

    def moment(self, after_s: float = 0.0) -> Moment:
        """The moment in so many seconds, to be stored."""
        return Moment(self.monotonic() + after_s, self.boot() or _PROCESS)

    def seconds_until(self, moment: Moment) -> float | None:
        """Negative when it has passed; None for a moment of another boot."""
        return moment.at - self.monotonic() if moment.clock_id == (self.boot() or _PROCESS) else None

    def sleep(self, delay_s: float) -> None:
        """Block the calling thread."""
        time.sleep(delay_s)


SYSTEM = Clock()
"""The default clock, and the clock of functions outside an engine, such as those of the command line."""
