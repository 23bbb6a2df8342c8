"""The catalog as of one moment, beside a running host, and its rows as pages.

LMDB copies what a read transaction shows, as fast as the disk writes; only so long the host keeps old pages for it. The
rows are read from the copy, which has no name any more: a kill leaves no file of it behind.

A page ends behind a key that its own checksum chooses, so a change of some rows changes only the pages they are in.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from zlib import crc32

import lmdb
import msgspec

from shadowswitch.model.errors import CorruptData, InvalidConfig, StorageFull, UnsupportedFormat
from shadowswitch.storage.catalog import keys
from shadowswitch.storage.catalog.environment import DATABASES, FIRST_FORMAT_META, Catalog, meta_key
from shadowswitch.storage.catalog.journal_format import entries_of
from shadowswitch.storage.catalog.transitions.restoring import ORIGINS
from shadowswitch.storage.disk import disk_errors, free_bytes

NAMED = (*DATABASES, FIRST_FORMAT_META.decode())
"""Every named database that a catalog may have."""
OF_META = meta_key("")
"""What a key of the unnamed database begins with, unless it is the name of another one."""
CUT_MASK = (1 << 8) - 1
"""One key of 256 ends a page."""
PAGE_MAX_BYTES = 1 << 20
KEPT_FREE_BYTES = 64 << 20
SPARE = 1.05


class Cut(msgspec.Struct, frozen=True):
    """The rows of a page: keys and values, one after the other, encoded."""

    content: bytes
    rows: int


class Head(msgspec.Struct, frozen=True):
    """What a snapshot is of."""

    uuid: str
    origins: tuple[str, ...]
    """The data directories whose backups it was restored from."""
    last_lsn: int
    taken_at: float
    """Seconds since the epoch."""
    rows: int


class Snapshot:
    """A copy of a catalog. It is closed by the `with` block of `snapshot`."""

    def __init__(self, env: lmdb.Environment, taken_at: float) -> None:
        self._env = env
        self._taken_at = taken_at
        with env.begin() as txn:
            keys_there = [bytes(key) for key in txn.cursor().iternext(values=False)]
        there = {key.decode("utf-8", "replace") for key in keys_there if not key.startswith(OF_META)}
        if there - set(NAMED):
            raise UnsupportedFormat(
                f"the catalog has the database {min(there - set(NAMED))!r:.40}, which this version does not know",
                operation="backup",
                hint="use the version of shadowswitch that wrote it, or a later one",
            )
        self.tables = ["", *sorted(there)]
        self._db = {name: env.open_db(name.encode() or None, create=False) for name in self.tables}

    def head(self) -> Head:
        """What the snapshot is of."""
        with self._env.begin() as txn:
            rows = sum(int(txn.stat(db)["entries"]) for db in self._db.values())
            uuid, origins = txn.get(meta_key("uuid")) or b"", txn.get(meta_key(ORIGINS)) or b""
            lsn = txn.get(meta_key("last_lsn"))
        last_lsn = int(keys.SEQUENCE.unpack(lsn)[0]) if lsn is not None else 0
        return Head(uuid.decode(), tuple(origins.decode().split()), last_lsn, self._taken_at, rows)

    def count(self, table: str) -> int:
        """The number of rows of a database."""
        with self._env.begin() as txn:
            return int(txn.stat(self._db[table])["entries"]) if table in self._db else 0

    def cuts(self, table: str, damaged: Callable[[str], None]) -> Iterator[Cut]:
        """The pages of a database, in the order of its keys. `damaged` is called with each row that is."""
        found = _PROBLEMS.get(table)
        gathered: list[bytes] = []
        size = 0
        with self._env.begin() as txn:
            for key, value in txn.cursor(self._db[table]):
                if table == "" and not key.startswith(OF_META):
                    continue  # the root of a named database
                if found is not None:
                    problem = found(key, value)
                    if problem:
                        damaged(problem)
                gathered += (key, value)
                size += len(key) + len(value)
                if not crc32(key) & CUT_MASK or size >= PAGE_MAX_BYTES:
                    yield Cut(msgspec.msgpack.encode(gathered), len(gathered) // 2)
                    gathered, size = [], 0
        if gathered:
            yield Cut(msgspec.msgpack.encode(gathered), len(gathered) // 2)


def _of_record(key: bytes, value: bytes) -> str:
    try:
        keys.split_record(key, value)
    except CorruptData as error:
        return f"the record {keys.claimed_id(key, value)[:80]!r} of LSN {keys.claimed_lsn(value)}: {error.message}"
    return ""


def _of_chunk(key: bytes, value: bytes) -> str:
    try:
        entries_of(keys.JOURNAL_KEY.unpack(key)[1], memoryview(value))
    except CorruptData as error:
        return error.message
    return ""


_PROBLEMS: dict[str, Callable[[bytes, bytes], str]] = {"records": _of_record, "journal": _of_chunk}


@contextlib.contextmanager
def snapshot(catalog: Catalog, scratch: Path | None) -> Iterator[Snapshot]:
    """A copy of a catalog, in a file of the folder `scratch`, or of the one for temporary files.

    Raises CorruptData, UnsupportedFormat, StorageFull when there is no room for the copy.
    """
    folder = scratch if scratch is not None else Path(tempfile.gettempdir())
    if not folder.is_dir():
        raise InvalidConfig(f"{folder} is no folder", operation="backup", hint="name one with room for the catalog")
    with disk_errors("backup"), contextlib.ExitStack() as stack:
        descriptor, name = tempfile.mkstemp(prefix="shadowswitch-backup-", dir=folder)
        stack.callback(os.close, descriptor)
        try:
            _refuse_without_room(catalog, folder)
            taken_at = catalog.clock.wall()
            catalog.env.copyfd(descriptor, compact=True)
            size = os.fstat(descriptor).st_size
            opened = lmdb.open(
                name, subdir=False, readonly=True, lock=False, max_dbs=len(NAMED), map_size=size, lib_version=0
            )
            env = stack.enter_context(contextlib.closing(opened))
        finally:
            os.unlink(name)
        yield Snapshot(env, taken_at)


def _refuse_without_room(catalog: Catalog, folder: Path) -> None:
    """The copy has no free page, so it is not larger than what is used."""
    info = catalog.env.info()
    needed = int((info["last_pgno"] + 1) * catalog.env.stat()["psize"] * SPARE) + KEPT_FREE_BYTES
    free = free_bytes(folder)
    if free < needed:
        raise StorageFull(
            f"a copy of the catalog needs {needed >> 20} MiB in {folder}, which has {free >> 20} MiB free",
            operation="backup",
            object=str(folder),
            hint="give another folder for it with scratch",
        )
