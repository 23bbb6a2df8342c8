"""Copies of `tantivy` shards: for other programs, and for builds that begin with the rows of another shard.

The files of a Tantivy index never change; a commit makes new ones and removes old ones. So a copy holds the files of
one commit open, takes a snapshot of the rows behind it, and copies both later. The snapshot has every deletion of that
commit; it must need no later commit.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec

from shadowswitch.model.errors import CorruptData
from shadowswitch.storage.backends.fts5 import store
from shadowswitch.storage.backends.fts5.copy import Fts5Snapshot, copy_file
from shadowswitch.storage.backends.fts5.seed import COPY, put_in_place, remove
from shadowswitch.storage.backends.protocol import SEEDED, Reuse
from shadowswitch.storage.backends.tantivy import carry, delta
from shadowswitch.storage.backends.tantivy.options import WordsLayout, plan
from shadowswitch.storage.backends.tantivy.words import FOLDER, META, State, Words, translated
from shadowswitch.storage.disk import sync_directory
from shadowswitch.storage.reading import Count, no_look

SEED = "words.seed"
TRIES = 20
CHUNK_BYTES = 8 << 20
"""A copy is forced to disk so often: the next fsync of the journal waits behind all dirty pages."""
READ_BYTES = 1 << 20
_MANAGED = ".managed.json"
_FOOTER_BYTES_MAX = 1 << 16
_CHECKSUM = re.compile(rb'"crc":(\d+)')
_MAGIC = (1337).to_bytes(4, "little")
_EXTENSIONS = ("store", "idx", "pos", "term", "fieldnorm", "fast")


class Files:
    """The files of one commit of the words of a shard, held open."""

    def __init__(self, path: Path) -> None:
        """Raises CorruptData where no commit is there."""
        self._open: dict[str, int] = {}
        folder = path / FOLDER
        with translated("read words", path):
            for left in reversed(range(TRIES)):
                try:
                    self._hold(folder)
                    return
                except FileNotFoundError:  # a later commit removed it
                    self.close()
                    if not left:
                        raise

    def _hold(self, folder: Path) -> None:
        self.meta = (folder / META).read_bytes()
        names = sorted(_names(self.meta) & set(os.listdir(folder)))
        for name in names:
            self._open[name] = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
        if (folder / META).read_bytes() != self.meta:
            raise FileNotFoundError(f"{folder} was committed to meanwhile")

    def damage(self, looked: Count = no_look) -> list[str]:
        """Read every file, and compare it with the checksum at its end."""
        found = []
        for name, descriptor in self._open.items():
            size = os.fstat(descriptor).st_size
            end = os.pread(descriptor, _FOOTER_BYTES_MAX, max(0, size - _FOOTER_BYTES_MAX))
            length = int.from_bytes(end[-8:-4], "little")
            expected = _CHECKSUM.search(end[-8 - length : -8])
            if end[-4:] != _MAGIC or expected is None:
                found.append(f"{name} has no end")
            elif _checksum(descriptor, size - 8 - length, looked) != int(expected[1]):
                found.append(f"the content of {name} does not match its checksum")
        return found

    def copy(self, target: Path) -> None:
        """Copy them to a new folder, durably."""
        target.mkdir(mode=0o700)
        for name, descriptor in self._open.items():
            _copy(descriptor, target / name)
        managed = msgspec.json.encode(sorted([*self._open, META]))
        for name, content in ((_MANAGED, managed), (META, self.meta)):
            (target / name).write_bytes(content)
            with (target / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_directory(target)

    def close(self) -> None:
        """Release them. Idempotent."""
        while self._open:
            os.close(self._open.popitem()[1])


class TantivySnapshot:
    """See `protocol.Snapshot`."""

    def __init__(self, shards: Sequence[Path], options: Mapping[str, Any]) -> None:
        self._files: list[Files] = []
        self._rows: Fts5Snapshot | None = None
        try:
            for path in shards:
                self._files.append(Files(path))
            self._rows = Fts5Snapshot(shards, options)
        except BaseException:
            self.close()
            raise

    def copy(self, targets: Sequence[Path]) -> None:
        assert self._rows is not None
        self._rows.copy(targets)
        for files, target in zip(self._files, targets, strict=True):
            with translated("copy", target):
                files.copy(target / FOLDER)

    def close(self) -> None:
        if self._rows is not None:
            self._rows.close()
        while self._files:
            self._files.pop().close()


def seed(source: Path, old: Mapping[str, Any], target: Path, new: Mapping[str, Any], rest: Callable[[], None]) -> None:
    """See `protocol.Seeding.seed`."""
    file, layout = target / COPY, WordsLayout(new)
    reindex = plan(old, new) is Reuse.REINDEX
    remove(file)
    shutil.rmtree(target / SEED, ignore_errors=True)
    try:
        with closing(store.open_existing(source, old, "ro")) as connection, store.translated("seed", source):
            if reindex or not _copy_words(source, connection, target, layout):
                reindex = True
                connection.execute("BEGIN")
                store.read_state(connection, source)
            copy_file(connection, file)
        rest()
        with store.translated("seed", target), closing(_opened(file)) as copy:
            _make_new(copy, store.spec_text(new))
            if reindex:
                _index_again(target, copy, layout)
        with store.translated("seed", target):
            carry.put_in_place(target, SEED)
            put_in_place(file, target / store.FILE)
    finally:
        remove(file)
        shutil.rmtree(target / SEED, ignore_errors=True)


def _copy_words(source: Path, connection: sqlite3.Connection, target: Path, layout: WordsLayout) -> bool:
    """Copy the words, and begin a transaction that they cover; False if they are damaged, or change too often."""
    for _ in range(TRIES):
        shutil.rmtree(target / SEED, ignore_errors=True)
        try:
            with closing(Files(source)) as files, translated("copy words", target):
                files.copy(target / SEED)
            state = Words(target, layout, SEED).view().state
        except CorruptData:
            return False
        connection.execute("BEGIN")
        wanted = delta.coverage(connection)
        if state.uid == wanted.uid and wanted.covers <= state.covers and state.deleted <= wanted.deleted:
            return True
        connection.execute("ROLLBACK")
    return False


def _opened(file: Path) -> sqlite3.Connection:
    copy = sqlite3.connect(file, isolation_level=None)
    for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=NORMAL", "temp_store=MEMORY"):
        copy.execute(f"PRAGMA {pragma}").fetchall()
    return copy


def _make_new(copy: sqlite3.Connection, spec: str) -> None:
    """Give the copy the options and the state of a new shard."""
    copy.execute("BEGIN IMMEDIATE")
    copy.execute("UPDATE state SET applied_lsn = 0, loaded = 0, cursor = ?", (SEEDED,))
    copy.execute("UPDATE spec SET options = ?", (spec,))
    copy.execute("COMMIT")


def _index_again(target: Path, copy: sqlite3.Connection, layout: WordsLayout) -> None:
    """Make the words of all rows, with other tokens."""
    rowid = int(copy.execute("SELECT coalesce(max(rowid), 0) FROM docs").fetchone()[0])
    known = delta.coverage(copy)
    state = State(known.uid + 1, max(rowid, known.covers, *(delta.last_row(copy, n) for n in (0, 1))), known.deleted)
    carry.make_anew(target, copy, layout, state, SEED)
    copy.execute("BEGIN IMMEDIATE")
    copy.execute("UPDATE coverage SET uid = ?, covers = ?", (state.uid, state.covers))
    for number in (0, 1):
        delta.clear(copy, number)
    copy.execute("DELETE FROM gone")
    copy.execute("COMMIT")


def _names(meta: bytes) -> set[str]:
    """The names that the files of the segments may have."""
    found = set()
    for segment in msgspec.json.decode(meta)["segments"]:
        name = segment["segment_id"].replace("-", "")
        found |= {f"{name}.{extension}" for extension in _EXTENSIONS}
        if segment["deletes"] is not None:
            found.add(f"{name}.{segment['deletes']['opstamp']}.del")
    return found


def _checksum(descriptor: int, size: int, looked: Count) -> int:
    found, place = 0, 0
    while place < size:
        chunk = os.pread(descriptor, min(READ_BYTES, size - place), place)
        if not chunk:
            break
        found, place = crc32(chunk, found), place + len(chunk)
        looked(0)
    return found


def _copy(descriptor: int, target: Path) -> None:
    new = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        place = 0
        while chunk := os.pread(descriptor, CHUNK_BYTES, place):
            view = memoryview(chunk)
            while view:
                view = view[os.write(new, view) :]
            place += len(chunk)
            os.fdatasync(new)
        os.fsync(new)
    finally:
        os.close(new)
