"""The integrity check of an `fts5` shard.

FTS5's own check is an INSERT: on the shard itself it would hold the write lock while it reads, and the writer would
wait. So the check copies the shard as of one moment, with SQLite's backup, which reads a snapshot and blocks no writer.
It reads the copy: every page, the terms against the rows, the rows against the digest, all of one transaction. The copy
needs the size of the shard on the same disk. Its name is removed as soon as it is filled; after a kill before that, the
next check of the shard removes the copy.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from shadowswitch.model.digest import Digest, key_hash
from shadowswitch.model.errors import CorruptData
from shadowswitch.storage.backends.fts5 import store
from shadowswitch.storage.reading import Count, no_look

FINDINGS_MAX = 20
"""Findings of each kind; the rest of a ruined shard adds nothing."""
STEPS = 10_000
"""Instructions of SQLite between two signs that the check goes on: a few milliseconds."""
PAGES = 4096
"""Pages of the copy between two such signs."""

_numbers = count(1)


def check(path: Path, options: Mapping[str, Any], looked: Count = no_look) -> list[str]:
    """The findings, empty when the shard is sound. Raises `StorageFull` when the copy has no room."""
    try:
        with copy_of(path, options, looked) as copy, store.translated("check", path):
            copy.set_progress_handler(lambda: looked(0), STEPS)
            return [*check_pages(copy), *_check_terms(copy), *check_rows(copy, path)]
    except CorruptData as error:
        return [error.message]


def _begun(_: sqlite3.Connection) -> None:
    """Nothing to look at."""


@contextmanager
def copy_of(
    path: Path, options: Mapping[str, Any], looked: Count, begun: Callable[[sqlite3.Connection], None] = _begun
) -> Iterator[sqlite3.Connection]:
    """A copy of a shard as of one moment, without a name. `begun` looks at the moment before it is copied."""
    with store.translated("copy for check", path):
        store.refuse_cut(path)
    with store.translated("copy for check", path), closing(store.open_existing(path, options, "ro")) as source:
        _remove_leftovers(path)
        name = path / f"check-{os.getpid()}-{next(_numbers)}.sqlite"
        copy = sqlite3.connect(name, isolation_level=None)
        try:
            try:
                copy.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
                copy.execute("PRAGMA journal_mode=MEMORY").fetchall()
                copy.execute("PRAGMA synchronous=OFF")
                source.execute("BEGIN")
                store.read_state(source, path)  # all parts of the copy are of this moment
                begun(source)
                source.backup(copy, pages=PAGES, progress=lambda *_: looked(0))
                source.execute("ROLLBACK")
                copy.execute("SELECT * FROM state").fetchall()
            finally:
                for file in (name, name.with_name(f"{name.name}-wal")):
                    file.unlink(missing_ok=True)
            yield copy
        finally:
            copy.close()


def _remove_leftovers(path: Path) -> None:
    """Remove the copies of checks that were killed."""
    for file in path.glob("check-*-*.sqlite*"):
        pid = file.name.split("-")[1]
        if pid.isdecimal() and not _is_alive(int(pid)):
            file.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def check_pages(copy: sqlite3.Connection) -> list[str]:
    """Every page of a copy, by SQLite."""
    rows = copy.execute(f"PRAGMA integrity_check({FINDINGS_MAX})").fetchall()
    return [f"pages: {text}" for (text,) in rows if text != "ok"]


def _check_terms(copy: sqlite3.Connection) -> list[str]:
    try:
        copy.execute("INSERT INTO fts(fts, rank) VALUES('integrity-check', 1)")
    except sqlite3.DatabaseError as error:
        if (error.sqlite_errorcode or 0) & 0xFF != sqlite3.SQLITE_CORRUPT:
            raise
        return [f"terms: the full-text index does not match its rows ({error})"]
    return []


def check_rows(copy: sqlite3.Connection, path: Path) -> list[str]:
    """In the order of the file: the order of keys would visit its pages at random."""
    findings: list[str] = []
    digest = Digest()
    for kh, resource_type, id, lsn in copy.execute("SELECT kh, type, id, lsn FROM docs"):
        hashed = key_hash(resource_type, id)
        if hashed - store.KEY_BIAS != kh:
            findings.append(f"rows: {resource_type}/{id} is stored under the hash of another key")
        if isinstance(lsn, int) and lsn > 0:
            digest.add(hashed, lsn)
        else:
            findings.append(f"rows: {resource_type}/{id} has the LSN {lsn!r}")
        if len(findings) >= FINDINGS_MAX:
            return findings
    findings += _repeated(copy)
    differing = store.read_state(copy, path).digest.differing(digest)
    if differing:
        findings.append(f"digest: the rows of buckets {differing} do not match the counters")
    return findings


def _repeated(copy: sqlite3.Connection) -> list[str]:
    """Keys with several rows. Only the index of the hashes is read whole."""
    several = copy.execute("SELECT kh FROM docs GROUP BY kh HAVING count(*) > 1 LIMIT ?", (FINDINGS_MAX,)).fetchall()
    findings = []
    for hashed in several:
        keys = copy.execute("SELECT type, id, count(*) FROM docs WHERE kh = ? GROUP BY type, id", hashed).fetchall()
        findings += [f"rows: {resource_type}/{id} has {found} rows" for resource_type, id, found in keys if found > 1]
    return findings
