"""When the locks of a branch have to be looked at although nobody asks: `LocksDue` is sent to its actor then."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from shadowswitch.actors.messages import LocksDue, NoteLocks
from shadowswitch.storage.catalog.rows import BranchRow

if TYPE_CHECKING:
    from shadowswitch.actors.house import House

AGAIN_S = 1.0
"""When to try again to store a step that could not be stored."""
EARLY_S = 0.001
"""By how much a timer may be early, if only by rounding; what is then not yet due is waited for anew."""
NOTE_S = 0.5
"""Heartbeats, progress and waiters need not survive a restart; they are written down so late, for `status` and `locks`
beside the host."""


class LockTimer:
    """The alarms of one branch. On its actor's thread."""

    def __init__(self, house: House, row: BranchRow, clock: Callable[[], float]) -> None:
        self._house = house
        self._row = row
        self._clock = clock
        self._armed: list[float] = []
        self._not_before = 0.0
        self._note_planned = False

    def arm(self, due: float | None) -> None:
        """Something is due then (None: nothing is)."""
        if due is not None:
            self._arm_at(max(due, self._not_before))

    def again(self) -> None:
        """What was due could not be stored; not to be tried again at once, the disk may be full for hours."""
        self._not_before = self._clock() + AGAIN_S
        self._arm_at(self._not_before)

    def rang(self) -> None:
        """`LocksDue` came: forget what was armed for now."""
        soon = self._clock() + EARLY_S
        while self._armed and self._armed[0] <= soon:
            heapq.heappop(self._armed)

    def _arm_at(self, when: float) -> None:
        """Have `LocksDue` sent then, unless one comes before: each would send the next, and they never became fewer."""
        if not self._armed or when < self._armed[0]:
            heapq.heappush(self._armed, when)
            delay_s = max(0.0, when - self._clock())
            self._house.timers.after(delay_s, partial(self._house.router.tell_soon, self._row, LocksDue()))

    def plan_note(self) -> None:
        """Something changed that nobody needs to find after a restart: have `NoteLocks` sent soon."""
        if not self._note_planned:
            self._note_planned = True
            self._house.timers.after(NOTE_S, partial(self._house.router.tell_soon, self._row, NoteLocks()))

    def noted(self) -> None:
        """`NoteLocks` came."""
        self._note_planned = False
