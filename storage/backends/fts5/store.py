"""The file of an `fts5` shard: its schema, its connections, and SQLite's errors as errors of this library.

A shard is the directory that holds `shard.sqlite` (with `-wal` and `-shm` beside it while in use):

    docs(rowid, kh, lsn, type, id, c0, c1, ...)    one row for each live record; kh = key_hash - 2**63; behind the
                                                   texts a column g, if the index holds parts of words (see `extra`)
    docs_by_key ON docs(kh)                        so a bucket, the top six bits of the hash, is a range of kh
    fts                                            FTS5, external content over docs, same rowid
    state(one, applied_lsn, cursor, loaded, digest)    one row, updated in every transaction
    spec(options)                                  one row: the canonical options as JSON, written once

Invariants: rows, fts and state change together or not at all (BK-1). Rowids only grow, also for an updated record: FTS5
writes its pending terms to disk whenever a rowid is lower than the one before.

Only SQLite opens and closes descriptors of `shard.sqlite`: to close any descriptor of a file drops all POSIX locks that
the process has on it, those of SQLite as well. The `-wal` file carries no locks.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from shadowswitch.model.digest import Digest
from shadowswitch.model.errors import CorruptData, EngineClosed, InvalidChange, ShadowSwitchError, Timeout
from shadowswitch.storage.backends.fts5.options import Layout, of_files
from shadowswitch.storage.backends.protocol import ShardState
from shadowswitch.storage.shortages import no_room, shortage, unopened

FILE = "shard.sqlite"
FORMAT = 1
APPLICATION_ID = 0x53685377
"""'ShSw' in the file's header, which distinguishes a shard from another program's SQLite file."""
KEY_BIAS = 1 << 63
"""SQLite integers are signed; subtracting this keeps the order of the hashes."""
BUSY_TIMEOUT_MS = 10_000
HASH_SIZE_BYTES = 16 << 20
"""FTS5 collects this much of a transaction in memory before it writes a segment (its default is 1 MiB)."""
CRISISMERGE_SEGMENTS = 1000
"""During the load of a copy, FTS5 merges 16 segments when a level is full: cheapest in total, but in bursts of up to
50 ms. After the load no commit merges, because a switch may wait for that commit: `compact` merges, bit by bit."""
MERGE_PAGES = 16
"""Pages that one `compact` writes: about a millisecond or two."""
WRITER_CACHE_KIB = 65_536
READER_CACHE_KIB = 8_192
WAL_KEEP_BYTES = 64 << 20
"""The WAL file is cut to this size when it starts over."""
FREE_BYTES_MIN = 1 << 20
"""A failed write with less free space than this counts as a full disk, which SQLite does not always report."""

_STATEMENTS_CACHED = 256
_PENDING_BYTE = 1 << 30
"""The page at this place holds SQLite's locks, and is never written."""
_LOG_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24
_NO_MEMORY = (sqlite3.SQLITE_IOERR_NOMEM, sqlite3.SQLITE_IOERR_SHMMAP)
"""SQLite's I/O errors for memory that cannot be had; a plain SQLITE_NOMEM is a MemoryError in Python."""
Words = tuple[Sequence[str], Sequence[str]]
SQLITE_ERRORS = (sqlite3.Error, MemoryError)
"""What a call of Python's sqlite3 raises for the database."""


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection to the shard in directory `path`; `mode` is ro, rw (must exist) or rwc. Autocommit, any thread."""
    uri = f"file:{quote(os.fsencode(os.path.abspath(path / FILE)))}?mode={mode}"
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=_STATEMENTS_CACHED
    )
    try:
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    except BaseException:
        connection.close()
        raise
    return connection


def create(path: Path, options: Mapping[str, Any], words: Words | None = None) -> None:
    """An empty, durable shard in `path`; removes its content first. `words` are the columns of its texts, and the
    statements that make what finds them; else those of `fts5`."""
    with translated("create shard", path):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o700)
        os.close(
            os.open(path / FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        )  # SQLite keeps the mode, for -wal too
        connection = connect(path, "rwc")
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            _create_schema(connection, options, words or _words_of(options))
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            connection.close()
        sync_directory(path)
        sync_directory(path.parent)


def _words_of(options: Mapping[str, Any]) -> Words:
    layout = Layout(options)
    return layout.columns, words_schema(layout)


def _create_schema(connection: sqlite3.Connection, options: Mapping[str, Any], words: Words) -> None:
    columns, statements = words
    texts = "".join(f", {name} TEXT NOT NULL" for name in columns)
    connection.execute("BEGIN IMMEDIATE")
    for statement in (
        f"PRAGMA application_id={APPLICATION_ID}",
        f"PRAGMA user_version={FORMAT}",
        "CREATE TABLE docs(rowid INTEGER PRIMARY KEY, kh INTEGER NOT NULL, lsn INTEGER NOT NULL,"
        f" type TEXT NOT NULL, id TEXT NOT NULL{texts})",
        "CREATE INDEX docs_by_key ON docs(kh)",
        *statements,
        "CREATE TABLE state(one INTEGER PRIMARY KEY CHECK(one = 1), applied_lsn INTEGER NOT NULL, cursor BLOB NOT NULL,"
        " loaded INTEGER NOT NULL, digest BLOB NOT NULL)",
        "CREATE TABLE spec(options TEXT NOT NULL)",
    ):
        connection.execute(statement)
    connection.execute("INSERT INTO state VALUES(1, 0, x'', 0, ?)", (Digest().encode(),))
    connection.execute("INSERT INTO spec VALUES(?)", (spec_text(options),))
    connection.execute("COMMIT")


def words_schema(layout: Layout) -> tuple[str, ...]:
    """The statements that make `fts`, without words."""
    prefix = f", prefix='{' '.join(map(str, layout.prefix))}'" if layout.prefix else ""
    return (
        f"CREATE VIRTUAL TABLE fts USING fts5({', '.join(layout.columns)}, content='docs', content_rowid='rowid',"
        f" tokenize='{layout.tokenizer}'{prefix})",
        f"INSERT INTO fts(fts, rank) VALUES('hashsize', {HASH_SIZE_BYTES})",
        "INSERT INTO fts(fts, rank) VALUES('automerge', 0)",
    )


def spec_text(options: Mapping[str, Any]) -> str:
    """The options in their canonical form, for comparison."""
    return msgspec.json.encode(dict(options), order="deterministic").decode()


def _of_files(spec: str) -> str:
    """What a spec says of the files."""
    try:
        return spec_text(of_files(msgspec.json.decode(spec, type=dict[str, Any])))
    except (msgspec.DecodeError, TypeError):
        return spec


def open_existing(path: Path, options: Mapping[str, Any], mode: str) -> sqlite3.Connection:
    """A connection to an existing shard with these options. Raises `CorruptData` otherwise."""
    with translated("open shard", path):
        connection = connect(path, mode)
        try:
            verify_identity(connection, path, options)
        except BaseException:
            connection.close()
            raise
        return connection


def verify_identity(connection: sqlite3.Connection, path: Path, options: Mapping[str, Any]) -> None:
    """Raise `CorruptData` unless the file is a shard of this format with these options."""
    found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    if found != [APPLICATION_ID, FORMAT]:
        raise CorruptData("not an fts5 shard of this format", object=str(path), hint="build the index again")
    stored = connection.execute("SELECT options FROM spec").fetchone()
    if stored is None or _of_files(stored[0]) != _of_files(spec_text(options)):
        raise CorruptData("the shard was built with other options", object=str(path), hint="build the index again")


def refuse_cut(path: Path) -> None:
    """Raise `CorruptData` when the file ends before its last page, and the log does not have what is missing.

    SQLite notices that only where it reads such a page. The connection cannot write: another one would copy the log
    into the file when it closes, and fill the gap with zeros.
    """
    with closing(connect(path, "ro")) as connection:
        pages, page_bytes = (connection.execute(f"PRAGMA page_{name}").fetchone()[0] for name in ("count", "size"))
    file = path / FILE
    present = os.stat(file).st_size // page_bytes
    never_written = _PENDING_BYTE // page_bytes + 1
    missing = set(range(present + 1, pages + 1)) - {never_written}
    if missing and not missing <= _logged_pages(path, page_bytes) and os.stat(file).st_size // page_bytes < pages:
        raise CorruptData(
            f"{file} is cut off: it has {present} of its {pages} pages", object=str(path), hint="build the index again"
        )


def _logged_pages(path: Path, page_bytes: int) -> set[int]:
    """The numbers of the pages that the log has: of every frame with the salt of its header."""
    try:
        descriptor = os.open(path / f"{FILE}-wal", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return set()
    found = set()
    try:
        salt = os.pread(descriptor, 8, 16)
        for offset in range(_LOG_HEADER_BYTES, os.fstat(descriptor).st_size, _FRAME_HEADER_BYTES + page_bytes):
            frame = os.pread(descriptor, 16, offset)
            if frame[8:] != salt:
                break
            found.add(int.from_bytes(frame[:4], "big"))
    finally:
        os.close(descriptor)
    return found


def read_state(connection: sqlite3.Connection, path: Path) -> ShardState:
    """The state row, as of the connection's present transaction."""
    row = connection.execute("SELECT applied_lsn, cursor, loaded, digest FROM state").fetchone()
    if row is None or not isinstance(row[3], bytes) or len(row[3]) != len(Digest().encode()):
        raise CorruptData("the state row of the shard is damaged", object=str(path), hint="build the index again")
    return ShardState(row[0], bytes(row[1]), bool(row[2]), Digest.decode(row[3]))


def sync_directory(path: Path) -> None:
    """Make the entries of a directory durable."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY, os.fsync)


def sync_wal(path: Path) -> None:
    """Make the WAL of a shard durable, if there is one."""
    with_wal = path / f"{FILE}-wal"
    if with_wal.exists():
        _sync(with_wal, os.O_RDWR, os.fdatasync)


def _sync(path: Path, flags: int, sync: Callable[[int], None]) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def translated(operation: str, path: Path) -> Iterator[None]:
    """Turn the errors of SQLite and of the operating system into errors of this library."""
    try:
        yield
    except (*SQLITE_ERRORS, OSError) as error:
        if isinstance(error, ShadowSwitchError):
            raise
        raise translate(error, operation, path) from error


def translate(error: sqlite3.Error | OSError | MemoryError, operation: str, path: Path) -> ShadowSwitchError:
    """The error of this library for an error of SQLite or of the operating system."""
    at: dict[str, Any] = {"operation": operation, "object": str(path)}
    lack = shortage(error, operation, str(path)) or _hidden_shortage(error, operation, path)
    if lack is not None:
        return lack
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Timeout("the shard is held by another writer", hint="nothing was stored; try again", **at)
    if primary == sqlite3.SQLITE_TOOBIG or isinstance(error, sqlite3.DataError):
        return InvalidChange("a record is too large for the index", hint="make the record smaller", **at)
    if primary is None and isinstance(error, sqlite3.ProgrammingError):
        return EngineClosed("the shard was closed", hint="open it again", **at)
    return _corrupt(error, at)


def _hidden_shortage(error: Exception, operation: str, path: Path) -> ShadowSwitchError | None:
    """The shortage behind an error of SQLite, which keeps the errno to itself; None for any other error."""
    code = getattr(error, "sqlite_errorcode", None) or 0
    primary, cause = code & 0xFF, None
    if primary == sqlite3.SQLITE_FULL:
        cause = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    elif code in _NO_MEMORY:
        cause = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    elif primary == sqlite3.SQLITE_IOERR:
        cause = no_room(path, FREE_BYTES_MIN)
    elif primary == sqlite3.SQLITE_CANTOPEN:
        cause = unopened(path / FILE, path / f"{FILE}-wal", path / f"{FILE}-shm")
    elif primary == sqlite3.SQLITE_READONLY and not os.access(path / FILE, os.W_OK):
        cause = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if cause is None:
        return None
    return shortage(OSError(cause.errno, f"{error} ({cause.strerror})"), operation, str(path))


def _corrupt(error: Exception, at: dict[str, Any]) -> CorruptData:
    return CorruptData(f"the shard cannot be used: {error}", hint="check the disk, build the index again", **at)
