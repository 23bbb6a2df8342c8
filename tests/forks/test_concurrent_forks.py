"""A fork never shows a write of its parent behind its LSN, and never misses one up to it; nor does its index.

Writers and forks run at the same time. Each write has its LSN from its receipt, so what a fork must show is known
exactly: of each record, the write with the highest LSN up to that of the fork.
"""

from __future__ import annotations

import random
import threading
from collections import defaultdict

from shadowswitch import Delete, Engine, Put
from tests.support.engine_helpers import wait_until

KIND, TYPE = "SEARCH_INDEX", "t"
WRITERS, FORKS = 3, 12


class Writer(threading.Thread):
    """Writes records that other writers write, too; `history` has each write: LSN, id, number or None for a delete."""

    def __init__(self, engine: Engine, seed: int, enough: threading.Event) -> None:
        super().__init__(daemon=True)
        self.engine = engine
        self.chance = random.Random(seed)
        self.enough = enough
        self.history: list[tuple[int, str, int | None]] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.enough.is_set():
                ids = self.chance.sample(range(30), self.chance.randint(1, 3))
                values = [None if self.chance.random() < 0.2 else self.chance.getrandbits(40) for _ in ids]
                batch = [
                    Delete(TYPE, f"k{id}") if value is None else Put(TYPE, f"k{id}", {"n": value})
                    for id, value in zip(ids, values, strict=True)
                ]
                last = self.engine.write("main", batch, timeout_s=60).lsn
                first = last - len(batch) + 1
                for place, (id, value) in enumerate(zip(ids, values, strict=True)):
                    self.history.append((first + place, f"k{id}", value))
        except BaseException as error:
            self.failure = error


def test_forks_made_beside_writers_show_each_write_up_to_their_lsn_and_none_behind_it(engine: Engine) -> None:
    engine.write("main", [Put(TYPE, f"k{n}", {"n": -1}) for n in range(30)])
    assert engine.rebuild("main", KIND, [TYPE]).success
    enough = threading.Event()
    writers = [Writer(engine, seed, enough) for seed in range(WRITERS)]
    for writer in writers:
        writer.start()
    forks: dict[str, int] = {}
    for number in range(FORKS):
        head = engine.head("main")
        wait_until(lambda head=head: engine.head("main") > head + 5)  # type: ignore[misc]
        name = f"f{number}"
        forks[name] = engine.fork_branch(name, "main").fork_lsn or 0
        if number in (0, FORKS // 2):  # its index is made while the writers go on
            with engine.reader(name, KIND, timeout_s=60) as reader:
                reader.count()
    enough.set()
    for writer in writers:
        writer.join(120)
        assert writer.failure is None, writer.failure
        assert not writer.is_alive()
    of_record: dict[str, list[tuple[int, int | None]]] = defaultdict(list)
    for lsn, id, value in sorted(entry for writer in writers for entry in writer.history):
        of_record[id].append((lsn, value))
    for name, fork_lsn in forks.items():
        expected: dict[str, int] = {}
        for number in range(30):
            id = f"k{number}"
            last = [(lsn, value) for lsn, value in of_record[id] if lsn <= fork_lsn]
            value = last[-1][1] if last else -1
            if value is not None:
                expected[id] = value
        assert {one.id: one.fields["n"] for one in engine.scan(name)} == expected, f"{name} at {fork_lsn}"
        with engine.reader(name, KIND, timeout_s=60) as reader:
            assert {one.id for one in reader.scan()} == set(expected), f"the index of {name} at {fork_lsn}"
    assert list(engine.check()) == []
