"""The memory of a host with many indexes that it built itself."""

from __future__ import annotations

from pathlib import Path

from benchmarks.common import BENCH_CONFIG, TYPE, Report, rss_mib
from benchmarks.scale.sizes import Sizes
from shadowswitch.engine.engine import Engine
from shadowswitch.model.records import Put

INDEXES = 1000
KIND = "GRAPH_INDEX"
RECORDS = 20
MIB_MAX = 0.3


def measure(sizes: Sizes, folder: Path, report: Report) -> None:
    """Anonymous memory before the first index and behind the last one."""
    indexes = min(sizes.branches, INDEXES)
    with Engine.open(folder / "data", BENCH_CONFIG) as engine:
        for number in range(indexes):
            engine.create_branch(_name(number))
            engine.write(_name(number), [Put(TYPE, f"r{n}", {"text": f"text {n}"}) for n in range(RECORDS)])
        before = rss_mib()
        for number in range(indexes):
            result = engine.rebuild(_name(number), KIND, [TYPE], {"backend": "kv"}, timeout_s=300)
            report.problems += [] if result.success else [f"memory: {result.message}"]
        each = (rss_mib() - before) / indexes
    report.figure("memory: anonymous, of each kv index", each, "MiB", f"{indexes} indexes that the host built")
    report.target(f"{MIB_MAX:g} MiB for each kv index at most", f"{each:.2f} MiB", sizes.judged(each <= MIB_MAX))


def _name(number: int) -> str:
    return f"feature/{number:05d}"
