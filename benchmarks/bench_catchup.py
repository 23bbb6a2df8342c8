"""Benchmark 4, catching up: how fast the journal is replayed, and what happens when writers are faster.

    python -m benchmarks.bench_catchup [--records 100000] [--changes 60000] [--seconds 5]

Replay: the live index stands still while changes of random records are written; then the host applies them. Against:
the backend's own `apply` of the same slices from memory by a bare thread. Both force their changes to disk every
`copy_flush_rows` changes, so that a large flush batch of dirty pages delays no writer. For comparison also without.

Then four writers in batches of 100 write as fast as they can while the index follows, and once more during a rebuild.
Either the build catches up, and delays each write by at most `write_delay_max_ms`, or it ends with NOT_CONVERGING.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import common
from benchmarks.common import BENCH_CONFIG, BRANCH, KIND, TYPE, Report, fill, quantile, record
from benchmarks.loops import Loops, Step
from benchmarks.paths import BACKEND, OPTIONS
from shadowswitch.engine.engine import Engine
from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.model.records import Item
from shadowswitch.storage.catalog.journal import coalesce, read_slice
from shadowswitch.storage.generations.writer import APPLY_SLICE

WRITERS, BATCH = 4, 100
REBUILD_S = 300.0


def write_changes(engine: Engine, records: int, changes: int, seed: int) -> None:
    """Overwrite random records."""
    chance = random.Random(seed)
    for start in range(0, changes, 1000):
        count = min(1000, changes - start)
        engine.write(BRANCH, [record(chance.randrange(records), chance) for _ in range(count)], timeout_s=60)


def replay(engine: Engine, records: int, changes: int, seed: int) -> tuple[float, list[list[Item]]]:
    """Changes a second of the host's replay, and the slices as the backend got them."""
    (generation,) = engine._lifecycle.generations.all()
    writer = generation.writer
    while writer.compact():  # the index is at rest then: the compaction of the last round is done
        pass
    writer.flush()
    with writer.pause_apply():
        at = writer.applied_lsn
        write_changes(engine, records, changes, seed)
        head = engine.head(BRANCH)
        slices = []
        while at < head:
            entries, at = read_slice(engine._lifecycle.catalog, generation.row.branch, at, head, APPLY_SLICE)
            slices.append(coalesce(entries, set(writer.types.values()), 1)[0])
        begun = time.perf_counter()
    with engine.reader(BRANCH, KIND, min_lsn=head, timeout_s=REBUILD_S):
        took = time.perf_counter() - begun
    return changes / took, slices


def raw_apply(path: Path, slices: Sequence[Sequence[Item]], changes: int, flush_batch: int, seed: int) -> float:
    """Changes a second of the backend alone: the same changes, in an order that it has not seen yet, to the shard of an
    index that is closed; forced to disk every `flush_batch` changes."""
    writer = BACKEND.open_writer(path / "shard-000", OPTIONS)
    while writer.compact():
        pass
    writer.flush()
    items = [item for some in slices for item in some]
    random.Random(seed).shuffle(items)  # rows that were written together would lie together
    lsn = writer.state().applied_lsn
    unflushed = 0
    begun = time.perf_counter()
    for some in slices:
        newest = {}
        for _ in some:
            item, lsn = items.pop(), lsn + 1
            newest[item.id] = Item(lsn, item.resource_type, item.id, item.key_hash, item.fields)
        writer.apply(list(newest.values()), lsn)
        unflushed += len(some)
        if unflushed >= flush_batch:
            writer.flush()
            unflushed = 0
    took = time.perf_counter() - begun
    writer.close()
    return changes / took


def overwhelm(report: Report, engine: Engine, records: int, seconds: float) -> None:
    """Writers as fast as they can: beside a follower, and beside a build."""

    def write(chance: random.Random) -> None:
        engine.write(BRANCH, [record(chance.randrange(records), chance) for _ in range(BATCH)], timeout_s=60)

    with Loops(write, None, WRITERS, 0, think_s=0.0) as loops:
        begun, before = time.perf_counter(), engine.head(BRANCH)
        time.sleep(seconds)
        rate = (engine.head(BRANCH) - before) / (time.perf_counter() - begun)
        lag = engine.index(BRANCH, KIND).lag_changes
    begun = time.perf_counter()
    with engine.reader(BRANCH, KIND, min_lsn=engine.head(BRANCH), timeout_s=REBUILD_S):
        drained = time.perf_counter() - begun
    report.figure(
        "fastest sustained writing", rate, "changes/s", f"{WRITERS} writers, batches of {BATCH}, index follows"
    )
    report.figure("lag after that, and time until it is gone", f"{lag:,}, {drained:.2f}", "changes, s")
    second = rebuild_meanwhile(report, engine, write, 3 * seconds)
    report.problems += loops.errors + second.errors


def rebuild_meanwhile(report: Report, engine: Engine, write: Step, seconds: float) -> Loops:
    """A rebuild while they write without a pause, for so long at most; then they stop, and it must come to an end."""
    ended: list[tuple[float, str]] = []

    def rebuild() -> None:
        try:
            result = engine.rebuild(
                BRANCH, KIND, [TYPE], {**OPTIONS, "parallel_workers": 1}, timeout_s=REBUILD_S, seed="never"
            )
            ended.append((time.perf_counter(), "switched" if result.success else result.message))
        except ShadowSwitchError as error:
            ended.append((time.perf_counter(), f"given up: {error.message}"))

    thread = threading.Thread(target=rebuild)
    slowed = engine.stats()["counters"].get("writes_slowed", 0)
    with Loops(write, None, WRITERS, 0, think_s=0.0) as loops:
        time.sleep(0.2)
        begun, before = time.perf_counter(), engine.head(BRANCH)
        thread.start()
        thread.join(seconds)
        stopped = time.perf_counter()
        during = (engine.head(BRANCH) - before) / (stopped - begun)
    thread.join()
    at, verdict = ended[0]
    slowed = engine.stats()["counters"].get("writes_slowed", 0) - slowed
    when = f"{at - begun:.1f} s after it began" if at <= stopped else f"{at - stopped:.1f} s after they stopped"
    report.figure(
        "a rebuild while they write without a pause", f"{verdict[:160]}, {when}", "", f"for {seconds:g} s at most"
    )
    report.figure("writing meanwhile", during, "changes/s", f"{slowed} writes were slowed")
    return loops


def main() -> int:
    """The command."""
    parser = common.arguments(__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--changes", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    report = Report("4. Catch-up", f"{options.records:,} records of about 200 bytes, fts5 with porter, one shard")
    with common.scratch(options.folder) as folder:
        rates = []
        with Engine.open(folder / "data", BENCH_CONFIG) as engine:
            engine.create_branch(BRANCH)
            fill(engine, options.records)
            first = engine.rebuild(BRANCH, KIND, [TYPE], {**OPTIONS, "parallel_workers": 1}, seed="never")
            assert first.success, first.message
            path = Path(first.new_index_path or "")
            for turn in range(options.rounds):
                speed, slices = replay(engine, options.records, options.changes, turn)
                rates.append(speed)
            overwhelm(report, engine, options.records, options.seconds)
            with engine.reader(BRANCH, KIND, min_lsn=engine.head(BRANCH), timeout_s=REBUILD_S) as reader:
                held = {found.id: found.lsn for found in reader.scan()}
            if held != {found.id: found.lsn for found in engine.scan(BRANCH)}:
                report.problems.append("the index does not hold what the branch holds")
            report.problems += [str(finding) for finding in engine.check()]
        forced, never = [], []
        for turn in range(options.rounds):
            forced.append(raw_apply(path, slices, options.changes, BENCH_CONFIG.copy_flush_rows, turn))
            never.append(raw_apply(path, slices, options.changes, sys.maxsize, -1 - turn))
    ours, raw = quantile(rates, 0.5), quantile(forced, 0.5)
    spread = f"median of {options.rounds}"
    report.figure("replay by the host", ours, "changes/s", spread)
    report.figure("raw backend, the same slices from memory, forced to disk as often", raw, "changes/s", spread)
    report.figure("raw backend that never forces anything to disk", quantile(never, 0.5), "changes/s", spread)
    said = f"{ours:,.0f} changes/s, raw {raw:,.0f}: {ours / raw:.2f}"
    met = ours >= 30_000 or ours >= 0.8 * raw
    report.target("replay at least 30,000 changes/s into fts5, or 0.8 of the raw backend", said, met)
    return common.finish(report, options)


if __name__ == "__main__":
    sys.exit(main())
