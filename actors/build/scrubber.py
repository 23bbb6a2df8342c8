"""The Scrubber: checks BUILT shadows that wait for their switch, so that no switch reaches a damaged one.

It checks each every `Config.recheck_interval_s`, outside any lock and beside its Follower. A worker process recomputes
the digest of one shard after the other from its rows; the counters are compared with the source at a common LSN.
Buckets that differ are repaired once from the source, and the shadow is validated as after a build. A shadow that is
then unsound, or cannot be read, is FAILED with that reason. A switch or a cancellation that comes meanwhile ends the
check; a switch validates on its own.
"""

from __future__ import annotations

import logging
from functools import partial

from shadowswitch.actors.build.validator import BUILD_CHECKS, ShadowValidator
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.actor import EngineActor
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.kit.signals import Tick
from shadowswitch.actors.maintenance.follower import Unfollow
from shadowswitch.actors.maintenance.follower_pool import FollowerPool
from shadowswitch.actors.switch.open_generations import OpenGenerations
from shadowswitch.model.errors import BuildCancelled, CorruptData, ShadowSwitchError
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.catalog.rows import ShadowRow
from shadowswitch.storage.generations.directory import shard_paths
from shadowswitch.storage.generations.generation import Generation
from shadowswitch.storage.generations.recount import Recount, Recounted

logger = logging.getLogger("shadowswitch")

MAINTENANCE_LOCK_S = 10.0
"""The wait for another validation of the shadow to end; then the next interval begins."""
CATCH_UP_S = 30.0
UNFOLLOW_S = 10.0


class Scrubber(EngineActor):
    """One for each engine. It blocks for as long as one check takes; no caller waits for it."""

    def __init__(
        self,
        context: EngineContext,
        validator: ShadowValidator,
        generations: OpenGenerations,
        followers: FollowerPool,
    ) -> None:
        super().__init__("shadowswitch-rechecker", context.crashed)
        self._context = context
        self._clock = context.clock
        self._validator = validator
        self._generations = generations
        self._followers = followers
        self._checked_at: dict[int, float] = {}
        self.handles(Tick, self._tick)

    def _tick(self, _: Tick) -> None:
        waiting = [row for row in self._context.catalog.shadows() if row.state == ShadowState.BUILT]
        self._checked_at = {
            row.generation: self._checked_at.get(row.generation, self._clock.monotonic()) for row in waiting
        }
        due = self._clock.monotonic() - self._context.config.recheck_interval_s
        for row in waiting:
            generation = self._generations.get(row.generation)
            if (
                generation is None
                or generation.row.opaque
                or self._checked_at[row.generation] > due
                or self._context.changes.closing
            ):
                continue
            if generation.pin():
                try:
                    self._scrub(row, generation)
                finally:
                    generation.unpin()
                    self._checked_at[row.generation] = self._clock.monotonic()

    def _scrub(self, row: ShadowRow, generation: Generation) -> None:
        try:
            differing = self._differing(row, generation)
            if differing:
                logger.error("buckets %s of waiting shadow %s differ from their source", differing, row.id)
                self._repair(row, generation, differing)
            self._context.metrics.count("rechecks")
        except BuildCancelled:
            return  # switched, cancelled, or the engine closes
        except CorruptData as error:
            if not self._is_over(row):
                self._fail(row, generation, str(error))
        except ShadowSwitchError as error:  # no room, no time: no statement about the shadow
            logger.warning("waiting shadow %s could not be looked at: %s", row.id, error)
            self._context.metrics.count("recheck_errors")

    def _differing(self, row: ShadowRow, generation: Generation) -> list[int]:
        """The buckets in which rows, counters and source differ."""
        differing: set[int] = set()
        for path in shard_paths(generation.path, generation.row.shards):
            deadline = self._clock.monotonic() + self._context.config.validation_timeout_s
            task = Recount(str(path), generation.row.backend, generation.row.options)
            found = self._validator.answers.ask(task, Recounted, deadline, partial(self._is_over, row))
            if found.damage:
                raise CorruptData(f"{path.name}: {found.damage}", object=str(path))
            differing.update(found.differing_buckets)
        with generation.maintenance_lock(MAINTENANCE_LOCK_S):
            if self._is_over(row):
                raise BuildCancelled(f"shadow {row.id} does not wait any more")
            differing.update(self._against_source(generation))
        return sorted(differing)

    def _against_source(self, generation: Generation) -> list[int]:
        writer = generation.writer
        with writer.pause_apply():
            lsn, source = self._context.catalog.source_digest(generation.row.branch, set(writer.types))
            writer.apply_until(lsn, self._clock.monotonic() + CATCH_UP_S)
            return writer.differing(source)

    def _repair(self, row: ShadowRow, generation: Generation, buckets: list[int]) -> None:
        """Replace the buckets, then validate as after a build. Raises CorruptData when the shadow is still unsound."""
        with generation.maintenance_lock(MAINTENANCE_LOCK_S):
            if self._is_over(row):
                raise BuildCancelled(f"shadow {row.id} does not wait any more")
            self._validator.repair(generation, buckets)
            found = self._validator.validate(generation, BUILD_CHECKS, partial(self._is_over, row))
        self._context.metrics.count("buckets_repaired", len(buckets))
        if found.errors:
            text = f"buckets {buckets} differed from their source, and after a repair: {'; '.join(found.errors)}"
            raise CorruptData(text, object=row.id)
        what = {"buckets": buckets, "reason": "they differed from their source"}
        self._context.transact(lambda c: c.audit("shadow.repaired", row.id, what), "recheck")

    def _is_over(self, row: ShadowRow) -> bool:
        """Does the shadow not wait for its switch any more?"""
        present = self._context.catalog.find_shadow(row.id)
        return self._context.changes.closing or present is None or present.state != ShadowState.BUILT

    def _fail(self, row: ShadowRow, generation: Generation, reason: str) -> None:
        reason = f"it was BUILT, and was found unsound while it waited for its switch: {reason}"
        if not self._context.transact(lambda c: transitions.fail_waiting(c, row.id, reason), "recheck"):
            return
        logger.error("shadow %s failed: %s", row.id, reason)
        self._context.metrics.count("rechecks_failed")
        reply: Reply[None] = Reply()
        self._followers.of(row.generation).tell(Unfollow(row.generation, reply))
        reply.result(UNFOLLOW_S)
        self._generations.forget(row.generation)
        generation.close()
