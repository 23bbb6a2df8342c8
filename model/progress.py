"""How far a build is, how long it will take, and whether its replay gains on the writers.

Percent and ETA (`ProgressMeter`). The work left is rows to copy at the measured row rate, changes to replay at the
measured change rate less the rate of new changes, and the validation at the rate of the last one. Percent is time spent
over time spent plus time left, so it moves evenly through all phases. Neither percent nor ETA goes backwards: when the
work turns out longer than estimated, both stand still until the measurement reaches them again.

Convergence (`Rounds`). A round replays up to the head as it was when the round began; changes written meanwhile are the
next round. A round gains if it was shorter than every round before. While writers are faster than the replay, each
round takes longer than the one before, and the end of a round alone would never bring a verdict. So a round under way
is judged as well, part by part. The backlog does not count: it says nothing after a burst. A part gains nothing if in a
whole second at least as many changes arrived as were replayed.
"""

from __future__ import annotations

from typing import NamedTuple

VALIDATION_ROWS_PER_S = 200_000.0
"""The assumed rate of a validation."""
CONVERGENCE_MIN = 1.0


class ProgressMeter:
    """Percent and ETA of one build. Pure: elapsed times are arguments."""

    def __init__(self, percent: float = 0.0) -> None:
        self.percent = percent
        self.eta_s: float | None = None

    def update(
        self,
        elapsed_s: float,
        rows_total: int,
        rows_done: int,
        row_rate: float,
        residual_changes: int,
        change_rate: float,
        write_rate: float,
        validation_left: float = 1.0,
    ) -> None:
        """Add a measurement. `validation_left` is the share of the validation still to do, 1 to 0."""
        rows_left = max(0, rows_total - rows_done)
        if rows_left and row_rate <= 0:
            return
        copy_s = rows_left / row_rate if rows_left else 0.0
        surplus = max(CONVERGENCE_MIN, change_rate - write_rate) if change_rate > 0 else 20_000.0
        catchup_s = (residual_changes + write_rate * copy_s) / surplus
        validation_s = validation_left * rows_total / VALIDATION_ROWS_PER_S
        left_s = copy_s + catchup_s + validation_s
        share = elapsed_s / (elapsed_s + left_s) if elapsed_s + left_s > 0 else 0.0
        self.percent = max(self.percent, min(99.9, 100.0 * share))
        self.eta_s = left_s if self.eta_s is None else min(self.eta_s, left_s)

    def finish(self) -> None:
        """The build is BUILT."""
        self.percent, self.eta_s = 100.0, 0.0


PART_S = 1.0
"""The length of a judged part of a round: enough for many batches of any writer and slices of the replay."""


class Place(NamedTuple):
    """The LSNs of writers and replay at a moment."""

    at: float
    head: int
    applied: int


class Rounds:
    """The rounds of one replay. Pure: times are arguments."""

    def __init__(self, begin: Place) -> None:
        self.without_gain = 0
        """Rounds, and parts of rounds, since the last round that gained."""
        self._least = 1 << 62
        self._gained = self._part = begin

    def ended(self, place: Place, changes: int) -> None:
        """A whole round ended, which had so many changes."""
        gained = changes < self._least
        self._least = min(changes, self._least)
        self.without_gain = 0 if gained else self.without_gain + 1
        self._part = place
        if gained:
            self._gained = place

    def on_the_way(self, place: Place) -> bool:
        """Judge a round under way. True if another part of it gained nothing: the next round will be no shorter."""
        if place.at - self._part.at < PART_S:
            return False
        came, done = place.head - self._part.head, place.applied - self._part.applied
        self._part = place
        if came == 0 or came < done:
            return False
        self.without_gain += 1
        return True

    def rates(self, place: Place) -> tuple[float, float]:
        """Changes per second that were written, and that were replayed, since the last gain."""
        seconds = max(1e-9, place.at - self._gained.at)
        return (place.head - self._gained.head) / seconds, (place.applied - self._gained.applied) / seconds
