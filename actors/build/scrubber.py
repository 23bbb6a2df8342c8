"""The Scrubber reads generations in the background: BUILT shadows that wait for their switch, and what became live.

A switch and a rollback read no row, see `actors.switch.fitness`. What only a reading finds, such as a page that went
bad since the build, is found here, outside any lock and beside the Follower:

    a waiting shadow    every `Config.recheck_interval_s`; 0: never
    a live generation   once, as soon as it is live

A worker process reads one shard after the other: it recomputes the digest from the rows, then runs the check of the
backend. The counters are compared with the source at a common LSN. Buckets that differ are repaired once from the
source, and read again. A waiting shadow that is then unsound, or cannot be read, is FAILED with that reason. From a
live generation the index goes back to the one before; without one it stays, and `index.unsound` has the reason. What
is switched, cancelled or left meanwhile is not read to its end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from shadowswitch.actors.build.validator import ShadowValidator
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.actor import EngineActor
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.kit.signals import Tick
from shadowswitch.actors.maintenance.follower import Unfollow
from shadowswitch.actors.maintenance.follower_pool import FollowerPool
from shadowswitch.actors.switch.open_generations import OpenGenerations
from shadowswitch.model.digest import Digest
from shadowswitch.model.errors import BuildCancelled, CorruptData, ShadowSwitchError
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.catalog.rows import IndexRow, ShadowRow
from shadowswitch.storage.generations.directory import shard_paths
from shadowswitch.storage.generations.generation import Generation
from shadowswitch.storage.generations.shard_reading import Checked, CheckShards, ReadShard, ShardRead

logger = logging.getLogger("shadowswitch")

MAINTENANCE_LOCK_S = 10.0
"""The wait for another validation of the shadow to end; then the next interval begins."""
CATCH_UP_S = 30.0
UNFOLLOW_S = 10.0
AGAIN_S = 60.0
"""After a reading that lacked something."""


Compare = Callable[[Generation, float], list[int]]
"""The buckets in which counters and source differ, until a deadline (monotonic)."""


class Scrubber(EngineActor):
    """One for each engine. It blocks for as long as one check takes; no caller waits for it."""

    def __init__(
        self,
        context: EngineContext,
        validator: ShadowValidator,
        generations: OpenGenerations,
        followers: FollowerPool,
        leave: Callable[[int, CorruptData], None],
    ) -> None:
        """`leave` lets an index go back from an unsound live generation."""
        super().__init__("shadowswitch-rechecker", context.crashed)
        self._context = context
        self._clock = context.clock
        self._validator = validator
        self._generations = generations
        self._followers = followers
        self._leave = leave
        self._checked_at: dict[int, float] = {}
        indexes = context.catalog.indexes()
        self._read = {(row.live, row.epoch) for row in indexes if not (row.previous or row.unread)}
        """Live generations that need no reading (any more): at the start all but those that soak, and clones that the
        backend has not checked yet."""
        self._not_before: dict[int, float] = {}
        self.handles(Tick, self._tick)

    def _tick(self, _: Tick) -> None:
        if self._context.config.recheck_interval_s:
            self._scrub_waiting()
        self._read_live()

    def _scrub_waiting(self) -> None:
        catalog = self._context.catalog
        standing = [catalog.find_shadow(one.shadow_id) for one in catalog.generations() if one.role == "standby"]
        waiting = [row for row in standing if row is not None and row.state == ShadowState.BUILT]
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
            with generation.kept() as is_open:
                if is_open:
                    try:
                        self._scrub(row, generation)
                    finally:
                        self._checked_at[row.generation] = self._clock.monotonic()

    def _scrub(self, row: ShadowRow, generation: Generation) -> None:
        try:
            self._read_through(generation, partial(self._is_over, row), self._validator.differing)
            self._context.metrics.count("rechecks")
        except BuildCancelled:
            return  # switched, cancelled, or the engine closes
        except CorruptData as error:
            if not self._is_over(row):
                self._fail(row, generation, str(error))
        except ShadowSwitchError as error:  # no room, no time: no statement about the shadow
            logger.warning("waiting shadow %s could not be looked at: %s", row.id, error)
            self._context.metrics.count("recheck_errors")

    def _read_live(self) -> None:
        live = {(row.live, row.epoch): row for row in self._context.catalog.indexes() if row.live}
        self._read &= live.keys()
        for key, row in live.items():
            generation = self._generations.get(row.live)
            if key in self._read or self._context.changes.closing:
                continue
            if generation is None or generation.row.opaque:
                self._read.add(key)
            elif self._not_before.get(row.live, 0.0) <= self._clock.monotonic():
                with generation.kept() as is_open:
                    if is_open:
                        self._read_one(row, generation, key)

    def _read_one(self, row: IndexRow, generation: Generation, key: tuple[int, int]) -> None:
        try:
            compare = self._validator.differing_beside_readers
            self._read_through(generation, partial(self._is_left, row), compare)
            self._note_read(row)
            self._context.metrics.count("readings")
        except BuildCancelled:
            pass
        except CorruptData as error:
            if not self._is_left(row):
                self._unsound(row, generation, error)
                self._note_read(row)
        except ShadowSwitchError as error:
            logger.warning("live generation %d could not be read through: %s", row.live, error)
            self._not_before[row.live] = self._clock.monotonic() + AGAIN_S
            return
        self._read.add(key)

    def _note_read(self, row: IndexRow) -> None:
        if row.unread:
            work = partial(transitions.note_read, branch=row.branch, index_type=row.index_type, live=row.live)
            self._context.transact(work, "recheck")

    def _unsound(self, row: IndexRow, generation: Generation, error: CorruptData) -> None:
        logger.error("live generation %d is unsound: %s", row.live, error)
        self._context.metrics.count("readings_failed")
        if row.previous:
            self._leave(row.live, error)
            return
        reason = (
            f"it is live, there is no generation to go back to, and it was found unsound: {error}; rebuild the index"
        )
        note = partial(transitions.note_unsound, shadow_id=generation.row.shadow_id, reason=reason)
        self._context.transact(note, "recheck")

    def _is_left(self, row: IndexRow) -> bool:
        """Is the generation not live any more?"""
        present = self._context.catalog.index(row.branch, row.index_type)
        return self._context.changes.closing or present is None or present.live != row.live

    def _read_through(self, generation: Generation, is_over: Callable[[], bool], compare: Compare) -> None:
        """Raises CorruptData for an unsound generation, BuildCancelled when `is_over` becomes true."""
        differing = self._differing(generation, is_over, compare)
        if differing:
            number = generation.row.number
            logger.error("buckets %s of generation %d differ from their source", differing, number)
            with generation.maintenance_lock(MAINTENANCE_LOCK_S):
                _refuse_over(is_over, number)
                self._validator.repair(generation, differing)
            self._context.metrics.count("buckets_repaired", len(differing))
            still = self._differing(generation, is_over, compare)
            if still:
                text = f"buckets {differing} differed from their source, and after a repair {still}"
                raise CorruptData(text, object=str(generation.path))
            what = {"buckets": differing, "reason": "they differed from their source"}
            self._context.transact(lambda c: c.audit("shadow.repaired", generation.row.shadow_id, what), "recheck")
        paths = [str(path) for path in shard_paths(generation.path, generation.row.shards)]
        row = generation.row
        task = CheckShards(paths, row.backend, row.options, manifest_hash=self._validator.manifest_hash(generation))
        problems = self._validator.answers.ask(task, Checked, stop_asked=is_over).problems
        if problems:
            raise CorruptData("; ".join(problems), object=str(generation.path))

    def _differing(self, generation: Generation, is_over: Callable[[], bool], compare: Compare) -> list[int]:
        """The buckets in which rows, counters and source differ."""
        differing: set[int] = set()
        for path in shard_paths(generation.path, generation.row.shards):
            task = ReadShard(str(path), generation.row.backend, generation.row.options)
            found = self._validator.answers.ask(task, ShardRead, stop_asked=is_over)
            if found.damage:
                raise CorruptData(found.damage, object=str(path))
            differing.update(Digest.decode(found.rows).differing(Digest.decode(found.counters)))
        with generation.maintenance_lock(MAINTENANCE_LOCK_S):
            _refuse_over(is_over, generation.row.number)
            differing.update(compare(generation, self._clock.monotonic() + CATCH_UP_S))
        return sorted(differing)

    def _is_over(self, row: ShadowRow) -> bool:
        """Does the shadow not wait for its switch any more?"""
        present = self._context.catalog.find_shadow(row.id)
        return self._context.changes.closing or present is None or present.state != ShadowState.BUILT

    def _fail(self, row: ShadowRow, generation: Generation, reason: str) -> None:
        reason = f"it was BUILT, and was found unsound while it waited for its switch: {reason}"
        if not self._context.transact(lambda c: transitions.fail_waiting(c, row.id, reason), "recheck"):
            return
        self._context.metrics.count("rechecks_failed")
        reply: Reply[None] = Reply()
        self._followers.of(row.generation).tell(Unfollow(row.generation, reply))
        reply.result(UNFOLLOW_S)
        self._generations.forget(row.generation)
        generation.close()


def _refuse_over(is_over: Callable[[], bool], number: int) -> None:
    if is_over():
        raise BuildCancelled(f"generation {number} is not what it was when its reading began")
