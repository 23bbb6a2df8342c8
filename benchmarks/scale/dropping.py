"""A branch is filled, indexed and dropped, again and again: the space comes back, and writers beside it do not wait."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from benchmarks.common import BENCH_CONFIG, Report, quantile
from benchmarks.scale.sizes import Sizes
from shadowswitch.engine.engine import Engine
from shadowswitch.model.records import Put

ROUNDS = 10
RECORDS_MAX = 100_000
BATCH = 1000
GROWTH_MAX = 1.25
WAIT_S = 600.0
JUDGED_FROM = 10_000
"""With fewer records the fixed part of the catalog is most of it."""
TYPE, KIND = "object_type", "SEARCH_INDEX"


def measure(sizes: Sizes, folder: Path, report: Report) -> None:
    """The size of the catalog behind each round; the write latency of another branch, quiet and beside a removal."""
    records = min(sizes.records, RECORDS_MAX)
    used: list[int] = []
    took_s: list[float] = []
    with Engine.open(folder / "data", BENCH_CONFIG) as engine:
        engine.create_branch("other")
        for _ in range(2 * BENCH_CONFIG.journal_keep_changes // BATCH):  # as much as its journal keeps
            engine.write("other", [Put(TYPE, str(n % 100), {"text": "beside"}) for n in range(BATCH)])
        quiet = _written(engine, threading.Event(), 300)
        beside: list[float] = []
        for _ in range(ROUNDS):
            engine.create_branch("main")
            for start in range(0, records, BATCH):
                puts = [Put(TYPE, str(n), {"text": f"record {n}"}) for n in range(start, min(start + BATCH, records))]
                engine.write("main", puts)
            engine.rebuild("main", KIND, [TYPE], timeout_s=WAIT_S)
            done = threading.Event()
            writer = threading.Thread(target=lambda ended=done: beside.extend(_written(engine, ended)))
            writer.start()
            begun = time.perf_counter()
            engine.drop_branch("main")
            _wait(engine)
            took_s.append(time.perf_counter() - begun)
            done.set()
            writer.join()
            used.append((folder / "data" / "catalog" / "data.mdb").stat().st_size)
        if list((folder / "data" / "generations").iterdir()):
            report.problems.append("dropping: directories of generations are left")
        report.problems += [f"dropping: {finding}" for finding in engine.check()]
    report.figure("dropping: catalog behind the first round", used[0] / 2**20, "MiB", f"{records:,} records, an index")
    report.figure(f"dropping: catalog behind round {ROUNDS}", used[-1] / 2**20, "MiB")
    report.figure("dropping: until nothing is left", quantile(took_s, 0.5), "s", f"median of {ROUNDS}")
    report.figure("dropping: p99 of a write elsewhere, quiet", quantile(quiet, 0.99), "ms")
    report.figure("dropping: p99 of a write elsewhere, beside a removal", quantile(beside, 0.99), "ms")
    growth = used[-1] / used[0]
    says = f"{ROUNDS} rounds take at most {GROWTH_MAX:g} of the space of the first"
    report.target(says, f"{growth:.2f}", growth <= GROWTH_MAX if records >= JUDGED_FROM else None)


def _wait(engine: Engine) -> None:
    """Until nothing of a dropped branch is left."""
    until = time.perf_counter() + WAIT_S
    while engine.stats()["catalog"]["entries"]["branches"] > 1 and time.perf_counter() < until:
        time.sleep(0.05)


def _written(engine: Engine, ended: threading.Event, count: int = 1 << 60) -> list[float]:
    """The milliseconds of single writes to another branch, until it ended."""
    took: list[float] = []
    while not ended.is_set() and len(took) < count:
        begun = time.perf_counter()
        engine.write("other", [Put(TYPE, str(len(took) % 100), {"text": "beside"})], timeout_s=60)
        took.append((time.perf_counter() - begun) * 1000)
    return took
