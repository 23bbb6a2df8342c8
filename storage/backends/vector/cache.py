"""The vectors of texts by an embedder, kept in the data directory: `embeddings/<embedder>.sqlite`.

    vectors   hash of the text (32 bytes)  ->  floats of 4 bytes, little-endian, or none; and their CRC-32
    spent     texts that were embedded, and the seconds they took: the newest batches count most

One file for each embedder, version and number of dimensions. Every process of the host writes there. What is lost or
damaged is embedded again: a file that cannot be used is made anew, and without room for it there is no cache. The
folder may be removed while no process uses it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from zlib import crc32

import msgspec

from shadowswitch.storage.clock import SYSTEM
from shadowswitch.storage.data_directory import CATALOG, EMBEDDINGS
from shadowswitch.storage.disk import identity, of_descriptor

logger = logging.getLogger("shadowswitch")
BUSY_S = 10.0
CRC_BYTES = 4
OPENINGS, OPENING_S = 40, 0.05
_TABLE = "CREATE TABLE IF NOT EXISTS vectors(text BLOB PRIMARY KEY, floats BLOB) WITHOUT ROWID"
_SPENT = "CREATE TABLE IF NOT EXISTS spent(id INTEGER PRIMARY KEY, texts REAL, seconds REAL)"
_KNOWN = "SELECT text FROM vectors WHERE text IN (SELECT unhex_(value) FROM json_each(?))"
_SPEND = (
    "INSERT INTO spent VALUES(0, :texts, :seconds) ON CONFLICT(id) DO UPDATE SET"
    " texts = 0.9 * texts + :texts, seconds = 0.9 * seconds + :seconds WHERE :counts"
)
_FIND = "SELECT text, floats FROM vectors WHERE text IN (SELECT unhex_(value) FROM json_each(?))"


def data_of(shard: Path) -> Path | None:
    """The data directory of a shard; None for a shard outside of one."""
    return next((above for above in shard.absolute().parents if (above / CATALOG).is_dir()), None)


def hash_of(text: str) -> bytes:
    """The key of a text."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32).digest()


def embedded_in(data: Path) -> int:
    """The texts that were embedded in a data directory, each by each embedder: what its vectors have cost."""
    count = 0
    for file in (data / EMBEDDINGS).glob("*.sqlite"):
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=BUSY_S)) as connection:
            count += connection.execute("SELECT count(*) FROM vectors").fetchone()[0]
    return count


class Cache:
    """The vectors of one embedder. Any thread; one call at a time."""

    def __init__(self, path: Path | None, size_bytes: int) -> None:
        """`path` is `embeddings/<name>` in a data directory, which is there; without one it keeps nothing.

        `size_bytes` is that of one vector. It writes into no directory that took the place of this one.
        """
        self._path = path
        self._data = None
        if path is not None:
            with contextlib.suppress(OSError):
                self._data = identity(path.parent.parent)
        self._size_bytes = size_bytes
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def find(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The vectors that are known."""
        found: dict[bytes, bytes] = {}
        with self._opened("read") as connection:
            if connection is not None:
                for key, value in connection.execute(_FIND, (_hexadecimal(keys),)):
                    floats, checksum = value[:-CRC_BYTES], value[-CRC_BYTES:]
                    if len(floats) in (0, self._size_bytes) and crc32(floats).to_bytes(CRC_BYTES, "big") == checksum:
                        found[key] = floats
        return found

    def known(self, keys: Sequence[bytes]) -> set[bytes]:
        """Those of `keys` of which a vector is kept, sound or not."""
        with self._opened("read") as connection:
            if connection is not None:
                return {key for (key,) in connection.execute(_KNOWN, (_hexadecimal(keys),))}
        return set()

    def text_s(self) -> float | None:
        """The seconds that a text took when the last ones were embedded; None if none was."""
        with self._opened("read") as connection:
            if connection is not None:
                spent = connection.execute("SELECT seconds / texts FROM spent WHERE texts > 0").fetchone()
                return float(spent[0]) if spent else None
        return None

    def keep(self, vectors: Mapping[bytes, bytes], seconds: float, is_first: bool) -> None:
        """Store vectors, and the time they took; a failure is logged, and costs time later.

        `is_first`: the time has that to load the model, and counts where no other is known.
        """
        rows = [(key, floats + crc32(floats).to_bytes(CRC_BYTES, "big")) for key, floats in vectors.items()]
        with self._opened("write") as connection:
            if connection is not None and rows:
                with connection:
                    connection.executemany("INSERT OR REPLACE INTO vectors VALUES(?, ?)", rows)
                    connection.execute(_SPEND, {"texts": len(rows), "seconds": seconds, "counts": not is_first})

    def close(self) -> None:
        """Close the file. Idempotent; a later call opens it again."""
        with self._lock:
            self._let_go()

    @contextlib.contextmanager
    def _opened(self, what: str) -> Iterator[sqlite3.Connection | None]:
        """The open file; None if it cannot be used. An error of what is done with it ends that, and is logged."""
        with self._lock:
            connection = None
            try:
                connection = self._open()
            except (sqlite3.Error, OSError) as error:
                self._failed(what, error)
            try:
                yield connection
            except (sqlite3.Error, OSError) as error:
                self._failed(what, error)

    def _failed(self, what: str, error: Exception) -> None:
        logger.warning("the embeddings in %s cannot be used to %s: %s", self._path, what, error)
        self._let_go()
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            self._remove()

    def _open(self) -> sqlite3.Connection | None:
        if self._path is None:
            return None
        if self._data != identity(self._path.parent.parent):
            raise FileNotFoundError(f"another directory took the place of {self._path.parent.parent}")
        if self._connection is None:
            self._make_file()
            for left in reversed(range(OPENINGS)):
                try:
                    self._connection = _opened_file(self._path)
                    break
                except sqlite3.OperationalError:  # another process makes it: SQLite does not wait for a change of mode
                    if not left:
                        raise
                    SYSTEM.sleep(OPENING_S)
        return self._connection

    def _make_file(self) -> None:
        """In the directory itself, wherever it is moved meanwhile: SQLite makes none."""
        assert self._path is not None, "its caller has one"
        data = os.open(self._path.parent.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if of_descriptor(data) == self._data:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(EMBEDDINGS, 0o700, dir_fd=data)
                folder = os.open(EMBEDDINGS, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=data)
                try:
                    os.close(os.open(self._path.name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=folder))
                finally:
                    os.close(folder)
        finally:
            os.close(data)

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _remove(self) -> None:
        """The file is damaged."""
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                Path(f"{self._path}{suffix}").unlink()


def _hexadecimal(keys: Sequence[bytes]) -> str:
    return msgspec.json.encode([key.hex() for key in keys]).decode()


def _opened_file(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_S, check_same_thread=False
    )
    try:
        connection.create_function("unhex_", 1, bytes.fromhex, deterministic=True)
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        connection.execute("PRAGMA synchronous=NORMAL")  # a power cut takes the newest, and damages nothing
        connection.execute(_TABLE)
        connection.execute(_SPENT)
    except BaseException:
        connection.close()
        raise
    return connection
