"""The writer of a generation: all its shards, which follow the journal together.

Invariants: IX-2, IX-3. A generation only has to remember an applied LSN that is not ahead of its rows; the journal has
the rest. So nothing is forced to disk while an index is switched.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from shadowswitch.model.digest import BUCKETS, Digest
from shadowswitch.model.errors import EngineClosed, Timeout
from shadowswitch.model.records import Item
from shadowswitch.storage.backends.external import ExternalShard
from shadowswitch.storage.backends.protocol import Backend, ShardWriter
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal import coalesce, read_slice
from shadowswitch.storage.catalog.rows import GenerationRow
from shadowswitch.storage.catalog.source.type_table import numbered
from shadowswitch.storage.failpoints import failpoint
from shadowswitch.storage.generations.directory import shard_paths
from shadowswitch.storage.generations.manifest import check_manifest

BESIDE_MAX = 2_000
"""Changes that a comparison beside readers applies at once: meanwhile a switch waits."""
APPLY_SLICE = 500
"""Changes applied in one transaction while people wait for nothing: a few milliseconds of work."""
BUSY_SLICE = 4 * APPLY_SLICE
"""The same where many are waiting: fewer commits, each page written once for more changes."""
PAUSE_S = 30.0
"""A slice or a flush that has begun ends within that time, or the disk stands still."""


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
        self.types = numbered(catalog.types(), row.resource_types)
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
        self.newest_lsn = max(state.applied_lsn for state in states)
        """What the shard that is furthest had applied when it was opened."""
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
            with self.locked(self.catalog.clock.monotonic() + timeout_s):
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
    def locked(self, deadline: float) -> Iterator[None]:
        """Meanwhile no other thread applies to it, or reads its counters. Raises Timeout at the (monotonic) deadline.

        A thread that locks several writers does so in the order of their numbers.
        """
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
            with self.locked(deadline):
                applied += self._apply(upto, limit)
            if self.applied_lsn < upto and self.catalog.clock.monotonic() > deadline:
                raise Timeout(
                    f"generation {self.row.number} reached LSN {self.applied_lsn} of {upto} at its deadline",
                    operation="apply",
                    hint="it goes on catching up; try again",
                )
        return applied

    def apply_locked(self, upto: int) -> None:
        """Apply the journal up to an LSN. The caller has it `locked`."""
        while self.applied_lsn < upto:
            self._apply(upto, APPLY_SLICE)

    def digest(self) -> Digest:
        """The digest over all shards, from their counters: O(1)."""
        with self.lock:
            return self._digest()

    def _digest(self) -> Digest:
        """Under the lock."""
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
            count = sum(shard.record_count for shard in self._shards if isinstance(shard, ExternalShard))
        return [] if count == source.count else list(range(BUCKETS))

    def differing_beside_readers(
        self, source: Callable[[], tuple[int, Digest]], limit: Callable[[int], int]
    ) -> list[int] | None:
        """As `differing`, at the head of the branch, of a generation that readers hold. It is applied to as a follower
        does, up to `limit`; None if that is less than the head, the generation is far behind, or it is paused."""
        with self.lock:
            lsn, expected = source()
            if self._pauses or limit(lsn) < lsn or lsn - self.applied_lsn > BESIDE_MAX:
                return None
            while self.applied_lsn < lsn:
                self._apply(lsn, APPLY_SLICE)
            return self._digest().differing(expected)

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
