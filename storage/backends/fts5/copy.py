"""Copies of `fts5` shards for other programs: all shards as of one moment, while their writer continues.

SQLite's backup makes the copy, page by page inside a read transaction. So no descriptor of `shard.sqlite` is opened and
closed beside SQLite (see `store`), and no page is torn. The copy is in rollback mode, without `-wal` and `-shm`: it can
be opened in a read-only directory.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shadowswitch.storage.backends.fts5 import store

PACE_PAGES = 2048
"""The copy is forced to disk every 8 MiB: the next fsync of the journal waits behind all dirty pages."""


class Fts5Snapshot:
    """See `protocol.Snapshot`."""

    def __init__(self, shards: Sequence[Path], options: Mapping[str, Any]) -> None:
        self._sources: list[tuple[Path, sqlite3.Connection]] = []
        try:
            for path in shards:
                source = store.open_existing(path, options, "ro")
                self._sources.append((path, source))
                with store.translated("snapshot", path):
                    source.execute("BEGIN")
                    store.read_state(source, path)  # the transaction begins with the first read
        except BaseException:
            self.close()
            raise

    def copy(self, targets: Sequence[Path]) -> None:
        for (path, source), target in zip(self._sources, targets, strict=True):
            with store.translated("copy", path):
                target.mkdir(mode=0o700)
                copy_file(source, target / store.FILE)

    def close(self) -> None:
        while self._sources:
            self._sources.pop()[1].close()


def copy_file(source: sqlite3.Connection, file: Path) -> None:
    """Copy the database of a connection, as of its transaction, to a new file, durably. Raises as sqlite3."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        copy = sqlite3.connect(file, isolation_level=None)
        try:
            for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=OFF", "synchronous=OFF", "cache_size=-4096"):
                copy.execute(f"PRAGMA {pragma}").fetchall()
            source.backup(copy, pages=PACE_PAGES, progress=lambda *_: os.fdatasync(descriptor))
        finally:
            copy.close()
        _leave_wal_mode(file)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)  # last: it would drop SQLite's locks on the copy


def _leave_wal_mode(file: Path) -> None:
    copy = sqlite3.connect(file, isolation_level=None)
    try:
        copy.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
        copy.execute("PRAGMA journal_mode=DELETE").fetchall()
    finally:
        copy.close()
