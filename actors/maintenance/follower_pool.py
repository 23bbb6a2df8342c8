"""FollowerPool: the addresses of the Followers. FollowerPause: a switch keeps them from new work for a moment."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import deque
from collections.abc import Iterator

from shadowswitch.actors.kit.actor import Address
from shadowswitch.storage.clock import Clock

SWITCH_INTERVAL_S = 0.0005
"""During an attempt to switch, a busy Python thread keeps the GIL for half a millisecond instead of five. A drain gives
the GIL up a dozen times, and each time it would wait five milliseconds to get it back."""
WORK_ENDS_S = 1.0
"""The time that a switch waits for the work that Followers have begun."""
REST_S = 0.5
"""The longest rest. An attempt to switch takes a few milliseconds; on a stalled disk Followers do not wait for it."""


class _SwitchInterval:
    """The switch interval of the interpreter: one for all engines of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._attempts = 0
        self._ordinary_s = 0.0

    def shorten(self) -> None:
        """An attempt begins, of any engine."""
        with self._lock:
            self._attempts += 1
            if self._attempts == 1:
                self._ordinary_s = sys.getswitchinterval()
                sys.setswitchinterval(min(self._ordinary_s, SWITCH_INTERVAL_S))

    def restore(self) -> None:
        """An attempt has ended."""
        with self._lock:
            self._attempts -= 1
            if self._attempts == 0:
                sys.setswitchinterval(self._ordinary_s)


_INTERVAL = _SwitchInterval()


class FollowerPause:
    """While a switch is about to commit, Followers begin no new work: both would share the disk and the processor.

    Any thread.
    """

    def __init__(self, clock: Clock, followers: int) -> None:
        self._clock = clock
        self.at_work = [threading.Lock() for _ in range(followers)]
        """One lock for each Follower, which holds it while it works."""
        self._attempts = 0
        self._since = 0.0
        self._lock = threading.Lock()

    @property
    def is_on(self) -> bool:
        """Is a switch about to commit? Then no Follower forces to disk or compacts."""
        return self._attempts > 0

    @property
    def rests(self) -> bool:
        """Should Followers apply nothing? At most for `REST_S`: readers wait for the changes that they apply."""
        return self._attempts > 0 and self._clock.monotonic() < self._since + REST_S

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """For the attempt of a switch: waits up to `WORK_ENDS_S` for the work that Followers have begun."""
        with self._lock:
            self._attempts += 1
            if self._attempts == 1:
                self._since = self._clock.monotonic()
        _INTERVAL.shorten()
        try:
            until = self._clock.monotonic() + WORK_ENDS_S
            for at_work in self.at_work:
                if at_work.acquire(timeout=max(0.0, until - self._clock.monotonic())):
                    at_work.release()
            yield
        finally:
            _INTERVAL.restore()
            with self._lock:
                self._attempts -= 1


class FollowerPool:
    """The addresses of the Followers, and for each the branches with commits since its last tick."""

    def __init__(self, followers: int) -> None:
        self.addresses: list[Address] = []
        """Set once, when the Followers start."""
        self.written = [deque[int]() for _ in range(followers)]
        """The branches with new commits. The thread of the JournalWriter appends; each Follower takes from its own."""

    def of(self, generation_number: int) -> Address:
        """The Follower that keeps a generation up with the journal; always the same."""
        return self.addresses[generation_number % len(self.addresses)]

    def note_written(self, branches: dict[int, int]) -> None:
        """A transaction with changes of these branches is durable. On the thread of the JournalWriter."""
        for written in self.written:
            written.extend(branches)
