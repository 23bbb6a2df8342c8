"""The least cost of a durable commit: LMDB and the disk alone, beside the same load."""

from __future__ import annotations

import random
import time
from pathlib import Path

import lmdb

MAP_BYTES = 4 << 30
RECORDS = 100_000
VALUE = bytes(200)
FILL_SLICE = 10_000


class BareCommits:
    """An LMDB environment of 100,000 records, and commits of a few of them, each durable. One thread."""

    def __init__(self, folder: Path, edits: int) -> None:
        folder.mkdir()
        self._edits = edits
        self._chance = random.Random(5)
        self._env = lmdb.open(str(folder), map_size=MAP_BYTES)
        keys = [n.to_bytes(8, "big") for n in range(RECORDS)]
        for start in range(0, RECORDS, FILL_SLICE):
            with self._env.begin(write=True) as txn:
                txn.cursor().putmulti([(key, VALUE) for key in keys[start : start + FILL_SLICE]])

    def commit(self) -> float:
        """One transaction; how long it took until it was on disk, in ms."""
        keys = [self._chance.randrange(RECORDS).to_bytes(8, "big") for _ in range(self._edits)]
        begun = time.perf_counter()
        with self._env.begin(write=True) as txn:
            for key in keys:
                txn.put(key, VALUE)
        return (time.perf_counter() - begun) * 1000

    def close(self) -> None:
        """Release the environment."""
        self._env.close()
