"""Writers and readers under whom the demo rebuilds: closed loops that remember what was acknowledged."""

from __future__ import annotations

import random
import threading
import time
from itertools import pairwise

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.engine.reader import Reader
from shadowswitch.model.records import Delete, Put
from shadowswitch.service.importer import RESOURCE_TYPE

THINK_S = 0.001


class Acked(msgspec.Struct, frozen=True):
    """The last acknowledged change of a record: its LSN, and the marker word it wrote (None: deleted)."""

    lsn: int
    marker: str | None


class Loop(threading.Thread):
    """A closed loop with a millisecond of thought; `done` has the time (perf_counter) of each success."""

    def __init__(self, name: str, stop: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.stop = stop
        self.done: list[float] = []
        self.errors: list[str] = []

    def run(self) -> None:
        """Until told to stop."""
        while not self.stop.is_set():
            try:
                self.step()
                self.done.append(time.perf_counter())
            except Exception as error:
                self.errors.append(f"{self.name}: {type(error).__name__}: {error}")
            self.stop.wait(THINK_S)

    def step(self) -> None:
        """One operation."""
        raise AssertionError("a Loop does nothing by itself")


class Writer(Loop):
    """Edits, deletes and re-creates records of its own; nobody else writes them."""

    def __init__(
        self, number: int, engine: Engine, branch: str, own: list[tuple[str, str]], stop: threading.Event
    ) -> None:
        super().__init__(f"writer {number}", stop)
        self.engine = engine
        self.branch = branch
        self.own = own
        self.chance = random.Random(number)
        self.acked: dict[str, Acked] = {}
        self.number = number
        self.edits = 0

    def step(self) -> None:
        """One durable write: an edit with a new marker word, or (one in eight) a delete."""
        id, text = self.chance.choice(self.own)
        self.edits += 1
        if self.chance.random() < 0.125:
            receipt = self.engine.write(self.branch, [Delete(RESOURCE_TYPE, id)], owner=self.name)
            self.acked[id] = Acked(receipt.lsn, None)
            return
        marker = f"edit{self.number}x{self.edits}"
        fields = {"path": id, "name": id.rsplit("/", 1)[-1], "text": f"{marker} {text}", "size_bytes": len(text)}
        receipt = self.engine.write(self.branch, [Put(RESOURCE_TYPE, id, fields)], owner=self.name)
        self.acked[id] = Acked(receipt.lsn, marker)


class Searcher(Loop):
    """Searches, and watches that nothing goes back in time: neither the index's LSN nor the version of a record."""

    def __init__(self, number: int, engine: Engine, branch: str, words: list[str], stop: threading.Event) -> None:
        super().__init__(f"reader {number}", stop)
        self.engine = engine
        self.branch = branch
        self.words = words
        self.chance = random.Random(1000 + number)
        self.last_lsn = 0
        self.seen: dict[str, int] = {}
        self.back_in_time: list[str] = []
        self.generations: set[int] = set()

    def step(self) -> None:
        """Open a reader, search, look."""
        with self.engine.reader(self.branch, "SEARCH_INDEX") as reader:
            self._look(reader)

    def _look(self, reader: Reader) -> None:
        if reader.lsn < self.last_lsn:
            self.back_in_time.append(f"{self.name}: the index went from LSN {self.last_lsn} to {reader.lsn}")
        self.last_lsn = reader.lsn
        self.generations.add(reader.generation)
        for hit in reader.search(self.chance.choice(self.words), limit=10):
            if hit.lsn < self.seen.get(hit.id, 0):
                self.back_in_time.append(f"{self.name}: {hit.id} went from LSN {self.seen[hit.id]} to {hit.lsn}")
            self.seen[hit.id] = hit.lsn


def longest_gap_ms(times: list[float], begin: float, end: float) -> float:
    """The longest time without a success in a window, in milliseconds; its borders count as successes."""
    inside = [begin, *(t for t in times if begin < t < end), end]
    return max(later - earlier for earlier, later in pairwise(inside)) * 1000


def audit(engine: Engine, branch: str, acked: dict[str, Acked], search_samples: int = 200) -> list[str]:
    """Read every acknowledged change back through the live index. Returns what is lost, revived or not found.

    Exact: the index must hold just the version that was acknowledged last, for nobody else writes these records.
    """
    problems = []
    head = engine.head(branch)
    chance = random.Random(0)
    searched = set(chance.sample(sorted(acked), min(search_samples, len(acked))))
    with engine.reader(branch, "SEARCH_INDEX", min_lsn=head, timeout_s=30) as reader:
        for id, last in acked.items():
            held = reader.get(RESOURCE_TYPE, id)
            if last.marker is None and held is not None:
                problems.append(f"{id}: deleted at LSN {last.lsn}, and is back with LSN {held.lsn}")
            elif last.marker is not None and held is None:
                problems.append(f"{id}: written at LSN {last.lsn}, and is lost")
            elif held is not None and held.lsn != last.lsn:
                problems.append(f"{id}: acknowledged at LSN {last.lsn}, the index has LSN {held.lsn}")
            elif last.marker is not None and id in searched:
                found = [hit.id for hit in reader.search(last.marker, limit=5)]
                if found != [id]:
                    problems.append(f"{id}: a search for its marker {last.marker} finds {found}")
        if reader.count() != engine.count(branch):
            problems.append(f"the index holds {reader.count()} records, the branch {engine.count(branch)}")
    return problems
