"""The load of a demo: closed loops of writers and readers that remember every acknowledged write and every read."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence

import msgspec

from shadowswitch.engine.engine import Engine
from shadowswitch.engine.reader import Reader
from shadowswitch.model.records import Delete, Put
from shadowswitch.service.daemon.text_files import RESOURCE_TYPE

INDEX_TYPE = "SEARCH_INDEX"
THINK_S = 0.001
"""The pause of a loop between operations. Loops without a pause would compete for the interpreter."""
DELETES = 0.125
"""The share of deletes among the writes."""
EXAMPLES_MAX = 20
"""Each loop keeps this many errors, so that a loop of failures does not fill the memory."""
JOIN_TIMEOUT_S = 60.0


class Acked(msgspec.Struct, frozen=True):
    """The last acknowledged change of a record.

    `marker` is the marker word of its last text, `former` that of the text before; "" stands for the imported text.
    """

    lsn: int
    deleted: bool = False
    marker: str = ""
    former: str = ""


class Loop(threading.Thread):
    """A closed loop; `done` has the time (perf_counter) of each success."""

    def __init__(self, name: str, engine: Engine, branch: str, stop: threading.Event, seed: int) -> None:
        super().__init__(name=name, daemon=True)
        self.engine = engine
        self.branch = branch
        self.stop = stop
        self.chance = random.Random(seed)
        self.done: list[float] = []
        self.failures = 0
        self.errors: list[str] = []

    def run(self) -> None:
        """Repeat the step until `stop` is set."""
        while not self.stop.is_set():
            try:
                self.step()
                self.done.append(time.perf_counter())
            except Exception as error:
                self.fail(f"{type(error).__name__}: {error}")
            self.stop.wait(THINK_S)

    def step(self) -> None:
        """One operation."""
        raise NotImplementedError

    def fail(self, text: str) -> None:
        """Count a failure."""
        self.failures += 1
        if len(self.errors) < EXAMPLES_MAX:
            self.errors.append(f"{self.name}: {text}")


class Writer(Loop):
    """Edits, deletes and creates again its own records. A record has one writer, so `acked` is exact."""

    def __init__(
        self,
        number: int,
        engine: Engine,
        branch: str,
        stop: threading.Event,
        own: Sequence[tuple[str, str]],
        acked: dict[str, Acked],
        run: str,
    ) -> None:
        """`own` are the ids and texts of its records, `acked` their last acknowledged changes.

        `run` makes the marker words of two runs over the same data different.
        """
        super().__init__(f"writer {number}", engine, branch, stop, seed=number)
        self.marker = f"edit{run}w{number}x"
        self.own = own
        self.acked = acked
        self.kinds: Counter[str] = Counter()

    def step(self) -> None:
        """One durable write. The outcome of a failed write is unknown, so `acked` drops the record."""
        id, text = self.chance.choice(self.own)
        last = self.acked.pop(id, Acked(0))
        if not last.deleted and self.chance.random() < DELETES:
            receipt = self.engine.write(self.branch, [Delete(RESOURCE_TYPE, id)], owner=self.name)
            self.acked[id] = Acked(receipt.lsn, True, last.marker, last.former)
            self.kinds["deletes"] += 1
            return
        marker = f"{self.marker}{len(self.done) + self.failures}"
        fields = {"path": id, "name": id.rsplit("/", 1)[-1], "text": f"{marker} {text}", "size_bytes": len(text)}
        receipt = self.engine.write(self.branch, [Put(RESOURCE_TYPE, id, fields)], owner=self.name)
        self.acked[id] = Acked(receipt.lsn, False, marker, last.marker)
        self.kinds["creates again" if last.deleted else "edits"] += 1


class Searcher(Loop):
    """Searches and looks records up. Neither the index nor a record may go back in time (SW-2)."""

    def __init__(
        self,
        number: int,
        engine: Engine,
        branch: str,
        stop: threading.Event,
        words: Sequence[str],
        ids: Sequence[str],
    ) -> None:
        super().__init__(f"reader {number}", engine, branch, stop, seed=1000 + number)
        self.words = words
        self.ids = ids
        self.last_lsn = 0
        self.seen: dict[str, int] = {}
        self.back_in_time: list[str] = []
        self.generations: set[int] = set()

    def step(self) -> None:
        """Open a reader, search for a word, look up one record."""
        with self.engine.reader(self.branch, INDEX_TYPE) as reader:
            self.look(reader)

    def look(self, reader: Reader) -> None:
        """Search, and compare every LSN with the LSNs of earlier reads."""
        self.generations.add(reader.generation)
        if reader.lsn < self.last_lsn:
            self._went_back("the index", self.last_lsn, reader.lsn)
        self.last_lsn = reader.lsn
        for hit in reader.search(self.chance.choice(self.words), limit=10):
            self._saw(hit.id, hit.lsn)
        found = reader.get(RESOURCE_TYPE, self.chance.choice(self.ids))
        if found is not None:
            self._saw(found.id, found.lsn)

    def _saw(self, id: str, lsn: int) -> None:
        if lsn < self.seen.get(id, 0):
            self._went_back(id, self.seen[id], lsn)
        self.seen[id] = lsn

    def _went_back(self, what: str, before: int, now: int) -> None:
        self.back_in_time.append(f"{self.name}: {what} went from LSN {before} back to {now}")


class Load:
    """The loops of a run: they start together and stop together."""

    def __init__(self, engine: Engine, branch: str) -> None:
        self.engine = engine
        self.branch = branch
        self.stop = threading.Event()
        self.writers: list[Writer] = []
        self.searchers: list[Searcher] = []
        self.begun = self.ended = 0.0

    @property
    def loops(self) -> list[Loop]:
        """Writers and readers."""
        return [*self.writers, *self.searchers]

    def start(
        self,
        texts: Sequence[tuple[str, str]],
        words: Sequence[str],
        acked: dict[str, Acked],
        writers: int,
        readers: int,
    ) -> None:
        """Start the loops. Each writer gets a share of the texts, and takes their entries out of `acked`."""
        run = str(self.engine.head(self.branch))
        for number in range(min(writers, len(texts))):
            own = texts[number::writers]
            known = {id: acked.pop(id) for id, _ in own if id in acked}
            self.writers.append(Writer(number, self.engine, self.branch, self.stop, own, known, run))
        ids = [id for id, _ in texts]
        for number in range(readers):
            self.searchers.append(Searcher(number, self.engine, self.branch, self.stop, words, ids))
        self.begun = time.perf_counter()
        for loop in self.loops:
            loop.start()

    def end(self) -> None:
        """Stop the loops. A loop that does not stop is a failure."""
        if self.stop.is_set():
            return
        self.ended = time.perf_counter()
        self.stop.set()
        deadline = time.monotonic() + JOIN_TIMEOUT_S
        for loop in self.loops:
            loop.join(timeout=max(0.0, deadline - time.monotonic()))
            if loop.is_alive():
                loop.fail(f"hangs: the loop did not stop within {JOIN_TIMEOUT_S:.0f} s")

    def counts(self) -> tuple[int, int]:
        """The numbers of writes and searches until now."""
        return sum(len(writer.done) for writer in self.writers), sum(len(s.done) for s in self.searchers)
