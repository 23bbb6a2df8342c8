"""Counters and latency histograms, cheap enough for every write."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

_BOUNDS_MS = tuple(0.05 * 1.5**step for step in range(40))
"""Upper bounds of the histogram's buckets: from 0.05 ms in steps of 50 % to about six minutes."""


class Histogram:
    """A latency histogram in milliseconds. Few threads write it; a lost count is harmless."""

    __slots__ = ("buckets", "count", "max_ms", "total_ms")

    def __init__(self) -> None:
        self.buckets = [0] * (len(_BOUNDS_MS) + 1)
        self.count = 0
        self.total_ms = 0.0
        self.max_ms = 0.0

    def record(self, value_ms: float) -> None:
        """Count one observation."""
        self.buckets[bisect_left(_BOUNDS_MS, value_ms)] += 1
        self.count += 1
        self.total_ms += value_ms
        self.max_ms = max(self.max_ms, value_ms)

    def quantile_ms(self, fraction: float) -> float:
        """An upper bound of the quantile, exact to one bucket (50 %), never above the maximum observed."""
        wanted = fraction * self.count
        seen = 0
        for bound, count in zip((*_BOUNDS_MS, self.max_ms), self.buckets, strict=True):
            seen += count
            if seen >= wanted and seen:
                return min(bound, self.max_ms)
        return 0.0

    def cumulative(self) -> tuple[list[tuple[float, int]], float]:
        """Upper bounds in seconds, each with the number of observations not above it, and the sum in seconds."""
        found, below = [], 0
        for bound_ms, count in zip((*_BOUNDS_MS, float("inf")), self.buckets, strict=True):
            below += count
            found.append((bound_ms / 1000, below))
        return found, self.total_ms / 1000

    def summary(self) -> dict[str, float]:
        """count, mean, p50, p99, max; milliseconds."""
        return {
            "count": self.count,
            "mean_ms": round(self.total_ms / self.count, 3) if self.count else 0.0,
            "p50_ms": round(self.quantile_ms(0.5), 3),
            "p99_ms": round(self.quantile_ms(0.99), 3),
            "max_ms": round(self.max_ms, 3),
        }


class Metrics:
    """All counters and histograms of an engine, by name."""

    def __init__(self) -> None:
        self.counters: dict[str, int] = {}
        self.histograms: dict[str, Histogram] = {}

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        self.counters[name] = self.counters.get(name, 0) + by

    def observe(self, name: str, value_ms: float) -> None:
        """Add an observation to a histogram."""
        histogram = self.histograms.get(name)
        if histogram is None:
            histogram = self.histograms.setdefault(name, Histogram())
        histogram.record(value_ms)

    def summary(self) -> dict[str, Any]:
        """Everything, JSON-like."""
        return {
            "counters": dict(sorted(self.counters.items())),
            "latencies": {name: h.summary() for name, h in sorted(self.histograms.items())},
        }
