"""The machine of an engine in a simulation: the clock, timers and workers of the world, and real files.

Each part asks for the present world, so one machine serves many worlds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shadowswitch.engine.machine import Machine
from shadowswitch.model.config import Config
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.clock import Clock
from tests.simulation.waiting import VirtualTimers
from tests.simulation.workers import VirtualWorkers
from tests.simulation.world import present


class VirtualClock(Clock):
    """The clocks of the present world. While a task sleeps, other tasks run."""

    def monotonic(self) -> float:
        return present().monotonic()

    def wall(self) -> float:
        return present().wall()

    def boot(self) -> str:
        return present().boot

    def sleep(self, delay_s: float) -> None:
        present().sleep(delay_s)


class NoLock:
    """The lock of a data directory, which locks nothing: only one process of a world lives at a time."""

    def release(self) -> None: ...

    def watch(self, *files: Path) -> None: ...

    def check(self) -> None: ...

    def check_commit(self) -> None: ...


class VirtualMachine(Machine):
    """The clock, timers, workers and catalog of a simulation."""

    clock = VirtualClock()

    def lock_directory(self, root: Path) -> Any:
        return NoLock()

    def open_catalog(self, path: Path, config: Config) -> Catalog:
        catalog = present().catalog = super().open_catalog(path, config)
        return catalog

    def start_timers(self) -> Any:
        return VirtualTimers(present())

    def start_workers(self, root: Path, config: Config, silent: Any) -> Any:
        return VirtualWorkers()
