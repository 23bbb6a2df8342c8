"""Pacing: how hard a build works. It has a share of the time, a watch over the disk, and measures for the case
that writers outrun the build.

The measures are judged by whole rounds, never by a momentary backlog (see `model.progress`, also for a round that
does not end). Their order is: more share and bigger batches, a bounded delay of each write of the branch,
NOT_CONVERGING.
"""

from __future__ import annotations

import logging

from shadowswitch.actors.build.running_builds import RunningBuilds
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.heads import Heads
from shadowswitch.model.errors import NOT_CONVERGING, NotConverging, StorageFull
from shadowswitch.model.progress import Place, Rounds
from shadowswitch.storage import disk
from shadowswitch.storage.catalog.rows import ShadowRow
from shadowswitch.storage.generations.shard_build import Control
from shadowswitch.storage.generations.writer import APPLY_SLICE, BUSY_SLICE

logger = logging.getLogger("shadowswitch")

DISK_INTERVAL_S = 0.5
STEP_S = 0.02
BUSY_STEP_S = 0.2


class Pacing:
    """The pace of one build. On the thread of its ShadowBuilder."""

    def __init__(self, context: EngineContext, heads: Heads, builds: RunningBuilds, row: ShadowRow) -> None:
        self._root = context.root
        self._config = context.config
        self._clock = context.clock
        self._heads = heads
        self._builds = builds
        self._row = row
        self.share = row.share or context.config.build_share
        self._short_of_disk = False
        self._looked_at = 0.0
        self._rounds = Rounds(self._place(row.start_lsn))
        self.round_target = self.round_changes = 0
        """The LSN at which the round ends, and the changes that it has applied so far."""

    @property
    def control(self) -> Control:
        """The pace of the workers."""
        return Control(self.share * self._builds.way.share, self._short_of_disk)

    @property
    def behind(self) -> bool:
        """Did the last round gain nothing?"""
        return self._rounds.without_gain > 0

    @property
    def step(self) -> tuple[float, int]:
        """Seconds of a step of catch-up, and changes of a slice: more at the first signs that the build is slower."""
        return (BUSY_STEP_S, BUSY_SLICE) if self.behind else (STEP_S, APPLY_SLICE)

    def watch_disk(self) -> bool:
        """True while the free space is below the reserve: the build stands still.

        Raises StorageFull below half the reserve: the build ends, so that the writers have room.
        """
        if self._clock.monotonic() - self._looked_at < DISK_INTERVAL_S:
            return False
        self._looked_at = self._clock.monotonic()
        free, reserve = disk.free_bytes(self._root), self._config.disk_reserve_bytes
        if free < reserve / 2:
            raise StorageFull(
                f"the disk has {free} bytes left; the build gave way to the writers",
                operation="build",
                object=self._row.id,
                hint=f"free space so that {reserve} bytes stay free (Config.disk_reserve_bytes), then retry_build",
            )
        short = free < reserve
        if short != self._short_of_disk:
            logger.warning("shadow %s %s: %d bytes free", self._row.id, "stands still" if short else "goes on", free)
            self._short_of_disk = short
            self._builds.short_of_disk.pop(self._row.id, None)
            if short:
                text = f"paused: {free} bytes are free, and {reserve} must stay free (Config.disk_reserve_bytes)"
                self._builds.short_of_disk[self._row.id] = text
        return short

    def begin(self, applied: int) -> None:
        """Catching up begins now. The work of the workers before does not count."""
        self._rounds = Rounds(self._place(applied))
        self.round_target, self.round_changes = self._heads.of(self._row.branch), 0

    def round_ended(self, applied: int) -> bool:
        """A round of catch-up takes the shadow to the head as it was when the round began. Was the round short enough?

        A long round is judged on the way as well, see `model.progress`. Raises NotConverging with the rates.
        """
        if applied < self.round_target:
            if self._rounds.on_the_way(self._place(applied)):
                self._hurry(applied)
            return False
        changes, self.round_changes = self.round_changes, 0
        self.round_target = self._heads.of(self._row.branch)
        if changes <= self._config.catchup_residual_changes:
            return True
        self._rounds.ended(self._place(applied), changes)
        self._hurry(applied)
        return False

    def _place(self, applied: int) -> Place:
        return Place(self._clock.monotonic(), self._heads.of(self._row.branch), applied)

    def _hurry(self, applied: int) -> None:
        """Take the measures for the number of rounds without gain."""
        config, rounds = self._config, self._rounds.without_gain
        patience = max(1, config.catchup_rounds_max // 3)
        if rounds > patience:
            step_s = config.write_delay_max_ms / 1000 / patience
            delay_s = self._builds.delays.get(self._row.branch, 0.0) + step_s
            self._builds.delays[self._row.branch] = min(config.write_delay_max_ms / 1000, delay_s)
        if rounds >= config.catchup_rounds_max:
            place = self._place(applied)
            came, done = self._rounds.rates(place)
            raise NotConverging(
                f"{NOT_CONVERGING}: {place.head - applied} changes were left after {rounds} rounds without gain,"
                f" although every write is slowed by {config.write_delay_max_ms:g} ms;"
                f" {came:.0f} changes a second still come in, {done:.0f} a second are replayed",
                operation="build",
                object=self._row.id,
                hint="write more slowly, use more shards, or try again at a quieter time",
            )

    def end(self) -> None:
        """The build ends: no write of the branch is delayed for it."""
        self._builds.short_of_disk.pop(self._row.id, None)
        self._builds.delays.pop(self._row.branch, None)
