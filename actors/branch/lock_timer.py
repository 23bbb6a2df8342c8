"""The LockTimer: sends `LocksDue` to a BranchActor when a lock or a waiter of the branch reaches its time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial

import msgspec

from shadowswitch.actors.kit.timers import Timers
from shadowswitch.storage.clock import Clock

AGAIN_S = 1.0
"""The pause before a step that could not be stored is tried again."""
EARLY_S = 0.001
"""A timer may be early by this much, if only by rounding. Work that is not yet due then is armed again."""
NOTE_S = 0.5
"""Heartbeats, progress and waiters need not survive a restart. They are stored with this delay, for the commands
`status` and `locks`, which read the catalog beside the host."""


class LocksDue(msgspec.Struct, frozen=True):
    """From the timers to a BranchActor: a lock or a waiter has reached its time."""


class NoteLocks(msgspec.Struct, frozen=True):
    """From the timers to a BranchActor: store the waiters and the heartbeats, for readers of the catalog."""


class LockTimer:
    """The alarms of one branch. On the thread of its BranchActor; during `LockRegistry.load` before any actor runs."""

    def __init__(self, timers: Timers, clock: Clock, send: Callable[[LocksDue | NoteLocks], None]) -> None:
        """`send` takes a message to the BranchActor. It is called on the thread of the timers."""
        self._timers = timers
        self._clock = clock
        self._send = send
        self._armed: list[float] = []
        self._not_before = 0.0
        self._note_planned = False

    def arm(self, due: float | None) -> None:
        """Have `LocksDue` sent at that time (None: nothing is due)."""
        if due is not None:
            self._arm_at(max(due, self._not_before))

    def again(self) -> None:
        """A due step could not be stored. The next try has a pause before it: the disk may be full for hours."""
        self._not_before = self._clock.monotonic() + AGAIN_S
        self._arm_at(self._not_before)

    def rang(self) -> None:
        """`LocksDue` came: forget the alarms up to now."""
        soon = self._clock.monotonic() + EARLY_S
        while self._armed and self._armed[0] <= soon:
            heapq.heappop(self._armed)

    def _arm_at(self, when: float) -> None:
        """Have `LocksDue` sent, unless an earlier one is armed: each arms the next, and would never end."""
        if not self._armed or when < self._armed[0]:
            heapq.heappush(self._armed, when)
            delay_s = max(0.0, when - self._clock.monotonic())
            self._timers.after(delay_s, partial(self._send, LocksDue()))

    def plan_note(self) -> None:
        """The table changed in a way that need not survive a restart: have `NoteLocks` sent soon."""
        if not self._note_planned:
            self._note_planned = True
            self._timers.after(NOTE_S, partial(self._send, NoteLocks()))

    def noted(self) -> None:
        """`NoteLocks` came."""
        self._note_planned = False
