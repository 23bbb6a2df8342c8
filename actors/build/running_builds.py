"""RunningBuilds: the state of running builds that is not in the catalog. One object for each engine."""

from __future__ import annotations

import logging

from shadowswitch.actors.queue.build_queue import BuildQueue
from shadowswitch.actors.queue.giving_way import GivingWay
from shadowswitch.model.config import Config
from shadowswitch.model.errors import ResourceExhausted
from shadowswitch.model.metrics import Metrics
from shadowswitch.model.progress import Pace, ProgressMeter
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.rows import ShadowRow

logger = logging.getLogger("shadowswitch")

GENERATIONS_MAX = 100
"""So many numbers of generations are looked at for the pace of another index, the newest first."""
SHORTAGES_MAX = 60
"""A build waits so often for a resource that cannot be had, a second or two each time. Then it fails, for a retry."""


class RunningBuilds:
    """It outlives the ShadowBuilders, so the successor of a dead builder finds its state. Any thread."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        self.way = GivingWay(metrics, config.commit_latency_budget)
        """How far builds give way to writers."""
        self.queue = BuildQueue(config.builds_max)
        """Which builds copy, and which wait for that. Changed by the BuildRegistry only."""
        self.meters: dict[str, ProgressMeter] = {}
        """The progress of running builds, by shadow id."""
        self.stuck: dict[str, str] = {}
        """Why a build stands still when its failure cannot be recorded, by shadow id."""
        self.short_of_disk: dict[str, str] = {}
        """Why a build pauses although no caller paused it, by shadow id."""
        self._shortages: dict[str, int] = {}
        self.delays: dict[int, float] = {}
        """The delay in seconds of each write of a branch while a build of it cannot keep up, by branch number."""
        self.heard_at: dict[str, float] = {}
        """The (monotonic) time of the last message of an external builder since the start, by shadow id."""

    def meter_of(self, row: ShadowRow, catalog: Catalog, at: float) -> ProgressMeter:
        """The progress of a build, of which a builder begins. It is expected to go as that of the live index went, or
        as the last one of the backend."""
        index = catalog.index(row.branch, row.index_type)
        live = catalog.generation(index.live) if index is not None else None
        last = catalog.find_shadow(live.shadow_id) if live is not None else None
        pace = last.pace if last is not None and _are_alike(last, row) and isinstance(last.pace, Pace) else None
        other = _pace_of_another(row, catalog) if pace is None else None
        goes_on = row.started_at is not None
        meter = self.meters.setdefault(row.id, ProgressMeter(row.progress, pace, other, goes_on))
        meter.begin(at, goes_on)
        return meter

    def waits(self, shadow_id: str, error: BaseException) -> bool:
        """A build failed: True if it lacks a resource and waits for that, False when it has waited too often."""
        if not isinstance(error, ResourceExhausted):
            return False
        logger.warning("shadow %s waits: %s", shadow_id, error)
        self.stuck[shadow_id] = str(error)
        self._shortages[shadow_id] = self._shortages.get(shadow_id, 0) + 1
        if self._shortages[shadow_id] <= SHORTAGES_MAX:
            return True
        self.ended(shadow_id)
        return False

    def ended(self, shadow_id: str) -> None:
        """A build has ended, or fails: its next one waits as long."""
        self._shortages.pop(shadow_id, None)
        self.stuck.pop(shadow_id, None)


def _pace_of_another(row: ShadowRow, catalog: Catalog) -> Pace | None:
    """The pace of the last build of the same backend, of any index; None where none of the newest has one."""
    for number in range(row.generation - 1, max(0, row.generation - GENERATIONS_MAX), -1):
        generation = catalog.generation(number)
        if generation is None or generation.backend != row.backend:
            continue
        built = catalog.find_shadow(generation.shadow_id)
        if built is not None and _are_alike(built, row) and isinstance(built.pace, Pace) and built.pace.rows:
            return built.pace
    return None


def _are_alike(built: ShadowRow, row: ShadowRow) -> bool:
    """Did both begin from another generation, or both from the records?"""
    return bool(built.seeded_from) == bool(row.seeded_from)
