"""The sizes of a run of bench_scale, and the shape of a row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks.common import Report


class Sizes(msgspec.Struct, frozen=True):
    """How large the large cases are. `full` is False where the figures are too small for a verdict."""

    records: int
    branches: int
    types: int
    writers: int
    seconds: float
    """Of each measurement of a rate."""
    full: bool

    def judged(self, met: bool) -> bool | None:
        """The verdict on a target, or None when this run could not decide it."""
        return met if self.full else None


Row = Callable[[Sizes, Path, Report], None]
"""Measures one kind of growth: adds figures and targets to the report. It works in the folder, which is empty."""
