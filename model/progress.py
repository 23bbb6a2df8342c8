"""How far a build is, how long it will take, and whether its replay gains on the writers.

Percent and ETA (`ProgressMeter`). A build is expected to go as the last build of the index went on this machine
(`Pace`): at which shares of its time the tenths of its rows were copied, and when its replay was done. A copy slows
down while its index grows, its last part is bigger than a share of the rows says, and a validation reports no progress;
all of that is in the pace. The time of the build so far, by the share that the pace gives it, is the time of the whole:
machine and load slow every phase. Early in a build that says little, so the time of the last build, by the rows, has
weight until a share `TRUSTED` of the build has passed. A first build is expected to go as the last build of another
index of the same backend, by the rows; where there is none, once rows were copied, as `ASSUMED`, until a share
`TRUSTED_COLD` has passed. Changes to replay count by the rate of the replay less the rate of new changes, as far as
they take longer than in the pace. Between two measurements the time that passes is what is known. A throttled build
takes so much longer. A build that goes on is at the share that the rows of its earlier builders give; these rows say
nothing of its speed, nor is its time a pace. The percent moves at each moment at the speed that brings it to 100 in the
time left. So it never stands still and never goes back; the ETA rises when the work turns out longer.

Convergence (`Rounds`). A round replays up to the head as it was when the round began; changes written meanwhile are the
next round. A round gains if it was shorter than every round before. While writers are faster than the replay, each
round takes longer than the one before, and the end of a round alone would never bring a verdict. So a round under way
is judged as well, part by part. The backlog does not count: it says nothing after a burst. A part gains nothing if in a
whole second at least as many changes arrived as were replayed.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec

TENTHS = 10
TRUSTED = 0.3
"""From this share of its time on, the ETA of a build is by its own speed alone."""
TRUSTED_COLD = 0.1
"""As `TRUSTED`, where no build of the backend is known."""
OVERDUE = 0.2
"""Work that takes longer than estimated will take this share of the time since the estimate, still."""
CATCH_UP_RATE = 20_000.0
"""Changes per second, until the replay is measured."""
CONVERGENCE_MIN = 1.0

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Pace(msgspec.Struct, array_like=True, frozen=True):
    """How the time of a build was spent."""

    rows: Annotated[int, msgspec.Meta(ge=0)]
    whole_s: Annotated[float, msgspec.Meta(ge=0, le=1e9)]
    """Seconds, without pauses; 0 when only the shares are known."""
    shares: Annotated[list[Share], msgspec.Meta(min_length=TENTHS + 1, max_length=TENTHS + 1)]
    """The share of the time that had passed when each tenth of the rows was copied, and when the validation began."""

    def seconds_of(self, rows: int) -> float | None:
        """The seconds of a whole build of so many rows; None while unknown."""
        return self.whole_s * rows / self.rows if self.rows and self.whole_s else None

    def share_of(self, rows_share: float) -> float:
        """The share of the time that has passed when this share of the rows is copied."""
        at = min(1.0, rows_share) * TENTHS
        tenth = min(int(at), TENTHS - 1)
        below = self.shares[tenth - 1] if tenth else 0.0
        return below + (at - tenth) * (self.shares[tenth] - below)


ASSUMED = Pace(100_000, 2.0, [0.08, 0.14, 0.2, 0.26, 0.32, 0.38, 0.45, 0.51, 0.58, 0.64, 0.66])
"""The pace where no build of the backend is known, as measured with FTS5 and 100,000 records."""


class ProgressMeter:
    """Percent and ETA of one build. Pure: times are arguments, seconds of one clock."""

    def __init__(
        self, percent: float = 0.0, pace: Pace | None = None, other: Pace | None = None, goes_on: bool = False
    ) -> None:
        """`percent` is the stored one; `pace` that of the last build of the index; `other` that of a build of another
        index, which counts where there is no `pace`; `goes_on`: see `begin`."""
        self._percent = percent
        self._expected = pace or other or ASSUMED
        self._is_first = pace is None
        self._is_cold = pace is None and other is None
        self._left_s: float | None = None
        """The seconds of work left as of `_at`."""
        self._end_s = 0.0
        """The last of them, which no share slows: the validation."""
        self.begin(0.0, goes_on)

    def begin(self, at: float, goes_on: bool = False) -> None:
        """A builder begins. A build `goes_on` if an earlier builder began it, and may have copied rows."""
        self._begun = self._at = self._worked_s = self._share_at = self._read_at = at
        self._share = 1.0
        self._goes_on = goes_on
        self._first_share = 0.0
        """The share from which on the speed counts, and since when."""
        self._first_at = at
        self._rows_total = 0
        self._spent: list[float] = []
        """Seconds since the begin at which each tenth of the rows was copied, and at which the validation began."""
        self._last = (0.0, 0.0)
        """The share of the rows, and the seconds, of the last measurement."""
        self._copied_whole_s: float | None = None
        """The seconds of the whole build as they were known at the end of the copy."""
        known = self._expected.whole_s and not self._is_first
        if self._left_s is None and known and not self._goes_on:  # by the rows of then, until measured
            self._left_s, self._end_s = self._expected.whole_s, self._expected.whole_s * (1 - self._expected.shares[-1])

    def work(self, at: float, share: float) -> None:
        """From now on the build works so large a share of the time; 0: it stands still."""
        self.read(at)
        self._worked_s, self._share_at, self._read_at, self._share = self._work_time(at), at, at, share

    def _work_time(self, at: float) -> float:
        """Time as it is without throttle and pauses. All seconds of the pace are of it."""
        return self._worked_s + (at - self._share_at) * self._share

    def measure(
        self,
        at: float,
        rows_total: int,
        rows_done: int,
        residual_changes: int,
        change_rate: float,
        write_rate: float,
        rows_stored: int = 0,
    ) -> None:
        """Add a measurement of a copy or a catch-up. Rates are in changes per second, 0 while unknown. Of the rows an
        earlier builder has copied `rows_stored`, as far as it is known."""
        now, at = at, self._work_time(at)
        pace, rows_share = self._expected, min(1.0, rows_done / rows_total) if rows_total else 1.0
        share = pace.share_of(rows_share)
        if self._goes_on:
            if rows_share == 0.0:
                return
            self._first_share = pace.share_of(rows_stored / rows_total if rows_total else 1.0)
            if rows_done <= rows_stored:  # how long its workers start says nothing of the copy
                self._first_at, self._read_at = at, now
            self._percent = max(self._percent, min(99.9, 100.0 * self._first_share))
        elif self._is_cold and not self._first_share and 0.0 < share < pace.shares[-2]:
            self._first_share, self._first_at = share, at  # how long its workers start says nothing of the copy
        self._rows_total = rows_total
        self._note_tenths(rows_share, at - self._begun)
        whole_s = self._copied_whole_s if self._copied_whole_s is not None else self._whole_s(share, at)
        if whole_s is None:
            return
        if rows_share == 1.0:  # no row measures the time between the copy and the validation
            self._copied_whole_s = whole_s
            if whole_s > 0:
                share = min(pace.shares[-1], max(share, (at - self._first_at) / whole_s + self._first_share))
        surplus = max(CONVERGENCE_MIN, change_rate - write_rate) if change_rate > 0 else CATCH_UP_RATE
        copy_s = whole_s * max(0.0, pace.shares[-2] - share)
        catch_up_s = whole_s * (pace.shares[-1] - max(share, pace.shares[-2]))
        late_s = max(0.0, (residual_changes + write_rate * copy_s) / surplus - catch_up_s)
        self._end_s = whole_s * (1.0 - pace.shares[-1])
        self._expect(now, whole_s * (1.0 - share) + late_s)

    def validating(self, at: float) -> None:
        """The validation begins, at full speed."""
        self.work(at, 1.0)
        worked_s = self._work_time(at) - self._begun
        self._note_tenths(1.0, worked_s)
        self._spent.append(worked_s)
        share = self._expected.shares[-1]
        whole_s = self._whole_s(share, self._work_time(at))
        if whole_s is not None:
            self._expect(at, whole_s * (1.0 - share))

    def pace(self, at: float) -> Pace | None:
        """How the time of this build was spent, which ends now, smoothed by the builds before it.

        None for a build that went on from a stored copy.
        """
        whole_s = self._work_time(at) - self._begun
        if self._goes_on or len(self._spent) != TENTHS + 1 or whole_s <= 0:
            return None
        shares = [min(1.0, spent_s / whole_s) for spent_s in self._spent]
        by_last = self._expected.seconds_of(self._rows_total)
        if by_last is None or self._is_first:
            return Pace(self._rows_total, whole_s, shares)
        shares = [(now + before) / 2 for now, before in zip(shares, self._expected.shares, strict=True)]
        return Pace(self._rows_total, (whole_s + by_last) / 2, shares)

    def read(self, at: float) -> tuple[float, float | None]:
        """Percent, and the seconds left, None while unknown or while the build stands still."""
        if self._left_s is None or self._share <= 0:
            return self._percent, None
        since_s, passed_s = self._work_time(at) - self._at, max(0.0, at - self._read_at)
        work_s = max(self._left_s - since_s, OVERDUE * since_s)
        end_s = min(work_s, self._end_s)
        left_s = (work_s - end_s) / self._share + end_s
        if left_s + passed_s > 0:
            self._percent = min(99.9, 100.0 - (100.0 - self._percent) * left_s / (left_s + passed_s))
        self._read_at = at
        return self._percent, left_s

    def finish(self) -> None:
        """The build is BUILT."""
        self._percent, self._left_s = 100.0, None

    def _whole_s(self, share: float, at: float) -> float | None:
        """The seconds of the whole build as it is now at this share of its time; None while nothing is known."""
        was_copied = self._goes_on and self._first_share >= self._expected.shares[-2]
        done = 0.0 if was_copied else share - self._first_share
        by_speed = (at - self._first_at) / done if done > 0 else None
        by_last = self._expected.seconds_of(self._rows_total)
        if by_speed is None and self._is_cold and (self._goes_on or not self._first_share):
            return None
        if by_speed is None or by_last is None:
            return by_speed if by_last is None else by_last
        weight = min(1.0, done / (TRUSTED_COLD if self._is_cold else TRUSTED))
        return weight * by_speed + (1.0 - weight) * by_last

    def _note_tenths(self, rows_share: float, elapsed_s: float) -> None:
        """Note when the tenths since the last measurement were copied, as if the copy had been even in between."""
        before, then_s = self._last
        while len(self._spent) < TENTHS and (mark := (len(self._spent) + 1) / TENTHS) <= rows_share:
            part = max(0.0, mark - before) / (rows_share - before) if rows_share > before else 1.0
            self._spent.append(then_s + part * (elapsed_s - then_s))
        self._last = rows_share, elapsed_s

    def _expect(self, at: float, left_s: float) -> None:
        """So many seconds of work are left now."""
        now = self._work_time(at)
        if self._left_s is None:  # nothing was known so far: all time until now is time spent
            self._at = self._first_at if self._goes_on else self._begun
            self._left_s = left_s + now - self._at
        self.read(at)
        self._at, self._left_s = now, left_s


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
