"""Many rebuilds under load, and the oracle. Also a script, so that mutated copies of the library can be run with it:

python rebuild_scenario.py DATA REBUILDS

prints what is wrong, one line each, and exits with 1 if anything is.
"""

from __future__ import annotations

import random
import sys
import threading
from pathlib import Path
from typing import Any

from shadowswitch import Config, Engine, Put
from shadowswitch.service.importer import RESOURCE_TYPE
from shadowswitch.service.workload import Acked, Searcher, Writer, audit

KIND = "SEARCH_INDEX"
BRANCHES = ("main", "feature/user-schema")
RECORDS = 400
WORDS = ["alpha", "beta", "gamma", "delta"]
CONFIGS: list[dict[str, Any]] = [
    {"tokenizer": "porter", "shards": 2},
    {"tokenizer": "unicode61", "shards": 1},
    {"tokenizer": "ascii", "shards": 3, "parallel_workers": 2},
]


class Scenario:
    """One run: writers and readers on two branches, and rebuilds of both in turn."""

    def __init__(self, data: Path, rebuilds: int, seed: int = 1) -> None:
        print(f"seed {seed}")
        self.data = data
        self.rebuilds = rebuilds
        self.chance = random.Random(seed)
        self.stop = threading.Event()
        self.problems: list[str] = []
        self.switches = 0
        self.writes = 0

    def run(self) -> list[str]:
        """Everything that is wrong."""
        config = Config(refresh_interval_ms=5, janitor_interval_s=0.1, copy_slice_rows=50, disk_reserve_bytes=0)
        with Engine.open(self.data, config) as engine:
            for branch in BRANCHES:
                engine.create_branch(branch)
                engine.write(branch, [self._record(branch, n) for n in range(RECORDS)])
                self._note(engine.rebuild(branch, KIND, [RESOURCE_TYPE], {"shards": 2}, timeout_s=60))
            loops = self._loops(engine)
            for loop in loops:
                loop.start()
            try:
                self._rebuild(engine)
            finally:
                self.stop.set()
                for loop in loops:
                    loop.join(timeout=30)
            self._judge(engine, loops)
        return self.problems

    def _record(self, branch: str, n: int) -> Put:
        text = f"{self.chance.choice(WORDS)} {branch} {n}"
        return Put(RESOURCE_TYPE, str(n), {"path": str(n), "name": str(n), "text": text, "size_bytes": len(text)})

    def _loops(self, engine: Engine) -> list[Writer | Searcher]:
        loops: list[Writer | Searcher] = []
        for number, branch in enumerate(BRANCHES):
            own = [(str(n), f"{WORDS[n % 4]} {n}") for n in range(RECORDS)]
            loops += [Writer(2 * number + k, engine, branch, own[k::2], self.stop) for k in range(2)]
            loops += [Searcher(2 * number + k, engine, branch, WORDS, self.stop) for k in range(2)]
        return loops

    def _note(self, result: Any) -> None:
        self.switches += result.success
        if not result.success:
            self.problems.append(f"refused: {result.message}")

    def _rebuild(self, engine: Engine) -> None:
        for number in range(self.rebuilds):
            branch = BRANCHES[number % 2]
            build_config = CONFIGS[number % len(CONFIGS)]
            try:
                self._note(engine.rebuild(branch, KIND, [RESOURCE_TYPE], build_config, timeout_s=60))
                if number % 5 == 4:
                    self._note(engine.rollback(branch, KIND))
            except Exception as error:
                self.problems.append(f"rebuild {number}: {type(error).__name__}: {error}")

    def _judge(self, engine: Engine, loops: list[Writer | Searcher]) -> None:
        for branch in BRANCHES:
            acked: dict[str, Acked] = {}
            for loop in loops:
                if isinstance(loop, Writer) and loop.branch == branch:
                    acked.update(loop.acked)
                    self.writes += loop.edits
            self.problems += [f"{branch}: {problem}" for problem in audit(engine, branch, acked)]
        for loop in loops:
            self.problems += loop.errors[:5]
            if isinstance(loop, Searcher):
                self.problems += loop.back_in_time[:5]
        repaired = engine.stats()["counters"].get("buckets_repaired", 0)
        if repaired:
            self.problems.append(f"{repaired} buckets had to be repaired; a sound build never needs it")
        self.problems += [str(finding) for finding in engine.check()]


if __name__ == "__main__":
    found = Scenario(Path(sys.argv[1]), int(sys.argv[2])).run()
    for line in found[:40]:
        print(line)
    sys.exit(1 if found else 0)
