"""What an engine takes from the machine that it runs on. The simulation hands in another `Machine`, and no module.

clock             every deadline, every duration, every stored time
lock_directory    the exclusive hold of a data directory
open_catalog      the store
start_timers      the thread that sends messages later
start_workers     the worker processes
"""

from __future__ import annotations

from pathlib import Path

from shadowswitch.actors.build.worker_pool import Silent, WorkerPool
from shadowswitch.actors.kit.timers import Timers
from shadowswitch.model.config import Config
from shadowswitch.storage import data_directory
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.clock import Clock


class Machine:
    """The real machine. Holds nothing of an engine, so that all engines of a process share one."""

    clock = Clock()

    def lock_directory(self, root: Path) -> data_directory.DirectoryLock:
        """Take a data directory. Raises EngineAlreadyOpen."""
        return data_directory.DirectoryLock(root, self.clock)

    def open_catalog(self, path: Path, config: Config) -> Catalog:
        """Open the catalog, by the clock of this machine. Raises as `Catalog`."""
        return Catalog(path, map_size_bytes=config.map_size_bytes, clock=self.clock)

    def start_timers(self) -> Timers:
        """Start the timers; the engine closes them."""
        return Timers(self.clock)

    def start_workers(self, root: Path, config: Config, silent: Silent) -> WorkerPool:
        """Prepare the worker processes; the engine closes the pool. `silent` gets each that was killed for silence."""
        return WorkerPool(root, config, self.clock, silent)
