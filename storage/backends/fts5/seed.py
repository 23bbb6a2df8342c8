"""An `fts5` shard that begins with the rows of another one, see `protocol.Seeding`.

The file is copied by SQLite's backup, beside the empty one of the new shard, and takes its place when it is whole. The
columns of `docs` are those of the options, so another set of fields, or another form of the texts, shares nothing.
Weights, synonyms and stop words belong to the query. With another tokenizer or other prefixes the words of `docs` are
indexed again, in pieces: no fsync of the journal waits behind all of them.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from shadowswitch.storage.backends.fts5 import store
from shadowswitch.storage.backends.fts5.copy import copy_file
from shadowswitch.storage.backends.fts5.options import RAW, Layout, of_files
from shadowswitch.storage.backends.protocol import SEEDED, Reuse
from shadowswitch.storage.disk import sync_directory

COPY = "seed.sqlite"
REINDEX_ROWS = 5_000
"""Rows that are indexed again in one transaction, each forced to disk."""


def plan(old: Mapping[str, Any], new: Mapping[str, Any]) -> Reuse:
    """What a shard with the options `new` can take over from one with `old`. Pure."""
    if set(old["columns"] or ()) != set(new["columns"] or ()) or old.get("text", RAW) != new.get("text", RAW):
        return Reuse.NOTHING
    if Layout(old).extras != Layout(new).extras:
        return Reuse.NOTHING
    if of_files(old) != of_files(new):
        return Reuse.REINDEX
    return Reuse.COPY if old == new else Reuse.SETTINGS


def seed(source: Path, old: Mapping[str, Any], target: Path, new: Mapping[str, Any], rest: Callable[[], None]) -> None:
    """See `protocol.Seeding.seed`."""
    file = target / COPY
    remove(file)
    try:
        with closing(store.open_existing(source, old, "ro")) as connection, store.translated("seed", source):
            connection.execute("BEGIN")
            store.read_state(connection, source)  # the transaction begins here; without it each write restarts the copy
            copy_file(connection, file)
        with store.translated("seed", target):
            _make_new(file, Layout(new), plan(old, new) is Reuse.REINDEX, store.spec_text(new), rest)
            put_in_place(file, target / store.FILE)
    finally:
        remove(file)


def _make_new(file: Path, layout: Layout, reindex: bool, spec: str, rest: Callable[[], None]) -> None:
    """Give the copy the options and the state of a new shard."""
    with closing(sqlite3.connect(file, isolation_level=None)) as copy:
        for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=NORMAL", "temp_store=MEMORY"):
            copy.execute(f"PRAGMA {pragma}").fetchall()
        copy.execute("BEGIN IMMEDIATE")
        copy.execute("UPDATE state SET applied_lsn = 0, loaded = 0, cursor = ?", (SEEDED,))
        copy.execute("UPDATE spec SET options = ?", (spec,))
        if reindex:
            copy.execute("DROP TABLE fts")
            for statement in store.words_schema(layout):
                copy.execute(statement)
        copy.execute("COMMIT")
        if reindex:
            _index_again(copy, ", ".join(layout.columns), rest)


def _index_again(copy: sqlite3.Connection, names: str, rest: Callable[[], None]) -> None:
    first = 0
    while True:
        last = copy.execute(
            "SELECT max(rowid) FROM (SELECT rowid FROM docs WHERE rowid > ? ORDER BY rowid LIMIT ?)",
            (first, REINDEX_ROWS),
        ).fetchone()[0]
        if last is None:
            return
        copy.execute(
            f"INSERT INTO fts(rowid, {names}) SELECT rowid, {names} FROM docs"
            " WHERE rowid > ? AND rowid <= ? ORDER BY rowid",
            (first, last),
        )
        copy.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        first = last
        rest()


def put_in_place(file: Path, place: Path) -> None:
    """The copy takes the place of the empty shard, whose log goes first: it is none of the copy."""
    descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    for suffix in ("-wal", "-shm"):
        place.with_name(place.name + suffix).unlink(missing_ok=True)
    os.replace(file, place)
    sync_directory(place.parent)


def remove(file: Path) -> None:
    """Remove a database with what SQLite may have left beside it."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
