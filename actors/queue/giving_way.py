"""GivingWay: builds work less while writers' commits take longer than they do without builds.

Once a second `look` compares the mean time of a commit of that second with its quiet value: a low quantile of such
means from seconds in which no build ran, or, while there are few, from all. Commits of small and of large batches have
quiet values of their own, so a large import does not slow builds down. Above `Config.commit_latency_budget` every build
gets a smaller share of its time, again and again; below half of it, a larger one. A build never gets less than
`SHARE_MIN`, so it comes to its end.

The commits themselves are not touched: JournalWriter measures them for the metrics.
"""

from __future__ import annotations

from collections import deque

from shadowswitch.model.metrics import Metrics

SHARE_MIN = 0.2
LESS, MORE = 0.7, 0.1
"""Give way by a factor, come back by a step."""
WINDOWS = 120
QUIET_MIN = 3
"""So many seconds without builds make a quiet value."""
QUANTILE = 0.25


class GivingWay:
    """On the thread that calls `look`. Any thread reads `share` and `text`."""

    def __init__(self, metrics: Metrics, budget_ms: float) -> None:
        """`budget_ms` 0: builds never give way."""
        self._metrics = metrics
        self._budget_ms = budget_ms
        self._seen = (0, 0.0, 0)
        self._was_busy = False
        self._quiet: dict[int, deque[float]] = {}
        self._all: dict[int, deque[float]] = {}
        self.share = 1.0
        """The part of its own share that every build may use."""
        self.text: str | None = None
        """Why builds give way; None while they do not."""

    def look(self, busy: bool) -> None:
        """Judge the time since the last call; `busy`: a build runs."""
        busy, self._was_busy = busy or self._was_busy, busy
        found = self._window()
        if found is None or not self._budget_ms:
            self._come_back()
            return
        mean_ms, size = found
        quiet_ms = self._note(mean_ms, size, busy)
        over_ms = mean_ms - quiet_ms
        if busy and over_ms > self._budget_ms:
            self.share = max(SHARE_MIN, self.share * LESS)
        elif over_ms <= self._budget_ms / 2:
            self._come_back()
        self.text = (
            f"gives way to writers: a commit takes {mean_ms:.1f} ms, {quiet_ms:.1f} ms without builds"
            f" (Config.commit_latency_budget {self._budget_ms:g} ms); works {100 * self.share:.0f} % of its time"
            if self.share < 1
            else None
        )

    def _come_back(self) -> None:
        self.share = min(1.0, self.share + MORE)
        if self.share == 1:
            self.text = None

    def _window(self) -> tuple[float, int] | None:
        """The mean time of the commits since the last call, and the class of their size; None without a commit."""
        histogram = self._metrics.histograms.get("commit")
        if histogram is None:
            return None
        now = (histogram.count, histogram.total_ms, self._metrics.counters.get("changes", 0))
        commits, total_ms, changes = (new - old for new, old in zip(now, self._seen, strict=True))
        self._seen = now
        return (total_ms / commits, int(changes // commits).bit_length()) if commits > 0 else None

    def _note(self, mean_ms: float, size: int, busy: bool) -> float:
        """Keep a window; returns the quiet value of its class."""
        kept = self._all.setdefault(size, deque(maxlen=WINDOWS))
        kept.append(mean_ms)
        quiet = self._quiet.setdefault(size, deque(maxlen=WINDOWS))
        if not busy:
            quiet.append(mean_ms)
        known = sorted(quiet if len(quiet) >= QUIET_MIN else kept)
        return known[int(QUANTILE * (len(known) - 1))]
