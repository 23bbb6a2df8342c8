"""The writer of a `tantivy` shard: that of `fts5` for rows and state, with a delta in the place of the words.

A batch writes rows, and their tokens to the delta, in one transaction; it never waits for Tantivy. `flush` and
`compact`, which no switch calls, begin to carry rows into the words, and settle what was carried.

Rows of a load go to Tantivy at once, and `finish_load` commits them. After a crash they are read from `docs` again.
"""

from __future__ import annotations

import secrets
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch.model.digest import Digest
from shadowswitch.model.errors import CorruptData, ShadowSwitchError
from shadowswitch.model.records import Item
from shadowswitch.storage.backends.fts5 import store
from shadowswitch.storage.backends.fts5.writer import Fts5Writer, range_of
from shadowswitch.storage.backends.tantivy import delta
from shadowswitch.storage.backends.tantivy.carry import NEW, Carrier, make_anew, resting, rows_of
from shadowswitch.storage.backends.tantivy.options import WordsLayout
from shadowswitch.storage.backends.tantivy.words import Row, State, Words, given_back, taken
from shadowswitch.storage.clock import SYSTEM
from shadowswitch.storage.failpoints import failpoint

CARRY_S = 1.0
"""The time between two beginnings to carry rows, unless there are many."""
CARRY_ROWS = 200
"""Fewer changes stay in the delta: the search looks at them one by one, which costs less than a commit."""
MANY_ROWS = 2_000
"""With so many changes in the delta they are carried at once."""
CROWDED_ROWS = 20_000
"""With so many even `apply` begins to carry them, and settles what was carried."""
UID_BITS = 62
"""A number that SQLite and Tantivy take."""


class TantivyWriter(Fts5Writer):
    """See `protocol.SeedableWriter`. One thread at a time, any thread."""

    def __init__(
        self, connection: sqlite3.Connection, path: Path, options: Mapping[str, Any], layout: WordsLayout
    ) -> None:
        super().__init__(connection, path, layout)
        self._layout = layout
        self._texts = self._take_texts
        self._taken: list[Sequence[str]] = []
        self._fresh_rows: list[Row] = []
        self._is_load = False
        self._carried_at = -CARRY_S
        self._fed = 0
        """Rows up to this one were given to Tantivy, or a thread is about to."""
        self._given = 0
        """The words have no row behind this one. Never less than `_fed`."""
        self._is_known = True
        """False after an error, until it was read what the words have, and settled."""
        self._fresh = 0
        """The delta that takes new rows."""
        self.waiting = 0
        """Changes that are not in the words: rows in the delta, and rowids in `gone`."""
        shutil.rmtree(path / NEW, ignore_errors=True)
        known = delta.coverage(connection)
        self._rowid = max(self._rowid, known.covers, *(delta.last_row(connection, number) for number in (0, 1)))
        self._words = self._sound_words(known)
        self.carrier = Carrier(path, options, layout, self._words)
        self._read_coverage()
        self._is_open = True

    def load(self, items: Sequence[Item], cursor: bytes) -> None:
        if self._state.loaded:
            super().load(items, cursor)
            return
        self._find_out()
        before = self._rowid
        self._is_load = True
        try:
            super().load(items, cursor)
        finally:
            self._is_load = False
        self.carrier.wait()
        try:
            if self._fed < before:
                self.carrier.add(rows_of(self._connection, self._layout, self._fed, before))
            self.carrier.add(self._fresh_rows)
        except BaseException:
            self._give_up()
            raise
        self._feed(self._rowid)

    def finish_load(self, applied_lsn: int) -> None:
        self.carrier.wait()
        self._tend(begin=False)
        self._find_out()
        self._given = max(self._given, self._rowid)
        try:
            self._carried = self.carrier.carry(self._fed, self._rowid)
        except BaseException:
            self._give_up()
            raise
        super().finish_load(applied_lsn)
        self._read_coverage()

    def _finish_words(self) -> None:
        self._settle(self._carried)

    def apply(self, items: Sequence[Item], applied_lsn: int) -> int:
        changed = super().apply(items, applied_lsn)
        if self.waiting >= CROWDED_ROWS:
            self._tend()
        return changed

    def flush(self) -> int:
        applied_lsn = super().flush()
        self._tend()
        return applied_lsn

    def compact(self) -> bool:
        self._tend()
        return False

    def close(self) -> None:
        with ExitStack() as stack:
            stack.callback(super().close)
            if self._is_open:
                self._is_open = False
                stack.callback(given_back, self._words)
                stack.callback(self.carrier.close)

    def _take_texts(self, fields: Mapping[str, Any]) -> tuple[str, ...]:
        texts = self._layout.texts(fields)
        self._taken.append(texts)
        return texts

    def _write(self, gone: list[int], fresh: list[Item]) -> None:
        rowid = self._rowid
        self._taken = []
        self._insert(fresh)
        shown = len(self._layout.shown)
        self._fresh_rows = [
            (number, item.resource_type, texts[:shown])
            for number, (item, texts) in enumerate(zip(fresh, self._taken, strict=True), rowid + 1)
        ]
        self._remove(gone)
        if not self._is_load:
            delta.insert(self._connection, self._fresh, self._fresh_rows, self._words, self._layout)
            self.waiting += len(fresh)

    def _empty(self, bucket: int, digest: Digest) -> None:
        rows = self._connection.execute("SELECT rowid FROM docs WHERE kh BETWEEN ? AND ?", range_of(bucket))
        self._remove([rowid for (rowid,) in rows.fetchall()])
        digest.clear(bucket)

    def _remove(self, gone: Sequence[int]) -> None:
        """Remove rows from `docs`, and note those that the words may have."""
        known = [rowid for rowid in gone if rowid <= self._given]
        if known:
            self._deleted += 1
            keys = msgspec.json.encode(known).decode()
            self._connection.execute("INSERT INTO gone SELECT value, ? FROM json_each(?)", (self._deleted, keys))
            self._connection.execute("UPDATE coverage SET deleted = ?", (self._deleted,))
            self.waiting += len(known)
        if gone:
            keys = msgspec.json.encode(gone).decode()
            self._connection.execute("DELETE FROM docs WHERE rowid IN (SELECT value FROM json_each(?))", (keys,))

    def _tend(self, begin: bool = True) -> None:
        """Settle what was carried, and begin to carry what waits. Raises the error of the last attempt, once."""
        if not self.carrier.is_busy:
            try:
                done = self.carrier.result()
            except ShadowSwitchError:
                self._give_up()
                raise
            if done is not None:
                with self._transaction("settle words"):
                    self._settle(done)
                failpoint("words.settled")
                self._read_coverage()
            if begin:
                self._begin_to_carry()

    def _begin_to_carry(self) -> None:
        self._find_out()
        now, old = SYSTEM.monotonic(), 1 - self._fresh
        is_early = now < self._carried_at + CARRY_S
        upto = delta.last_row(self._connection, old)
        if upto:  # of an attempt that failed, or ended with its process
            if is_early:
                return
        else:
            if self.waiting < (MANY_ROWS if is_early else CARRY_ROWS):
                return
            upto = self._rowid
            with self._transaction("change the delta"):
                self._connection.execute("UPDATE coverage SET fresh = ?", (old,))
            self._fresh = old
        self._carried_at = now
        first = self._fed
        self._feed(upto)
        self.carrier.start(first, upto)

    def _feed(self, upto: int) -> None:
        self._fed = max(self._fed, upto)
        self._given = max(self._given, self._fed)

    def _give_up(self) -> None:
        """After an error: what was not committed is not in the words, what was is settled, now or later."""
        self.carrier.drop()
        self._carried_at = SYSTEM.monotonic()
        self._is_known = False
        with suppress(ShadowSwitchError):
            self._find_out()

    def _find_out(self) -> None:
        if self._is_known:
            return
        self._words.refresh()
        state = self._words.view(self._covers).state
        if state.covers > self._covers:
            with self._transaction("settle words"):
                self._settle(state)
            self._read_coverage()
        self._fed = self._covers
        self._is_known = True

    def _settle(self, state: State) -> None:
        """Inside a transaction: what the words have is not in the delta, and what they deleted is forgotten."""
        self._connection.execute("UPDATE coverage SET uid = ?, covers = ?", (state.uid, state.covers))
        for number in (0, 1):
            if 0 < delta.last_row(self._connection, number) <= state.covers:
                delta.clear(self._connection, number)
        self._connection.execute("DELETE FROM gone WHERE number <= ? AND r <= ?", (state.deleted, state.covers))
        failpoint("words.settling")

    def _read_coverage(self) -> None:
        _, self._covers, self._deleted, self._fresh, _ = delta.coverage(self._connection)
        self._feed(self._covers)
        gone = self._connection.execute("SELECT count(*) FROM gone").fetchone()[0]
        self.waiting = int(gone) + sum(delta.rows_in(self._connection, number) for number in (0, 1))

    def _sound_words(self, known: delta.Coverage) -> Words:
        """The words of these rows, made anew where they are not those that they must be."""
        words = self._words_that_are_there(known)
        if words is None:
            state = State(new_uid(), self._rowid, known.deleted)
            store.sync_wal(self._path)
            make_anew(
                self._path, resting(rows_of(self._connection, self._layout, 0, state.covers)), self._layout, state
            )
            words = taken(self._path, self._layout)
        words.refresh()
        state = words.view().state
        if (state.uid, state.covers) != (known.uid, known.covers):
            with self._transaction("settle words"):
                self._settle(state)
        return words

    def _words_that_are_there(self, known: delta.Coverage) -> Words | None:
        words = None
        try:
            words = taken(self._path, self._layout)
            words.refresh()
            if words.view(known.covers, known.uid).state.deleted <= known.deleted:
                return words
        except CorruptData:
            pass
        if words is not None:
            given_back(words)
        return None


def new_uid() -> int:
    """A name for words that no others have."""
    return secrets.randbits(UID_BITS)
