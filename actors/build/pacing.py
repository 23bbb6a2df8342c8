"""How hard a build works: its share, pauses, the disk, and what is done when writers outrun it.

Measures against falling behind are judged by whole rounds, never by a momentary backlog (`model.convergence` says how,
also for a round that does not end). In this order: more share and bigger batches, a bounded delay of each write of the
branch, NOT_CONVERGING.
"""

from __future__ import annotations

import logging
import time

from shadowswitch.actors.house import House
from shadowswitch.model.convergence import Place, Rounds
from shadowswitch.model.errors import NOT_CONVERGING, NotConverging, StorageFull
from shadowswitch.storage import data_directory
from shadowswitch.storage.catalog.rows import ShadowRow
from shadowswitch.storage.generations.shard_build import Control

logger = logging.getLogger("shadowswitch")

DISK_INTERVAL_S = 0.5


class Pacing:
    """The pace of one build."""

    def __init__(self, house: House, row: ShadowRow) -> None:
        self._house = house
        self._row = row
        self.share = house.config.build_share
        self._paused = False
        self._short_of_disk = False
        self._looked_at = 0.0
        self._rounds = Rounds(self._place(row.start_lsn))

    @property
    def control(self) -> Control:
        """What workers are told."""
        return Control(self.share, self._paused or self._short_of_disk)

    @property
    def behind(self) -> bool:
        """Did the last round gain nothing?"""
        return self._rounds.without_gain > 0

    def tune(self, share: float | None, paused: bool | None) -> None:
        """What somebody asked for."""
        self.share = self.share if share is None else share
        self._paused = self._paused if paused is None else paused

    def watch_disk(self) -> bool:
        """Below the reserve the shadow stands still (True); below half of it the shadow ends, never the writers."""
        if time.monotonic() - self._looked_at < DISK_INTERVAL_S:
            return False
        self._looked_at = time.monotonic()
        free, reserve = data_directory.free_bytes(self._house.root), self._house.config.disk_reserve_bytes
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
        return short

    def begin(self, applied: int) -> None:
        """Catching up begins here and now: what the workers did before counts for nothing."""
        self._rounds = Rounds(self._place(applied))

    def caught_up(self, applied: int, changes: int) -> None:
        """After a whole round of catch-up that had so many changes. Raises NotConverging with the rates."""
        self._rounds.ended(self._place(applied), changes)
        self._hurry(applied)

    def on_the_way(self, applied: int) -> None:
        """In the midst of a round, which may be one that takes longer and longer. Raises NotConverging."""
        if self._rounds.on_the_way(self._place(applied)):
            self._hurry(applied)

    def _place(self, applied: int) -> Place:
        return Place(time.monotonic(), self._house.heads.of(self._row.branch), applied)

    def _hurry(self, applied: int) -> None:
        """The measures that fit how often nothing was gained."""
        config, rounds = self._house.config, self._rounds.without_gain
        patience = max(1, config.catchup_rounds_max // 3)
        if rounds > patience:
            step_s = config.write_delay_max_ms / 1000 / patience
            delay_s = self._house.running_builds.delays.get(self._row.branch, 0.0) + step_s
            self._house.running_builds.delays[self._row.branch] = min(config.write_delay_max_ms / 1000, delay_s)
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
        """Writers go on at full speed."""
        self._house.running_builds.delays.pop(self._row.branch, None)
