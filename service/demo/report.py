"""The report of a demo: measurements, problems and verdict."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from shadowswitch.model.views import SwitchResult
from shadowswitch.service.daemon.importer import Imported
from shadowswitch.service.demo.audit import Audited
from shadowswitch.service.demo.workload import EXAMPLES_MAX, Load, Loop

Window = tuple[float, float]
"""Begin and end of a time span, by perf_counter."""


class Build(msgspec.Struct, frozen=True):
    """A build and its switch: the seconds of each phase, and the time of the commit."""

    tokenizer: str
    records: int
    seconds: float
    phases_s: dict[str, float]
    switch: SwitchResult
    begun: float
    committed: float
    ended: float

    def since(self, zero: float) -> Build:
        """The same build with times relative to `zero`."""
        begun, committed, ended = self.begun - zero, self.committed - zero, self.ended - zero
        return msgspec.structs.replace(self, begun=begun, committed=committed, ended=ended)


class Stall(msgspec.Struct, frozen=True):
    """The longest times without a success of a closed loop in windows of equal width, in milliseconds."""

    windows: int
    p50_ms: float
    max_ms: float


class Stalls(msgspec.Struct, frozen=True):
    """Stalls in quiet time, around the commits of switches, and in the rest of the builds."""

    quiet: Stall
    switching: Stall
    building: Stall


class Report(msgspec.Struct):
    """The report. `sealed_*` are the times of the turns of switches under load."""

    ok: bool
    problems: list[str]
    corpus: str
    filesystem: str
    seconds: float
    imported: Imported
    import_s: float
    builds: list[Build]
    sealed_p50_ms: float
    sealed_max_ms: float
    window_s: float
    load_s: float
    stalls: dict[str, Stalls]
    writes: int
    writes_by_kind: dict[str, int]
    write_p50_ms: float
    write_p99_ms: float
    searches: int
    generations_read: int
    failed_writes: int
    failed_reads: int
    reads_back_in_time: int
    audit: Audited
    check: list[str]
    check_s: float


def problems_of(load: Load, builds: Iterable[Build], audited: Audited, check: Sequence[str]) -> list[str]:
    """Every problem; an empty list is a success."""
    problems = [
        f"the switch to {build.tokenizer} failed: {build.switch.message}"
        for build in builds
        if not build.switch.success
    ]
    for loop in load.loops:
        problems += loop.errors
    for searcher in load.searchers:
        problems += searcher.back_in_time[:EXAMPLES_MAX]
    return [*problems, *audited.problems, *(f"check: {finding}" for finding in check)]


def stalls_of(loops: Sequence[Loop], load: Load, builds: Sequence[Build], window_s: float) -> Stalls:
    """The stalls of some loops. One window surrounds the commit of each switch; the others fill the remaining time."""
    half = window_s / 2
    switching = [(build.committed - half, build.committed + half) for build in builds]
    building = [window for build in builds for window in cut((build.begun, build.committed - half), window_s)]
    busy = [(build.begun, max(build.ended, build.committed + half)) for build in builds]
    edges = [load.begun, *(edge for span in busy for edge in span), load.ended]
    quiet = [window for span in zip(edges[::2], edges[1::2], strict=True) for window in cut(span, window_s)]
    gaps = [_gaps(loop.done, load.begun, load.ended) for loop in loops]
    return Stalls(_stall(gaps, quiet), _stall(gaps, switching), _stall(gaps, building))


def cut(span: Window, width_s: float) -> list[Window]:
    """Consecutive windows of a width inside a span."""
    begin, end = span
    return [(begin + n * width_s, begin + (n + 1) * width_s) for n in range(int(max(0.0, end - begin) / width_s))]


def _gaps(done: Sequence[float], begun: float, ended: float) -> list[Window]:
    return list(pairwise([begun, *done, max(ended, done[-1] if done else ended)]))


def longest_ms(gaps: Sequence[Window], window: Window) -> float:
    """The full length of the longest gap that touches a window."""
    begin, end = window
    return max((b - a for a, b in gaps if b > begin and a < end), default=0.0) * 1000


def _stall(gaps: Sequence[Sequence[Window]], windows: Sequence[Window]) -> Stall:
    found = [longest_ms(loop, window) for loop in gaps for window in windows]
    if not found:
        return Stall(0, 0.0, 0.0)
    return Stall(len(windows), round(statistics.median(found), 2), round(max(found), 2))


def latency(stats: dict[str, Any], name: str, quantile: str) -> float:
    """A quantile of a latency histogram of the engine; 0 without measurements."""
    return float(stats["latencies"].get(name, {}).get(quantile, 0.0))
