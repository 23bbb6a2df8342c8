"""Ten thousand branches, a few of them busy: opening, threads, memory, and the delay of a quiet branch by the others.

    python -m benchmarks.bench_branches [--branches 10000] [--busy 50] [--seconds 10] [--json FILE]

A process makes the branches, locks one in ten, and is killed while the busy ones are written to. Another process opens
the directory, and again. Then one writer for each busy branch works without a pause, one branch stands still for 0.2 s
with each write, and one is broken: every write to it fails. Admission is the time of a `check_write` of an unused
branch, each time another one, so that its actor has to be started. The run fails if fsck finds anything, if a lock is
lost, or if more than 200 threads are needed.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.common import Report, quantile
from shadowswitch.actors.branch.actor import BranchActor
from shadowswitch.engine.engine import Engine
from shadowswitch.model.config import Config
from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.model.records import Put

THREADS_MAX, MEMORY_MIB_MAX = 200, 300
LOCKED = 10
"""One branch in so many has a lock."""
CHECKS_MAX = 2000
REBUILT = "rebuilt"
"""The branch with many records whose index is rebuilt beside the others."""
STUCK_S = 0.2


def name(number: int) -> str:
    """The name of a branch."""
    return f"feature/{number:05d}"


def fill(data: Path, branches: int) -> None:
    """Make the branches, with a record in each and a lock on some."""
    with Engine.open(data) as engine:
        makers = [threading.Thread(target=_make, args=(engine, range(k, branches, 16))) for k in range(16)]
        for maker in makers:
            maker.start()
        for maker in makers:
            maker.join()


def _make(engine: Engine, numbers: range) -> None:
    for number in numbers:
        engine.create_branch(name(number))
        engine.write(name(number), [Put("object_type", "a", {"text": "a"})])
        if number % LOCKED == 0:
            engine.acquire_lock(name(number), "MANUAL", "holder", "RESOURCE", "object_type", "locked")


class Busy:
    """Writers without a pause, each on a branch of its own."""

    def __init__(self, engine: Engine, busy: int) -> None:
        self._engine = engine
        self._stop = threading.Event()
        self.written = [0] * busy
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(busy)]
        for thread in self._threads:
            thread.start()

    def _write(self, number: int) -> None:
        while not self._stop.is_set():
            n = self.written[number]
            self._engine.write(name(number), [Put("object_type", str(n % 1000), {"text": f"edit {n}"})], timeout_s=60)
            self.written[number] += 1

    def end(self) -> int:
        """Stop; how many writes were acknowledged."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return sum(self.written)


def open_and_measure(data: Path) -> tuple[Engine, float]:
    """An engine, and the seconds that opening took."""
    begun = time.perf_counter()
    engine = Engine.open(data, Config(disk_reserve_bytes=0, branch_idle_s=2.0))
    return engine, time.perf_counter() - begun


def kill_a_host(data: Path, busy: int) -> None:
    """A host that writes to the busy branches until it is killed."""
    command = [sys.executable, "-m", "benchmarks.bench_branches", "--host", str(data), "--busy", str(busy)]
    host = subprocess.Popen(command, cwd=common.ROOT, stdout=subprocess.PIPE, text=True)
    assert host.stdout is not None
    host.stdout.readline()
    time.sleep(0.5)
    host.send_signal(signal.SIGKILL)
    host.wait()
    host.stdout.close()


def admissions(engine: Engine, branches: int, busy: int, seconds: float) -> list[float]:
    """Milliseconds of a check on unused branches, one after the other."""
    found: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until and len(found) < CHECKS_MAX:
        number = busy + len(found) % max(1, branches - busy - 1)
        begun = time.perf_counter()
        engine.check_write(name(number), "update", "object_type", "a")
        found.append((time.perf_counter() - begun) * 1000)
        time.sleep(0.001)
    return found


def beside_a_rebuild(engine: Engine, branches: int, busy: int, records: int, seconds: float) -> list[float]:
    """Milliseconds of checks on other branches while the index of one is built again and again."""
    engine.create_branch(REBUILT)
    common.fill(engine, records, REBUILT)
    over = threading.Event()
    failures: list[str] = []

    def rebuild() -> None:
        while not over.is_set():
            result = engine.rebuild(REBUILT, common.KIND, [common.TYPE], {"parallel_workers": 1}, timeout_s=300)
            if not result.success:
                failures.append(result.message)

    thread = threading.Thread(target=rebuild)
    thread.start()
    try:
        found = admissions(engine, branches, busy, seconds)
    finally:
        over.set()
        thread.join()
    assert not failures, failures
    return found


def disturb(engine: Engine, branches: int, stop: threading.Event) -> list[threading.Thread]:
    """One branch whose actor stands still again and again, and one whose every message fails."""
    stuck, broken = name(branches - 1), name(branches - 2)
    for branch in (stuck, broken):  # with a lock their actors look at each write
        engine.acquire_lock(branch, "MANUAL", "disturber", "RESOURCE", "object_type", "other")
    original = BranchActor._write
    logging.getLogger("shadowswitch").setLevel(logging.CRITICAL + 1)

    def write(self: Any, message: Any) -> None:
        if self._row.name == stuck:
            time.sleep(STUCK_S)
        if self._row.name == broken:
            raise RuntimeError("broken on purpose")
        original(self, message)

    BranchActor._write = write  # type: ignore[method-assign]

    def tease(branch: str) -> None:
        while not stop.is_set():
            try:
                engine.write(branch, [Put("object_type", "a", {"text": "x"})], timeout_s=5)
            except ShadowSwitchError:
                time.sleep(0.02)

    threads = [threading.Thread(target=tease, args=(branch,)) for branch in (stuck, stuck, broken)]
    for thread in threads:
        thread.start()
    return threads


def run(branches: int, busy: int, seconds: float, records: int, data: Path) -> Report:
    """One run."""
    report = Report("6. Many branches", f"{branches:,} branches, {busy} of them written to without a pause")
    begun = time.perf_counter()
    fill(data, branches)
    filled_s = time.perf_counter() - begun
    engine, open_s = open_and_measure(data)
    engine.close()
    kill_a_host(data, busy)
    engine, reopen_s = open_and_measure(data)
    try:
        threads_idle, memory_mib = threading.active_count(), common.rss_mib()
        quiet = admissions(engine, branches, busy, seconds / 2)
        rebuilding = beside_a_rebuild(engine, branches, busy, records, seconds / 2)
        load = Busy(engine, busy)
        beside_busy = admissions(engine, branches, busy, seconds)
        threads_busy = threading.active_count() - busy  # the writers are the benchmark's own
        stop = threading.Event()
        threads = disturb(engine, branches, stop)
        beside_broken = admissions(engine, branches, busy, seconds / 2)
        stop.set()
        for thread in threads:
            thread.join()
        written = load.end()
        begun = time.process_time()
        time.sleep(min(3.0, seconds))
        idle_cpu = (time.process_time() - begun) / min(3.0, seconds)
        locks = sum(lock.owner == "holder" for lock in engine.locks())
        report.problems += [str(finding) for finding in engine.check()]
    finally:
        engine.close()
    if locks != len(range(0, branches, LOCKED)):
        report.problems.append(f"{locks} locks are left")
    report.figure("making them, 16 threads", filled_s, "s", "branch, one record, a lock on one in ten")
    report.figure("open after a clean close", open_s, "s")
    report.figure("open after SIGKILL under load", reopen_s, "s")
    report.figure("threads, all at rest", threads_idle, "")
    report.figure("threads, busy", threads_busy, "", "of the engine, and the benchmark's main thread")
    report.figure("memory, all at rest", memory_mib, "MiB", "resident, without mapped files, after the second open")
    report.figure("memory at the end", common.rss_mib(), "MiB")
    report.figure("processor, all at rest", 100 * idle_cpu, "%", "of one core")
    report.figure("writes acknowledged", written, "")
    others = (("with a rebuild on another branch", rebuilding), ("beside the busy", beside_busy))
    for what, found in (("quiet", quiet), *others, ("beside stuck and broken", beside_broken)):
        for label, share in (("p50", 0.5), ("p99", 0.99)):
            how = "a check of an unused branch, with the start of its actor up to `branch_actors_max`"
            report.figure(f"admission {label}, {what}", quantile(found, share), "ms", how)
    full = branches >= 10_000
    report.target("10,000 branches open in under a second", f"{open_s:.2f} s", open_s < 1 if full else None)
    report.target("the same after SIGKILL", f"{reopen_s:.2f} s", reopen_s < 1 if full else None)
    says = "10,000 idle branches: at most 200 threads and 300 MiB"
    met = threads_idle <= THREADS_MAX and memory_mib <= MEMORY_MIB_MAX if full else None
    report.target(says, f"{threads_idle} threads, {memory_mib:.0f} MiB", met)
    report.target("at most 200 threads with 50 busy", str(threads_busy), threads_busy <= THREADS_MAX if full else None)
    return report


def host(data: Path, busy: int) -> None:
    """The process that is killed."""
    engine, _ = open_and_measure(data)
    Busy(engine, busy)
    print("writing", flush=True)
    while True:
        time.sleep(os.getpid())


def main() -> int:
    """The command."""
    parser = common.arguments(__doc__)
    parser.add_argument("--branches", type=int, default=10_000)
    parser.add_argument("--busy", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--records", type=int, default=50_000, help="of the branch whose index is rebuilt")
    parser.add_argument("--host", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.host is not None:
        host(options.host, options.busy)
    with common.scratch(options.folder) as folder:
        report = run(options.branches, options.busy, options.seconds, options.records, folder / "data")
    return common.finish(report, options)


if __name__ == "__main__":
    sys.exit(main())
