"""The approximate index of a large shard: HNSW by usearch, beside the rows. It proposes, and the rows decide.

    hnsw/graph.usearch   of each vector its LSN, its neighbours, and its numbers in 8 bits (16, unless `cos`)
    hnsw/state           JSON of State, made durable behind the graph

A build makes it when it has loaded the shard, and nothing changes it later. A shard that begins with the rows of
another one begins with a link to its graph, and keeps that if no row had to be changed below what it covers. A search
asks it for LSNs: one whose vector is still an entry of the shard counts, with the score of that entry. The vectors of
later LSNs are searched exactly (`matrix`). So a graph that is lost, damaged, or older than a repair of the shard (see
`places.MARK`) costs time.
(Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using HNSW graphs", 2018.)
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
import weakref
from collections.abc import Mapping
from hashlib import blake2b
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import lmdb
import msgspec
import numpy as np

from shadowswitch.model.search.bounds import UNLIMITED
from shadowswitch.storage.backends.derived.writer import derived_of
from shadowswitch.storage.backends.kv import store
from shadowswitch.storage.backends.kv.reader import Slices
from shadowswitch.storage.backends.vector.matrix import parts
from shadowswitch.storage.backends.vector.options import EXACT_MAX, Floats
from shadowswitch.storage.backends.vector.places import mark_of, of_lsn
from shadowswitch.storage.disk import sync_directory

logger = logging.getLogger("shadowswitch")
FOLDER, GRAPH, STATE = "hnsw", "graph.usearch", "state"
NEIGHBOURS, LOOKED_AT_BUILD, LOOKED_AT = 16, 128, 256
"""Edges of a vector, and the vectors looked at for a place, and for a search: recall for time."""
READ_BYTES = 1 << 20
LATER_MAX = 0.1
"""A graph that was taken over is made anew if more vectors of the shard, by this share, are not in it."""
NO_LINK = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK)
"""From a file system without hard links, or another one."""


class State(msgspec.Struct, frozen=True):
    """`covers`: the LSN up to which the graph has every vector, as of `mark`."""

    covers: int
    mark: int
    size: int
    dimensions: int
    checksum: str


class Hnsw:
    """An open graph. Any thread, one search at a time."""

    def __init__(self, path: Path, state: State, options: Mapping[str, Any]) -> None:
        """Raises OSError, RuntimeError for a file that cannot be read."""
        self.covers = state.covers
        self.mark = state.mark
        self.size = state.size
        self._lock = threading.Lock()
        self._index = _index(options)
        self._index.view(os.fspath(path))

    def nearest(self, wanted: Floats, count: int) -> list[int]:
        """The LSNs of about the nearest vectors, best first."""
        with self._lock:  # usearch has one place of work for a thread of its own, and takes the first one
            found: list[int] = self._index.search(wanted, count, threads=1).keys.tolist()
        return found


class _Place:
    """The graph of an open environment, once it was looked for."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.is_looked_for = False
        self.graph: Hnsw | None = None


def is_installed() -> bool:
    """Whether graphs can be made and read."""
    return find_spec("usearch") is not None


def build(environment: store.Environment, options: Mapping[str, Any]) -> None:
    """Make the graph of a shard that is loaded, if it is large; without room for it there is none.

    The thread of its writer, which waits: some minutes for a million vectors.
    """
    with environment.map.transaction() as transaction:
        count = transaction.stat(derived_of(environment)[0])["entries"]
    if count <= options.get("exact_max", EXACT_MAX):
        return
    if not is_installed():
        logger.warning("usearch is not installed: searches of the %d vectors of %s are exact", count, environment.path)
        return
    try:
        if not _is_fresh(environment, options, count):
            _make(environment, options)
    except (OSError, RuntimeError) as error:
        logger.warning(
            "searches of the %d vectors of %s are exact, without a graph: %s", count, environment.path, error
        )
        shutil.rmtree(environment.path / FOLDER, ignore_errors=True)
    with _guard:
        _opened.pop(environment, None)


def take_over(source: Path, target: Path) -> None:
    """Let a shard begin with the graph of another one, whose rows it was given before. Without one it has none.

    Nothing writes to the file of a graph (`_make` makes another one), so both shards have the same one.
    """
    folder = target / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    try:
        state = (source / FOLDER / STATE).read_bytes()
        folder.mkdir(mode=0o700)
        try:
            os.link(source / FOLDER / GRAPH, folder / GRAPH)
        except OSError as error:
            if error.errno not in NO_LINK:
                raise
            shutil.copyfile(source / FOLDER / GRAPH, folder / GRAPH)
        (folder / STATE).write_bytes(state)
        _store(folder / STATE)
        sync_directory(folder)
        sync_directory(target)
    except OSError as error:  # the build makes a graph, or searches are exact
        if not isinstance(error, FileNotFoundError):
            logger.warning("the graph in %s was not taken over: %s", source, error)
        shutil.rmtree(folder, ignore_errors=True)


def _is_fresh(environment: store.Environment, options: Mapping[str, Any], count: int) -> bool:
    """Is there a graph that was taken over, of the rows as they are now, but for a few later ones?"""
    found = _open(environment.path / FOLDER, options)
    if found is None:
        return False
    with environment.map.transaction() as transaction:
        if found.mark != mark_of(environment, transaction):
            return False
        cursor = transaction.cursor(derived_of(environment)[0])
        later = cursor.iternext(values=False) if cursor.set_range(of_lsn(found.covers + 1)) else iter(())
        most = int(count * LATER_MAX)
        return sum(1 for _ in islice(later, most + 1)) <= most


def _make(environment: store.Environment, options: Mapping[str, Any]) -> None:
    folder = environment.path / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    for name in (STATE, GRAPH):  # a graph that was taken over is still that of the other shard
        (folder / name).unlink(missing_ok=True)
    index, covers = _index(options), 0
    with environment.map.transaction(lasting=True) as transaction:
        mark = mark_of(environment, transaction)
        for part in parts(environment, transaction, 0, options["dimensions"], Slices(UNLIMITED)):
            if part.lsns:
                index.add(np.array(part.lsns, np.uint64), part.floats, threads=1)
                covers = part.lsns[-1]
    index.save(os.fspath(folder / GRAPH))
    state = State(covers, mark, len(index), options["dimensions"], _checksum(folder / GRAPH))
    _store(folder / GRAPH)
    temporary = folder / f"{STATE}.new"
    temporary.write_bytes(msgspec.json.encode(state))
    _store(temporary)
    os.replace(temporary, folder / STATE)
    sync_directory(folder)
    sync_directory(environment.path)


def hnsw_of(
    environment: store.Environment, transaction: lmdb.Transaction[bytes], options: Mapping[str, Any]
) -> Hnsw | None:
    """The graph of an open environment; None where a search must be exact. Any thread."""
    with _guard:
        place = _opened.setdefault(environment, _Place())
    with place.lock:  # its own: the file of a shadow is read while live indexes are searched
        if not place.is_looked_for:
            place.graph, place.is_looked_for = _open(environment.path / FOLDER, options), True
        found = place.graph
    return found if found is not None and found.mark == mark_of(environment, transaction) else None


def _open(folder: Path, options: Mapping[str, Any]) -> Hnsw | None:
    try:
        state = msgspec.json.decode((folder / STATE).read_bytes(), type=State)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        logger.warning("the graph in %s cannot be used, searches are exact: %s", folder, error)
        return None
    if not is_installed():
        logger.warning("usearch is not installed: searches of the %d vectors in %s are exact", state.size, folder)
        return None
    try:
        if state.dimensions == options["dimensions"] and _checksum(folder / GRAPH) == state.checksum:
            return Hnsw(folder / GRAPH, state, options)
        logger.warning("the graph in %s is damaged: searches are exact until the index is built again", folder)
    except (OSError, RuntimeError, ValueError) as error:
        logger.warning("the graph in %s cannot be used, searches are exact: %s", folder, error)
    return None


def _index(options: Mapping[str, Any]) -> Any:
    from usearch.index import Index  # here, for most shards need none

    metric = {"cos": "ip", "ip": "ip", "l2": "l2sq"}[options["metric"]]  # of vectors of length 1, as they lie here
    return Index(
        ndim=options["dimensions"],
        metric=metric,
        dtype="i8" if options["metric"] == "cos" else "bf16",  # 8 bits are for vectors of length 1
        connectivity=NEIGHBOURS,
        expansion_add=LOOKED_AT_BUILD,
        expansion_search=LOOKED_AT,
    )


def _checksum(file: Path) -> str:
    hashed = blake2b(digest_size=16)
    with file.open("rb") as opened:
        while block := opened.read(READ_BYTES):
            hashed.update(block)
    return hashed.hexdigest()


def _store(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_guard = threading.Lock()
_opened: weakref.WeakKeyDictionary[store.Environment, _Place] = weakref.WeakKeyDictionary()
os.register_at_fork(after_in_child=_opened.clear)
