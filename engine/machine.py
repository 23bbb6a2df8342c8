"""What an engine takes from the machine that it runs on. The simulation hands in another `Machine`, and no module.

clock             every deadline, every duration, every stored time
lock_directory    the exclusive hold of a data directory
open_catalog      the store
start_timers      the thread that sends messages later
start_workers     the worker processes
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from shadowswitch.actors.build.worker_pool import Silent, WorkerPool
from shadowswitch.actors.kit.timers import Timers
from shadowswitch.model.config import Config
from shadowswitch.model.errors import InvalidConfig, ShadowSwitchError
from shadowswitch.storage import data_directory, disk
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.clock import Clock
from shadowswitch.storage.disk import disk_errors
from shadowswitch.storage.failpoints import failpoint
from shadowswitch.storage.shortages import NO_ROOM

logger = logging.getLogger("shadowswitch")

NOT_OF_THE_PATH = (*NO_ROOM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOLCK)
"""Errors that say nothing against a path as a data directory."""


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


def lock_directory(
    path: str | os.PathLike[str], config: Config, machine: Machine, stack: ExitStack
) -> tuple[Path, data_directory.DirectoryLock]:
    """Make a data directory if need be, and take it, for as long as `stack` lasts. Raises as `Engine` says."""
    with disk_errors("open"), _usable(path):
        root = Path(path).absolute()
        disk.make_folder(root, 0o700)
        if not config.allow_remote_filesystem:
            disk.refuse_remote(root)
        exposed = data_directory.written_by_others(root, data_directory.EXPOSED)
        if exposed:
            logger.warning("%s", exposed)
        hold = machine.lock_directory(root)
        stack.callback(hold.release)
        failpoint("open.locked")
    return root, hold


@contextlib.contextmanager
def _usable(path: object) -> Iterator[None]:
    """Raise InvalidConfig where the operating system, or Python, refuses a path as a data directory."""
    try:
        yield
    except (TypeError, ValueError, OSError) as error:
        if isinstance(error, ShadowSwitchError) or getattr(error, "errno", None) in NOT_OF_THE_PATH:
            raise
        raise InvalidConfig(
            f"{path!r:.200} can be no data directory: {getattr(error, 'strerror', None) or error}",
            operation="open",
            object=str(path)[:200],
            hint="give the path of a directory of yours, or of one that you may make",
        ) from error
