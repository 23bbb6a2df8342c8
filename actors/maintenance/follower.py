"""The Follower: keeps live, soaking and waiting generations up with the journal. A pool of them; each owns some
generations.

The LiveIndex limits a soaking generation to the LSN of the live one, so that a reader that moves from the soaking
generation to the live one sees no older state (SW-2).
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import msgspec

from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.journal_writer import Transact
from shadowswitch.actors.kit.actor import EngineActor
from shadowswitch.actors.kit.heads import Heads
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.kit.signals import Kick, Tick
from shadowswitch.actors.maintenance.follower_pool import FollowerPause, FollowerPool
from shadowswitch.actors.switch.live_index import LiveIndexes
from shadowswitch.actors.switch.open_generations import OpenGenerations
from shadowswitch.model.errors import ResourceExhausted, ShadowSwitchError
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.generations.generation import Generation
from shadowswitch.storage.generations.writer import APPLY_SLICE, BUSY_SLICE

logger = logging.getLogger("shadowswitch")

TURN_S = 0.05
"""The time that one generation is served before the next one has its turn."""
COMPACT_S = 0.01
"""The time that one generation is compacted at each tick."""
UNCOMPACTED_CHANGES_MAX = 100_000
"""After so many changes a generation is compacted although it is behind: 50 segments of an `fts5` index."""
FLUSH_BATCH_S = 0.2
"""The time that a full flush batch may wait to be forced to disk, see `Config.flush_changes`."""
BEHIND_S = 1.0
"""A generation is behind when it has not caught up for so long. It has caught up when it reaches the head as it was at
the beginning of a turn: under steady writes the present head is always a little ahead."""
RETRY_S = 1.0
"""The pause after a generation failed to apply the journal."""


class Follow(msgspec.Struct, frozen=True):
    """To a Follower: keep this generation up with the journal."""

    generation: Generation


class Unfollow(msgspec.Struct, frozen=True):
    """To a Follower: drop a generation. Reply: None, once the Follower will not touch it again."""

    number: int
    reply: Reply[None]


class GoOn(msgspec.Struct, frozen=True):
    """A Follower to itself: a branch had more changes than fit into one turn. `Config.refresh_interval_ms` bounds how
    soon a change is seen, not how much is applied."""

    branch: int


class Follower(EngineActor):
    """Applies the journal to its generations, compacts them, and forces them to disk now and then."""

    def __init__(
        self,
        context: EngineContext,
        number: int,
        followers: FollowerPool,
        pause: FollowerPause,
        heads: Heads,
        generations: OpenGenerations,
        indexes: LiveIndexes,
    ) -> None:
        super().__init__(f"shadowswitch-follower-{number}", context.crashed)
        self._config = context.config
        self._metrics = context.metrics
        self._clock = context.clock
        self._journal = context.journal
        self._written = followers.written[number]
        self._pause = pause
        self._at_work = pause.at_work[number]
        self._heads = heads
        self._generations = generations
        self._indexes = indexes
        self._by_branch: dict[int, dict[int, Generation]] = {}
        self._dirty: set[int] = set()
        self._going_on: set[int] = set()
        """Branches with a `GoOn` in the mailbox."""
        self._unflushed: dict[int, tuple[float, int]] = {}
        """The begin and the size of the flush batch, by generation."""
        self._not_before: dict[int, float] = {}
        self._caught_up_at: dict[int, float] = {}
        """The time at which it last reached the head of the beginning of its turn, by generation."""
        self._uncompacted: dict[int, int] = {}
        """The number of changes since the last compaction was complete, by generation."""
        self.handles(Follow, self._follow)
        self.handles(Unfollow, self._unfollow)
        self.handles(Tick, self._tick)
        self.handles(Kick, self._kick)
        self.handles(GoOn, self._go_on)

    def _follow(self, message: Follow) -> None:
        row = message.generation.row
        if row.opaque:
            return
        self._by_branch.setdefault(row.branch, {})[row.number] = message.generation
        self._serve(row.branch)

    def _unfollow(self, message: Unfollow) -> None:
        if not message.reply.set_running_or_notify_cancel():
            return
        for branch, generations in list(self._by_branch.items()):
            if generations.pop(message.number, None) is not None and not generations:
                del self._by_branch[branch]
        self._unflushed.pop(message.number, None)
        self._caught_up_at.pop(message.number, None)
        message.reply.set_result(None)

    def _kick(self, message: Kick) -> None:
        self._serve(message.branch)

    def _tick(self, _: Tick) -> None:
        while self._written:
            self._dirty.add(self._written.popleft())
        for branch in list(self._dirty):
            self._serve(branch)
        self._flush_due()
        self._compact()

    def _go_on(self, message: GoOn) -> None:
        self._going_on.discard(message.branch)
        self._serve(message.branch)
        self._flush_due()
        self._compact()

    def _serve(self, branch: int) -> None:
        self._dirty.discard(branch)
        head = self._heads.of(branch)
        generations = self._by_branch.get(branch, {})
        live_first = sorted(generations.values(), key=lambda g: g is not self._live(g))
        for generation in live_first:
            before = generation.applied_lsn
            if self._advance(generation, head):
                continue
            self._dirty.add(branch)
            if generation.applied_lsn > before and branch not in self._going_on:
                self._going_on.add(branch)
                self.actor_ref.tell(GoOn(branch))

    def _live(self, generation: Generation) -> Generation | None:
        return self._indexes.live(generation.row.branch, generation.row.index_type)

    def _target(self, generation: Generation, head: int) -> int:
        return self._indexes.of_generation(generation).follow_limit(generation, head)

    def _advance(self, generation: Generation, head: int) -> bool:
        """Serve one generation for one turn; False when it has not reached the head."""
        with self._at_work:
            return not self._pause.rests and self._take_turn(generation, head)

    def _take_turn(self, generation: Generation, head: int) -> bool:
        number = generation.row.number
        writer = generation.writer
        if writer.is_paused or writer.closed or self._clock.monotonic() < self._not_before.get(number, 0.0):
            return writer.closed
        before, turn_ends = writer.applied_lsn, self._clock.monotonic() + TURN_S
        target = partial(self._target, generation, head)
        try:
            while writer.applied_lsn < target() and self._clock.monotonic() < turn_ends and not writer.is_paused:
                applied = writer.follow_slice(target, BUSY_SLICE if self._behind(generation) else APPLY_SLICE)
                if applied:
                    since, changes = self._unflushed.get(number, (self._clock.monotonic(), 0))
                    self._unflushed[number] = (since, changes + applied)
                    self._uncompacted[number] = self._uncompacted.get(number, 0) + applied
                generation.advanced()
        except ShadowSwitchError as error:
            if writer.closed:
                return True
            if generation.hindered != str(error):
                logger.error("generation %d cannot follow the journal: %s", number, error)
            self._metrics.count("follow_errors")
            self._not_before[number] = self._clock.monotonic() + RETRY_S
            self._note(generation, str(error))
            return False
        if generation.hindered and (writer.applied_lsn > before or writer.applied_lsn >= target()):
            self._note(generation, "")
        # also what an attempt or the Scrubber has applied; what the open has found waits for the next change
        if writer.applied_lsn > max(writer.durable_lsn, writer.newest_lsn):
            self._unflushed.setdefault(number, (self._clock.monotonic(), 0))
        if writer.applied_lsn < head:
            return False
        self._caught_up_at[number] = self._clock.monotonic()
        return True

    def _note(self, generation: Generation, reason: str) -> None:
        """Why a generation does not follow the journal; "" for one that follows again. The catalog has the first
        reason, as far as it has room for it."""
        if bool(generation.hindered) is not bool(reason):
            work = partial(transitions.note_hindered, number=generation.row.number, reason=reason)
            self._journal.tell(Transact(work, Reply()))
        generation.hindered = reason

    def _compact(self) -> None:
        """Compact changed generations a little, while no switch is attempted. A generation that is behind catches up
        first."""
        for number, changes in list(self._uncompacted.items()):
            generation = self._generations.get(number)
            if generation is not None and self._behind(generation) and changes < UNCOMPACTED_CHANGES_MAX:
                continue
            ends = self._clock.monotonic() + COMPACT_S
            more = generation is not None and not generation.closed
            while more and generation is not None and self._clock.monotonic() < ends:
                with self._at_work:
                    if self._pause.is_on:
                        return
                    more = self._compact_one(generation)
            if not more:
                self._uncompacted.pop(number, None)

    def _compact_one(self, generation: Generation) -> bool:
        try:
            return generation.writer.compact()
        except ShadowSwitchError as error:
            logger.error("compaction of generation %d failed: %s", generation.row.number, error)
            return False

    def _flush_due(self) -> None:
        now = self._clock.monotonic()
        for number, (since, changes) in list(self._unflushed.items()):
            generation = self._generations.get(number)
            if generation is None or generation.closed:
                del self._unflushed[number]
            elif now >= since + self._waits_s(generation, changes):
                with self._at_work:
                    if self._pause.is_on:
                        return
                    del self._unflushed[number]
                    if not self._flush(generation):
                        self._unflushed[number] = (now, changes)

    def _waits_s(self, generation: Generation, changes: int) -> float:
        """The time that a flush batch of so many changes may wait. The batch of a generation that is behind is as large
        as that of a build: it catches up first."""
        config = self._config
        full = max(config.flush_changes, config.copy_flush_rows) if self._behind(generation) else config.flush_changes
        return min(FLUSH_BATCH_S, config.flush_interval_s) if changes >= full else config.flush_interval_s

    def _behind(self, generation: Generation) -> bool:
        since = self._caught_up_at.get(generation.row.number, 0.0)
        head = self._heads.of(generation.row.branch)
        return generation.applied_lsn < head and self._clock.monotonic() > since + BEHIND_S

    def _flush(self, generation: Generation) -> bool:
        """False if it lacked a resource, so that the flush batch is tried again."""
        try:
            generation.writer.flush()
        except ShadowSwitchError as error:
            logger.error("generation %d could not be forced to disk: %s", generation.row.number, error)
            self._metrics.count("flush_errors")
            return not isinstance(error, ResourceExhausted)
        return True

    def recover(self, message: Any, error: BaseException) -> None:
        """Look at every branch again at the next tick."""
        self._dirty.update(self._by_branch)
