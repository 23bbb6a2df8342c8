"""Quiet hours: at which hour of the week a switch meets no commit, learned from the past of a branch.

The adviser keeps a histogram of the commits by hour of the week; the weight of a commit halves in `HALF_LIFE_S`. When a
shadow is ready it names the quietest hour within `within_s`. The quiet rule, `Quiet(for_s, within_s)`, knows nothing of
weeks: it takes the first moment after `for_s` without a commit, at the latest `within_s` later.

A backtest plays both on the past of the branch, at the moments of its commits: when people work, shadows become ready.
The adviser sees only what came before each moment. The rule gets the `for_s` with which it waits as long on average. A
choice is a hit if no commit comes within `calm_s` behind it. The adviser advises only where it hits more often, beyond
chance (`ERRORS` standard errors over the weeks); otherwise the answer says that the rule is as good.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

HOUR_S = 3600
WEEK_S = 168 * HOUR_S
MONDAY_S = 4 * 24 * HOUR_S
"""The first Monday, 00:00 UTC, behind the epoch."""
HALF_LIFE_S = 8.0 * WEEK_S
LEARN_S = 4 * WEEK_S
"""The adviser sees this much of the past before its first choice counts."""
MOMENTS_MIN = 100
WEEKS_MIN = 8
"""With fewer weeks in the backtest there is no advice."""
MOMENTS_MAX = 2000
ERRORS = 1.645
"""By so many standard errors the adviser must be better: 95 %, one-sided."""
STEPS = 14


class Choice(NamedTuple):
    """A shadow is ready, and the moment that was chosen for its switch; seconds since the epoch."""

    ready: float
    at: float


class Backtest(NamedTuple):
    """Both on the same moments: shares of hits, the mean wait, and the `for_s` with which the rule waits as long."""

    moments: int
    weeks: int
    adviser: float
    rule: float
    wait_s: float
    rule_wait_s: float
    rule_for_s: float
    error: float
    """The standard error of the difference, over the weeks."""

    @property
    def beats(self) -> bool:
        """Is the adviser better, beyond chance?"""
        enough = self.moments >= MOMENTS_MIN and self.weeks >= WEEKS_MIN
        return enough and self.adviser - self.rule > ERRORS * self.error

    def message(self, calm_s: float) -> str:
        """The verdict as a sentence."""
        if self.moments < MOMENTS_MIN or self.weeks < WEEKS_MIN:
            return (
                f"no advice: the past has {self.moments} moments in {self.weeks} weeks to test it on, and"
                f" {MOMENTS_MIN} in {WEEKS_MIN} are needed; switch by the quiet rule"
            )
        found = (
            f"no commit came within {calm_s / 60:g} min after {self.adviser:.1%} of the switches at the quietest hour,"
            f" and after {self.rule:.1%} of those after {self.rule_for_s / 3600:.1f} h of quiet, both after"
            f" {self.wait_s / 3600:.1f} h on average, in {self.moments} moments of {self.weeks} weeks"
        )
        if self.beats:
            return f"the quietest hour beats the quiet rule: {found}"
        return f"no advice: the quietest hour does not beat the quiet rule of the same wait: {found}"


class Histogram:
    """Commits by hour of the week, UTC, Monday first; older ones weigh less."""

    def __init__(self) -> None:
        self._weights = [0.0] * 168
        self._begin: float | None = None

    def add(self, at: float) -> None:
        """A commit. Times rise; instead of all older weights shrinking, a newer one is larger."""
        if self._begin is None or at - self._begin > 500 * HALF_LIFE_S:
            self._weights = [0.0] * 168 if self._begin is None else [w / 2.0**500 for w in self._weights]
            self._begin = at
        self._weights[hour_of(at)] += 2.0 ** ((at - self._begin) / HALF_LIFE_S)

    def shares(self) -> list[float]:
        """The share of each hour of the week in the activity; all 0 without any."""
        total = sum(self._weights)
        return [weight / total for weight in self._weights] if total else self._weights

    def quietest(self, ready: float, within_s: float) -> float:
        """The begin of the quietest hour until then; the hour that runs counts, and the first of equal ones wins."""
        hours = range(int(within_s // HOUR_S) + 1)
        now = int(ready // HOUR_S)
        least = min(hours, key=lambda hour: self._weights[hour_of((now + hour) * HOUR_S)])
        return ready if least == 0 else float((now + least) * HOUR_S)


def hour_of(at: float) -> int:
    """The hour of the week, 0 to 167, UTC, Monday 00:00 first."""
    return int(at - MONDAY_S) // HOUR_S % 168


def advised(commits: Sequence[float], within_s: float, most: int = MOMENTS_MAX) -> list[Choice]:
    """What the adviser would have chosen, at up to `most` of the commits, from what it had seen by then."""
    histogram, choices = Histogram(), []
    last = commits[-1] - within_s - HOUR_S if commits else 0.0
    counted = bisect_right(commits, last) - bisect_right(commits, commits[0] + LEARN_S) if commits else 0
    every = max(1, -(-counted // most))
    for number, at in enumerate(commits):
        histogram.add(at)
        if commits[0] + LEARN_S < at <= last and number % every == 0:
            choices.append(Choice(at, histogram.quietest(at, within_s)))
    return choices


def ruled(commits: Sequence[float], ready: Iterable[float], for_s: float, within_s: float) -> list[Choice]:
    """What `Quiet(for_s, within_s)` would have chosen at these moments, which rise."""
    ends = [0] * len(commits)  # for each commit the first one from it on behind which it is quiet for `for_s`
    for number in range(len(commits) - 1, -1, -1):
        stays = number + 1 == len(commits) or commits[number + 1] - commits[number] > for_s
        ends[number] = number if stays else ends[number + 1]
    choices = []
    for at in ready:
        before = bisect_right(commits, at) - 1
        quiet = commits[ends[before]] + for_s if before >= 0 else at
        choices.append(Choice(at, min(max(at, quiet), at + within_s)))
    return choices


def hits(commits: Sequence[float], choices: Iterable[Choice], calm_s: float) -> Iterator[bool]:
    """For each choice: did no commit come within `calm_s` behind it?"""
    for choice in choices:
        after = bisect_right(commits, choice.at)
        yield after == len(commits) or commits[after] - choice.at >= calm_s


def backtest(
    commits: Sequence[float],
    calm_s: float,
    within_s: float,
    most: int = MOMENTS_MAX,
    pause: Callable[[], None] = lambda: None,
) -> Backtest:
    """Play adviser and rule on the past; `commits` rise. `pause` is called between pieces of some milliseconds."""
    chosen = advised(commits, within_s, most)
    if not chosen:
        return Backtest(0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    ready = [choice.ready for choice in chosen]
    wait_s = fmean(choice.at - choice.ready for choice in chosen)
    low, high = 0.0, within_s
    for _ in range(STEPS):
        pause()
        for_s = (low + high) / 2
        longer = fmean(c.at - c.ready for c in ruled(commits, ready, for_s, within_s)) > wait_s
        low, high = (low, for_s) if longer else (for_s, high)
    rule = ruled(commits, ready, high, within_s)
    pause()
    ours, theirs = list(hits(commits, chosen, calm_s)), list(hits(commits, rule, calm_s))
    weeks: dict[int, list[int]] = {}
    for at, mine, other in zip(ready, ours, theirs, strict=True):
        weeks.setdefault(int(at // WEEK_S), []).append(mine - other)
    gap = fmean(ours) - fmean(theirs)
    spread = [sum(found) - gap * len(found) for found in weeks.values()]
    error = stdev(spread) * len(spread) ** 0.5 / len(ready) if len(spread) > 1 else 1.0
    return Backtest(
        len(ready), len(weeks), fmean(ours), fmean(theirs), wait_s,
        fmean(choice.at - choice.ready for choice in rule), high, error,
    )  # fmt: skip
