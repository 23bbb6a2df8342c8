"""Brings rows from `docs` into the words: at the end of a load, beside the writer from time to time, or all anew.

A commit of Tantivy takes tenths of a second and waits for the disk, so it runs in a thread of its own, which writes
nothing to SQLite. The steps:

    begin     the writer has decided that new rows go to the other delta, and that rows up to `upto` are carried
    sync      a snapshot of the rows is taken and forced to disk. Rows that a power cut took would leave their rowids to
              others, so the words never have a row that is not durable
    add       rows behind those that the words have; the rowids of `gone` are deleted
    commit    with the state, in one commit
    settle    by the writer, in a transaction: `covers` is `upto`, the old delta and `gone` are emptied

A kill before the commit changes nothing. After it the next writer settles what the state says. There is no `rollback`
of Tantivy: after an error its writer is dropped with everything that it had not committed.
"""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import tantivy

from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.storage.backends.fts5 import store
from shadowswitch.storage.backends.tantivy import words as words_module
from shadowswitch.storage.backends.tantivy.delta import coverage
from shadowswitch.storage.backends.tantivy.files import FOLDER, translated
from shadowswitch.storage.backends.tantivy.options import WordsLayout
from shadowswitch.storage.backends.tantivy.words import ROW, Row, State, Words, put_state
from shadowswitch.storage.clock import SYSTEM
from shadowswitch.storage.disk import sync_directory
from shadowswitch.storage.failpoints import failpoint

NEW = "words.new"
"""The folder in which words are made anew."""
SLICE_ROWS, REST_S = 32, 0.0005
"""A thread of the host makes documents of so many rows, about a millisecond, and rests."""


class Carrier:
    """The writer of the words of one shard. All calls are of the thread that owns the shard."""

    def __init__(self, path: Path, options: Mapping[str, Any], layout: WordsLayout, words: Words) -> None:
        self._path = path
        self._options = options
        self._layout = layout
        self._words = words
        self._writer: tantivy.IndexWriter | None = None
        self._thread: threading.Thread | None = None
        self._error: ShadowSwitchError | None = None
        self._done: State | None = None

    @property
    def is_busy(self) -> bool:
        """Is a thread at work?"""
        return self._thread is not None and self._thread.is_alive()

    def add(self, rows: Iterable[Row]) -> None:
        """Give rows to the words, which have them after the next commit."""
        with translated("index rows", self._path):
            writer = self._opened()
            try:
                for row in rows:
                    writer.add_document(self._words.document(row, self._layout))
            finally:
                del writer  # an error keeps this frame, and the writer its lock while anything keeps it

    def start(self, first: int, upto: int) -> None:
        """Carry the rows behind `first` up to `upto`, in a thread. `result` has the outcome."""
        self._thread = threading.Thread(target=self._run, args=(first, upto), name="shadowswitch-words", daemon=True)
        try:
            with translated("index rows", self._path):
                self._thread.start()
        except BaseException:
            self._thread = None
            raise

    def result(self) -> State | None:
        """The state of a commit of the thread that is not settled yet; raises its error, once."""
        if self.is_busy:
            return None
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error
        done, self._done = self._done, None
        return done

    def wait(self) -> None:
        """Wait for the thread."""
        if self._thread is not None:
            self._thread.join()

    def carry(self, first: int, upto: int) -> State:
        """Carry the rows behind `first` up to `upto`, and commit. Raises as SQLite or Tantivy, translated."""
        try:
            with closing(store.open_existing(self._path, self._options, "ro")) as source:
                with store.translated("index rows", self._path):
                    source.execute("BEGIN")
                    wanted = coverage(source)
                    failpoint("words.begun")
                    store.sync_wal(self._path)
                    failpoint("words.synced")
                    gone = [rowid for (rowid,) in source.execute("SELECT r FROM gone WHERE r <= ?", (upto,))]
                    self.add(resting(rows_of(source, self._layout, first, upto)))
            state = State(wanted.uid, upto, wanted.deleted)
            with translated("commit words", self._path):
                writer = self._opened()
                try:
                    for rowid in gone:
                        writer.delete_documents_by_term(ROW, rowid)
                    put_state(writer, state, self._layout)
                    failpoint("words.added")
                    writer.commit()
                    failpoint("words.committed")
                finally:
                    del writer
        except BaseException:
            self.drop()
            raise
        return state

    def drop(self) -> None:
        """Let go of what was not committed, and of the lock of the words."""
        self._writer = None

    def close(self) -> None:
        """Wait for the thread, and drop."""
        try:
            self.wait()
        finally:
            self.drop()

    def _opened(self) -> tantivy.IndexWriter:
        if self._writer is None:
            self._writer = self._words.writer()
        return self._writer

    def _run(self, first: int, upto: int) -> None:
        try:
            self._done = self.carry(first, upto)
        except ShadowSwitchError as error:
            self._error = error
        except OSError as error:
            self._error = store.translate(error, "index rows", self._path)


def resting(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows; between slices of them another thread gets the GIL."""
    for number, row in enumerate(rows, 1):
        if number % SLICE_ROWS == 0:
            SYSTEM.sleep(REST_S)
        yield row


def rows_of(connection: sqlite3.Connection, layout: WordsLayout, first: int, upto: int) -> Iterable[Row]:
    """The rows behind `first` up to `upto`, in order."""
    found = connection.execute(
        f"SELECT rowid, type, {', '.join(layout.shown)} FROM docs WHERE rowid > ? AND rowid <= ? ORDER BY rowid",
        (first, upto),
    )
    return ((row[0], row[1], row[2:]) for row in found)


def make_anew(
    path: Path,
    rows: Iterable[Row],
    layout: WordsLayout,
    state: State,
    folder: str = FOLDER,
    temporary: str = NEW,
) -> None:
    """Words with these rows, which are all up to `state.covers`, in the place of those that are there."""
    with translated("make words", path):
        shutil.rmtree(path / temporary, ignore_errors=True)
        words_module.create(path, layout, state.uid, temporary)
        words = Words(path, layout, temporary)
        writer = words.writer()
        for row in rows:
            writer.add_document(words.document(row, layout))
        put_state(writer, state, layout)
        writer.commit()
        writer.wait_merging_threads()
        put_in_place(path, temporary, folder)


def put_in_place(path: Path, temporary: str, folder: str = FOLDER) -> None:
    """Words take the place of those that are there, durably."""
    shutil.rmtree(path / folder, ignore_errors=True)
    (path / temporary).rename(path / folder)
    sync_directory(path)
