"""Many rebuilds under load, and the oracle. Also a script, to run it with mutated copies of the library:

    python rebuild_scenario.py DATA REBUILDS      prints each problem on a line; exits with 1 if there is one
    python rebuild_scenario.py DATA acks          writes until it is killed, and prints every acknowledged write

The oracle relies only on acknowledged writes. Every record has one writer, so the records and the live index must hold
exactly the last acknowledged change of each record.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from shadowswitch import Config, Delete, Engine, Put, Record, SwitchResult

KIND = "SEARCH_INDEX"
TYPE = "object_type"
BRANCHES = ("main", "feature/user-schema")
RECORDS = 400
WRITERS, READERS = 2, 2
"""The number on each branch."""
THINK_S = 0.001
PROBLEMS_MAX = 10
CONFIGS: list[dict[str, Any]] = [
    {"tokenizer": "porter", "shards": 2},
    {"tokenizer": "unicode61", "shards": 1},
    {"backend": "kv", "shards": 2},
    {"tokenizer": "ascii", "shards": 3, "parallel_workers": 2},
    {"backend": "kv", "shards": 4, "parallel_workers": 1},
]


class Acked(NamedTuple):
    """The last acknowledged change of a record: its LSN, and a word of its text; "" when it was deleted."""

    lsn: int
    word: str


def audit(held: Iterable[Record], acked: dict[str, Acked]) -> list[str]:
    """The differences between `held` and the acknowledged changes."""
    problems: list[str] = []
    seen: set[str] = set()
    for record in held:
        last = acked.get(record.id)
        if record.id in seen:
            problems.append(f"duplicate: {record.id} is there twice")
        seen.add(record.id)
        if last is None:
            problems.append(f"invented: {record.id} of LSN {record.lsn} was never written")
        elif not last.word:
            problems.append(f"revived: {record.id} was deleted at LSN {last.lsn}, and is there with LSN {record.lsn}")
        elif record.lsn != last.lsn or last.word not in str(record.fields):
            problems.append(f"lost: {record.id} was written at LSN {last.lsn}, and is there with LSN {record.lsn}")
    gone = [id for id, last in acked.items() if last.word and id not in seen]
    return problems + [f"lost: {id} was written at LSN {acked[id].lsn}, and is not there" for id in gone]


class Watch:
    """The LSNs that one reader has seen so far: none may be older than one before."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lsn = 0
        self.versions: dict[str, int] = {}
        self.problems: list[str] = []

    def opened(self, lsn: int) -> None:
        """A reader was opened that shows every change up to `lsn`."""
        if lsn < self.lsn:
            self.problems.append(f"back in time: {self.name} saw LSN {self.lsn}, then {lsn}")
        self.lsn = lsn

    def saw(self, found: list[tuple[str, int]]) -> None:
        """An answer had these records."""
        if len({id for id, _ in found}) < len(found):
            self.problems.append(f"duplicate: {self.name} got a record twice in one answer: {found}")
        for id, lsn in found:
            if lsn < self.versions.get(id, 0):
                self.problems.append(f"back in time: {self.name} saw {id} at {self.versions[id]}, then at {lsn}")
            self.versions[id] = lsn


class Scenario:
    """One run: writers and readers on two branches, and rebuilds of both in turn."""

    def __init__(self, data: Path, rebuilds: int, seed: int = 1) -> None:
        print(f"seed {seed}")
        self.data = data
        self.rebuilds = rebuilds
        self.seed = seed
        self.stop = threading.Event()
        self.problems: list[str] = []
        self.acked: dict[str, dict[str, Acked]] = {branch: {} for branch in BRANCHES}
        self.watches: list[Watch] = []
        self.switches = self.writes = self.reads = 0

    def run(self) -> list[str]:
        """Run the scenario; returns all problems."""
        config = Config(refresh_interval_ms=5, janitor_interval_s=0.1, copy_slice_rows=50, disk_reserve_bytes=0)
        with Engine.open(self.data, config) as engine:
            for branch in BRANCHES:
                self._begin(engine, branch)
            loops = [self._loop(engine, branch, n) for branch in BRANCHES for n in range(WRITERS + READERS)]
            for loop in loops:
                loop.start()
            try:
                self._rebuild(engine)
            finally:
                self.stop.set()
                for loop in loops:
                    loop.join(timeout=30)
                    if loop.is_alive():
                        self.problems.append(f"hangs: {loop.name}")
            self._judge(engine)
        return self.problems

    def _begin(self, engine: Engine, branch: str) -> None:
        engine.create_branch(branch)
        first = [Put(TYPE, f"rec{n}", {"text": f"hello begin{n}"}) for n in range(RECORDS)]
        lsn = engine.write(branch, first).lsn - len(first)
        self.acked[branch] = {put.id: Acked(lsn + n + 1, f"begin{n}") for n, put in enumerate(first)}
        self._note(engine.rebuild(branch, KIND, [TYPE], {"shards": 2}, timeout_s=60))

    # -- load ------------------------------------------------------------------------------------------------------

    def _loop(self, engine: Engine, branch: str, number: int) -> threading.Thread:
        chance = random.Random(f"{self.seed} {branch} {number}")
        step = (
            self._writer(engine, branch, number, chance)
            if number < WRITERS
            else self._reader(engine, branch, number, chance)
        )

        def work() -> None:
            errors = 0
            while not self.stop.wait(THINK_S) and errors < PROBLEMS_MAX:
                try:
                    step()
                except Exception as error:
                    errors += 1
                    self.problems.append(f"failed: {branch} {number}: {type(error).__name__}: {error}")

        return threading.Thread(target=work, name=f"{branch} {number}", daemon=True)

    def _writer(self, engine: Engine, branch: str, number: int, chance: random.Random) -> Callable[[], None]:
        own = [f"rec{n}" for n in range(RECORDS + 50) if n % WRITERS == number]
        acked = self.acked[branch]

        def step() -> None:
            batch: list[Put | Delete] = []
            words: dict[str, str] = {}
            for id in chance.sample(own, chance.choice([1, 1, 1, 3])):
                word = "" if chance.random() < 0.3 else f"w{number}x{self.writes}x{chance.randrange(10**9)}"
                words[id] = word
                batch.append(Put(TYPE, id, {"text": f"hello {word}"}) if word else Delete(TYPE, id))
            receipt = engine.write(branch, batch)
            for n, (id, word) in enumerate(words.items()):
                acked[id] = Acked(receipt.lsn - len(batch) + n + 1, word)
            self.writes += 1
            if chance.random() < 0.1:
                self._read_own(engine, branch, {id: acked[id] for id in words}, receipt.lsn)

        return step

    def _read_own(self, engine: Engine, branch: str, own: dict[str, Acked], lsn: int) -> None:
        with engine.reader(branch, KIND, min_lsn=lsn, timeout_s=20) as reader:
            held = [record for id in own if (record := reader.get(TYPE, id)) is not None]
        self.problems += [f"own write not read in {branch}: {problem}" for problem in audit(held, own)]

    def _reader(self, engine: Engine, branch: str, number: int, chance: random.Random) -> Callable[[], None]:
        watch = Watch(f"reader {number} of {branch}")
        self.watches.append(watch)

        def step() -> None:
            with engine.reader(branch, KIND) as reader:
                watch.opened(reader.lsn)
                hits = reader.search(chance.choice(["hello", f"rec{chance.randrange(RECORDS)}"]), limit=50)
                watch.saw([(hit.id, hit.lsn) for hit in hits])
                held = reader.get(TYPE, f"rec{chance.randrange(RECORDS + 50)}")
                watch.saw([(held.id, held.lsn)] if held is not None else [])
            self.reads += 1

        return step

    # -- rebuilds, and their results ---------------------------------------------------------------------------------

    def _note(self, result: SwitchResult) -> None:
        self.switches += result.success
        if not result.success:
            self.problems.append(f"refused: {result.message}")

    def _rebuild(self, engine: Engine) -> None:
        for number in range(self.rebuilds):
            branch = BRANCHES[number % 2]
            build_config = CONFIGS[number % len(CONFIGS)]
            try:
                self._note(engine.rebuild(branch, KIND, [TYPE], build_config, timeout_s=60))
                if number % 4 == 3:
                    self._note(engine.rollback(branch, KIND))
            except Exception as error:
                self.problems.append(f"rebuild {number}: {type(error).__name__}: {error}")

    def _judge(self, engine: Engine) -> None:
        for branch in BRANCHES:
            found = audit(engine.scan(branch), self.acked[branch])
            self.problems += [f"records of {branch}: {problem}" for problem in found[:PROBLEMS_MAX]]
            with engine.reader(branch, KIND, min_lsn=engine.head(branch), timeout_s=30) as reader:
                found = audit(reader.scan(), self.acked[branch])
            self.problems += [f"index of {branch}: {problem}" for problem in found[:PROBLEMS_MAX]]
        for watch in self.watches:
            self.problems += watch.problems[:PROBLEMS_MAX]
        repaired = engine.stats()["counters"].get("buckets_repaired", 0)
        if repaired:
            self.problems.append(f"{repaired} buckets had to be repaired; a sound build never needs it")
        self.problems += [f"fsck: {finding}" for finding in engine.check()]


def write_until_killed(data: Path) -> None:
    """Print the id of every write as soon as it is acknowledged."""
    with Engine.open(data) as engine:
        engine.create_branch("main")

        def write(number: int) -> None:
            for n in range(10_000):
                engine.write("main", [Put(TYPE, f"{number}-{n}", {})])
                sys.stdout.write(f"{number}-{n}\n")
                sys.stdout.flush()

        threads = [threading.Thread(target=write, args=(number,), daemon=True) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    if sys.argv[2] == "acks":
        write_until_killed(Path(sys.argv[1]))
    wrong = Scenario(Path(sys.argv[1]), int(sys.argv[2])).run()
    for line in wrong[:40]:
        print(line)
    sys.exit(1 if wrong else 0)
