"""A rebuild of 200,000 records while writers write: memory stays flat, and the scan does not make the catalog grow."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from shadowswitch import Engine, Put

RECORDS = 200_000
WRITES = 1_500
WORKER_MIB_MAX = 200
"""A worker holds a slice of records, SQLite's cache (64 MiB) and the terms of a transaction (16 MiB)."""
HOST_GROWTH_MIB_MAX = 100
KIND = "SEARCH_INDEX"


def record(n: int, edit: int = 0) -> Put:
    chance = random.Random(n)
    return Put(
        "object_type",
        f"{n:06d}",
        {"text": f"edit{edit} " + " ".join(f"w{chance.randrange(20_000)}" for _ in range(28))},
    )


def anonymous_mib(pid: int | str) -> float:
    """The anonymous memory of a process, without mapped files: the pages of LMDB's map belong to the page cache."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("RssAnon")), 0.0)


class Peaks(threading.Thread):
    """Watches the memory of the host and of its workers."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(daemon=True)
        self.engine = engine
        self.stop = threading.Event()
        self.host = self.worker = 0.0

    def run(self) -> None:
        while not self.stop.wait(0.02):
            self.host = max(self.host, anonymous_mib("self"))
            self.worker = max(self.worker, *map(anonymous_mib, self.engine.stats()["worker_pids"]), 0.0)


def write(engine: Engine, until: Callable[[], bool]) -> int:
    """Write single updates, at least WRITES of them, until `until` is true; how many."""
    count = 0
    while count < WRITES or not until():
        count += 1
        engine.write("main", [record(count * 7919 % RECORDS, count)])
    return count


def used(engine: Engine) -> int:
    size: int = engine.stats()["catalog"]["map_used_bytes"]
    return size


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_memory_and_catalog_stay_flat_while_200_000_records_are_rebuilt_under_writes(engine: Engine) -> None:
    for start in range(0, RECORDS, 5_000):
        engine.write("main", [record(n) for n in range(start, start + 5_000)], timeout_s=60)
    before = used(engine)
    control = write(engine, lambda: True)
    growth_a_write = max(1.0, (used(engine) - before) / control)

    host_before, before = anonymous_mib("self"), used(engine)
    peaks = Peaks(engine)
    peaks.start()
    shadow = engine.start_build("main", KIND, ["object_type"], {"parallel_workers": 2})
    done = threading.Event()
    counts: list[int] = []
    writer = threading.Thread(target=lambda: counts.append(write(engine, done.is_set)), daemon=True)
    writer.start()
    engine.wait_for(shadow.shadow_index_id, timeout_s=200)
    done.set()
    writer.join(timeout=60)
    peaks.stop.set()
    peaks.join(timeout=10)

    growth = used(engine) - before
    allowed = 2 * growth_a_write * counts[0] + (8 << 20)
    print(
        f"{RECORDS} records, {counts[0]} writes meanwhile: worker peak {peaks.worker:.0f} MiB, host grew by"
        f" {peaks.host - host_before:.0f} MiB; the catalog has {before / 1e6:.0f} MB and grew by {growth / 1e6:.1f} MB"
        f" ({growth_a_write:.0f} bytes for each write without a build)"
    )
    assert growth <= allowed
    assert peaks.worker <= WORKER_MIB_MAX
    assert peaks.host - host_before <= HOST_GROWTH_MIB_MAX
    assert engine.switch(shadow.shadow_index_id).success
