"""The Follower: keeps live, soaking and waiting generations up with the journal. A small pool; each owns some
generations.

A soaking generation is never brought ahead of the live one, so that a reader that moves from the one to the other sees
no older state (SW-2).
"""

from __future__ import annotations

import logging
import time
from collections import deque
from functools import partial
from typing import Any

from shadowswitch.actors.house import House
from shadowswitch.actors.kit.actor import EngineActor
from shadowswitch.actors.messages import Follow, Kick, Tick, Unfollow
from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.storage.generations.generation import APPLY_SLICE, BUSY_SLICE, Generation

logger = logging.getLogger("shadowswitch")

TURN_S = 0.05
"""How long one generation is served before the next one has its turn."""
TEND_S = 0.01
"""Housekeeping of one generation at each tick."""
UNTIDY_CHANGES_MAX = 100_000
"""After so many changes a generation gets its housekeeping although it is behind: 50 segments of an `fts5` index."""
PILE_S = 0.2
"""How long a pile of changes may wait to be forced to disk, see `Config.flush_changes`."""
BEHIND_S = 1.0
"""Who has not come as far as the head was at the beginning of a turn for so long is behind. Under steady writing the
head is always a little ahead: that alone says nothing."""
RETRY_S = 1.0
"""How long a generation that could not be brought up is left alone."""


class Follower(EngineActor):
    """Brings its generations up with the journal, and forces them to disk now and then.

    `written` holds the branches with new commits; the JournalWriter's thread appends to it.
    """

    def __init__(self, house: House, number: int, written: deque[int]) -> None:
        super().__init__(f"shadowswitch-follower-{number}", house.crashed)
        self._house = house
        self._by_branch: dict[int, dict[int, Generation]] = {}
        self._dirty: set[int] = set()
        self._unflushed: dict[int, tuple[float, int]] = {}
        """Since when, and how many changes, by generation."""
        self._not_before: dict[int, float] = {}
        self._abreast: dict[int, float] = {}
        """When it last reached what the head was at the beginning of its turn, by generation."""
        self._untidy: dict[int, int] = {}
        """How many changes since the last housekeeping came to an end, by generation."""
        self._written = written
        self._at_work = house.pause.at_work[number]
        self.handles(Follow, self._follow)
        self.handles(Unfollow, self._unfollow)
        self.handles(Tick, self._tick)
        self.handles(Kick, self._kick)

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
        self._abreast.pop(message.number, None)
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

    def _serve(self, branch: int) -> None:
        self._dirty.discard(branch)
        head = self._house.heads.of(branch)
        generations = self._by_branch.get(branch, {})
        live_first = sorted(generations.values(), key=lambda g: g is not self._live(g))
        for generation in live_first:
            if not self._advance(generation, head):
                self._dirty.add(branch)

    def _live(self, generation: Generation) -> Generation | None:
        return self._house.indexes.live(generation.row.branch, generation.row.index_type)

    def _target(self, generation: Generation, head: int) -> int:
        return self._house.indexes.of_generation(generation).follow_limit(generation, head)

    def _advance(self, generation: Generation, head: int) -> bool:
        """Serve one generation for one turn; False when it is not at the head yet."""
        with self._at_work:
            return not self._house.pause.rests and self._take_turn(generation, head)

    def _take_turn(self, generation: Generation, head: int) -> bool:
        number = generation.row.number
        writer = generation.writer
        if writer.is_paused or writer.closed or time.monotonic() < self._not_before.get(number, 0.0):
            return writer.closed
        turn_ends = time.monotonic() + TURN_S
        target = partial(self._target, generation, head)
        try:
            while writer.applied_lsn < target() and time.monotonic() < turn_ends and not writer.is_paused:
                applied = writer.follow_slice(target, BUSY_SLICE if self._behind(generation) else APPLY_SLICE)
                if applied:
                    since, changes = self._unflushed.get(number, (time.monotonic(), 0))
                    self._unflushed[number] = (since, changes + applied)
                    self._untidy[number] = self._untidy.get(number, 0) + applied
                generation.advanced()
        except ShadowSwitchError as error:
            if writer.closed:
                return True
            logger.error("generation %d cannot follow the journal: %s", number, error)
            self._house.metrics.count("follow_errors")
            self._not_before[number] = time.monotonic() + RETRY_S
            return False
        if writer.applied_lsn < head:
            return False
        self._abreast[number] = time.monotonic()
        return True

    def _compact(self) -> None:
        """A little housekeeping of what changed, while nothing is switched; who is behind catches up first."""
        for number, changes in list(self._untidy.items()):
            generation = self._house.generations.get(number)
            if generation is not None and self._behind(generation) and changes < UNTIDY_CHANGES_MAX:
                continue
            ends = time.monotonic() + TEND_S
            more = generation is not None and not generation.closed
            while more and generation is not None and time.monotonic() < ends:
                with self._at_work:
                    if self._house.pause.is_on:
                        return
                    more = self._compact_one(generation)
            if not more:
                self._untidy.pop(number, None)

    def _compact_one(self, generation: Generation) -> bool:
        try:
            return generation.writer.compact()
        except ShadowSwitchError as error:
            logger.error("housekeeping of generation %d failed: %s", generation.row.number, error)
            return False

    def _flush_due(self) -> None:
        now = time.monotonic()
        for number, (since, changes) in list(self._unflushed.items()):
            generation = self._house.generations.get(number)
            if generation is None or generation.closed:
                del self._unflushed[number]
            elif now >= since + self._waits_s(generation, changes):
                with self._at_work:
                    if self._house.pause.is_on:
                        return
                    del self._unflushed[number]
                    self._flush(generation)

    def _waits_s(self, generation: Generation, changes: int) -> float:
        """How long that many changes may wait to be forced to disk. Whoever is behind comes nearer first: it has as
        large a pile as a build."""
        config = self._house.config
        pile = max(config.flush_changes, config.copy_flush_rows) if self._behind(generation) else config.flush_changes
        return min(PILE_S, config.flush_interval_s) if changes >= pile else config.flush_interval_s

    def _behind(self, generation: Generation) -> bool:
        since = self._abreast.get(generation.row.number, 0.0)
        head = self._house.heads.of(generation.row.branch)
        return generation.applied_lsn < head and time.monotonic() > since + BEHIND_S

    def _flush(self, generation: Generation) -> None:
        try:
            generation.writer.flush()
        except ShadowSwitchError as error:
            logger.error("generation %d could not be forced to disk: %s", generation.row.number, error)
            self._house.metrics.count("flush_errors")

    def recover(self, message: Any, error: BaseException) -> None:
        """Look at every branch again at the next tick."""
        self._dirty.update(self._by_branch)
