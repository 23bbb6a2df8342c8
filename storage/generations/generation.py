"""One generation on disk: its writer, which follows the journal, and its readers, which pin it.

Owns `generations/<branch>/<TYPE>/<number>/`:

    manifest.json    see `storage.generations.manifest`
    PINS             readers of any process hold shared locks on it and on the directory
    shard-000/ ...   see `backends.protocol`

Invariants: SW-1, SW-5. The writer has a file of its own, see `storage.generations.writer`.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from shadowswitch.model.errors import EngineClosed, InvalidConfig, ResourceExhausted, Timeout
from shadowswitch.storage import data_directory, disk
from shadowswitch.storage.backends.protocol import Backend, Freezing, FreezingReader, IndexReader, Warming
from shadowswitch.storage.catalog.rows import GenerationRow
from shadowswitch.storage.failpoints import failpoint
from shadowswitch.storage.generations.directory import MANIFEST, PINS, shard_paths
from shadowswitch.storage.generations.manifest import write_manifest
from shadowswitch.storage.generations.writer import GenerationWriter
from shadowswitch.storage.shortages import shortages

QUERIES_KEPT = 100
RARE_WORD = "qzxjkvq"
"""The query of the engine itself: it finds nothing, so it costs the same at any size of the index."""
IDLE_READERS_MAX = 32
"""As many as the threads of the server: more readers at one moment are opened anew each time."""


def create(
    root: Path,
    row: GenerationRow,
    branch_name: str,
    catalog_uuid: str,
    backend: Backend,
    check_directory: Callable[[], None],
) -> Path:
    """Make the directory of a generation with empty shards and its manifest, durably. Idempotent before any load.

    `check_directory` raises DirectoryLost where `root` is not the engine's any more: each step goes by its path, and
    takes a commit's time.
    """
    check_directory()
    path = data_directory.make_directories(root, row.path, check_directory)
    check_directory()
    (path / PINS).touch(mode=0o600)
    for shard in shard_paths(path, row.shards):
        check_directory()
        backend.create_shard(shard, row.options)
        failpoint("build.shard_made")
    check_directory()
    write_manifest(path, row, branch_name, catalog_uuid)
    return path


class Generation:
    """A generation that this process serves or keeps: its row, its writer, its pool of readers, its pins."""

    def __init__(self, row: GenerationRow, path: Path, backend: Backend, writer: GenerationWriter) -> None:
        self.row = row
        self.path = path
        self.backend = backend
        self.writer = writer
        self.pins = 0
        """Of readers of this process, and of the threads that look for one."""
        self._kept = 0
        self.closed = False
        self.asked: deque[str] = deque(maxlen=QUERIES_KEPT)
        """The last queries, for QUERY_COMPARISON."""
        self.progress = threading.Condition()
        self._lock = threading.Lock()
        self._attention = threading.Lock()
        self._idle: list[IndexReader] = []
        self._opened_by: dict[int, GenerationRow] = {}
        """The row whose settings an open reader has, by the id of the object."""
        self._opened = disk.identity(path)
        self.hindered = row.hindered
        """Why it does not follow the journal at present; "" while it does. Set by its Follower."""
        self._is_short = False
        """The last reader that was to be opened lacked a resource."""

    @property
    def applied_lsn(self) -> int:
        """Everything up to here is visible to readers."""
        return self.writer.applied_lsn

    def pin(self) -> bool:
        """Hold the generation; False when it is closed already."""
        with self._lock:
            if self.closed:
                return False
            self.pins += 1
            return True

    def unpin(self) -> None:
        """Let go of one hold."""
        with self._lock:
            self.pins -= 1

    @contextlib.contextmanager
    def kept(self) -> Iterator[bool]:
        """Keep the generation open, as a pin does, for work of the engine: it counts as no reader.
        False when it is closed already."""
        with self._lock:
            is_open = not self.closed
            self._kept += is_open
        try:
            yield is_open
        finally:
            with self._lock:
                self._kept -= is_open

    @contextlib.contextmanager
    def maintenance_lock(self, timeout_s: float) -> Iterator[None]:
        """Held by one validation, repair or switch of a waiting generation at a time. Raises Timeout."""
        if not self._attention.acquire(timeout=timeout_s):
            raise Timeout(
                f"generation {self.row.number} is being looked at for longer than {timeout_s:.1f} s",
                operation="validate",
                hint="try again",
            )
        try:
            yield
        finally:
            self._attention.release()

    def take_reader(self) -> IndexReader:
        """An index reader for one user at a time; the generation must be pinned.

        Raises ResourceExhausted, and DirectoryLost when another directory took the place of the generation.
        """
        try:
            return self._idle.pop()
        except IndexError:
            pass
        try:
            with shortages("read", str(self.path)):
                row = self.row
                reader = self.backend.open_reader(shard_paths(self.path, row.shards), row.query_options)
        except ResourceExhausted:
            self._is_short = True
            raise
        self._is_short = False
        try:
            data_directory.refuse_another(self.path, self._opened, "read")
        except BaseException:
            reader.close()
            raise
        self._opened_by[id(reader)] = row
        return reader

    def open_freezing(self) -> FreezingReader:
        """A reader of its own that can show one moment, to be closed; the generation must be pinned.

        Raises InvalidConfig for a backend that has none, ResourceExhausted, and as `take_reader`.
        """
        if not isinstance(self.backend, Freezing):
            raise InvalidConfig(
                f"{self.row.index_type} has the backend {self.row.backend!r}, which shows no moment to several readers",
                operation="read",
                hint="read it alone, with engine.reader",
            )
        with shortages("read", str(self.path)):
            row = self.row
            reader = self.backend.open_freezing(shard_paths(self.path, row.shards), row.query_options)
        try:
            data_directory.refuse_another(self.path, self._opened, "read")
        except BaseException:
            reader.close()
            raise
        return reader

    def give_reader(self, reader: IndexReader) -> None:
        """Put an index reader back for the next user; when the generation is closed there is none.

        An idle reader holds descriptors, so few are kept, and none while a reader could not be opened.
        """
        with self._lock:
            is_old = self._opened_by.get(id(reader)) is not self.row
            if not (is_old or self.closed or self._is_short) and len(self._idle) < IDLE_READERS_MAX:
                self._idle.append(reader)
                return
            self._opened_by.pop(id(reader), None)
        reader.close()

    def retune(self, row: GenerationRow) -> None:
        """New readers take the settings of this row; a reader in use goes on with those that it was opened with."""
        with self._lock:
            self.row = row
            old, self._idle = self._idle, []
        for reader in old:
            self._opened_by.pop(id(reader), None)
            reader.close()

    def wait_applied(self, lsn: int, deadline: float, is_left: Callable[[], bool] = lambda: False) -> bool:
        """Wait until readers see everything up to `lsn`; False when the live pointer moved to another one before.
        Raises Timeout at the (monotonic) deadline, or EngineClosed."""
        with self.progress:
            while self.applied_lsn < lsn:
                if is_left():
                    return False
                if self.closed:
                    raise EngineClosed("the engine is closed", operation="read", hint="open it again")
                remaining = deadline - self.writer.catalog.clock.monotonic()
                if remaining <= 0:
                    raise self._late(lsn)
                self.progress.wait(min(remaining, 1.0))
        return True

    def _late(self, lsn: int) -> Timeout:
        text, hint = f"the index shows LSN {self.applied_lsn}, LSN {lsn} was asked for", "wait longer (timeout_s)"
        if self.hindered:
            text, hint = f"{text}; it cannot follow the journal: {self.hindered}", "end the cause"
        return Timeout(text, operation="read", hint=f"{hint}, or read without min_lsn")

    def advanced(self) -> None:
        """Wake the readers that wait for an LSN: it came nearer, or the live pointer moved."""
        with self.progress:
            self.progress.notify_all()

    def warm(self) -> None:
        """Open a reader and let it touch the index, so that the first user does not pay for it."""
        if self.row.opaque:
            return
        reader = self.take_reader()
        try:
            reader.count()
            touch(reader)
        finally:
            self.give_reader(reader)

    def copy_to(self, target: Path) -> None:
        """Make a whole copy as of one LSN, for programs outside; the writer continues. Raises StorageFull, OSError.

        No file of a shard is opened by any other hand than its backend's. What is copied need not be durable yet.
        """
        shards = shard_paths(self.path, self.row.shards)
        left_out = {PINS, *(shard.name for shard in shards)}

        def ignored(folder: str, names: list[str]) -> set[str]:
            return {n for n in names if n in left_out or n.endswith(".lock")} if Path(folder) == self.path else set()

        shutil.copytree(self.path, target, symlinks=True, ignore=ignored)
        with self.writer.lock:  # for the moment in which the snapshots begin: all shards are at one LSN
            snapshot = self.backend.snapshot(shards, self.row.options)
        try:
            snapshot.copy(shard_paths(target, self.row.shards))
        finally:
            snapshot.close()

    def close_if_unpinned(self) -> bool:
        """Close writer and readers unless a reader of this process pins the generation; True when it is closed."""
        with self._lock:
            if (self.pins or self._kept) and not self.closed:
                return False
            self.closed = True
        self.close()
        return True

    def close(self) -> None:
        """Close writer and idle readers, and each reader that is given back later. Idempotent."""
        with self._lock:
            self.closed = True
            idle, self._idle = self._idle, []
        with self.writer.lock:
            self.writer.close()
        for reader in idle:
            reader.close()
        self.advanced()


def remove_directory(path: Path) -> None:
    """Remove a generation's directory, its manifest last, so that a crash in between leaves something recognisable.

    A link in its place is removed, and what it leads to left alone.
    """
    if path.is_symlink():
        path.unlink()
        disk.sync_directory(path.parent)
        return
    for shard in sorted(path.glob("shard-*")):
        _remove_tree(shard)
        failpoint("retire.shard_removed")
    for file in (PINS, MANIFEST):
        (path / file).unlink(missing_ok=True)
    _remove_tree(path)
    with contextlib.suppress(FileNotFoundError):
        disk.sync_directory(path.parent)


def _remove_tree(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        else:
            shutil.rmtree(path)


def touch(reader: IndexReader) -> None:
    """Let a reader read what a search reads."""
    if isinstance(reader, Warming):
        reader.warm()
    else:
        reader.search(RARE_WORD, 1)
