"""How long writers wait at a switch, beside quiet time, with the index at full size and under load.

    python benchmarks/bench_switch.py [--records 100000] [--switches 200] [--writers 2] [--readers 2] [--json]

Closed loops with 1 ms of thought in the host's own process, as a host has them. A stall is the longest time without a
success of one loop in a window of one second: around the end of each switch, and in quiet windows before. The switches
go back and forth between two generations (`rollback`), which is the same sealed switch as the first one; DIGEST is
checked each time. The run fails if fsck finds anything, or if any acknowledged write is not in the index.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from shadowswitch.engine.engine import Engine
from shadowswitch.model.records import Put
from shadowswitch.model.settings import Config
from shadowswitch.model.views import SwitchRequest
from shadowswitch.service.audit import audit
from shadowswitch.service.importer import RESOURCE_TYPE
from shadowswitch.service.workload import Acked, Load, Loop

WINDOW_S = 1.0
WORDS = [f"w{n:04d}" for n in range(5000)]
BRANCH, KIND = "main", "SEARCH_INDEX"


def record(n: int, chance: random.Random) -> Put:
    """About 200 bytes of text."""
    text = " ".join(chance.choices(WORDS, k=30))
    return Put(RESOURCE_TYPE, f"r{n:07d}", {"path": str(n), "name": str(n), "text": text, "size_bytes": len(text)})


def quantile(values: list[float], fraction: float) -> float:
    """The value below which a fraction of the values lie; 0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))] if ordered else 0.0


def summary(values: list[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum, rounded to microseconds when in milliseconds."""
    return {name: round(quantile(values, share), 3) for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}


def run(records: int, switches: int, writers: int, readers: int, data: Path) -> dict[str, Any]:
    """One run; everything in milliseconds."""
    chance = random.Random(1)
    with Engine.open(data, Config(disk_reserve_bytes=0)) as engine:
        engine.create_branch(BRANCH)
        for start in range(0, records, 1000):
            engine.write(BRANCH, [record(n, chance) for n in range(start, min(records, start + 1000))], timeout_s=60)
        acked = {found.id: Acked(found.lsn) for found in engine.scan(BRANCH)}
        for tokenizer in ("unicode61", "porter"):
            engine.rebuild(BRANCH, KIND, [RESOURCE_TYPE], {"tokenizer": tokenizer})
        load = Load(engine, BRANCH)
        texts = [(f"r{n:07d}", " ".join(chance.choices(WORDS, k=30))) for n in range(min(records, 20_000))]
        load.start(texts, WORDS, acked, writers, readers)
        quiet = _windows(max(3, switches // 10))
        sealed, around, failed = _switch(engine, switches)
        load.end()
        for writer in load.writers:
            acked.update(writer.acked)
        problems = audit(engine, BRANCH, acked).problems + [str(finding) for finding in engine.check()]
    problems += [error for loop in load.loops for error in loop.errors]
    problems += [error for searcher in load.searchers for error in searcher.back_in_time]
    writes, searches = load.counts()
    return {
        "records": records,
        "switches": len(sealed),
        "switches_not_made": failed,
        "sealed_ms": summary(sealed),
        "writer_stall_quiet_ms": summary(_gaps(load.writers, quiet)),
        "writer_stall_switch_ms": summary(_gaps(load.writers, around)),
        "reader_stall_quiet_ms": summary(_gaps(load.searchers, quiet)),
        "reader_stall_switch_ms": summary(_gaps(load.searchers, around)),
        "writes": writes,
        "searches": searches,
        "problems": problems,
        "machine": f"{platform.machine()}, Python {platform.python_version()}, Linux {platform.release()}",
    }


def _windows(count: int) -> list[tuple[float, float]]:
    found = []
    for _ in range(count):
        begin = time.perf_counter()
        time.sleep(WINDOW_S)
        found.append((begin, time.perf_counter()))
    return found


def _switch(engine: Engine, switches: int) -> tuple[list[float], list[tuple[float, float]], int]:
    sealed, around, failed = [], [], 0
    for _ in range(switches):
        result = engine.rollback(BRANCH, KIND, SwitchRequest(validation_checks=("DIGEST",)))
        ended = time.perf_counter()
        if result.success:
            sealed.append(result.sealed_ms)
            around.append((ended - WINDOW_S / 2, ended + WINDOW_S / 2))
        else:
            failed += 1
        time.sleep(WINDOW_S / 2)
    return sealed, around, failed


def _gaps(loops: Sequence[Loop], windows: list[tuple[float, float]]) -> list[float]:
    return [_longest_gap_ms(loop.done, begin, end) for loop in loops for begin, end in windows]


def _longest_gap_ms(times: list[float], begin: float, end: float) -> float:
    """The longest time without a success in a window; its borders count as successes."""
    inside = [begin, *(moment for moment in times if begin < moment < end), end]
    return max(later - earlier for earlier, later in pairwise(inside)) * 1000


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--switches", type=int, default=200)
    parser.add_argument("--writers", type=int, default=2)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shadowswitch-bench-") as folder:
        found = run(options.records, options.switches, options.writers, options.readers, Path(folder) / "data")
    if options.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:>24}  {value}")
    return 1 if found["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
