"""Clients that write, lock, read, build, switch, roll back, cancel and retry, all at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from shadowswitch.model.views import SwitchRequest
from tests.simulation.clients import TYPES, VECTOR, WORD, Client

INDEX_TYPE = "SEARCH_INDEX"
BACKENDS = {0: "tantivy", 2: "vector", 4: "graph"}
"""The indexes of every eighth seed are of each of these backends, by the seed modulo `EVERY`; of the others `fts5`."""
EVERY = 8
OPTIONS: dict[str, dict[str, Any]] = {
    "graph": {"edges": {resource_type: {"to": "text", "to_type": "word"} for resource_type in TYPES}},
    "vector": {"vector_field": "vector", "dimensions": len(VECTOR), "exact_max": 1},
}
"""Of a graph: each record leads to the word that it has."""
WEIGHTS = {
    "write": 40,
    "acquire": 8,
    "release": 4,
    "build": 12,
    "built": 10,
    "switch": 16,
    "rollback": 8,
    "read": 12,
    "cancel": 4,
    "retry": 4,
    "force": 1,
}
FIRST = ("write", "write", "build", "built", "switch", "write", "build", "built", "switch")
"""The first operations of one client, so that most seeds have a live and a soaking generation."""


class Rebuilder(Client):
    """A client that shares its builds with all others."""

    weights = WEIGHTS

    def __init__(self, name: str, *more: Any) -> None:
        super().__init__(name, *more)
        if name == "alice":
            self.first = list(FIRST)

    def _shadow(self, branch: str, *wanted: str) -> str | None:
        """One of the newest shadows, most of the time in one of these states."""
        known = self.host.shadows(branch)
        if wanted and self._world.random.random() < 0.8:
            known = [shadow for shadow in known if shadow.state in wanted]
        return self._world.random.choice(known[-3:]).shadow_index_id if known else None

    def _build(self, branch: str) -> None:
        backend = BACKENDS.get(self._world.seed % EVERY, "fts5")
        config: dict[str, Any] = {"backend": backend, "parallel_workers": 1}
        config |= {"shards": self._world.random.choice((1, 1, 2))}
        config |= OPTIONS.get(backend, {})
        op = self._op("build", branch)
        self._do(op, lambda: self.host.start_build(branch, INDEX_TYPE, TYPES, config))

    def _built(self, branch: str) -> None:
        shadow = self._shadow(branch, "PREPARING", "BUILDING")
        if shadow is not None:
            self._do(self._op("built", branch), lambda: self.host.wait_for(shadow, "BUILT", timeout_s=5))

    def _switch(self, branch: str) -> None:
        shadow = self._shadow(branch, "BUILT")
        if shadow is not None:
            request = SwitchRequest(
                backup_current=self._world.random.random() < 0.8, switch_timeout_seconds=3, allow_empty=True
            )
            self._do(self._op("switch", branch), lambda: self.host.switch(shadow, request))

    def _read(self, branch: str) -> None:
        """Open a reader: at times one that must show a write acknowledged just before, or one that stays open."""
        if self._shadow(branch, "ACTIVE") is None:
            return
        least = self._oracle.acknowledged(branch) if self._world.random.random() < 0.3 else None
        op = self._op("read", branch, min_lsn=least or 0)
        kept_s = self._world.random.choice((0.0, 0.0, 1.0, 20.0))

        def look() -> Any:
            with self.host.reader(branch, INDEX_TYPE, min_lsn=least, timeout_s=60.0) as reader:
                if kept_s:
                    self._world.sleep(kept_s)
                held = {(row.resource_type, row.id): row.lsn for row in reader.scan()}
                found = _found(reader)
                return SimpleNamespace(
                    lsn=reader.lsn,
                    generation=reader.generation,
                    later_lsn=reader.applied_lsn(),
                    unlike=sorted(held.items() ^ found.items()),
                )

        self._do(op, look)

    def _rollback(self, branch: str) -> None:
        if self._shadow(branch, "ACTIVE") is None:
            return
        self._do(self._op("rollback", branch), lambda: self.host.rollback(branch, INDEX_TYPE))

    def _cancel(self, branch: str) -> None:
        shadow = self._shadow(branch, "PREPARING", "BUILDING", "BUILT")
        if shadow is not None:
            self._do(self._op("cancel", branch), lambda: self.host.cancel_build(shadow, "changed my mind"))

    def _retry(self, branch: str) -> None:
        shadow = self._shadow(branch, "FAILED")
        if shadow is not None:
            self._do(self._op("retry", branch), lambda: self.host.retry_build(shadow))


def _found(reader: Any) -> dict[tuple[str, str], int]:
    """The LSN of each record that the index finds, by what it derives from its rows: words, edges, or vectors."""
    if "graph" not in reader.kinds:
        hits = reader.vector.nearest(VECTOR, 100) if "vector" in reader.kinds else reader.search(WORD, 100)
        return {(hit.resource_type, hit.id): hit.lsn for hit in hits}
    keys = [edge.record for edge in reader.graph.neighbours(("word", WORD), direction="in")]
    return {key: record.lsn if (record := reader.get(*key)) else 0 for key in keys}
