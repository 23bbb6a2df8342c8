"""Room for changes that were admitted and are not committed yet: bounded, first come first served. And turns by key.

Without the order a large batch would wait for ever behind a stream of small ones, and of many equal writers some would
run into their timeouts although the queue moves.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator

from shadowswitch.model.errors import Timeout


class Room:
    """Counts changes between admission and commit. Any thread."""

    def __init__(self) -> None:
        self.queued = 0
        """Changes that wait to be committed."""
        self._line: deque[object] = deque()
        self._moved = threading.Condition()

    def take(self, changes: int, most: int, deadline: float) -> None:
        """Wait for one's turn and for room; a batch larger than `most` waits until there is nothing else.

        Raises Timeout at the (monotonic) deadline.
        """
        ticket = object()
        with self._moved:
            self._line.append(ticket)
            try:
                while self._line[0] is not ticket or (self.queued and self.queued + changes > most):
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise Timeout(
                            f"{self.queued} changes are waiting to be committed; nothing of this batch was written",
                            operation="write",
                            hint="write more slowly, or raise timeout_s",
                        )
                    self._moved.wait(left)
                self.queued += changes
            finally:
                self._line.remove(ticket)
                if self._line:
                    self._moved.notify_all()

    def give(self, changes: int) -> None:
        """The batch was committed, or will not be."""
        with self._moved:
            self.queued -= changes
            if self._line:
                self._moved.notify_all()


class Turns:
    """One caller at a time for each key; the next one waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: dict[bytes, tuple[threading.Lock, int]] = {}

    @contextlib.contextmanager
    def of(self, key: bytes) -> Iterator[None]:
        """Wait for the turn of this key, and have it."""
        with self._lock:
            turn, waiting = self._turns.get(key, (threading.Lock(), 0))
            self._turns[key] = (turn, waiting + 1)
        try:
            with turn:
                yield
        finally:
            with self._lock:
                turn, waiting = self._turns[key]
                if waiting == 1:
                    del self._turns[key]
                else:
                    self._turns[key] = (turn, waiting - 1)
