"""LMDB and the disk alone, beside the same load: a durable commit, and reading the rows of a catalog."""

from __future__ import annotations

import random
import time
from pathlib import Path

import lmdb

from benchmarks.common import each_us
from shadowswitch.storage.catalog.environment import DATABASES, MAP_SIZE_BYTES
from shadowswitch.storage.data_directory import CATALOG

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


class BareRows:
    """The rows of a catalog that no engine has open: none is decoded or checked. One thread."""

    def __init__(self, data: Path) -> None:
        self._env = lmdb.open(
            str(data / CATALOG), readonly=True, max_dbs=len(DATABASES) + 3, map_size=MAP_SIZE_BYTES, lib_version=0
        )
        self._tables = {name: self._env.open_db(name.encode(), create=False) for name in DATABASES}

    def one_us(self, table: str, calls: int) -> float:
        """Reading the last row of a table by its key, each time in a transaction of its own."""
        database = self._tables[table]
        with self._env.begin(db=database) as txn, txn.cursor() as cursor:
            cursor.last()
            key = cursor.key()

        def read() -> None:
            with self._env.begin(db=database) as txn:
                txn.get(key)

        return each_us(read, calls)

    def all_s(self) -> float:
        """Reading every row of every table, in the order of the keys."""
        begun = time.perf_counter()
        for database in self._tables.values():
            with self._env.begin(db=database) as txn, txn.cursor() as cursor:
                for _ in cursor:
                    pass
        return time.perf_counter() - begun

    def close(self) -> None:
        """Release the environment."""
        self._env.close()
