"""The libraries of the query kinds without an index around them: the baselines of `bench_kinds`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema_rs
import lmdb
import msgspec
import numpy as np

from shadowswitch.model.records import Item

LOADED = 1000
"""Records of one batch of a build."""
SCHEMA = {
    "type": "object",
    "required": ["title", "size"],
    "properties": {"title": {"type": "string"}, "size": {"type": "integer", "minimum": 0}},
}
Build = Callable[[Path, list[Item]], Callable[[Sequence[Item]], object]]
"""Makes an index of records, and gives what applies changes to it."""
encode = msgspec.msgpack.encode


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """The items in batches."""
    for first in range(0, len(items), size):
        yield items[first : first + size]


def environment(folder: Path) -> lmdb.Environment:
    """Bare LMDB, as the shards have it."""
    return lmdb.open(str(folder / "bare"), map_size=16 << 30, sync=False, max_dbs=4, lib_version=0)


class BareGraph:
    """Rows, and two edges of each link under the keys of their ends."""

    def build(self, folder: Path, items: list[Item]) -> Callable[[Sequence[Item]], object]:
        """See `Build`."""
        self._env = environment(folder)
        self._rows = self._env.open_db(b"rows")
        self._out, self._in = (self._env.open_db(name, dupsort=True) for name in (b"out", b"in"))
        for batch in batches(items, LOADED):
            self._apply(batch)
        return self._apply

    def _apply(self, changes: Sequence[Item]) -> None:
        with self._env.begin(write=True) as txn:
            for one in changes:
                key = one.id.encode()
                old = txn.get(key, db=self._rows)
                if old is not None:
                    self._edges(txn.delete, key, msgspec.msgpack.decode(old[8:]))
                txn.put(key, one.lsn.to_bytes(8, "big") + encode(one.fields), db=self._rows)
                self._edges(txn.put, key, one.fields or {})

    def _edges(self, call: Callable[..., Any], key: bytes, fields: dict[str, Any]) -> None:
        source, target, edge = fields["source"].encode(), fields["target"].encode(), encode([*fields.values(), key])
        call(source, edge, db=self._out)
        call(target, edge, db=self._in)

    def hop(self, node: str) -> list[Any]:
        """The edges from a node."""
        with self._env.begin() as txn, txn.cursor(db=self._out) as cursor:
            if not cursor.set_key(node.encode()):
                return []
            return [msgspec.msgpack.decode(value) for value in cursor.iternext_dup()]


class BareRules:
    """Each record validated, with a row for it and for each violation."""

    def __init__(self) -> None:
        self._validator = jsonschema_rs.validator_for(SCHEMA)

    def build(self, folder: Path, items: list[Item]) -> Callable[[Sequence[Item]], object]:
        """See `Build`."""
        self._env = environment(folder)
        self._rows = self._env.open_db(b"rows")
        for batch in batches(items, LOADED):
            self._apply(batch)
        return self._apply

    def _apply(self, changes: Sequence[Item]) -> None:
        with self._env.begin(write=True) as txn:
            for one in changes:
                found = [error.message for error in self._validator.iter_errors(one.fields)]
                txn.put(one.id.encode(), one.lsn.to_bytes(8, "big") + encode(found), db=self._rows)

    def is_valid(self, id: str) -> bool:
        """Whether a record has no violation."""
        with self._env.begin() as txn:
            value = txn.get(id.encode(), db=self._rows)
            return value is not None and not msgspec.msgpack.decode(value[8:])


class BareVectors:
    """Rows with vectors, and a matrix of them."""

    def build(self, folder: Path, items: list[Item]) -> Callable[[Sequence[Item]], object]:
        """See `Build`."""
        self._env = environment(folder)
        self._rows = self._env.open_db(b"rows")
        for batch in batches(items, LOADED):
            self._apply(batch)
        return self._apply

    def _apply(self, changes: Sequence[Item]) -> None:
        with self._env.begin(write=True) as txn:
            for one in changes:
                vector = np.asarray((one.fields or {})["v"], np.float32)
                vector /= np.linalg.norm(vector)
                txn.put(one.id.encode(), one.lsn.to_bytes(8, "big") + vector.tobytes(), db=self._rows)

    def read(self) -> None:
        """Make the matrix."""
        with self._env.begin() as txn:
            rows = [(bytes(key), value[8:]) for key, value in txn.cursor(db=self._rows)]
        self._keys = [key.decode() for key, _ in rows]
        self._matrix = np.frombuffer(b"".join(value for _, value in rows), np.float32).reshape(len(rows), -1)

    def nearest(self, vector: list[float]) -> list[str]:
        """The ten nearest."""
        wanted = np.asarray(vector, np.float32)
        scores = self._matrix @ (wanted / np.linalg.norm(wanted))
        best = np.argpartition(scores, -10)[-10:]
        return [self._keys[place] for place in best[np.argsort(-scores[best])]]
