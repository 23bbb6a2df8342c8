"""The ShadowBuilder: one build, from the claimed directory to BUILT. One actor for each running build.

    preparing     make the directory, then BUILDING with S = the head of the branch
    copying       one worker process for each shard, at most `parallel_workers` at a time; each copies and then replays
    catching_up   the workers are done; the rest of the journal is applied here, in small steps
    validating    a worker process checks the shadow against its source at a common LSN; differing buckets are
                  repaired once
    waiting       BUILT: a follower keeps it caught up until it is switched or cancelled

It works in steps that it sends to itself, so that a cancellation is never behind more than a few milliseconds of work.
A worker that dies is started again and goes on from what its shard has stored.
"""

from __future__ import annotations

import logging
import queue
import time
from typing import Any

from shadowswitch.actors.build.pacing import DISK_INTERVAL_S, Pacing
from shadowswitch.actors.build.validator import BUILD_CHECKS, Validation
from shadowswitch.actors.house import House
from shadowswitch.actors.kit.actor import EngineActor
from shadowswitch.actors.messages import BeginBuild, CancelBuild, Follow, Step, Tune, WorkerGone, WorkerSaid
from shadowswitch.model.errors import BuildCancelled, EngineClosed, ShadowSwitchError
from shadowswitch.model.progress import ProgressMeter
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.storage import data_directory
from shadowswitch.storage.backends import registry
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.catalog.rows import GenerationRow, ShadowRow
from shadowswitch.storage.disk import disk_errors
from shadowswitch.storage.failpoints import failpoint
from shadowswitch.storage.generations import generation as generations
from shadowswitch.storage.generations.generation import APPLY_SLICE, BUSY_SLICE, Generation
from shadowswitch.storage.generations.shard_build import BuildShard, Progress
from shadowswitch.storage.generations.worker import Done, Failed

logger = logging.getLogger("shadowswitch")

NOTE_INTERVAL_S = 5.0
"""How often the progress is written down, for a restart."""
STEP_S = 0.02
BUSY_STEP_S = 0.2


class ShadowBuilder(EngineActor):
    """Builds one shadow and ends when it is BUILT, FAILED or CANCELLED."""

    @staticmethod
    def _create_actor_inbox() -> Any:
        """Pykka's hook: a mailbox that can be looked into, see `_stop_asked`."""
        return queue.Queue()

    def __init__(self, house: House, row: ShadowRow, workers: int) -> None:
        super().__init__(f"shadowswitch-build-{row.id[:8]}", house.crashed)
        self._house = house
        self._id = row.id
        self._row = row
        self._workers = workers
        self._meter = house.running_builds.meters.setdefault(row.id, ProgressMeter(row.progress))
        self._begun = time.monotonic()
        self._noted = time.monotonic()
        self._waiting: list[int] = []
        self._running: dict[int, int] = {}
        self._deaths: dict[int, int] = {}
        self._progress: dict[int, Progress] = {}
        self._rows_total = 0
        self._head_at_start = 0
        self._residual = 0
        self._ended = False
        self._pacing = Pacing(house, row)
        self._applied = self._pacing.control
        self._generation: Generation | None = None
        self.handles(BeginBuild, self._begin)
        self.handles(WorkerSaid, self._worker_said)
        self.handles(WorkerGone, self._worker_gone)
        self.handles(Step, self._step)
        self.handles(CancelBuild, self._cancel)
        self.handles(Tune, self._tune)

    # -- preparing and copying -------------------------------------------------------------------------------------

    def _begin(self, _: BeginBuild) -> None:
        house = self._house
        row = house.catalog.shadow(self._id)
        spec = house.catalog.generation(row.generation)
        assert spec is not None, f"IX-6 shadow {row.id} is {row.state} and has no generation"
        failpoint("build.claimed")
        if row.state == ShadowState.PREPARING:
            row = self._prepare(row, spec)
        self._row = row
        names = house.catalog.types()
        self._types = {number: name for number, name in names.items() if name in row.resource_types}
        head, source = house.catalog.source_digest(row.branch, set(self._types))
        self._rows_total, self._head_at_start = source.count, head
        self._spec = spec
        self._waiting = list(range(spec.shards))
        self._start_workers()

    def _prepare(self, row: ShadowRow, spec: GenerationRow) -> ShadowRow:
        house = self._house
        path = data_directory.inside(house.root, spec.path)
        if row.start_lsn and (path / data_directory.MANIFEST).exists():  # a retry of a build that had begun
            return house.transact(lambda commit: transitions.resume_building(commit, row.id), "retry")
        with disk_errors("build"):
            generations.create(house.root, spec, row.branch_name, house.catalog.uuid, registry.backend(spec.backend))
        failpoint("build.prepared")
        row = house.transact(lambda commit: transitions.begin_building(commit, row.id), "start_build")
        failpoint("build.begun")
        return row

    def _start_workers(self) -> None:
        config, spec, row = self._house.config, self._spec, self._row
        while self._waiting and len(self._running) < self._workers:
            shard = self._waiting.pop(0)
            task = BuildShard(
                data=str(self._house.root),
                path=str(data_directory.shard_paths(self._house.root / spec.path, spec.shards)[shard]),
                branch=row.branch,
                types=self._types,
                shard=shard,
                shards=spec.shards,
                start_lsn=row.start_lsn,
                backend=spec.backend,
                options=spec.options,
                slice_rows=config.copy_slice_rows,
                flush_rows=config.copy_flush_rows,
                flush_bytes=config.copy_flush_bytes,
                residual_changes=config.catchup_residual_changes,
            )
            number = self._house.pool.submit(task, self._said, self._gone, self._applied)
            self._running[number] = shard

    def _said(self, task: int, answer: Any) -> None:
        self._tell(WorkerSaid(task, answer))

    def _gone(self, task: int, how: str) -> None:
        self._tell(WorkerGone(task, how))

    def _tell(self, message: Any) -> None:
        if not self._ended and self.actor_ref.is_alive():
            self.actor_ref.tell(message)

    def _worker_said(self, message: WorkerSaid) -> None:
        shard = self._running.get(message.task)
        if shard is None or self._ended:
            return
        answer = message.answer
        if isinstance(answer, Failed):
            del self._running[message.task]
            logger.error("shard %d of shadow %s failed: %s\n%s", shard, self._id, answer.message, answer.trace)
            self._fail(f"shard {shard}: {answer.kind}: {answer.message}")
        elif isinstance(answer, Progress):
            self._progress[shard] = answer
            self._measure()
            self._watch_disk()
        elif isinstance(answer, Done):
            del self._running[message.task]
            self._progress[shard] = answer.progress
            self._measure()
            self._start_workers()
            if not self._running and not self._waiting:
                self._all_copied()

    def _worker_gone(self, message: WorkerGone) -> None:
        shard = self._running.pop(message.task, None)
        if shard is None or self._ended:
            return
        self._deaths[shard] = self._deaths.get(shard, 0) + 1
        self._house.metrics.count("worker_deaths")
        if self._deaths[shard] > self._house.config.worker_retries:
            self._fail(f"the worker of shard {shard} died {self._deaths[shard]} times, at last: {message.how}")
            return
        self._waiting.insert(0, shard)
        self._start_workers()

    def _tune(self, message: Tune) -> None:
        if not message.reply.set_running_or_notify_cancel():
            return
        self._pacing.tune(message.share, message.paused)
        self._apply_control()
        message.reply.set_result(None)

    def _apply_control(self) -> None:
        """Hand on a change of pace to the workers; when the build may go on, it does."""
        control, was = self._pacing.control, self._applied
        if control == was:
            return
        self._applied = control
        for task in self._running:
            self._house.pool.tune(task, control)
        if was.paused != control.paused:
            self._note("paused" if control.paused else "copying")
            if not control.paused and self._generation is not None:
                self._tell(Step())

    def _watch_disk(self) -> None:
        if self._pacing.watch_disk():
            self._house.timers.after(DISK_INTERVAL_S, lambda: self._tell(Step()))
        self._apply_control()

    # -- progress --------------------------------------------------------------------------------------------------

    def _measure(self, validation_left: float = 1.0) -> None:
        elapsed = time.monotonic() - self._begun
        progress = self._progress.values()
        rows = sum(p.rows for p in progress)
        copying = sum(p.row_rate for p in progress if p.phase == "copying")
        rates = [p.change_rate for p in progress if p.change_rate]
        head = self._house.heads.of(self._row.branch)
        applied = min((p.applied_lsn or self._row.start_lsn for p in progress), default=self._row.start_lsn)
        if self._generation is not None:
            applied = self._generation.applied_lsn
        self._residual = max(0, head - applied)
        self._meter.update(
            elapsed,
            max(self._rows_total, rows),
            self._rows_total if not copying else rows,
            copying,
            self._residual,
            sum(rates) / len(rates) if rates else 0.0,
            (head - self._head_at_start) / elapsed if elapsed > 0 else 0.0,
            validation_left,
        )
        if time.monotonic() - self._noted > NOTE_INTERVAL_S:
            self._note("copying" if copying else "catching_up")

    def _note(self, phase: str) -> None:
        self._noted = time.monotonic()
        percent, eta = self._meter.percent, self._meter.eta_s
        self._house.transact(lambda c: transitions.note_progress(c, self._id, phase, percent, eta), "note progress")
        self._house.running_builds.stuck.pop(self._id, None)

    # -- catching up, validating -----------------------------------------------------------------------------------

    def _all_copied(self) -> None:
        self._note("catching_up")
        row = self._house.catalog.generation(self._row.generation)
        assert row is not None, f"IX-6 the generation of shadow {self._id} vanished"
        self._generation = self._house.generations.open(row)
        self._round_target = self._house.heads.of(self._row.branch)
        self._round_changes = 0
        self._pacing.begin(self._generation.applied_lsn)
        self._tell(Step())

    def _step(self, _: Step) -> None:
        if self._ended:
            return
        self._watch_disk()
        if self._generation is None or self._pacing.control.paused:
            return
        writer, target = self._generation.writer, self._round_target
        begun = time.monotonic()
        # on the first signs of falling behind: more share and bigger batches
        ends = begun + (BUSY_STEP_S if self._pacing.behind else STEP_S)
        while writer.applied_lsn < target and time.monotonic() < ends:
            self._round_changes += writer.apply_slice(target, BUSY_SLICE if self._pacing.behind else APPLY_SLICE)
        self._measure()
        if self._round_ended(writer.applied_lsn):
            self._validate()
        else:
            self._next_step(time.monotonic() - begun)

    def _round_ended(self, applied: int) -> bool:
        """A round of catch-up takes the shadow to where the head was when it began. Was it short enough?

        One that takes long is judged on the way as well, see `model.convergence`.
        """
        if applied < self._round_target:
            self._pacing.on_the_way(applied)
            return False
        changes, self._round_changes = self._round_changes, 0
        self._round_target = self._house.heads.of(self._row.branch)
        if changes <= self._house.config.catchup_residual_changes:
            return True
        self._pacing.caught_up(applied, changes)
        return False

    def _next_step(self, worked_s: float) -> None:
        share = 1.0 if self._pacing.behind else self._pacing.share
        if share >= 1.0:
            self._tell(Step())
        else:
            self._house.timers.after(worked_s * (1.0 - share) / share, lambda: self._tell(Step()))

    def _validate(self) -> None:
        assert self._generation is not None
        self._note("validating")
        found = self._house.validator.validate(self._generation, BUILD_CHECKS, self._stop_asked)
        if found.differing_buckets:
            self._house.metrics.count("buckets_repaired", len(found.differing_buckets))
            self._house.validator.repair(self._generation, found.differing_buckets)
            found = self._house.validator.validate(self._generation, BUILD_CHECKS, self._stop_asked)
        if found.errors:
            self._fail("the shadow did not pass its validation: " + "; ".join(found.errors))
            return
        self._built(found)

    def _stop_asked(self) -> bool:
        """Is a cancellation (or the end of the engine) waiting in the mailbox?"""
        return self._house.changes.closing or any(
            isinstance(envelope.message, CancelBuild)
            for envelope in list(self.actor_inbox.queue)  # type: ignore[attr-defined]
        )

    def _built(self, found: Validation) -> None:
        generation = self._generation
        assert generation is not None
        failpoint("build.validated")
        lsn = generation.writer.flush()
        with disk_errors("build"):
            written = self._house.validator.finish_manifest(generation, self._row.branch_name, lsn, found)
        failpoint("build.manifest")
        self._ended = True
        self._pacing.end()
        self._house.transact(
            lambda commit: transitions.mark_built(commit, self._id, lsn, found.rows, found.size_bytes, written), "build"
        )
        self._meter.finish()
        failpoint("build.built")
        self._house.followers.of(generation.row.number).tell(Follow(generation))
        self._house.metrics.count("builds")
        self.stop()

    # -- ends ------------------------------------------------------------------------------------------------------

    def _fail(self, reason: str) -> None:
        self._end()
        self._note_failed(reason)
        self.stop()

    def _note_failed(self, reason: str) -> None:
        self._house.transact(lambda commit: transitions.mark_failed(commit, self._id, reason), "fail build")
        failpoint("build.failed")
        self._house.metrics.count("builds_failed")

    def _cancel(self, message: CancelBuild) -> None:
        if not message.reply.set_running_or_notify_cancel():
            return
        self._end()
        try:
            if message.failed:
                self._note_failed(message.reason)
            else:
                self._house.transact(
                    lambda commit: transitions.mark_cancelled(commit, self._id, message.reason), "cancel build"
                )
                failpoint("build.cancelled")
            message.reply.set_result(None)
        finally:  # if it could not be recorded the caller is told, and the supervisor goes on with the build
            self.stop()

    def _end(self) -> None:
        """Stop all work: nothing of this build writes any file after this."""
        self._ended = True
        self._pacing.end()
        for task in list(self._running):
            self._house.pool.kill(task)
        self._running.clear()
        self._waiting.clear()
        if self._generation is not None:
            self._house.generations.forget(self._generation.row.number)
            self._generation.close()
            self._generation = None

    def recover(self, message: Any, error: BaseException) -> None:
        """A step failed: the build fails with that reason, unless the engine is closing (then it goes on at the next
        start)."""
        if isinstance(error, BuildCancelled) and not self._house.changes.closing:
            return  # the CancelBuild that asked for it is next in the mailbox
        if self._ended and not isinstance(message, CancelBuild):
            self.stop()
            return
        if self._house.changes.closing or isinstance(error, EngineClosed):
            self._end()
            self.stop()
            return
        reason = str(error) if isinstance(error, ShadowSwitchError) else f"{type(error).__name__}: {error}"
        try:
            self._fail(reason)
        except ShadowSwitchError as second:  # no room for that either: the supervisor goes on with the build
            logger.error("shadow %s failed (%s), which cannot be recorded now: %s", self._id, reason, second)
            self._house.running_builds.stuck[self._id] = reason
            self.stop()

    def on_stop(self) -> None:
        """However the actor ends: no worker goes on without it."""
        if not self._ended:
            self._end()
        super().on_stop()
