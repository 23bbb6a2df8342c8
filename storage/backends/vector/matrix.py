"""The vectors of a shard in memory, for exact searches: a matrix of what was read, and what came behind it.

The rows of the shard are the truth. The matrix only proposes: a vector counts if the row of its record has its LSN in
the transaction of the search. So a matrix may have vectors of records that were written again or removed, and vectors
of later LSNs than a frozen reader shows. It forgets them when they are half of all. A reader whose moment lies before
that reads the shard itself.

A shard with an approximate index (`hnsw`) has one of the vectors behind that, and one of all when a search needs it.

A matrix is that of an open environment, shared by the readers of a process; 4 bytes for each dimension of a record.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

import lmdb
import numpy as np

from shadowswitch.model.errors import CorruptData
from shadowswitch.model.kinds.asking import Key
from shadowswitch.storage.backends.derived import entries
from shadowswitch.storage.backends.derived.writer import derived_of
from shadowswitch.storage.backends.kv import store
from shadowswitch.storage.backends.kv.reader import Slices
from shadowswitch.storage.backends.vector.options import Floats
from shadowswitch.storage.backends.vector.places import VECTOR, mark_of, of_lsn

READ_ROWS = 1024
"""Vectors made into a part of the matrix at a time."""
BEHIND_MAX = 512
"""Vectors behind the matrix that are read for each search, before they become a part of it."""


class Vectors(NamedTuple):
    """Vectors with the keys and LSNs of their records, each at the same place."""

    keys: list[Key]
    lsns: list[int]
    floats: Floats


class Matrix:
    """See the module. Any thread."""

    def __init__(self, dimensions: int, behind: int) -> None:
        """Of the vectors of LSNs above `behind`."""
        self._dimensions = dimensions
        self._behind = behind
        self._lock = threading.Lock()
        self._begin(0, 0)

    def _begin(self, mark: int, forgot: int) -> None:
        self._mark = mark
        self._forgot = forgot
        """Before this LSN the matrix may lack what an older moment shows."""
        self._covers = self._behind
        self._keys: list[Key] = []
        self._lsns: list[int] = []
        self._floats: Floats = np.empty((0, self._dimensions), np.float32)

    def at(
        self, environment: store.Environment, transaction: lmdb.Transaction[bytes], slices: Slices
    ) -> tuple[Vectors, Vectors]:
        """The matrix, and the vectors of the transaction that are not in it. Raises CorruptData, Timeout."""
        applied = environment.read_meta(transaction).applied_lsn
        mark = mark_of(environment, transaction)
        with self._lock:
            if mark < self._mark or applied < self._forgot:
                return self._none(), _read(environment, transaction, self._behind, self._dimensions, slices)
            count = transaction.stat(derived_of(environment)[0])["entries"]
            if mark > self._mark or len(self._keys) > 2 * count + BEHIND_MAX:
                self._begin(mark, applied)
            behind = _read(environment, transaction, self._covers, self._dimensions, slices)
            if len(behind.keys) > BEHIND_MAX:
                self._take(behind)
                behind = self._none()
            size = len(self._keys)
            return Vectors(self._keys, self._lsns, self._floats[:size]), behind

    def _none(self) -> Vectors:
        return Vectors([], [], np.empty((0, self._dimensions), np.float32))

    def _take(self, behind: Vectors) -> None:
        """A search that holds the matrix of before sees none of it: it has its own size."""
        size, more = len(self._keys), len(behind.keys)
        if size + more > len(self._floats):
            larger = np.empty((max(size + more, 2 * size), self._dimensions), np.float32)
            larger[:size] = self._floats[:size]
            self._floats = larger
        self._floats[size : size + more] = behind.floats
        self._keys, self._lsns = self._keys + behind.keys, self._lsns + behind.lsns
        self._covers = behind.lsns[-1]


def _read(
    environment: store.Environment, transaction: lmdb.Transaction[bytes], behind: int, dimensions: int, slices: Slices
) -> Vectors:
    """The vectors of later LSNs, in their order."""
    keys: list[Key] = []
    lsns: list[int] = []
    floats: list[Floats] = []
    for part in parts(environment, transaction, behind, dimensions, slices):
        keys += part.keys
        lsns += part.lsns
        floats.append(part.floats)
    return Vectors(keys, lsns, np.concatenate(floats))


def parts(
    environment: store.Environment, transaction: lmdb.Transaction[bytes], behind: int, dimensions: int, slices: Slices
) -> Iterator[Vectors]:
    """The vectors of later LSNs, in their order, `READ_ROWS` at a time. The last part has less, or none."""
    keys: list[Key] = []
    lsns: list[int] = []
    waiting: list[bytes] = []
    for resource_type, id, lsn, floats in _values(environment, transaction, behind):
        slices.count()
        if len(floats) != 4 * dimensions:
            what, hint = "a vector of the shard is damaged", "build the index again"
            raise CorruptData(what, object=str(environment.path), hint=hint)
        keys.append((resource_type, id))
        lsns.append(lsn)
        waiting.append(floats)
        if len(waiting) == READ_ROWS:
            yield Vectors(keys, lsns, _floats(waiting, dimensions))
            keys, lsns, waiting = [], [], []
    yield Vectors(keys, lsns, _floats(waiting, dimensions))


def _values(
    environment: store.Environment, transaction: lmdb.Transaction[bytes], behind: int
) -> Iterator[tuple[Any, ...]]:
    with transaction.cursor(db=derived_of(environment)[0]) as cursor:
        there = cursor.set_range(of_lsn(behind + 1))
        while there and cursor.key()[:1] == VECTOR:
            try:
                resource_type, id, lsn, floats = entries.decode_value(cursor.value())
            except (ValueError, TypeError) as error:
                what, hint = "a vector of the shard is damaged", "build the index again"
                raise CorruptData(what, object=str(environment.path), hint=hint, cause=error) from error
            yield resource_type, id, lsn, floats
            there = cursor.next()


def _floats(rows: list[bytes], dimensions: int) -> Floats:
    made: Floats = np.frombuffer(b"".join(rows), "<f4").reshape(len(rows), dimensions).astype(np.float32, copy=False)
    return made


_guard = threading.Lock()
_matrices: weakref.WeakKeyDictionary[store.Environment, dict[int, Matrix]] = weakref.WeakKeyDictionary()


def matrix_of(environment: store.Environment, dimensions: int, behind: int = 0) -> Matrix:
    """That of an open environment, of the vectors of LSNs above `behind`. Any thread."""
    with _guard:
        of_environment = _matrices.setdefault(environment, {})
        if behind not in of_environment:
            of_environment[behind] = Matrix(dimensions, behind)
        return of_environment[behind]
