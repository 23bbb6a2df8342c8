"""Copies of `tantivy` shards: for other programs, and for builds that begin with the rows of another shard.

The files of a Tantivy index never change; a commit makes new ones and removes old ones. So a copy holds the files of
one commit open, takes a snapshot of the rows behind it, and copies both later. The snapshot has every deletion of that
commit; it must need no later commit.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from shadowswitch.model.errors import CorruptData
from shadowswitch.storage.backends.fts5 import store
from shadowswitch.storage.backends.fts5.copy import Fts5Snapshot, copy_file
from shadowswitch.storage.backends.fts5.seed import COPY, put_in_place, remove
from shadowswitch.storage.backends.protocol import SEEDED, Reuse
from shadowswitch.storage.backends.tantivy import carry, delta
from shadowswitch.storage.backends.tantivy.files import FOLDER, TRIES, Files, translated
from shadowswitch.storage.backends.tantivy.options import WordsLayout, plan
from shadowswitch.storage.backends.tantivy.words import State, Words

SEED = "words.seed"


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
    carry.make_anew(target, carry.rows_of(copy, layout, 0, state.covers), layout, state, SEED)
    copy.execute("BEGIN IMMEDIATE")
    copy.execute("UPDATE coverage SET uid = ?, covers = ?", (state.uid, state.covers))
    for number in (0, 1):
        delta.clear(copy, number)
    copy.execute("DELETE FROM gone")
    copy.execute("COMMIT")
