"""How hard a build works: its share, pauses, the disk, and what is done when writers outrun it.

Measures against falling behind, in this order, judged by what is left after whole rounds and never by a momentary
backlog: more share and bigger batches, then a bounded delay of each write of the branch, then NOT_CONVERGING.
Used on the builder's thread.
"""

from __future__ import annotations

import logging
import time

from shadowswitch.actors.house import House
from shadowswitch.model.errors import NotConverging, StorageFull
from shadowswitch.storage import layout
from shadowswitch.storage.copying import Control
from shadowswitch.storage.rows import ShadowRow

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
        self._rounds = 0
        self._least = 1 << 62
        self._at = (house.head(row.branch), time.monotonic())

    @property
    def control(self) -> Control:
        """What workers are told."""
        return Control(self.share, self._paused or self._short_of_disk)

    @property
    def behind(self) -> bool:
        """Did the last round leave no less than the best one before?"""
        return self._rounds > 0

    def tune(self, share: float | None, paused: bool | None) -> None:
        """What somebody asked for."""
        self.share = self.share if share is None else share
        self._paused = self._paused if paused is None else paused

    def watch_disk(self) -> bool:
        """Below the reserve the shadow stands still (True); below half of it the shadow ends, never the writers."""
        if time.monotonic() - self._looked_at < DISK_INTERVAL_S:
            return False
        self._looked_at = time.monotonic()
        free, reserve = layout.free_bytes(self._house.root), self._house.config.disk_reserve_bytes
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

    def judge(self, residual: int) -> None:
        """After a whole round of catch-up that had `residual` changes. Raises NotConverging with the rates."""
        config, now = self._house.config, time.monotonic()
        head = self._house.head(self._row.branch)
        (head_before, before), self._at = self._at, (head, now)
        self._rounds = 0 if residual < self._least else self._rounds + 1
        self._least = min(residual, self._least)
        patience = max(1, config.catchup_rounds_max // 3)
        if self._rounds > patience:
            step_s = config.write_delay_max_ms / 1000 / patience
            delay_s = self._house.delays.get(self._row.branch, 0.0) + step_s
            self._house.delays[self._row.branch] = min(config.write_delay_max_ms / 1000, delay_s)
        if self._rounds >= config.catchup_rounds_max:
            rate = (head - head_before) / max(1e-9, now - before)
            raise NotConverging(
                f"NOT_CONVERGING: {residual} changes were left after {self._rounds} rounds without gain,"
                f" although every write is slowed by {config.write_delay_max_ms:g} ms;"
                f" {rate:.0f} changes a second still come in",
                operation="build",
                object=self._row.id,
                hint="write more slowly, use more shards, or try again at a quieter time",
            )

    def end(self) -> None:
        """Writers go on at full speed."""
        self._house.delays.pop(self._row.branch, None)
