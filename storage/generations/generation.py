"""One generation on disk: its writer, which follows the journal, and its readers, which pin it.

Owns `generations/<branch>/<TYPE>/<number>/`:

    manifest.json    see `storage.generations.manifest`
    PINS             readers of any process hold a shared lock on it
    shard-000/ ...   see `backends.protocol`

Invariants: SW-1, SW-2, SW-5, IX-2, IX-3. Nothing in here is fsynced while readers are led over: a generation only has
to remember an applied LSN that is not ahead of what it holds, the journal has the rest.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from shadowswitch.model.digest import BUCKETS, Digest
from shadowswitch.model.errors import EngineClosed, Timeout
from shadowswitch.model.records import Item
from shadowswitch.storage import data_directory, disk
from shadowswitch.storage.backends.external import ExternalShard
from shadowswitch.storage.backends.protocol import Backend, IndexReader, ShardWriter
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal import coalesce, read_slice
from shadowswitch.storage.catalog.rows import GenerationRow
from shadowswitch.storage.failpoints import failpoint
from shadowswitch.storage.generations.directory import MANIFEST, PINS, shard_paths
from shadowswitch.storage.generations.manifest import check_manifest, write_manifest

QUERIES_KEPT = 100
APPLY_SLICE = 500
"""Changes applied in one transaction while people wait for nothing: a few milliseconds of work."""
BUSY_SLICE = 4 * APPLY_SLICE
"""The same where many are waiting: fewer commits, each page written once for more changes."""
PAUSE_S = 30.0
"""A slice or a flush that has begun ends within that time, or the disk stands still."""


def create(root: Path, row: GenerationRow, branch_name: str, catalog_uuid: str, backend: Backend) -> Path:
    """Make the directory of a generation with empty shards and its manifest, durably. Idempotent before any load."""
    path = data_directory.make_directories(root, row.path)
    (path / PINS).touch(mode=0o600)
    for shard in shard_paths(path, row.shards):
        backend.create_shard(shard, row.options)
        failpoint("build.shard_made")
    write_manifest(path, row, branch_name, catalog_uuid)
    return path


class GenerationWriter:
    """All shard writers of a generation. One slice is applied under `lock`; any thread may call."""

    def __init__(self, catalog: Catalog, row: GenerationRow, path: Path, backend: Backend) -> None:
        """Open the shards. Raises CorruptData when one of them is not sound."""
        check_manifest(path, row, catalog.uuid)
        self.catalog = catalog
        self.row = row
        self.lock = threading.Lock()
        self._pauses = 0
        self._counting = threading.Lock()
        numbers = catalog.types()
        self.types = {number: name for number, name in numbers.items() if name in row.resource_types}
        self._names = set(row.resource_types)
        self._shards: list[ShardWriter] = []
        try:
            for shard in shard_paths(path, row.shards):
                self._shards.append(backend.open_writer(shard, row.options))
            states = [shard.state() for shard in self._shards]
        except BaseException:
            self.close()
            raise
        self.loaded = all(state.loaded for state in states)
        self.applied_lsn = min(state.applied_lsn for state in states)
        self.durable_lsn = row.durable_lsn
        self.closed = False

    @contextlib.contextmanager
    def pause_apply(self, timeout_s: float = PAUSE_S) -> Iterator[None]:
        """Meanwhile no follower applies to it: only the threads that paused it do. Several may pause it at a time.

        A slice or a flush that has begun ends first; raises Timeout when it does not.
        """
        with self._counting:
            self._pauses += 1
        try:
            with self._locked(self.catalog.clock.monotonic() + timeout_s):
                pass  # what begins from here on sees the pause
            yield
        finally:
            with self._counting:
                self._pauses -= 1

    @property
    def is_paused(self) -> bool:
        """Is the generation paused, so that a follower need not try?"""
        return self._pauses > 0

    @contextlib.contextmanager
    def _locked(self, deadline: float) -> Iterator[None]:
        if not self.lock.acquire(timeout=max(0.0, deadline - self.catalog.clock.monotonic())):
            raise Timeout(
                f"generation {self.row.number} has been written to since before the deadline",
                operation="apply",
                hint="look whether its disk stands still; try again",
            )
        try:
            yield
        finally:
            self.lock.release()

    def follow_slice(self, upto: Callable[[], int], limit: int = APPLY_SLICE) -> int:
        """For followers: apply the next stretch of the journal, or nothing while the generation is paused.

        `upto` is asked under the lock, so a limit that falls before the pause is obeyed.
        """
        with self.lock:
            return 0 if self._pauses else self._apply(upto(), limit)

    def apply_slice(self, upto: int, limit: int = APPLY_SLICE) -> int:
        """Apply one stretch of the journal, not beyond `upto`; returns how many changes it had."""
        with self.lock:
            return self._apply(upto, limit)

    def advance_to(self, upto: int) -> None:
        """It is as of `upto` what it was before: for who knows that its source is, too."""
        with self.lock:
            self._refuse_closed()
            for shard in self._shards:
                shard.apply([], upto)
            self.applied_lsn = max(self.applied_lsn, upto)

    def _refuse_closed(self) -> None:
        """Under the lock."""
        if self.closed:
            raise EngineClosed(f"generation {self.row.number} is closed", hint="it was removed, or the engine closes")

    def _apply(self, upto: int, limit: int) -> int:
        """Under the lock."""
        self._refuse_closed()
        if self.applied_lsn >= upto:
            return 0
        entries, reached = read_slice(self.catalog, self.row.branch, self.applied_lsn, upto, limit)
        by_shard = coalesce(entries, self._names, len(self._shards))
        for shard, items in zip(self._shards, by_shard, strict=True):
            shard.apply(items, reached)
            failpoint("follow.shard_applied")
        self.applied_lsn = reached
        failpoint("follow.applied")
        return len(entries)

    def apply_until(self, upto: int, deadline: float, limit: int = APPLY_SLICE) -> int:
        """Apply the journal up to an LSN, slice by slice, without waiting for the disk; returns the number of changes.

        Each shard commits on its own; `applied_lsn` rises when all have. Raises Timeout at the (monotonic) deadline.
        """
        applied = 0
        while self.applied_lsn < upto:
            with self._locked(deadline):
                applied += self._apply(upto, limit)
            if self.applied_lsn < upto and self.catalog.clock.monotonic() > deadline:
                raise Timeout(
                    f"generation {self.row.number} reached LSN {self.applied_lsn} of {upto} at its deadline",
                    operation="apply",
                    hint="it goes on catching up; try again",
                )
        return applied

    def digest(self) -> Digest:
        """The digest over all shards, from their counters: O(1)."""
        with self.lock:
            self._refuse_closed()
            total = Digest()
            for shard in self._shards:
                total.merge(shard.state().digest)
            return total

    def differing(self, source: Digest) -> list[int]:
        """The buckets in which this is not what its source is (SW-3). Of an opaque index only the count is known."""
        if not self.row.opaque:
            return self.digest().differing(source)
        with self.lock:
            self._refuse_closed()
            told = sum(shard.record_count for shard in self._shards if isinstance(shard, ExternalShard))
        return [] if told == source.count else list(range(BUCKETS))

    def adopt(self) -> None:
        """The builder of an opaque index brought it further: take over what its manifest says now."""
        with self.lock:
            self._refuse_closed()
            for shard in self._shards:
                if isinstance(shard, ExternalShard):
                    shard.adopt()
            self.applied_lsn = min(shard.state().applied_lsn for shard in self._shards)

    def compact(self) -> bool:
        """Let each shard do a small piece of its housekeeping; True if there is more. Never while it is switched to."""
        with self.lock:
            more = [shard.compact() for shard in self._shards]  # each has its turn
            return any(more)

    def flush(self) -> int:
        """Make what was applied durable; returns the durable LSN. Waits for the disk: never while it is switched to."""
        with self.lock:
            if not self.closed:
                self.durable_lsn = min(shard.flush() for shard in self._shards)
                failpoint("follow.flushed")
        return self.durable_lsn

    def repair(self, shard: int, bucket: int, items: list[Item]) -> None:
        """Replace a whole bucket by what the source holds."""
        with self.lock:
            self._refuse_closed()
            self._shards[shard].repair_bucket(bucket, items)

    def close(self) -> None:
        """Release the shards. Idempotent."""
        self.closed = True
        for shard in self._shards:
            shard.close()
        self._shards = []


class Generation:
    """A generation that this process serves or keeps: its row, its writer, its pool of readers, its pins."""

    def __init__(self, row: GenerationRow, path: Path, backend: Backend, writer: GenerationWriter) -> None:
        self.row = row
        self.path = path
        self.backend = backend
        self.writer = writer
        self.pins = 0
        self.closed = False
        self.asked: deque[str] = deque(maxlen=QUERIES_KEPT)
        """The last queries, for QUERY_COMPARISON."""
        self.progress = threading.Condition()
        self._lock = threading.Lock()
        self._attention = threading.Lock()
        self._idle: list[IndexReader] = []

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
    def maintenance_lock(self, timeout_s: float) -> Iterator[None]:
        """Whoever validates, repairs or switches to a waiting generation does so alone. Raises Timeout."""
        if not self._attention.acquire(timeout=timeout_s):
            raise Timeout(
                f"generation {self.row.number} is being looked at for longer than {timeout_s:g} s",
                operation="validate",
                hint="try again",
            )
        try:
            yield
        finally:
            self._attention.release()

    def take_reader(self) -> IndexReader:
        """An index reader for one user at a time; the generation must be pinned."""
        try:
            return self._idle.pop()
        except IndexError:
            return self.backend.open_reader(shard_paths(self.path, self.row.shards), self.row.options)

    def give_reader(self, reader: IndexReader) -> None:
        """Put an index reader back for the next user; when the generation is closed there is none."""
        with self._lock:
            if not self.closed:
                self._idle.append(reader)
                return
        reader.close()

    def wait_applied(self, lsn: int, deadline: float, is_left: Callable[[], bool] = lambda: False) -> bool:
        """Wait until readers see everything up to `lsn`. Raises Timeout at the (monotonic) deadline.

        False when the live pointer moved to another generation before.
        """
        with self.progress:
            while self.applied_lsn < lsn:
                if is_left():
                    return False
                remaining = deadline - self.writer.catalog.clock.monotonic()
                if remaining <= 0 or self.closed:
                    raise Timeout(
                        f"the index shows LSN {self.applied_lsn}, LSN {lsn} was asked for",
                        operation="read",
                        hint="wait longer (timeout_s), or read without min_lsn",
                    )
                self.progress.wait(min(remaining, 1.0))
        return True

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
            reader.search("a", 1)
        finally:
            self.give_reader(reader)

    def copy_to(self, target: Path) -> None:
        """Make a whole copy as of one LSN, for outsiders; the writer goes on meanwhile. Raises StorageFull, OSError.

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
        """Close writer and readers unless somebody in this process holds the generation; True when it is closed."""
        with self._lock:
            if self.pins and not self.closed:
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


def files_below(path: Path) -> Iterator[Path]:
    """Every regular file below a directory, symlinks not followed."""
    for folder, _, names in os.walk(path):
        for name in names:
            file = Path(folder, name)
            if not file.is_symlink():
                yield file
