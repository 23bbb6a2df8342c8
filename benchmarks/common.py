"""The parts that all benchmarks share: figures, targets, records, quantiles, gaps, the machine, the command line."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import platform
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import lmdb
import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.model.config import Config
from shadowswitch.model.records import Put

ROOT = Path(__file__).resolve().parents[1]
BRANCH, KIND, TYPE = "main", "SEARCH_INDEX", "object_type"
WORDS = [f"w{n:04d}" for n in range(5000)]
BATCH = 1000
BENCH_CONFIG = Config(disk_reserve_bytes=1 << 20)

Window = tuple[float, float]


class Figure(msgspec.Struct):
    """One measured value and how it is defined."""

    name: str
    value: float | str
    unit: str
    definition: str = ""


class Target(msgspec.Struct):
    """A target of the project beside what was measured; `met` is None when this run could not decide it."""

    says: str
    measured: str
    met: bool | None
    note: str = ""


class Report(msgspec.Struct):
    """The report of one script. `problems` are wrong results; one of them fails the run."""

    title: str
    data: str = ""
    figures: list[Figure] = []
    targets: list[Target] = []
    problems: list[str] = []
    plots: list[str] = []
    text: str = ""
    """Tables in Markdown, copied into RESULTS.md as they are."""

    def figure(self, name: str, value: float | str, unit: str, definition: str = "") -> None:
        """Add a figure; floats are rounded to four significant digits."""
        shown = float(f"{value:.4g}") if isinstance(value, float) else value
        self.figures.append(Figure(name, shown, unit, definition))

    def target(self, says: str, measured: str, met: bool | None, note: str = "") -> None:
        """Add a target."""
        self.targets.append(Target(says, measured, None if met is None else bool(met), note))


def record(n: int, chance: random.Random, resource_type: str = TYPE, marker: str = "") -> Put:
    """A record with about 200 bytes of text."""
    text = " ".join(chance.choices(WORDS, k=30))
    return Put(resource_type, f"r{n:07d}", {"title": f"{marker} t{n}", "body": text})


def fill(engine: Engine, records: int, branch: str = BRANCH, seed: int = 1) -> None:
    """Write that many records of one type."""
    fill_types(engine, records, branch, (TYPE,), seed)


def fill_types(engine: Engine, records: int, branch: str, types: Sequence[str], seed: int = 1) -> None:
    """Write that many records, of each type in turn."""
    for _, batch in fill_values(records, types, seed):
        engine.write(branch, batch, timeout_s=120)


def fill_values(
    records: int, types: Sequence[str] = (TYPE,), seed: int = 1, size: int = BATCH
) -> Iterator[tuple[int, list[Put]]]:
    """The first records of every benchmark, in batches: the number of the first record, and the batch."""
    chance = random.Random(seed)
    for start in range(0, records, size):
        numbers = range(start, min(records, start + size))
        yield start, [record(n, chance, types[n % len(types)]) for n in numbers]


def quantile(values: Sequence[float], fraction: float) -> float:
    """The value below which a fraction of the values lie; 0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))] if ordered else 0.0


def longest_gap_ms(times: Sequence[float], window: Window) -> float:
    """The longest time without a success in a window; its borders count as successes."""
    begin, end = window
    inside = [begin, *(moment for moment in times if begin < moment < end), end]
    return max(later - earlier for earlier, later in pairwise(inside)) * 1000


def gaps_ms(loops: Iterable[Sequence[float]], windows: Sequence[Window]) -> list[float]:
    """The stall of each loop in each window."""
    return [longest_gap_ms(times, window) for times in loops for window in windows]


def quiet_windows(count: int, width_s: float) -> list[Window]:
    """Let that many windows pass, one after the other."""
    found = []
    for _ in range(count):
        begin = time.perf_counter()
        time.sleep(width_s)
        found.append((begin, begin + width_s))
    return found


def cpu_and_wall() -> tuple[float, float]:
    """CPU seconds of this process and the wall clock, now."""
    return time.process_time(), time.perf_counter()


def rate(work: Callable[[], int], seconds: float) -> float:
    """The units of `work` done in a second, measured over at least `seconds`."""
    begun, done = time.perf_counter(), 0
    while (spent := time.perf_counter() - begun) < seconds:
        done += work()
    return done / spent


def each_us(work: Callable[[], object], times: int) -> float:
    """The median over five rounds of the mean time of one call, in microseconds."""
    rounds = []
    for _ in range(5):
        begun = time.perf_counter()
        for _ in range(max(1, times // 5)):
            work()
        rounds.append((time.perf_counter() - begun) / max(1, times // 5) * 1e6)
    return quantile(rounds, 0.5)


def rss_mib() -> float:
    """Resident memory of this process without pages of mapped files."""
    words = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(words["RssAnon"].split()[0]) / 1024


def size_mib(path: Path) -> float:
    """Disk space of the files below a path; a file that vanishes meanwhile counts nothing."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total / (1 << 20)


def fsync_ms(folder: Path, rounds: int = 50) -> float:
    """The median time to force 4 KiB appended to a file to this disk."""
    path, took = folder / "fsync-probe", []
    with path.open("wb") as file:
        for _ in range(rounds):
            file.write(b"x" * 4096)
            file.flush()
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - begun) * 1000)
    path.unlink()
    return quantile(took, 0.5)


def machine(folder: Path) -> dict[str, str]:
    """The machine: the figures depend on it."""
    cpu = next((x.split(":")[1].strip() for x in _lines("/proc/cpuinfo") if x.startswith("model name")), "unknown")
    memory = next((int(x.split()[1]) for x in _lines("/proc/meminfo") if x.startswith("MemTotal")), 0)
    return {
        "processor": f"{cpu}, {len(os.sched_getaffinity(0))} cores usable",
        "memory": f"{memory / (1 << 20):.0f} GiB",
        "disk": f"{_filesystem(folder)}, {shutil.disk_usage(folder).free >> 30} GiB free,"
        f" fdatasync of 4 KiB {fsync_ms(folder):.2f} ms (median)",
        "system": f"Linux {platform.release()}, load {os.getloadavg()[0]:.2f} at the start",
        "versions": f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version},"
        f" LMDB {'.'.join(map(str, lmdb.version()))} (py-lmdb {lmdb.__version__}), msgspec {msgspec.__version__},"
        f" pykka {importlib.metadata.version('pykka')}",
    }


def _lines(path: str) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(path).read_text().splitlines()
    return []


def _filesystem(folder: Path) -> str:
    best, kind = "", "unknown"
    for line in _lines("/proc/mounts"):
        _, where, name, *_ = line.split()
        if os.path.commonpath([where, folder.resolve()]) == where and len(where) >= len(best):
            best, kind = where, name
    return kind


@contextlib.contextmanager
def scratch(parent: str | None) -> Iterator[Path]:
    """A folder on the disk that is measured; removed at the end."""
    with tempfile.TemporaryDirectory(prefix="shadowswitch-bench-", dir=parent, ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o711)  # a database server that runs as another user works below
        yield Path(folder)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with the arguments of every script."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write the report there, as JSON ('-': to standard output)")
    parser.add_argument("--folder", help="where to work: a folder on the disk to be measured (default: temporary)")
    return parser


def finish(report: Report, options: argparse.Namespace) -> int:
    """Print or write the report; the exit status."""
    if options.json == "-":
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    elif options.json:
        Path(options.json).write_bytes(msgspec.json.encode(report))
    if options.json != "-":
        show(report)
    return 1 if report.problems else 0


def show(report: Report) -> None:
    """Print the report as text."""
    print(f"{report.title}: {report.data}")
    for figure in report.figures:
        print(f"  {figure.name:<58} {figure.value:>12} {figure.unit}")
    for target in report.targets:
        print(f"  [{verdict(target.met)}] {target.says}: {target.measured} {target.note}")
    for problem in report.problems[:20]:
        print(f"  PROBLEM {problem}")
    if report.text:
        print(report.text)


def verdict(met: bool | None) -> str:
    """The verdict on a target in words."""
    return {True: "met", False: "NOT MET", None: "not judged"}[met]


def decode_report(data: bytes) -> Report:
    """A report as a script wrote it. Raises msgspec.ValidationError for anything else."""
    return msgspec.json.decode(data, type=Report)


def optional(module: str) -> Any:
    """A module that need not be installed, or None."""
    with contextlib.suppress(ImportError):
        return importlib.import_module(module)
    return None
