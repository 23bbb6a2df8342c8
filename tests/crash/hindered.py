"""A host that goes on living whatever happens to it, and its judge. Run as a script:

    python -m tests.crash.hindered DATA LEDGER live SEED SECONDS FOLDER INDEXES   writes, rebuilds, rolls back, mirrors
    python -m tests.crash.hindered DATA LEDGER judge SEED                         opens, rebuilds the index, demands

The host takes random steps. Its clocks are those of the scene, see `tests.crash.clocks`. A step may end with an error
of the library; any other error, and a reader that goes back in time, is a problem. INDEXES is `sound`, or `damaged`
once a stranger has altered bytes of an index: then the content of the index proves nothing. The judge rebuilds what
damage on disk has spoiled, and then makes the demands of the oracle.
"""

from __future__ import annotations

import faulthandler
import json
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from shadowswitch import Engine, EngineAlreadyOpen, ShadowSwitchError
from shadowswitch.service.daemon.mirror import Mirror
from tests.crash.clocks import Clocks
from tests.crash.ledger import Ledger, LedgerContent
from tests.crash.of_backend import build_of
from tests.crash.oracle import RESTING, Demands
from tests.crash.running import wait_until
from tests.crash.workload import INDEX, PATIENCE_S, Life, Scribe, config, patient
from tests.support import inside
from tests.support.refusing import refuse_while

BACKENDS = ("fts5", "kv", "tantivy", "graph", "vector")
KEYS = 60
HANGS_S = 90.0
"""A host that lives for so long prints the stacks of its threads."""
PAUSE = threading.Event()
"""Never set: only time ends its waits."""
MIRRORED = "mirrored"
"""The branch of the followed folder: the ledger knows nothing of it."""
SETTINGS = {"janitor_interval_s": 0.2, "soak_s": 1.0, "external_timeout_s": 5.0}


class Host:
    """The random life of a host."""

    def __init__(self, engine: Engine, ledger: Ledger, seed: int, sound: bool) -> None:
        self.engine = engine
        self.ledger = ledger
        self.chance = random.Random(seed)
        self.scribe = Scribe(engine, ledger, seed, KEYS)
        self.life = Life(engine, ledger, {**build_of(self.chance.choice(BACKENDS)), "parallel_workers": 1})
        self.seen = 0
        self.sound = sound

    def steps(self) -> list[tuple[int, Callable[[], object]]]:
        """Each step with its weight."""
        return [
            (30, lambda: self.scribe.one("main")),
            (10, self.read),
            (5 if self.sound else 0, self.compare),
            (1, lambda: self.life.switch(self._fresh(), request=patient(switch_timeout_seconds=2))),
            (1, self.life.rollback),
            (1, lambda: self.engine.start_build("main", INDEX, ["link_type"], self.life.build_config)),
            (1, self._lock),
            (1, self.engine.check),
        ]

    def read(self) -> None:
        """A reader gets an answer, and never an older state than before (SW-2)."""
        with self.engine.reader("main", INDEX, timeout_s=2) as reader:
            reader.search("amber", 5)
            if reader.lsn < self.seen:
                self.ledger.enter("problem", text=f"SW-2 a reader saw LSN {self.seen} and then {reader.lsn}")
            self.seen = reader.lsn

    def compare(self) -> None:
        """A scan shows each record as of the LSN that its reader names, or later (SW-2)."""
        source = self._source()
        with self.engine.reader("main", INDEX, timeout_s=2) as reader:
            shown = {(record.resource_type, record.id): record.lsn for record in reader.scan()}
        old = {key: lsn for key, lsn in source.items() if lsn <= reader.lsn and shown.get(key, 0) < lsn}
        if old:  # a write that had no answer in time may have changed a record meanwhile
            later = self._source()
            old = {key: lsn for key, lsn in old.items() if later.get(key) == lsn}
        if old:
            shows = {key: shown.get(key) for key in old}
            self.ledger.enter("problem", text=f"SW-2 a reader of LSN {reader.lsn} scans {shows} instead of {old}")

    def _source(self) -> dict[tuple[str, str], int]:
        return {(record.resource_type, record.id): record.lsn for record in self.engine.scan("main")}

    def _fresh(self) -> str:
        for shadow in self.engine.shadows("main"):
            if shadow.state in ("PREPARING", "BUILDING", "BUILT"):
                self.engine.cancel_build(shadow.shadow_index_id, "a new one is built")
        return self.life.build()

    def _lock(self) -> None:
        lock = self.engine.acquire_lock("main", "MAINTENANCE", "host", "RESOURCE", "link_type", "untouched", ttl_s=60)
        self.ledger.enter("locked", token=lock.token)
        self.engine.release_lock(lock.lock_id, lock.token)

    def live(self, seconds: float) -> None:
        """Take steps until the time is over."""
        ends = time.monotonic() + seconds
        weights, steps = zip(*self.steps(), strict=True)
        while time.monotonic() < ends:
            (step,) = self.chance.choices(steps, weights)
            try:
                step()
            except ShadowSwitchError:
                PAUSE.wait(0.005)
            except Exception:
                self.ledger.enter("problem", text=f"a step raised {traceback.format_exc()[-1500:]}")
            PAUSE.wait(0.002)


def live(data: Path, ledger: Ledger, seed: int, seconds: float, folder: Path, sound: bool) -> None:
    """Open, live, close; with a mirror of a folder that strangers fill."""
    with Engine.open(data, config(**SETTINGS)) as engine:
        names = {branch.name for branch in engine.branches()}
        for branch in {"main", MIRRORED} - names:
            engine.create_branch(branch)
        host = Host(engine, ledger, seed, sound)
        mirror = Mirror(engine, MIRRORED, folder, quiet_s=0.02, rescan_s=0.2)
        mirror.start()
        print("lives", flush=True)
        try:
            host.live(seconds)
        finally:
            mirror.stop()


def judge(data: Path, path: Path) -> dict[str, object]:
    """Open, let builds end, rebuild what is live, and demand. Twice: the second start finds nothing to mend."""
    problems: list[str] = []
    ledger = Ledger(path)
    for _ in range(2):
        with Engine.open(data, config(**SETTINGS)) as engine:
            _rebuild(engine, Life(engine, ledger, {**build_of("fts5"), "parallel_workers": 1}))
            demands = Demands(engine, LedgerContent(path), ("",))
            demands.findings()
            problems += demands.promises()
    ledger.close()
    return {"problems": problems[:20], **LedgerContent(path).counts()}


def _rebuild(engine: Engine, life: Life) -> None:
    """Whatever damaged it, an index is there again after a rebuild; the damaged generations are gone."""
    if "main" not in {branch.name for branch in engine.branches()}:
        engine.create_branch("main")
    for shadow in engine.shadows("main"):
        if shadow.state in ("PREPARING", "BUILDING"):
            engine.wait_for(shadow.shadow_index_id, *RESTING, timeout_s=PATIENCE_S)
        if engine.shadow(shadow.shadow_index_id).state in ("BUILT", "FAILED"):
            engine.cancel_build(shadow.shadow_index_id, "the index is built again")
    for _ in range(2):  # the second one retires what was live before the first
        result = life.switch(life.build())
        assert result.success, f"a rebuild does not mend the index: {result.message}"
    wait_until(lambda: not _is_retiring(engine), "the generations before are removed", PATIENCE_S)


def _is_retiring(engine: Engine) -> bool:
    engine.clean_up(PATIENCE_S)
    return any(row.role == "retiring" for row in inside.catalog(engine).generations())


def main() -> None:
    """The script."""
    data, path, mode, seed = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    with pytest.MonkeyPatch.context() as patch:
        Clocks(path.with_name("clocks")).take_over(patch)
        if mode == "judge":
            found = judge(data, path)
            print(json.dumps(found))
            sys.exit(1 if found["problems"] else 0)
        for kind in ("thread", "process"):
            refuse_while(patch, kind, path.with_name("no threads").exists)
        begin(data, path, seed)


def begin(data: Path, path: Path, seed: int) -> None:
    """The life of a host. From the word `begins` on anything may happen to it."""
    ledger = Ledger(path)
    faulthandler.dump_traceback_later(HANGS_S)
    print("begins", flush=True)
    try:
        live(data, ledger, seed, float(sys.argv[5]), Path(sys.argv[6]), sys.argv[7] == "sound")
    except (ShadowSwitchError, EngineAlreadyOpen) as error:
        print(f"refused: {error}", flush=True)
    finally:
        ledger.close()


if __name__ == "__main__":
    main()
