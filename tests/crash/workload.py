"""The workload: the whole life of an index in about a second, with writers and a reader beside it. Run as a script:

    python -m tests.crash.workload DATA LEDGER [whole | small | tiny | damaged]

The workload passes every durable step of the engine at least once. It publishes copies and links. Intents and
acknowledgements go into the ledger.
The status is 0 at its end; a test kills it before.
"""

from __future__ import annotations

import os
import random
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from shadowswitch import (
    Config,
    Delete,
    Engine,
    EngineClosed,
    Lock,
    Put,
    ShadowSwitchError,
    SwitchRequest,
    SwitchResult,
)
from tests.crash.grouped import together
from tests.crash.ledger import Change, Ledger
from tests.crash.of_backend import BUILD
from tests.crash.running import wait_until
from tests.support.patience import unless_in_use

INDEX = "SEARCH_INDEX"
SIDE_INDEX = "SIDE_INDEX"
TYPES = ("link_type", "object_type")
BRANCHES = ("main", "feature/가지")
WORDS = ("amber", "birch", "cedar", "dune", "ember", "fjord", "grove", "heath")
FLUSHES_BESIDE_A_SCAN = 3
"""The first checkpoint beside a scan may still have changes from before the scan to write, and then forces the log."""
PATIENCE_S = 60.0
PACE_S = 0.002


def config(**changes: Any) -> Config:
    """Small slices, quick followers, a short journal; the janitor works only when it is called."""
    settings: dict[str, Any] = {
        "copy_slice_rows": 10,
        "copy_flush_rows": 100,
        "catchup_residual_changes": 5,
        "refresh_interval_ms": 10.0,
        "flush_interval_s": 0.05,
        "journal_keep_changes": 50,
        "janitor_interval_s": 3600.0,
        "map_size_bytes": 1 << 30,
        "validation_samples": 10,
        "worker_nice": 0,
        "disk_reserve_bytes": 1 << 20,
        "seal_budget_ms": 2000.0,
        "audit_keep": 5,
        "ended_keep_s": 0.0,
    }
    return Config(**(settings | changes))


class Scribe:
    """Writes batches and keeps the ledger. One for each writing thread."""

    def __init__(self, engine: Engine, ledger: Ledger, seed: int, keys: int) -> None:
        self.engine = engine
        self.ledger = ledger
        self.chance = random.Random(seed)
        self.keys = keys

    def batch(self, branch: str, changes: list[tuple[str, str, bool]]) -> bool:
        """Write changes, each given as (resource type, id, is it a put); True when acknowledged."""
        name = self.ledger.new_batch()
        titled = [
            Change(kind, id, f"{name}/{position} {self.chance.choice(WORDS)}" if put else None)
            for position, (kind, id, put) in enumerate(changes)
        ]
        rows = [[change.resource_type, change.id, change.title] for change in titled]
        self.ledger.enter("intent", batch=name, branch=branch, changes=rows)
        return self.write_intended(name, branch, titled)

    def write_intended(self, name: str, branch: str, titled: list[Change]) -> bool:
        """Write an intended batch, and enter its outcome."""
        try:
            receipt = self.engine.write(branch, [_wire(change) for change in titled], timeout_s=PATIENCE_S)
        except ShadowSwitchError as error:
            self.ledger.enter("refused", batch=name, error=type(error).__name__, text=str(error))
            return False
        self.ledger.enter("ack", batch=name, lsn=receipt.lsn)
        return True

    def seed(self, branch: str, batches: int, size: int) -> None:
        """Fill a branch, `size` new records in each batch."""
        for number in range(batches):
            ids = range(number * size, (number + 1) * size)
            self.batch(branch, [(TYPES[id % 2], f"r{id}", True) for id in ids])

    def some(self, branch: str, batches: int) -> None:
        """Random puts, updates and deletes; one to five changes in a batch, sometimes two of one record."""
        for _ in range(batches):
            self.one(branch)

    def one(self, branch: str) -> bool:
        """One random batch."""
        size = self.chance.randint(1, 5)
        chosen = [self.chance.randrange(self.keys) for _ in range(size)]
        return self.batch(branch, [(TYPES[id % 2], f"r{id}", self.chance.random() < 0.7) for id in chosen])


def _wire(change: Change) -> Put | Delete:
    if change.title is None:
        return Delete(change.resource_type, change.id)
    return Put(change.resource_type, change.id, {"title": change.title})


class Beside:
    """A thread that repeats one step until it is stopped; a failure is a problem of the run."""

    def __init__(self, ledger: Ledger, step: Callable[[], object]) -> None:
        self._ledger = ledger
        self._step = step
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(PACE_S):
            try:
                self._step()
            except EngineClosed:
                return
            except Exception as error:
                self._ledger.enter("problem", text=f"{type(error).__name__}: {error}")
                return

    def stop(self) -> None:
        """Stop, and wait for the step that is under way."""
        self._stop.set()
        self._thread.join(PATIENCE_S)


def reading(engine: Engine, ledger: Ledger) -> Callable[[], None]:
    """Returns one step of a reader: it gets an answer, and never an older state than before (SW-2)."""
    seen = [0]

    def step() -> None:
        with engine.reader("main", INDEX, timeout_s=PATIENCE_S) as reader:
            reader.search("amber", 5)
            if reader.lsn < seen[0]:
                ledger.enter("problem", text=f"SW-2 a reader saw LSN {seen[0]} and then {reader.lsn}")
            seen[0] = reader.lsn

    return step


class Life:
    """The steps of the main thread on the indexes."""

    def __init__(self, engine: Engine, ledger: Ledger, build_config: dict[str, Any] = BUILD) -> None:
        self.engine = engine
        self.ledger = ledger
        self.build_config = build_config

    def build(self, branch: str = "main") -> str:
        """Start a build and wait until it is BUILT."""
        shadow = self.engine.start_build(branch, INDEX, TYPES, self.build_config).shadow_index_id
        self.engine.wait_for(shadow, "BUILT", timeout_s=PATIENCE_S)
        return shadow

    def switch(self, shadow: str, branch: str = "main", request: SwitchRequest | None = None) -> SwitchResult:
        """Switch; the ledger has the generation before it may become live."""
        target = self.engine.shadow(shadow).generation
        self.ledger.enter("switching", branch=branch, index_type=INDEX, generation=target)
        return self._switched(branch, self.engine.switch(shadow, request or patient()))

    def rollback(self, branch: str = "main") -> SwitchResult:
        """Roll back to the previous generation."""
        target = self.engine.index(branch, INDEX).previous_generation
        self.ledger.enter("switching", branch=branch, index_type=INDEX, generation=target)
        return self._switched(branch, self.engine.rollback(branch, INDEX, patient()))

    def _switched(self, branch: str, result: SwitchResult) -> SwitchResult:
        if result.success:
            numbers = {"generation": result.generation, "lsn": result.sealed_lsn}
            self.ledger.enter("switched", branch=branch, index_type=INDEX, **numbers)
        else:
            self.ledger.enter("not switched", text=result.message)
        return result

    def flushes_beside_a_scan(self, scribe: Scribe, branch: str = "main") -> None:
        """Write, and wait until the live generation is forced to disk, several times while a scan of it is open.

        The open scan holds SQLite's checkpoint back, which would force the log as well: only the flush forces it.
        """
        with self.engine.reader(branch, INDEX, timeout_s=PATIENCE_S) as reader:
            rows = reader.scan()
            next(rows, None)
            for _ in range(FLUSHES_BESIDE_A_SCAN):
                scribe.some(branch, 1)
                self._forced(branch, reader.generation, self.engine.head(branch))

    def _forced(self, branch: str, generation: int, lsn: int) -> None:
        """Wait until a generation is forced to disk up to an LSN; the ledger has the LSN that the engine promises."""
        wait_until(lambda: self._durable_lsn(branch, generation) >= lsn, "a flush", PATIENCE_S)
        promised = self._durable_lsn(branch, generation)
        self.ledger.enter("forced", branch=branch, index_type=INDEX, generation=generation, lsn=promised)

    def _durable_lsn(self, branch: str, generation: int) -> int:
        held_by = next(journal["held_by"] for journal in self.engine.stats()["journal"] if journal["branch"] == branch)
        return next((int(one["durable_lsn"]) for one in held_by if one.get("generation") == generation), 0)

    def cancelled_build(self) -> None:
        """Start a build and cancel it."""
        shadow = self.engine.start_build("main", INDEX, TYPES, self.build_config).shadow_index_id
        self.engine.cancel_build(shadow, "no longer wanted")


def locks(engine: Engine, ledger: Ledger) -> None:
    """Every step of a lock, on a record that no writer touches; the ledger has every token that was granted."""

    def take(ttl_s: float) -> Lock:
        lock = engine.acquire_lock("main", "MAINTENANCE", "workload", "RESOURCE", TYPES[0], "untouched", ttl_s=ttl_s)
        ledger.enter("locked", token=lock.token)
        return lock

    lock = take(60)
    engine.heartbeat(lock.lock_id, lock.token, 50)
    engine.extend_lock(lock.lock_id, lock.token, 60)
    engine.release_lock(lock.lock_id, lock.token)
    take(0.01)
    wait_until(lambda: not engine.locks("main"), "the lock expires")
    take(60)
    engine.force_unlock("main", "workload", "the holder is gone")


def refused(engine: Engine, shadow: str) -> None:
    """A switch that a validator of the host forbids."""
    engine.add_validator("NEVER", lambda reader: ["not today"])
    assert not engine.switch(shadow, SwitchRequest(validation_checks=("NEVER",))).success


def removals(engine: Engine) -> None:
    """An index is built and dropped, and a branch. The ledger has nothing of it: what was dropped is no promise."""
    result = engine.rebuild("main", SIDE_INDEX, TYPES, {"backend": "kv", "parallel_workers": 1}, patient())
    assert result.success, result.message
    engine.drop_index("main", SIDE_INDEX)
    engine.create_branch("gone")
    for start in range(0, 600, 100):
        engine.write("gone", [Put(TYPES[0], f"g{start + n}", {"title": "gone"}) for n in range(100)])
    engine.drop_branch("gone")
    engine.clean_up(PATIENCE_S)
    engine.clean_up(PATIENCE_S)


def forks(engine: Engine, ledger: Ledger) -> None:
    """A branch is forked; both sides are written to, merged, rebased; another fork follows it; the ledger has all."""
    base: dict[str, str | None] = {f"r{number}": "base" for number in range(6)}
    trunk, fork = {**base, "r0": "trunk", "r1": None}, {**base, "r2": "fork", "r3": None}
    merged = {**trunk, "r2": "fork", "r3": None}

    def step(branches: str, records: dict[str, str | None], act: Callable[[], object] | None = None) -> None:
        """Without `act` the records are written to the first branch."""
        names, written = branches.split(), [_wire(Change(TYPES[0], id, title)) for id, title in records.items()]
        for branch in names:
            ledger.enter("showing", branch=branch, records=records)
        act() if act is not None else engine.write(names[0], written, timeout_s=PATIENCE_S)
        for branch in names:
            ledger.enter("shows", branch=branch, records=records)

    engine.create_branch("trunk")
    step("trunk", base)
    assert engine.rebuild("trunk", INDEX, TYPES, {**BUILD, "shards": 1}, patient()).success
    step("trunk/f", base, lambda: engine.fork_branch("trunk/f", "trunk"))
    step("trunk", trunk)
    step("trunk/f", fork)
    with engine.reader("trunk/f", INDEX, timeout_s=PATIENCE_S) as reader:  # made of that of the trunk
        assert {row.id for row in reader.scan()} == {id for id, title in fork.items() if title is not None}
    step("trunk", merged, lambda: engine.merge_into("trunk", "trunk/f", timeout_s=PATIENCE_S))
    step("trunk/f", merged, lambda: engine.rebase("trunk/f", timeout_s=PATIENCE_S))
    step("trunk/g", merged, lambda: engine.fork_branch("trunk/g", "trunk", mode="following"))
    step("trunk trunk/g", base)
    for branch in ("trunk/f", "trunk/g"):
        ledger.enter("dropping", branch=branch)
        wait_until(unless_in_use(engine.drop_branch, branch), "the switches of a fork end", PATIENCE_S)
    engine.clean_up(PATIENCE_S)


def damaged_life(engine: Engine, ledger: Ledger) -> None:
    """One row of a shadow gets another version than its source; the engine repairs it once the shadow is live."""
    ledger.enter("damaging")
    life, scribe = Life(engine, ledger, {**BUILD, "shards": 1}), Scribe(engine, ledger, 1, 60)
    engine.create_branch("main")
    scribe.seed("main", 6, 10)
    life.switch(life.build())
    while True:  # the verification may read this very row, and goes back
        shadow = life.build()
        file = Path(engine.shadow(shadow).shadow_index_path, "shard-000", "shard.sqlite")
        with closing(sqlite3.connect(file, timeout=PATIENCE_S)) as connection, connection:
            connection.execute("UPDATE docs SET lsn = lsn - 1 WHERE rowid = (SELECT min(rowid) FROM docs)")
        if life.switch(shadow).success:
            break
        if engine.shadow(shadow).state == "BUILT":  # the proof before the switch may read it as well
            engine.cancel_build(shadow)
    wait_until(lambda: engine.stats()["counters"].get("buckets_repaired", 0) > 0, "the reading of the live index")


def patient(**changes: Any) -> SwitchRequest:
    """A request with budgets that a slow machine keeps."""
    defaults: dict[str, Any] = {"switch_timeout_seconds": PATIENCE_S, "allow_empty": True}
    return SwitchRequest(**(defaults | changes))


def whole_life(engine: Engine, ledger: Ledger, scale: int) -> None:
    """Seed, build, switch, switch again, roll back, cancel, switch, clean up; writers and a reader beside it."""
    life = Life(engine, ledger)
    scribe = Scribe(engine, ledger, 1, 60 * scale)
    for branch in BRANCHES:
        engine.create_branch(branch)
    scribe.seed("main", 6, 10 * scale)
    scribe.seed(BRANCHES[1], 1, 10)
    writers = [Scribe(engine, ledger, seed, 60 * scale) for seed in (2, 3)]
    beside = [Beside(ledger, lambda w=writer: w.one("main")) for writer in writers]  # type: ignore[misc]
    life.switch(life.build(), request=patient(strategy="COPY_AND_REPLACE"))
    beside.append(Beside(ledger, reading(engine, ledger)))
    life.flushes_beside_a_scan(scribe)
    scribe.some("main", 5)
    locks(engine, ledger)
    second = life.build()
    refused(engine, second)
    scribe.some("main", 5)
    life.switch(second, request=patient(strategy="COPY_AND_REPLACE"))
    scribe.some("main", 5)
    life.rollback()
    scribe.some("main", 5)
    life.cancelled_build()
    life.switch(life.build(), request=patient(strategy="ATOMIC_RENAME"))
    for thread in beside:
        thread.stop()
    life.switch(life.build(BRANCHES[1]), BRANCHES[1])
    scribe.seed("main", 2, 30 * scale)
    removals(engine)
    forks(engine, ledger)
    together(engine, ledger, TYPES[0], patient(), PATIENCE_S)
    with engine.reader("main", INDEX, min_lsn=engine.head("main"), timeout_s=PATIENCE_S):
        pass
    engine.clean_up(PATIENCE_S)
    scribe.some("main", 5)


def tiny_life(engine: Engine, ledger: Ledger) -> None:
    """The same life in as few system calls as possible: one thread, one shard, a handful of records."""
    life = Life(engine, ledger, {**BUILD, "shards": 1, "parallel_workers": 1})
    scribe = Scribe(engine, ledger, 1, 12)
    engine.create_branch("main")
    scribe.seed("main", 1, 12)
    lock = engine.acquire_lock("main", "MAINTENANCE", "workload", "RESOURCE", TYPES[0], "untouched", ttl_s=60)
    ledger.enter("locked", token=lock.token)
    engine.release_lock(lock.lock_id, lock.token)
    life.switch(life.build(), request=patient(strategy="COPY_AND_REPLACE"))
    life.flushes_beside_a_scan(scribe)
    life.switch(life.build(), request=patient(strategy="COPY_AND_REPLACE"))
    scribe.some("main", 2)
    life.rollback()
    scribe.some("main", 1)
    life.switch(life.build(), request=patient(strategy="ATOMIC_RENAME"))
    engine.clean_up(PATIENCE_S)


def main(data: Path, path: Path, size: str) -> None:
    """The life of an index, a clean stop, a start, a few more writes, a clean stop."""
    recorder = os.environ.get("RECORDER_LOG")
    ledger = Ledger(path, Path(recorder) if recorder else None)
    with Engine.open(data, config()) as engine:
        if size == "tiny":
            tiny_life(engine, ledger)
        elif size == "damaged":
            damaged_life(engine, ledger)
        else:
            whole_life(engine, ledger, 1 if size == "small" else 5)
        counters = engine.stats()["counters"]
        if size != "damaged" and counters.get("buckets_repaired", 0):
            ledger.enter("problem", text=f"{counters['buckets_repaired']} buckets were repaired; nothing was damaged")
        ledger.enter("end", worker_deaths=counters.get("worker_deaths", 0))
    with Engine.open(data, config()) as engine:
        Scribe(engine, ledger, 4, 60).some("main", 3)
        engine.clean_up(PATIENCE_S)
    ledger.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "whole")
