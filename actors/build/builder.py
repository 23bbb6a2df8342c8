"""The ShadowBuilder: one build, from the claimed directory to BUILT. One actor for each running build.

    preparing     make the directory, then BUILDING with S = the head of the branch
    copying       one worker process for each shard, at most `parallel_workers` at a time; each copies and then replays
    catching_up   the workers are done; the rest of the journal is applied here, in small steps
    validating    a worker process checks the shadow at a common LSN with its source; repairs differing buckets once
    waiting       BUILT: a follower keeps it caught up until it is switched or cancelled

The builder works in steps that it sends to itself: a cancellation waits for one of them, a few milliseconds of work.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from shadowswitch.actors.build import gate
from shadowswitch.actors.build.pacing import DISK_INTERVAL_S, Pacing
from shadowswitch.actors.build.running_builds import RunningBuilds
from shadowswitch.actors.build.shard_workers import ShardWorkers, WorkerGone, WorkerSaid
from shadowswitch.actors.build.validator import ShadowValidator, Validation
from shadowswitch.actors.build.worker_pool import WorkerPool
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.actor import EngineActor
from shadowswitch.actors.kit.heads import Heads
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.kit.story import note_build
from shadowswitch.actors.kit.timers import Timers
from shadowswitch.actors.maintenance.follower import Follow
from shadowswitch.actors.maintenance.follower_pool import FollowerPool
from shadowswitch.actors.switch.open_generations import OpenGenerations
from shadowswitch.model.errors import BuildCancelled, EngineClosed, InvalidTransition, ShadowSwitchError
from shadowswitch.model.shadow_state import Phase, ShadowState
from shadowswitch.storage import data_directory
from shadowswitch.storage.backends import registry
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.catalog.rows import GenerationRow, ShadowRow
from shadowswitch.storage.catalog.source.type_table import numbered
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.disk import disk_errors
from shadowswitch.storage.failpoints import failpoint
from shadowswitch.storage.generations import generation as generations
from shadowswitch.storage.generations.directory import MANIFEST
from shadowswitch.storage.generations.generation import Generation
from shadowswitch.storage.generations.seeding import CLONE, REQUIRE
from shadowswitch.storage.generations.shard_build import Progress

logger = logging.getLogger("shadowswitch")

NOTE_INTERVAL_S = 5.0
"""The longest interval at which the progress is stored, for a restart. Early on it is a share of the time so far."""
NOTE_SHARE, NOTE_INTERVAL_MIN_S = 0.25, 0.5


class BeginBuild(msgspec.Struct, frozen=True):
    """To a ShadowBuilder: begin, or go on after a restart."""


class Step(msgspec.Struct, frozen=True):
    """A ShadowBuilder to itself: the next small piece of work."""


class Throttle(msgspec.Struct, frozen=True):
    """To a ShadowBuilder: work so large a share of the time. It is stored before."""

    share: float


class StopBuild(msgspec.Struct, frozen=True):
    """To a ShadowBuilder: end all work, then make the transition `work`. Reply: None, once it is made."""

    work: Callable[[Commit], Any]
    what: str
    reply: Reply[None]


class ShadowBuilder(EngineActor):
    """Builds one shadow and ends when it is BUILT, FAILED or CANCELLED."""

    @staticmethod
    def _create_actor_inbox() -> Any:
        """Pykka's hook: `_stop_asked` reads the mailbox, which a SimpleQueue does not allow."""
        return queue.Queue()

    def __init__(
        self,
        context: EngineContext,
        row: ShadowRow,
        parallel_workers: int,
        pool: WorkerPool,
        validator: ShadowValidator,
        generations: OpenGenerations,
        heads: Heads,
        followers: FollowerPool,
        timers: Timers,
        builds: RunningBuilds,
        leave_place: Callable[[str], None],
    ) -> None:
        """`leave_place` gives the place of the build in the queue to the next one; again: no effect."""
        super().__init__(f"shadowswitch-build-{row.id[:8]}", context.crashed)
        self._context = context
        self._clock = context.clock
        self._validator = validator
        self._generations = generations
        self._heads = heads
        self._followers = followers
        self._timers = timers
        self._builds = builds
        self._leave_place = leave_place
        self._id, self._row = row.id, row
        self._begun = self._noted = self._clock.monotonic()
        self._meter = builds.meter_of(row, context.catalog, self._begun)
        self._rows_total = self._head_at_start = self._residual = 0
        self._ended = False
        self._handed_over = False
        """The shadow is BUILT, or will be: a switch may begin, and the generation is not this actor's any more."""
        self._pacing = Pacing(context, heads, builds, row)
        self._meter.work(self._begun, self._pacing.control.share)
        self._workers = ShardWorkers(
            context.config, context.root, pool, parallel_workers, self._pacing.control, self._send
        )
        self._generation: Generation | None = None
        self.handles(BeginBuild, self._begin)
        self.handles(WorkerSaid, self._worker_said)
        self.handles(WorkerGone, self._worker_gone)
        self.handles(Step, self._step)
        self.handles(StopBuild, self._stop_build)
        self.handles(Throttle, self._throttle)

    # -- preparing and copying -------------------------------------------------------------------------------------

    def _begin(self, _: BeginBuild) -> None:
        row = self._context.catalog.shadow(self._id)
        if row.paused_by or row.state not in (ShadowState.PREPARING, ShadowState.BUILDING):
            self._end()  # a caller came in between
            self.stop()
            return
        spec = self._context.catalog.generation(row.generation)
        assert spec is not None, f"IX-6 shadow {row.id} is {row.state} and has no generation"
        failpoint("build.claimed")
        self._context.hold.check()
        if row.state == ShadowState.PREPARING:
            row = self._prepare(row, spec)
        elif row.phase in (Phase.QUEUED, Phase.PAUSED):
            self._note(Phase.COPYING)
        self._row = row
        self._copy(spec)

    def _copy(self, spec: GenerationRow) -> None:
        row, catalog = self._row, self._context.catalog
        types = numbered(catalog.types(), row.resource_types)
        head, source = catalog.source_digest(row.branch, set(types))
        self._rows_total, self._head_at_start = source.count, head
        self._workers.begin(row, spec, types, catalog.generation(row.seeded_from) if row.seeded_from else None)
        self._measure()

    def _prepare(self, row: ShadowRow, spec: GenerationRow) -> ShadowRow:
        path = data_directory.inside(self._context.root, spec.path)
        if row.start_lsn and (path / MANIFEST).exists():  # a retry of a build that had begun
            return self._context.transact(lambda commit: transitions.resume_building(commit, row.id), "retry")
        self._make_empty(spec)
        failpoint("build.prepared")
        row = self._context.transact(lambda commit: transitions.begin_building(commit, row.id), "start_build")
        failpoint("build.begun")
        return row

    def _make_empty(self, spec: GenerationRow) -> None:
        uuid, backend, check = self._context.catalog.uuid, registry.backend(spec.backend), self._context.hold.check
        with disk_errors("build"):
            generations.create(self._context.root, spec, self._row.branch_name, uuid, backend, check)

    def _send(self, message: Any) -> None:
        """To this actor, from any thread."""
        if not self._ended and self.actor_ref.is_alive():
            self.actor_ref.tell(message)

    def _worker_said(self, message: WorkerSaid) -> None:
        if self._ended or not self._workers.has(message.task):
            return
        failure = self._workers.said(message)
        if failure:
            self._fail(failure)
            return
        self._measure()
        if isinstance(message.answer, Progress):
            self._watch_disk()
        elif self._workers.are_done:
            self._all_copied()

    def _worker_gone(self, message: WorkerGone) -> None:
        if self._ended or not self._workers.has(message.task):
            return
        self._context.metrics.count("worker_deaths")
        failure = self._workers.gone(message)
        if failure:
            self._fail(failure)

    def _throttle(self, message: Throttle) -> None:
        if not self._ended:
            self._pacing.share = message.share
            self._apply_control()

    def _apply_control(self) -> None:
        """Give the workers a changed pace; a build that may go on does so."""
        control, was = self._pacing.control, self._workers.control
        if control == was:
            return
        self._workers.tune(control)
        self._meter.work(self._clock.monotonic(), 0.0 if control.paused else control.share)
        if was.paused != control.paused:
            self._note(Phase.PAUSED if control.paused else Phase.COPYING)
            if not control.paused and self._generation is not None:
                self._send(Step())

    def _watch_disk(self) -> None:
        if self._pacing.watch_disk():
            self._timers.after(DISK_INTERVAL_S, lambda: self._send(Step()))
        self._apply_control()

    # -- progress --------------------------------------------------------------------------------------------------

    def _measure(self) -> None:
        now = self._clock.monotonic()
        elapsed = now - self._begun
        rows, copying = self._workers.rows, self._workers.are_copying
        head = self._heads.of(self._row.branch)
        generation = self._generation
        applied = generation.applied_lsn if generation else self._workers.applied_lsn(self._row.start_lsn)
        self._residual = max(0, head - applied)
        write_rate = (head - self._head_at_start) / elapsed if elapsed > 0 else 0.0
        total = max(self._rows_total, rows)
        stored, change_rate = self._workers.stored_rows, self._workers.change_rate
        self._meter.measure(now, total, rows if copying else total, self._residual, change_rate, write_rate, stored)
        if now - self._noted > min(NOTE_INTERVAL_S, max(NOTE_INTERVAL_MIN_S, elapsed * NOTE_SHARE)):
            self._note(Phase.COPYING if copying else Phase.CATCHING_UP)

    def _note(self, phase: Phase) -> None:
        self._noted = self._clock.monotonic()
        percent, eta = self._meter.read(self._noted)
        self._context.transact(lambda c: transitions.note_progress(c, self._id, phase, percent, eta), "note progress")
        self._builds.stuck.pop(self._id, None)

    # -- catching up, validating -----------------------------------------------------------------------------------

    def _all_copied(self) -> None:
        self._note(Phase.CATCHING_UP)
        note_build(self._row, "build.copied", record_count=self._workers.rows)
        row = self._context.catalog.generation(self._row.generation)
        if row is None:  # the shadow was cancelled while this waited for the disk, and its files are gone
            return
        self._generation = self._generations.open(row)
        self._pacing.begin(self._generation.applied_lsn)
        self._send(Step())

    def _step(self, _: Step) -> None:
        if self._ended:
            return
        self._watch_disk()
        if self._generation is None or self._pacing.control.paused:
            return
        writer, target = self._generation.writer, self._pacing.round_target
        begun = self._clock.monotonic()
        step_s, changes = self._pacing.step
        while writer.applied_lsn < target and self._clock.monotonic() < begun + step_s:
            self._pacing.round_changes += writer.apply_slice(target, changes)
        self._measure()
        if self._pacing.behind:
            self._leave_place(self._id)  # writers outrun it, maybe for long: it holds up no other build
        if self._pacing.round_ended(writer.applied_lsn):
            self._validate(self._generation)
        else:
            self._next_step(self._clock.monotonic() - begun)

    def _next_step(self, worked_s: float) -> None:
        share = 1.0 if self._pacing.behind else self._pacing.control.share
        if share >= 1.0:
            self._send(Step())
        else:
            self._timers.after(worked_s * (1.0 - share) / share, lambda: self._send(Step()))

    def _validate(self, generation: Generation) -> None:
        self._meter.validating(self._clock.monotonic())
        self._note(Phase.VALIDATING)
        lightly = self._row.seed == CLONE and self._workers.are_seeded
        look = partial(self._validator.validate_build, generation, self._stop_asked, self._workers.most, lightly)
        found = look()
        if found.differing_buckets:
            self._context.metrics.count("buckets_repaired", len(found.differing_buckets))
            self._validator.repair(generation, found.differing_buckets)
            found = look()
        if not found.errors:
            self._built(generation, found)
        elif self._row.seeded_from and self._row.seed != REQUIRE:
            self._begin_from_records(generation, "; ".join(found.errors))
        else:
            self._fail("the shadow did not pass its validation: " + "; ".join(found.errors))

    def _begin_from_records(self, generation: Generation, reason: str) -> None:
        """A copy copies damage: the shards begin again, empty. S stays, and the journal behind it."""
        self._close_generation()
        self._make_empty(generation.row)
        self._row = self._context.transact(lambda c: transitions.drop_seed(c, self._id, reason), "drop seed")
        self._copy(generation.row)

    def _stop_asked(self) -> bool:
        """Is a StopBuild waiting in the mailbox, or does the engine close?"""
        return self._context.changes.closing or any(
            isinstance(envelope.message, StopBuild)
            for envelope in list(self.actor_inbox.queue)  # type: ignore[attr-defined]
        )

    def _built(self, generation: Generation, found: Validation) -> None:
        note_build(self._row, "build.validated", record_count=found.rows, index_size_bytes=found.size_bytes)
        failpoint("build.validated")
        lsn = generation.writer.flush()
        with disk_errors("build"):
            written = self._validator.finish_manifest(generation, self._row.branch_name, lsn, found)
        failpoint("build.manifest")
        self._ended = self._handed_over = True
        self._pacing.end()
        missing = gate.of_fields((shard.absent, shard.fields) for shard in self._workers.progress.values())
        mark = partial(
            transitions.mark_built, surprises=missing, pace=self._meter.pace(self._clock.monotonic()),
            seeded_from=self._row.seeded_from if self._workers.are_seeded else 0,
        )  # fmt: skip
        self._context.transact(lambda c: mark(c, self._id, lsn, found.rows, found.size_bytes, written), "build")
        self._meter.finish()
        self._builds.ended(self._id)
        failpoint("build.built")
        self._followers.of(generation.row.number).tell(Follow(generation))
        self._context.metrics.count("builds")
        self.stop()

    # -- ends ------------------------------------------------------------------------------------------------------

    def _fail(self, reason: str) -> None:
        self._end()
        self._context.transact(lambda commit: transitions.mark_failed(commit, self._id, reason), "fail build")
        failpoint("build.failed")
        self._context.metrics.count("builds_failed")
        self.stop()

    def _stop_build(self, message: StopBuild) -> None:
        if not message.reply.set_running_or_notify_cancel():
            return
        if self._handed_over:  # the catalog decides
            raise InvalidTransition(f"shadow {self._id} is BUILT", operation="stop build", object=self._id)
        self._end()
        try:
            self._context.transact(message.work, message.what)
            failpoint("build.stopped")
            message.reply.set_result(None)
        finally:  # if that could not be recorded, the caller gets the error and the Supervisor starts the builder again
            self.stop()

    def _end(self) -> None:
        """Stop all work: this build writes no file after this, and another one has its place."""
        self._ended = True
        self._pacing.end()
        self._workers.kill()
        self._leave_place(self._id)
        self._close_generation()

    def _close_generation(self) -> None:
        if self._generation is not None:
            self._generations.forget(self._generation.row.number)
            self._generation.close()
            self._generation = None

    def recover(self, message: Any, error: BaseException) -> None:
        """A step failed: the build fails with that reason. While the engine closes it only stops, and goes on at the
        next start; while a resource cannot be had it stops, and the Supervisor starts a builder again."""
        if isinstance(error, BuildCancelled) and not self._context.changes.closing:
            return  # the StopBuild that stopped the validation is next in the mailbox
        if self._ended and not isinstance(message, StopBuild):
            self.stop()
            return
        if self._context.changes.closing or isinstance(error, EngineClosed) or self._builds.waits(self._id, error):
            self._end()
            self.stop()
            return
        reason = str(error) if isinstance(error, ShadowSwitchError) else f"{type(error).__name__}: {error}"
        try:
            self._fail(reason)
        except ShadowSwitchError as second:  # no room for that either: the Supervisor starts the builder again
            logger.error("shadow %s failed (%s), which cannot be recorded now: %s", self._id, reason, second)
            self._builds.stuck[self._id] = reason
            self.stop()

    def on_stop(self) -> None:
        """No worker outlives its builder, whatever ends it, and no place is left taken."""
        if not self._ended:
            self._end()
        self._leave_place(self._id)
        super().on_stop()
