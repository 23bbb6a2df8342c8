"""Copy and first catch-up of one shard. Runs in a worker process, straight from the catalog to the shard.

    copy      scan the records of the shard's buckets in slices, each read in one short transaction; rows and the scan's
              cursor are stored in one shard transaction, so a resumed copy begins where the rows end. What was written
              after S is left to the replay: writers who add records faster than they are copied would prolong the copy
              without end
    loaded    the shard is at S, the head of the branch when the build was claimed (the journal kept everything since)
    catch up  replay the journal after S in order, whole slices, last change of a key wins, until little is left

The replay comes strictly after the copy, in order, and an item changes nothing unless its LSN is above the one stored
for its key (BK-2): a slice that is replayed once more after a kill does no harm.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from shadowswitch.model.convergence import Place, Rounds
from shadowswitch.model.digest import buckets_of_shard
from shadowswitch.storage.backends import registry
from shadowswitch.storage.backends.protocol import ShardWriter
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal import coalesce, read_records, read_slice
from shadowswitch.storage.catalog.keys import RECORD_PREFIX
from shadowswitch.storage.failpoints import failpoint


class BuildShard(msgspec.Struct, frozen=True, tag=True):
    """What a worker needs to know to build one shard."""

    data: str
    path: str
    branch: int
    types: dict[int, str]
    shard: int
    shards: int
    start_lsn: int
    backend: str
    options: dict[str, object]
    slice_rows: int
    flush_rows: int
    """Force what was written to disk every so many rows: a pile of dirty pages makes the next journal fsync wait."""
    flush_bytes: int
    """The same by the size of the records."""
    residual_changes: int
    """Catch up until fewer changes than this are left; the host does the rest."""


class Control(msgspec.Struct, frozen=True, tag=True):
    """To a running task: how much of the time it may work, and whether it stands still."""

    share: float = 1.0
    paused: bool = False


class Progress(msgspec.Struct, frozen=True, tag=True):
    """How far a shard has come. Rates are per second, measured since the task began."""

    shard: int
    phase: str
    rows: int
    applied_lsn: int
    row_rate: float
    change_rate: float


PAUSE_POLL_S = 0.02
STALLED_ROUNDS_MAX = 3
"""Rounds of catch-up without gain (`model.convergence`), after which the host decides what to do."""

Report = Callable[[Progress], None]


class ShardBuild:
    """One shard being built."""

    def __init__(self, catalog: Catalog, task: BuildShard, report: Report, control: Callable[[], Control]) -> None:
        self.catalog = catalog
        self.task = task
        self.control = control
        self.report = report
        self.rows = 0
        self.changes = 0
        self.copy_s = 0.0
        self.catchup_s = 0.0

    def run(self) -> Progress:
        """Copy what is not copied, catch up, force everything to disk. Returns the last progress."""
        backend = registry.backend(self.task.backend)
        writer = backend.open_writer(Path(self.task.path), self.task.options)
        try:
            failpoint("build.shard_opened")
            if not writer.state().loaded:
                self._copy(writer)
                writer.finish_load(self.task.start_lsn)
                writer.flush()
                failpoint("copy.loaded")
            self._catch_up(writer)
            writer.flush()
            state = writer.state()
            return self._progress("caught_up", state.digest.count, state.applied_lsn)
        finally:
            writer.close()

    def _copy(self, writer: ShardWriter) -> None:
        state = writer.state()
        cursor = state.cursor
        self.already = state.digest.count
        unflushed = unflushed_bytes = 0
        begun = time.monotonic()
        resume_type = RECORD_PREFIX.unpack_from(cursor)[1] if cursor else 0
        buckets = buckets_of_shard(self.task.shard, self.task.shards)
        for number, name in sorted(self.task.types.items()):
            if number < resume_type:
                continue
            position = cursor if number == resume_type else b""
            while True:
                slice_begun = time.monotonic()
                piece = read_records(
                    self.catalog, self.task.branch, number, name, buckets, position, self.task.slice_rows
                )
                items = [item for item in piece.items if item.lsn <= self.task.start_lsn]
                if piece.items:
                    position = piece.cursor
                if items:
                    writer.load(items, position)
                    self.rows += len(items)
                    unflushed += len(items)
                    unflushed_bytes += piece.size_bytes
                if unflushed >= self.task.flush_rows or unflushed_bytes >= self.task.flush_bytes:
                    writer.flush()
                    unflushed = unflushed_bytes = 0
                self.copy_s = time.monotonic() - begun
                self.report(self._progress("copying", self.already + self.rows, 0))
                failpoint("copy.slice")
                self._rest(slice_begun)
                if piece.done:
                    break

    def _catch_up(self, writer: ShardWriter) -> None:
        begun = time.monotonic()
        names = set(self.task.types.values())
        applied = writer.state().applied_lsn
        rounds = Rounds(Place(begun, applied, applied))
        while True:
            head, _ = self.catalog.head(self.task.branch)
            before = self.changes
            while applied < head:
                slice_begun = time.monotonic()
                entries, reached = read_slice(self.catalog, self.task.branch, applied, head, self.task.slice_rows)
                items = coalesce(entries, names, self.task.shards)[self.task.shard]
                writer.apply(items, reached)
                applied = reached
                self.changes += len(entries)
                self.catchup_s = time.monotonic() - begun
                self.report(self._progress("catching_up", writer.state().digest.count, applied))
                failpoint("catchup.slice")
                self._rest(slice_begun)
                if rounds.on_the_way(self._place(applied)) and rounds.without_gain >= STALLED_ROUNDS_MAX:
                    return
            round_changes = self.changes - before
            rounds.ended(self._place(applied), round_changes)
            if round_changes <= self.task.residual_changes or rounds.without_gain >= STALLED_ROUNDS_MAX:
                return
            writer.flush()

    def _place(self, applied: int) -> Place:
        return Place(time.monotonic(), self.catalog.head(self.task.branch)[0], applied)

    def _rest(self, since: float) -> None:
        """Leave the machine to others: for the share of the time that is not ours, or until we may go on."""
        worked = time.monotonic() - since
        control = self.control()
        if control.share < 1.0:
            time.sleep(worked * (1.0 - control.share) / control.share)
        while self.control().paused:
            time.sleep(PAUSE_POLL_S)

    def _progress(self, phase: str, rows: int, applied: int) -> Progress:
        return Progress(
            self.task.shard,
            phase,
            rows,
            applied,
            self.rows / self.copy_s if self.copy_s else 0.0,
            self.changes / self.catchup_s if self.catchup_s else 0.0,
        )
