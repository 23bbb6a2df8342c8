"""The Scrubber: looks after BUILT shadows that wait for their switch, so that one that rots is not switched to.

Every `Config.recheck_interval_s` each of them is looked at, outside any lock and beside its follower: a worker process
recomputes the digest of one shard after the other from its rows, and the counters are held against the source at a
common LSN. Buckets that differ are replaced once by what the source holds, and the shadow is validated as after a
build; if it is not sound then, or cannot be read, it is FAILED with that reason. A switch or a cancellation that comes
meanwhile ends the look; a switch looks itself.
"""

from __future__ import annotations

import logging
import time
from functools import partial

from shadowswitch.actors.build.validator import BUILD_CHECKS
from shadowswitch.actors.house import House
from shadowswitch.actors.kit.actor import EngineActor
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.messages import Tick, Unfollow
from shadowswitch.model.errors import BuildCancelled, CorruptData, ShadowSwitchError
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.storage import data_directory
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.catalog.rows import ShadowRow
from shadowswitch.storage.generations.generation import Generation
from shadowswitch.storage.generations.recount import Recount, Recounted

logger = logging.getLogger("shadowswitch")

ATTENTION_S = 10.0
"""How long it waits for a validation of the shadow to end; then it comes again after the next interval."""
CATCH_UP_S = 30.0
UNFOLLOW_S = 10.0


class Scrubber(EngineActor):
    """One for each engine. It blocks for as long as one look takes; nobody waits for it."""

    def __init__(self, house: House) -> None:
        super().__init__("shadowswitch-rechecker", house.crashed)
        self._house = house
        self._looked_at: dict[int, float] = {}
        self.handles(Tick, self._tick)

    def _tick(self, _: Tick) -> None:
        house = self._house
        waiting = [row for row in house.catalog.shadows() if row.state == ShadowState.BUILT]
        self._looked_at = {row.generation: self._looked_at.get(row.generation, time.monotonic()) for row in waiting}
        due = time.monotonic() - house.config.recheck_interval_s
        for row in waiting:
            generation = house.generations.get(row.generation)
            if (
                generation is None
                or generation.row.opaque
                or self._looked_at[row.generation] > due
                or house.changes.closing
            ):
                continue
            if generation.pin():
                try:
                    self._recheck(row, generation)
                finally:
                    generation.unpin()
                    self._looked_at[row.generation] = time.monotonic()

    def _recheck(self, row: ShadowRow, generation: Generation) -> None:
        try:
            differing = self._look(row, generation)
            if differing:
                logger.error("buckets %s of waiting shadow %s differ from their source", differing, row.id)
                self._mend(row, generation, differing)
            self._house.metrics.count("rechecks")
        except BuildCancelled:
            return  # switched, cancelled, or the engine closes
        except CorruptData as error:
            if not self._is_over(row):
                self._fail(row, generation, str(error))
        except ShadowSwitchError as error:  # no room, no time: that says nothing about the shadow
            logger.warning("waiting shadow %s could not be looked at: %s", row.id, error)
            self._house.metrics.count("recheck_errors")

    def _look(self, row: ShadowRow, generation: Generation) -> list[int]:
        """The buckets in which rows, counters and source are not all the same."""
        house = self._house
        differing: set[int] = set()
        for path in data_directory.shard_paths(generation.path, generation.row.shards):
            deadline = time.monotonic() + house.config.validation_timeout_s
            task = Recount(str(path), generation.row.backend, generation.row.options)
            found = house.validator.ask(task, Recounted, deadline, partial(self._is_over, row))
            if found.damage:
                raise CorruptData(found.damage, object=str(path))
            differing.update(found.differing_buckets)
        with generation.maintenance_lock(ATTENTION_S):
            if self._is_over(row):
                raise BuildCancelled(f"shadow {row.id} does not wait any more")
            differing.update(self._against_source(generation))
        return sorted(differing)

    def _against_source(self, generation: Generation) -> list[int]:
        writer = generation.writer
        with writer.pause_apply():
            lsn, source = self._house.catalog.source_digest(generation.row.branch, set(writer.types))
            writer.apply_until(lsn, time.monotonic() + CATCH_UP_S)
            return writer.differing(source)

    def _mend(self, row: ShadowRow, generation: Generation, buckets: list[int]) -> None:
        """Replace the buckets, then validate as after a build. Raises CorruptData when that did not help."""
        with generation.maintenance_lock(ATTENTION_S):
            if self._is_over(row):
                raise BuildCancelled(f"shadow {row.id} does not wait any more")
            self._house.validator.repair(generation, buckets)
            found = self._house.validator.validate(generation, BUILD_CHECKS, partial(self._is_over, row))
        self._house.metrics.count("buckets_repaired", len(buckets))
        if found.errors:
            text = f"buckets {buckets} differed from their source, and after a repair: {'; '.join(found.errors)}"
            raise CorruptData(text, object=row.id)
        self._house.transact(lambda c: c.audit("shadow.repaired", row.id, {"buckets": buckets}), "recheck")

    def _is_over(self, row: ShadowRow) -> bool:
        """Does the shadow not wait for its switch any more?"""
        present = self._house.catalog.find_shadow(row.id)
        return self._house.changes.closing or present is None or present.state != ShadowState.BUILT

    def _fail(self, row: ShadowRow, generation: Generation, reason: str) -> None:
        house = self._house
        reason = f"it was BUILT, and was found unsound while it waited for its switch: {reason}"
        if not house.transact(lambda c: transitions.fail_waiting(c, row.id, reason), "recheck"):
            return
        logger.error("shadow %s failed: %s", row.id, reason)
        house.metrics.count("rechecks_failed")
        reply: Reply[None] = Reply()
        house.followers.of(row.generation).tell(Unfollow(row.generation, reply))
        reply.result(UNFOLLOW_S)
        house.generations.forget(row.generation)
        generation.close()
