"""Copy and first catch-up of one shard. Runs in a worker process, straight from the catalog to the shard.

    seed      instead of most of a copy: the rows of another generation, and what differs from the records
              (`storage.generations.seeding`)
    copy      scan the records of the shard's buckets in slices, each read in one short transaction. One shard
              transaction stores rows and cursor, so a resumed copy begins where the rows end. The copy skips records
              with an LSN above S: the replay brings them, and fast writers cannot prolong the copy without end
    loaded    the shard is at S, the head of the branch when capture began; the journal keeps every change after S
    catch up  replay the journal after S in order, whole slices, last change of a key wins, until little is left

The replay begins after the end of the copy. An item changes nothing unless its LSN is above the LSN stored for its key
(BK-2), so a slice may be replayed again after a kill.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from shadowswitch.model.digest import buckets_of_shard
from shadowswitch.model.progress import Place, Rounds
from shadowswitch.model.records import Item
from shadowswitch.model.shadow_state import Phase
from shadowswitch.storage.backends import registry
from shadowswitch.storage.backends.protocol import SEEDED, Choosing, ShardWriter
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal import coalesce, read_records, read_slice
from shadowswitch.storage.catalog.keys import RECORD_PREFIX
from shadowswitch.storage.failpoints import failpoint
from shadowswitch.storage.generations.seeding import Comparison, Seed, seed_shard


class BuildShard(msgspec.Struct, frozen=True, tag=True):
    """To a worker: build one shard."""

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
    """Force the shard to disk every so many rows: the next fsync of the journal waits behind all dirty pages."""
    flush_bytes: int
    """As `flush_rows`, by the size of the records."""
    residual_changes: int
    """The worker catches up until fewer changes than this are left; the host replays the rest."""
    seed: Seed | None = None
    """Where an empty shard begins from; None: from the records."""


class Control(msgspec.Struct, frozen=True, tag=True):
    """To a running task: its share of the time, and whether it is paused."""

    share: float = 1.0
    paused: bool = False


class Progress(msgspec.Struct, frozen=True, tag=True):
    """The progress of a shard. `change_rate` is per second, measured since the task began."""

    shard: int
    phase: Phase
    rows: int
    applied_lsn: int
    change_rate: float
    absent: list[str] = []
    """Fields that the index takes, and that no record had. Only in the last report."""
    fields: list[str] = []
    """Fields that the copied records had, while one was absent; at most `FIELDS_MAX`."""
    stored_rows: int = 0
    """The rows that the shard held when the task began, or was seeded with."""
    seeded: bool = False
    """The shard began with the rows of another generation."""


PAUSE_POLL_S = 0.02
FIELDS_MAX = 1000
"""Names of fields that a copy keeps, for a suggestion."""
STALLED_ROUNDS_MAX = 3
"""Rounds of catch-up without gain (`model.progress.Rounds`), after which the host decides."""

Report = Callable[[Progress], None]


class ShardBuild:
    """One shard being built."""

    def __init__(self, catalog: Catalog, task: BuildShard, report: Report, control: Callable[[], Control]) -> None:
        self.catalog = catalog
        self.clock = catalog.clock
        self.task = task
        self.control = control
        self.report = report
        self.rows = self.stored_rows = 0
        self.changes = 0
        self.copy_s = 0.0
        self.catchup_s = 0.0
        self.unflushed = 0
        self.seeded = False
        self._worked_since = 0.0
        self.absent: set[str] = set()
        self.fields: set[str] = set()

    def run(self) -> Progress:
        """Finish the seed or the copy, catch up, force the shard to disk. Returns the last progress."""
        backend = registry.backend(self.task.backend)
        writer = self._opened()
        try:
            failpoint("build.shard_opened")
            state = writer.state()
            begun = state.loaded or bool(state.cursor)
            self.seeded = state.cursor == SEEDED
            if isinstance(backend, Choosing):
                self.absent.update(backend.chosen_fields(self.task.options))
            self.stored_rows = state.digest.count
            if begun:  # how far the build is, before it goes on
                phase = Phase.CATCHING_UP if state.loaded else Phase.COPYING
                self.report(self._progress(phase, self.stored_rows, state.applied_lsn))
            if not state.loaded:
                self._copy(writer)
                writer.finish_load(self.task.start_lsn)
                writer.flush()
                failpoint("copy.loaded")
            self._catch_up(writer)
            if begun:
                self._look_again()
            writer.flush()
            state = writer.state()
            done = self._progress(Phase.CAUGHT_UP, state.digest.count, state.applied_lsn)
            return msgspec.structs.replace(done, absent=sorted(self.absent), fields=sorted(self.fields))
        finally:
            writer.close()

    def _opened(self) -> ShardWriter:
        """The writer of the shard. An empty one is seeded before, if the build has a seed that is still there."""
        task = self.task
        backend, path = registry.backend(task.backend), Path(task.path)
        writer = backend.open_writer(path, task.options)
        if task.seed is None or writer.state().loaded or writer.state().cursor:
            return writer
        writer.close()
        self._worked_since = self.clock.monotonic()
        seed_shard(self.catalog, task.seed, task.backend, path, task.options, self._rest_again)
        return backend.open_writer(path, task.options)

    def _compare(self, writer: ShardWriter) -> None:
        """Bring a seeded shard to what the records are."""
        self._worked_since = begun = self.clock.monotonic()

        def wrote(items: list[Item]) -> None:
            self._note_fields(items)
            self.unflushed += len(items)
            if self.unflushed >= self.task.flush_rows:
                writer.flush()
                self.unflushed = 0
            self.copy_s = self.clock.monotonic() - begun
            self.report(self._progress(Phase.COPYING, writer.state().digest.count, 0))
            self._rest_again()

        task = self.task
        Comparison(self.catalog, task.branch, task.types, task.slice_rows, writer, wrote).run(task.shard, task.shards)

    def _copy(self, writer: ShardWriter) -> None:
        if self.seeded:
            self._compare(writer)
            return
        cursor = writer.state().cursor
        unflushed = unflushed_bytes = 0
        begun = self.clock.monotonic()
        resume_type = RECORD_PREFIX.unpack_from(cursor)[1] if cursor else 0
        buckets = buckets_of_shard(self.task.shard, self.task.shards)
        for number, name in sorted(self.task.types.items()):
            if number < resume_type:
                continue
            position = cursor if number == resume_type else b""
            while True:
                slice_begun = self.clock.monotonic()
                part = read_records(
                    self.catalog, self.task.branch, number, name, buckets, position, self.task.slice_rows
                )
                items = [item for item in part.items if item.lsn <= self.task.start_lsn]
                if part.items:
                    position = part.cursor
                if items:
                    self._note_fields(items)
                    writer.load(items, position)
                    self.rows += len(items)
                    unflushed += len(items)
                    unflushed_bytes += part.size_bytes
                if unflushed >= self.task.flush_rows or unflushed_bytes >= self.task.flush_bytes:
                    writer.flush()
                    unflushed = unflushed_bytes = 0
                self.copy_s = self.clock.monotonic() - begun
                self.report(self._progress(Phase.COPYING, self.stored_rows + self.rows, 0))
                failpoint("copy.slice")
                self._rest(slice_begun)
                if part.done:
                    break

    def _look_again(self) -> None:
        """After a resumed copy: look for the fields that are absent in the records which were copied before."""
        buckets = buckets_of_shard(self.task.shard, self.task.shards)
        for number, name in sorted(self.task.types.items()):
            position, done = b"", False
            while self.absent and not done:
                begun = self.clock.monotonic()
                part = read_records(
                    self.catalog, self.task.branch, number, name, buckets, position, self.task.slice_rows
                )
                self._note_fields(part.items)
                position, done = part.cursor, part.done
                self._rest(begun)

    def _note_fields(self, items: list[Item]) -> None:
        for item in items:
            if not self.absent:
                return
            self.absent.difference_update(item.fields or ())
            if len(self.fields) < FIELDS_MAX:
                self.fields.update(item.fields or ())

    def _catch_up(self, writer: ShardWriter) -> None:
        begun = self.clock.monotonic()
        names = set(self.task.types.values())
        applied = writer.state().applied_lsn
        rounds = Rounds(Place(begun, applied, applied))
        while True:
            head, _ = self.catalog.head(self.task.branch)
            before = self.changes
            while applied < head:
                slice_begun = self.clock.monotonic()
                entries, reached = read_slice(self.catalog, self.task.branch, applied, head, self.task.slice_rows)
                items = coalesce(entries, names, self.task.shards)[self.task.shard]
                self._note_fields(items)
                writer.apply(items, reached)
                applied = reached
                self.changes += len(entries)
                self.catchup_s = self.clock.monotonic() - begun
                self.report(self._progress(Phase.CATCHING_UP, writer.state().digest.count, applied))
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
        return Place(self.clock.monotonic(), self.catalog.head(self.task.branch)[0], applied)

    def _rest(self, since: float) -> None:
        """Sleep for the rest of the time that `Control.share` leaves, and while the task is paused."""
        worked = self.clock.monotonic() - since
        control = self.control()
        if control.share < 1.0:
            self.clock.sleep(worked * (1.0 - control.share) / control.share)
        while self.control().paused:
            self.clock.sleep(PAUSE_POLL_S)

    def _rest_again(self) -> None:
        """The same, since the last rest."""
        self._rest(self._worked_since)
        self._worked_since = self.clock.monotonic()

    def _progress(self, phase: Phase, rows: int, applied: int) -> Progress:
        return Progress(
            self.task.shard,
            phase,
            rows,
            applied,
            self.changes / self.catchup_s if self.catchup_s else 0.0,
            stored_rows=self.stored_rows,
            seeded=self.seeded,
        )
