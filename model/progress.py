"""How far a build is, how long it will take, and whether its replay gains on the writers.

Percent and ETA (`ProgressMeter`). The work left is rows to copy at the measured row rate, changes to replay at the
measured change rate less the rate of new changes, and the validation. A validation reports no progress. It takes a
share of the time of the copy, as it did in the last build of the index: machine and load slow both. Between two
measurements, and during the validation, the time that passes is what is known. Percent is time spent over time spent
plus time left, so it moves evenly through all phases, and it never goes back. The ETA rises when the work turns out
longer.

Convergence (`Rounds`). A round replays up to the head as it was when the round began; changes written meanwhile are the
next round. A round gains if it was shorter than every round before. While writers are faster than the replay, each
round takes longer than the one before, and the end of a round alone would never bring a verdict. So a round under way
is judged as well, part by part. The backlog does not count: it says nothing after a burst. A part gains nothing if in a
whole second at least as many changes arrived as were replayed.
"""

from __future__ import annotations

from typing import NamedTuple

VALIDATION_SHARE = 0.3
"""The time of a validation by that of the copy, of an index that was never built here."""
OVERDUE = 0.1
"""Work that takes longer than estimated will take this share of the time since the estimate, still."""
CATCH_UP_RATE = 20_000.0
"""Changes per second, until the replay is measured."""
CONVERGENCE_MIN = 1.0


class ProgressMeter:
    """Percent and ETA of one build. Pure: times are arguments, seconds of one clock."""

    def __init__(self, percent: float = 0.0, validation_share: float = VALIDATION_SHARE) -> None:
        """`percent` is that of a build that goes on."""
        self._percent = percent
        self._share = validation_share
        self._at = self._elapsed_s = self._copy_s = self._validating_since = 0.0
        self._left_s: float | None = None

    def measure(
        self,
        at: float,
        elapsed_s: float,
        rows_total: int,
        rows_done: int,
        row_rate: float,
        residual_changes: int,
        change_rate: float,
        write_rate: float,
    ) -> None:
        """Add a measurement of a copy or a catch-up. Rates are per second; `row_rate` is 0 after the copy."""
        rows_left = max(0, rows_total - rows_done)
        if rows_left and row_rate <= 0:
            return
        if row_rate > 0:
            self._copy_s = rows_total / row_rate
        copy_s = rows_left / row_rate if rows_left else 0.0
        surplus = max(CONVERGENCE_MIN, change_rate - write_rate) if change_rate > 0 else CATCH_UP_RATE
        catchup_s = (residual_changes + write_rate * copy_s) / surplus
        self._expect(at, elapsed_s, copy_s + catchup_s + self._share * self._copy_s)

    def validating(self, at: float, elapsed_s: float) -> None:
        """The validation begins."""
        self._validating_since = at
        self._expect(at, elapsed_s, self._share * self._copy_s)

    def validation_share(self, at: float) -> float | None:
        """The share that the validation took, which ends; None if the copy was not measured."""
        return (at - self._validating_since) / self._copy_s if self._copy_s > 0 else None

    def read(self, at: float) -> tuple[float, float | None]:
        """Percent, and the seconds left, None while unknown."""
        if self._left_s is None:
            return self._percent, None
        since = at - self._at
        left_s = max(self._left_s - since, OVERDUE * since)
        whole_s = self._elapsed_s + since + left_s
        if whole_s > 0:
            self._percent = max(self._percent, min(99.9, 100.0 * (1.0 - left_s / whole_s)))
        return self._percent, left_s

    def finish(self) -> None:
        """The build is BUILT."""
        self._percent, self._left_s = 100.0, None

    def _expect(self, at: float, elapsed_s: float, left_s: float) -> None:
        self._at, self._elapsed_s, self._left_s = at, elapsed_s, left_s


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
