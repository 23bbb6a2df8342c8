"""The Janitor: expiry and clean-up. It deletes only files that the catalog has marked and no reader holds (SW-5).

Every removal has this order: mark durable, check pins, delete, forget. A crash in between leaves a mark, which the next
round finds.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial

import msgspec

from shadowswitch.actors.branch.lifecycle import SettleBuild, outcome_of
from shadowswitch.actors.branch.router import BranchRouter
from shadowswitch.actors.build.external import ExternalBuilds
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.group.soaks import end_idle_groups, end_soak
from shadowswitch.actors.kit.actor import EngineActor
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.kit.signals import Tick
from shadowswitch.actors.maintenance.activity import ActivityLog
from shadowswitch.actors.maintenance.cleanup_queue import CleanupQueue
from shadowswitch.actors.maintenance.ended import forget_ended
from shadowswitch.actors.maintenance.follower import Unfollow
from shadowswitch.actors.maintenance.follower_pool import FollowerPool
from shadowswitch.actors.maintenance.long_journals import LongJournals
from shadowswitch.actors.maintenance.remover import BranchRemover, remove_empty_folders
from shadowswitch.actors.maintenance.trimmer import Trimmer
from shadowswitch.actors.switch.live_index import LiveIndexes
from shadowswitch.actors.switch.open_generations import OpenGenerations
from shadowswitch.actors.switch.publisher import Publisher
from shadowswitch.actors.switch.running_switches import RunningSwitches
from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.storage import data_directory
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.catalog.rows import GenerationRow
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.clock import Moment
from shadowswitch.storage.failpoints import failpoint
from shadowswitch.storage.generations.directory import pinned_elsewhere
from shadowswitch.storage.generations.generation import remove_directory
from shadowswitch.storage.kept_vectors import remove_unused

logger = logging.getLogger("shadowswitch")

READER_CHECK_S = 60.0
VECTORS_CHECK_S = 3600.0
PUBLISH_AGAIN_S = 5.0
UNFOLLOW_S = 10.0


class Sweep(msgspec.Struct, frozen=True):
    """To the Janitor: one full round now. Reply: None."""

    reply: Reply[None]


class Janitor(EngineActor):
    """One for each engine. A round is a list of steps; a step that fails does not keep the others from their work."""

    def __init__(
        self,
        context: EngineContext,
        router: BranchRouter,
        external: ExternalBuilds,
        generations: OpenGenerations,
        indexes: LiveIndexes,
        followers: FollowerPool,
        publisher: Publisher,
        switches: RunningSwitches,
        trimmer: Trimmer,
        remover: BranchRemover,
    ) -> None:
        super().__init__("shadowswitch-janitor", context.crashed)
        self._context = context
        self._clock = context.clock
        self._router = router
        self._external = external
        self._generations = generations
        self._indexes = indexes
        self._followers = followers
        self._publisher = publisher
        self._switches = switches
        self._trimmer = trimmer
        self._activity = ActivityLog(context)
        self._remover = remover
        self._readers_checked = self._clock.monotonic()
        self._publish_not_before = self._vectors_not_before = 0.0
        self._queue: CleanupQueue | None = None
        self._failing: dict[str, str] = {}
        """The error of each step, or generation, that did not finish in its last try."""
        self.handles(Tick, self._tick)
        self.handles(Sweep, self._sweep)

    def _sweep(self, message: Sweep) -> None:
        if not message.reply.set_running_or_notify_cancel():
            return
        if self._queue is not None:
            self._queue.journals.wake_all()
        self._round()
        message.reply.set_result(None)

    def _tick(self, _: Tick) -> None:
        self._round()

    def _round(self) -> None:
        if self._context.changes.closing:
            return
        steps: list[Callable[[], None]] = [
            self._look,
            self._end_soaks,
            self._end_failed,
            self._end_silent,
            self._end_orphaned_switches,
            self._settle_tracked,
            self._publish_again,
            self._remove_retired,
            self._remove_dropped,
            self._forget_ended,
            self._note_activity,
            self._trim,
            self._trimmer.trim_events,
            self._remove_unused_vectors,
            self._idle,
        ]
        for step in steps:
            if self._queue is None and step != self._look:
                return  # the queue could not be read
            self._attempt(step)

    def _attempt(self, step: Callable[[], None], name: str = "") -> None:
        """Do a step. The log has an error once, and again when it changes: each round tries the step again."""
        name = name or getattr(step, "__name__", "")
        try:
            step()
            self._failing.pop(name, None)
        except (ShadowSwitchError, OSError) as error:
            if not self._context.changes.closing:
                if self._failing.get(name) != str(error):
                    logger.warning("clean-up did not finish: %s", error)
                self._failing[name] = str(error)
                self._context.metrics.count("cleanup_errors")

    def _look(self) -> None:
        config = self._context.config
        if self._queue is None:
            self._queue = CleanupQueue(
                self._context.catalog,
                self._context.shadows,
                LongJournals(self._context.catalog, config.journal_keep_changes, config.journal_keep_bytes),
            )
            for number in self._queue.dropped:
                self._router.drop(number)
        self._queue.look()

    @property
    def queue(self) -> CleanupQueue:
        """The queue as of the beginning of the round."""
        assert self._queue is not None, "a round begins by looking"
        return self._queue

    def _end_soaks(self) -> None:
        switched = {self._key_of(shadow_id) for shadow_id in self._switches.shadows()}
        for number in [number for number, ends in self.queue.soak_ends.items() if self._is_over(ends)]:
            row = self._context.catalog.generation(number)
            if row is not None and (row.branch, row.index_type) in switched:
                continue  # it is the way back of a switch that is not verified yet, or the target of a rollback
            if row is not None:
                end_soak(self._context, row, switched)
        end_idle_groups(self._context, switched)

    def _is_over(self, moment: Moment, after_s: float = 0.0) -> bool:
        """Have so many seconds passed since a moment of this boot?"""
        left = self._clock.seconds_until(moment)
        return left is not None and left + after_s <= 0

    def _end_silent(self) -> None:
        self._external.fail_silent(list(self.queue.external))

    def _end_orphaned_switches(self) -> None:
        """A switch was given up while the catalog had no room to record that: now the shadow becomes BUILT again."""
        for shadow_id in list(self.queue.switches):
            if not self._switches.has(shadow_id):
                self._context.transact(partial(self._end_switch, shadow_id), "end orphaned switch")

    def _settle_tracked(self) -> None:
        """Send a branch the end of the build that makes it READY, also after a crash in between."""
        for number, shadows in list(self._router.locks.tracked.items()):
            for shadow_id in shadows:
                locks = self._router.locks.find(number)
                if locks is not None and outcome_of(self._context.catalog, self._switches, shadow_id) is not None:
                    self._router.tell(locks.row, SettleBuild(shadow_id, Reply()))

    def _end_switch(self, shadow_id: str, commit: Commit) -> None:
        running = self._switches.has(shadow_id)
        if not running and commit.shadow(shadow_id).state == ShadowState.SWITCHING:
            transitions.give_up_switching(commit, shadow_id, "the switch ended, which could not be recorded before")

    def _end_failed(self) -> None:
        keep_s = self._context.config.failed_keep_s
        for shadow_id in [shadow_id for shadow_id, at in self.queue.failed_at.items() if self._is_over(at, keep_s)]:
            row = self._context.catalog.shadow(shadow_id)
            generation = self._context.catalog.generation(row.generation)
            if row.state == ShadowState.FAILED and generation is not None and generation.role == "building":
                self._context.transact(partial(transitions.retire_failed, shadow_id=shadow_id), "end failed build")
            self.queue.failed_at.pop(shadow_id, None)

    def _remove_retired(self) -> None:
        self.queue.look()
        for number in sorted(self.queue.retired):
            row = self._context.catalog.generation(number)
            if row is not None and row.role == "retiring":
                failpoint("retire.marked")
                self._attempt(
                    partial(self._remove, row), f"generation {number}"
                )  # one that cannot be removed does not keep the others

    def _forget_ended(self) -> None:
        if not self._trimmer.is_paused:
            forget_ended(self._context, self.queue)

    def _remove_dropped(self) -> None:
        self._remover.remove(self.queue, self._let_go)

    def _remove(self, row: GenerationRow) -> None:
        path = data_directory.inside(self._context.root, os.path.dirname(row.path)) / os.path.basename(row.path)
        opened = self._generations.get(row.number)
        self._publisher.withdraw(row, path)
        if self._publisher.leads_into(row, path):
            return
        if opened is not None:
            if self._indexes.live(row.branch, row.index_type) is opened:
                return  # the live pointer does not agree with the catalog yet
            if opened.pins or not self._let_go(row.number) or not opened.close_if_unpinned():
                return
            self._generations.forget(row.number)
        if pinned_elsewhere(path):
            return
        self._context.hold.check()
        remove_directory(path)
        failpoint("retire.removed")
        self._context.transact(lambda commit: transitions.forget_generation(commit, row.number), "retire")
        failpoint("retire.forgotten")
        if row.branch in self.queue.dropped:
            remove_empty_folders(str(path))
        self._context.metrics.count("generations_removed")

    def _publish_again(self) -> None:
        """A publication failed at its switch: try it again, so that the published path agrees with the live pointer."""
        switched = {self._key_of(shadow_id) for shadow_id in self._switches.shadows()}
        for key in list(self._publisher.pending - switched):  # a running Switcher publishes once it has verified
            if self._clock.monotonic() < self._publish_not_before or self._publisher.is_busy:
                return
            row, generation = self._context.catalog.index(*key), self._indexes.live(*key)
            if row is None or generation is None:
                self._publisher.pending.discard(key)
                continue
            self._publish_not_before = self._clock.monotonic() + PUBLISH_AGAIN_S
            branch = self._context.catalog.shadow(generation.row.shadow_id).branch_name
            if self._publisher.publish(branch, generation, row.strategy):
                logger.info("generation %d is published at last", generation.row.number)

    def _key_of(self, shadow_id: str) -> tuple[int, str] | None:
        row = self._context.catalog.find_shadow(shadow_id)
        return (row.branch, row.index_type) if row is not None else None

    def _let_go(self, number: int) -> bool:
        reply: Reply[None] = Reply()
        self._followers.of(number).tell(Unfollow(number, reply))
        try:
            reply.result(UNFOLLOW_S)
        except TimeoutError:
            return False
        return True

    def _note_activity(self) -> None:
        written, self.queue.written = self.queue.written, set()
        self._activity.look(written)

    def _trim(self) -> None:
        self._trimmer.give_up_holds(self.queue)
        self._trimmer.trim_journals(self.queue)
        self._trimmer.trim_undo(self.queue)

    def _remove_unused_vectors(self) -> None:
        if self._clock.monotonic() >= self._vectors_not_before:
            self._vectors_not_before = self._clock.monotonic() + VECTORS_CHECK_S
            self._context.hold.check()
            for name in remove_unused(self._context.root, self._context.catalog, self._clock.wall()):
                logger.info("the vectors in %s are removed: no index has needed them for a month", name)

    def _idle(self) -> None:
        self._router.stop_idle(self._context.config.branch_idle_s)
        if self._clock.monotonic() - self._readers_checked > READER_CHECK_S:
            self._readers_checked = self._clock.monotonic()
            self._context.catalog.env.reader_check()
