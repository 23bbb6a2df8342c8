"""The queue of changes between admission and commit: bounded, and shared by branches. And locks by key.

First come, first served: without the order a large batch would wait for ever behind a stream of small ones, and of many
equal writers some would run into their timeouts although the queue moves. Without the shares one branch that stands
still would take the room of all. So no branch gets more than half of the room, and a batch that waits for the share of
its own branch is passed by batches of other branches.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from shadowswitch.model.errors import Timeout
from shadowswitch.storage.clock import Clock

SHARE = 0.5
"""The largest part of the room that one branch gets."""


class _Ticket(NamedTuple):
    order: object
    branch: int
    changes: int


class AdmissionQueue:
    """Counts changes between admission and commit. Any thread."""

    def __init__(self, clock: Clock) -> None:
        self.queued = 0
        """The changes that wait for their commit."""
        self._clock = clock
        self._of_branch: dict[int, int] = {}
        self._line: deque[_Ticket] = deque()
        self._moved = threading.Condition()

    def take(self, branch: int, changes: int, most: int, deadline: float) -> None:
        """Wait for the turn of a batch and for room; a batch larger than the room waits until the queue is empty.

        Raises Timeout at the (monotonic) deadline.
        """
        with self._moved:
            if self._line or self._over_share(branch, changes, most) or self._over_room(changes, most):
                self._wait_in_line(_Ticket(object(), branch, changes), most, deadline)
            self.queued += changes
            self._of_branch[branch] = self._of_branch.get(branch, 0) + changes

    def _wait_in_line(self, ticket: _Ticket, most: int, deadline: float) -> None:
        """Wait for the turn of a ticket. Called with `_moved` held. Raises Timeout."""
        self._line.append(ticket)
        try:
            while self._next(most) is not ticket:
                left = deadline - self._clock.monotonic()
                if left <= 0:
                    raise Timeout(
                        f"{self.queued} changes are waiting to be committed, {self._of_branch.get(ticket.branch, 0)} of"
                        " this branch; nothing of this batch was written",
                        operation="write",
                        hint="write more slowly, or raise timeout_s",
                    )
                self._moved.wait(left)
        finally:
            self._line.remove(ticket)
            if self._line:
                self._moved.notify_all()

    def _next(self, most: int) -> _Ticket | None:
        """The ticket whose turn it is: the first with room in the share of its branch, if there is room at all."""
        full: set[int] = set()
        for ticket in self._line:
            if ticket.branch in full or self._over_share(ticket.branch, ticket.changes, most):
                full.add(ticket.branch)
            elif self._over_room(ticket.changes, most):
                return None
            else:
                return ticket
        return None

    def _over_share(self, branch: int, changes: int, most: int) -> bool:
        mine = self._of_branch.get(branch, 0)
        return mine > 0 and mine + changes > most * SHARE

    def _over_room(self, changes: int, most: int) -> bool:
        return self.queued > 0 and self.queued + changes > most

    def give(self, branch: int, changes: int) -> None:
        """The batch was committed, or will not be."""
        with self._moved:
            self.queued -= changes
            left = self._of_branch[branch] - changes
            if left:
                self._of_branch[branch] = left
            else:
                del self._of_branch[branch]
            if self._line:
                self._moved.notify_all()


class KeyedLocks:
    """One caller at a time for each key; the next one waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[bytes, tuple[threading.Lock, int]] = {}

    @contextlib.contextmanager
    def of(self, key: bytes) -> Iterator[None]:
        """Hold the lock of this key."""
        with self._lock:
            lock, callers = self._locks.get(key, (threading.Lock(), 0))
            self._locks[key] = (lock, callers + 1)
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, callers = self._locks[key]
                if callers == 1:
                    del self._locks[key]
                else:
                    self._locks[key] = (lock, callers - 1)
