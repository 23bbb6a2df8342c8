"""Does a replay get nearer to its writers, round by round?

A round takes the replay to where the head was when the round began; what came meanwhile is the next one. It gained if
it was shorter than every round before. While writers are faster than the replay each round takes longer than the one
before, and no verdict would ever come. So a round that is under way is looked at too, but never by its backlog, which
says nothing after a burst: what counts is whether in a whole second of it no less came than was done.
"""

from __future__ import annotations

from typing import NamedTuple

PART_S = 1.0
"""After so long a part of a round is judged: long enough for many batches of any writer and slices of the replay."""


class Place(NamedTuple):
    """Where writers and replay were at a moment."""

    at: float
    head: int
    applied: int


class Rounds:
    """The rounds of one replay. The clock is handed in."""

    def __init__(self, begin: Place) -> None:
        self.without_gain = 0
        """Rounds, and parts of rounds, since the last round that gained."""
        self._least = 1 << 62
        self._gained = self._part = begin

    def ended(self, place: Place, changes: int) -> None:
        """A whole round is done, which had so many changes."""
        gained = changes < self._least
        self._least = min(changes, self._least)
        self.without_gain = 0 if gained else self.without_gain + 1
        self._part = place
        if gained:
            self._gained = place

    def on_the_way(self, place: Place) -> bool:
        """In the midst of a round. True if another part of it has shown that the next one will be no shorter."""
        if place.at - self._part.at < PART_S:
            return False
        came, done = place.head - self._part.head, place.applied - self._part.applied
        self._part = place
        if came == 0 or came < done:
            return False
        self.without_gain += 1
        return True

    def rates(self, place: Place) -> tuple[float, float]:
        """Changes a second that came in, and that were replayed, since the last gain."""
        seconds = max(1e-9, place.at - self._gained.at)
        return (place.head - self._gained.head) / seconds, (place.applied - self._gained.applied) / seconds
