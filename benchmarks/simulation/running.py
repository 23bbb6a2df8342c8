"""One run of a schedule in one mode, and its outcome."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.common import Window, fill_types, quantile
from benchmarks.ledger import Key, Ledger, Verdict
from benchmarks.simulation.developers import AtWork, Notes, Prober, Run
from benchmarks.simulation.features import Features, Trunk
from benchmarks.simulation.hosts import Delays, Host, make_host
from benchmarks.simulation.outside import OutsideReader, Seen
from benchmarks.simulation.schedule import TYPES, Rebuild, Schedule
from shadowswitch.engine.engine import Engine
from shadowswitch.model.config import Config

JOIN_S = 120.0


class Outcome(msgspec.Struct):
    """The outcome of a run. Times are seconds since its start unless they say ms."""

    mode: str
    seconds: float
    rebuild_spans: list[Window]
    writes: list[tuple[float, float]]
    """Begin of each write, and its latency in ms."""
    quiet_p99_ms: float = 0.0
    blocked_s: float = 0.0
    """Developer time: the sum, over all writes that overlap a rebuild, of their time beyond the quiet p99."""
    delayed: int = 0
    delay_p50_ms: float = 0.0
    delay_max_ms: float = 0.0
    lost: int = 0
    revived: int = 0
    failed_reads: int = 0
    outside_failed: int = 0
    outside_reads: int = 0
    stale_reads: int = 0
    reads: int = 0
    availability: float = 1.0
    """Share of the run, averaged over branches, in which no write was waiting beyond the quiet p99 for a rebuild."""
    worst_zone_availability: float = 1.0
    longest_block_s: float = 0.0
    searchable_p50_ms: float = 0.0
    searchable_p99_ms: float = 0.0
    never_searchable: int = 0
    counts: dict[str, int] = {}
    problems: list[str] = []
    """What no mode may show: errors of the engine, records that the branch itself lost, findings of fsck."""

    @property
    def build_s(self) -> float:
        """Mean time from start to switched."""
        return sum(end - begin for begin, end in self.rebuild_spans) / max(1, len(self.rebuild_spans))


def run_mode(schedule: Schedule, mode: str, folder: Path, stale_s: float, delays: Delays) -> Outcome:
    """Everything from an empty directory to the audit."""
    config = Config(disk_reserve_bytes=1 << 20, soak_s=0.5, journal_keep_changes=0)
    with Engine.open(folder / mode / "data", config) as engine:
        ledger = Ledger()
        for branch in schedule.branches:
            engine.create_branch(branch)
            fill_types(engine, schedule.records, branch, TYPES)
            for record in engine.scan(branch):
                ledger.imported((branch, record.resource_type, record.id), record.lsn)
        host = make_host(mode, engine, schedule.branches, TYPES, delays)
        try:
            return _run(schedule, host, ledger, stale_s)
        finally:
            host.close()


def _run(schedule: Schedule, host: Host, ledger: Ledger, stale_s: float) -> Outcome:
    notes, verdict, spans = Notes(), Verdict(), list[Window]()
    outside = OutsideReader([str(host.outside_path(branch)) for branch in schedule.branches])
    run = Run(host, ledger, notes, stale_s, time.perf_counter(), schedule.seconds)
    rebuilders = [
        threading.Thread(target=_rebuild_all, args=(run, branch, schedule.rebuilds, spans, verdict), daemon=True)
        for branch in schedule.branches
    ]
    run.rebuilding = len(rebuilders)
    people: list[threading.Thread] = [AtWork(run, developer) for developer in schedule.developers]
    if host.mode == "shadow":  # no other way to rebuild knows forks
        trunks = [Trunk(run, branch, TYPES[0]) for branch in schedule.branches]
        people += [Features(trunk, number) for trunk in trunks for number in range(2)]
    prober = Prober(run)
    for thread in (*people, *rebuilders, prober):
        thread.start()
    for thread in (*rebuilders, *people):
        thread.join(JOIN_S + schedule.seconds)
        if thread.is_alive():
            notes.errors.append(f"{thread.name} hangs")
    run.stop.set()
    prober.join(JOIN_S)
    seen = outside.stop()
    problems = notes.errors + [str(finding) for finding in host.engine.check()]
    for branch in schedule.branches:
        host.settle(branch)
        verdict.add(ledger.audit_whole(branch, host.held(branch)))
        in_source = {(branch, r.resource_type, r.id): r.lsn for r in host.engine.scan(branch)}
        wrong = ledger.audit_whole(branch, in_source)
        problems += [f"the branch itself lost {key}" for key, _ in wrong.lost | wrong.revived]
    return _outcome(schedule, host.mode, run, spans, verdict, seen, problems)


def _rebuild_all(run: Run, branch: str, rebuilds: tuple[Rebuild, ...], spans: list[Window], verdict: Verdict) -> None:
    """The rebuilds of one branch at their times, each audited right after it."""
    host, notes = run.host, run.notes

    def source(key: Key) -> int | None:
        found = host.engine.get(*key)
        return found.lsn if found is not None else None

    for rebuild in rebuilds:
        if rebuild.branch != branch:
            continue
        run.stop.wait(max(0.0, run.begun + rebuild.at_s - time.perf_counter()))
        begun = time.perf_counter()
        try:
            host.rebuild(branch)
            spans.append((begun - run.begun, time.perf_counter() - run.begun))
            known = run.ledger.of_branch(branch, begun)
            host.settle(branch)
            verdict.add(run.ledger.audit_changed(known, host.lsn_of, source))
        except Exception as error:
            notes.errors.append(f"a rebuild of {branch}: {type(error).__name__}: {error}")
    with run.lock:
        run.rebuilding -= 1


def _outcome(
    schedule: Schedule, mode: str, run: Run, spans: list[Window], verdict: Verdict, seen: Seen, problems: list[str]
) -> Outcome:
    notes, begun = run.notes, run.begun
    writes = [(w.begun - begun, (w.ended - w.begun) * 1000) for w in notes.writes]
    quiet = [ms for at, ms in writes if not any(at < end and at + ms / 1000 > start for start, end in spans)]
    quiet_p99 = quantile(quiet, 0.99)
    delays: list[float] = []
    waits: dict[Any, list[Window]] = {}
    for write, (at, ms) in zip(notes.writes, writes, strict=True):
        end = at + ms / 1000
        if ms > quiet_p99 and any(at < stop and end > start for start, stop in spans):
            delays.append(ms - quiet_p99)
            for group in (write.branch, write.zone):
                waits.setdefault(group, []).append((at + quiet_p99 / 1000, end))
    seconds = max(schedule.seconds, time.perf_counter() - begun if not writes else max(a + m / 1000 for a, m in writes))
    blocked = {group: _union(windows) for group, windows in waits.items()}
    branches = [sum(end - start for start, end in blocked.get(branch, [])) for branch in schedule.branches]
    at_work = seconds / schedule.zones
    zones = [sum(end - start for start, end in blocked.get(zone, [])) / at_work for zone in range(schedule.zones)]
    return Outcome(
        mode=mode,
        seconds=seconds,
        rebuild_spans=sorted(spans),
        writes=writes,
        quiet_p99_ms=quiet_p99,
        blocked_s=sum(delays) / 1000,
        delayed=len(delays),
        delay_p50_ms=quantile(delays, 0.5),
        delay_max_ms=max(delays, default=0.0),
        lost=len(verdict.lost),
        revived=len(verdict.revived),
        failed_reads=len(notes.failed_reads),
        outside_failed=seen.failed,
        outside_reads=seen.reads,
        stale_reads=notes.stale_reads + notes.went_back,
        reads=notes.reads,
        availability=1 - sum(branches) / len(branches) / seconds,
        worst_zone_availability=1 - max(zones),
        longest_block_s=max((end - start for windows in blocked.values() for start, end in windows), default=0.0),
        searchable_p50_ms=quantile(notes.searchable_ms, 0.5),
        searchable_p99_ms=quantile(notes.searchable_ms, 0.99),
        never_searchable=notes.never_searchable,
        counts=dict(notes.counts),
        problems=problems,
    )


def _union(windows: list[Window]) -> list[Window]:
    """Overlapping windows as one."""
    joined: list[Window] = []
    for begin, end in sorted(windows):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return joined
