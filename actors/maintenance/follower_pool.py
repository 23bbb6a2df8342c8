"""The Followers of an engine, and the pause that a switch asks them for."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import deque
from collections.abc import Iterator

from shadowswitch.actors.kit.actor import Address
from shadowswitch.storage.clock import Clock

SWITCH_INTERVAL_S = 0.0005
"""While an index is switched a busy Python thread keeps the GIL for half a millisecond instead of five: a drain gives
it up a dozen times, and each time would wait that long to get it back."""
WORK_ENDS_S = 1.0
"""A switch waits that long for the work that followers have begun."""
REST_S = 0.5
"""An attempt to switch takes a few milliseconds; on a stalled disk followers do not wait for it."""


class FollowerPause:
    """Followers begin no new work while a switch is about to commit: both would share the disk and the processor."""

    def __init__(self, clock: Clock, followers: int) -> None:
        self._clock = clock
        self.at_work = [threading.Lock() for _ in range(followers)]
        """Each is held by its follower while that is at work."""
        self._attempts = 0
        self._since = 0.0
        self._lock = threading.Lock()
        self._interval_s = sys.getswitchinterval()

    @property
    def is_on(self) -> bool:
        """Is a switch about to commit? Then nothing forces to disk or compacts."""
        return self._attempts > 0

    @property
    def rests(self) -> bool:
        """Should followers apply nothing? Not for long: readers wait for what they apply."""
        return self._attempts > 0 and self._clock.monotonic() < self._since + REST_S

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """For the attempt of a switch; waits a while for the work that followers have begun."""
        with self._lock:
            self._attempts += 1
            self._since = self._clock.monotonic()
            if self._attempts == 1:
                self._interval_s = sys.getswitchinterval()
                sys.setswitchinterval(min(self._interval_s, SWITCH_INTERVAL_S))
        try:
            until = self._clock.monotonic() + WORK_ENDS_S
            for at_work in self.at_work:
                if at_work.acquire(timeout=max(0.0, until - self._clock.monotonic())):
                    at_work.release()
            yield
        finally:
            with self._lock:
                self._attempts -= 1
                if self._attempts == 0:
                    sys.setswitchinterval(self._interval_s)


class FollowerPool:
    """The addresses of the Followers, and which branches were written to since each looked last."""

    def __init__(self, followers: int) -> None:
        self.addresses: list[Address] = []
        """Set once, when the Followers start."""
        self.written = [deque[int]() for _ in range(followers)]
        """The branches with new commits; the JournalWriter's thread appends, each Follower takes from its own."""

    def of(self, generation_number: int) -> Address:
        """The Follower that keeps a generation up with the journal; always the same one."""
        return self.addresses[generation_number % len(self.addresses)]

    def note_written(self, branches: dict[int, int]) -> None:
        """A transaction with changes of these branches is durable. On the JournalWriter's thread."""
        for written in self.written:
            written.extend(branches)
