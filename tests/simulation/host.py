"""The process of the engine in a world: a real Engine without threads and worker processes.

It dies with `World.crashed` at any step, or at a failpoint inside a transaction. The next process finds only the
committed transactions.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from greenlet import GreenletExit

from shadowswitch.engine.engine import Engine
from shadowswitch.model.config import Config
from shadowswitch.storage.catalog.counters import Counters
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.transaction import Commit
from tests.simulation.machine import VirtualMachine
from tests.support import inside

BRANCHES = ("main", "side")
GRACE_S = 5.0
SETTINGS: dict[str, Any] = {
    "map_size_bytes": 16 << 20,
    "lock_grace_s": GRACE_S,
    "followers": 1,
    "builds_max": 2,
    "disk_reserve_bytes": 1 << 20,
    "allow_remote_filesystem": True,
}


class Store:
    """A data directory. Every seed finds it in the same state: two empty branches."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        catalog_path = folder / "catalog"
        catalog_path.mkdir(mode=0o700)
        catalog = Catalog(catalog_path, map_size_bytes=SETTINGS["map_size_bytes"])
        for name in BRANCHES:
            Commit(catalog, Counters(catalog)).run(lambda commit, name=name: commit.create_branch(name, 0.0))  # type: ignore[misc]
        catalog.close()
        self._data = catalog_path / "data.mdb"
        self._empty = self._data.read_bytes()

    def reset(self) -> None:
        """Restore the first state."""
        self._data.write_bytes(self._empty)
        for name in ("generations", "published"):
            if (self.folder / name).exists():
                remove(self.folder / name)


def scratch() -> Path:
    """A folder for data directories: in memory, if the machine has such a file system."""
    memory = Path("/dev/shm")
    base = memory if os.access(memory, os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="shadowswitch-simulation-", dir=base))


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


class Host(Engine):
    """An open engine in a world."""

    _machine = VirtualMachine()

    def __init__(self, store: Store, **settings: Any) -> None:
        self.crashes: list[dict[str, Any]] = []
        super().__init__(store.folder, Config(**{**SETTINGS, **settings}))
        self.crashes = inside.crash_notes(self)

    @property
    def failed(self) -> bool:
        """Did the disk fail, so that the host must open the engine again?"""
        return inside.catalog(self).failed is not None

    @property
    def closed(self) -> bool:
        """Has the close of the engine begun?"""
        return inside.is_closed(self)

    def awake(self) -> int:
        """How many branches have an actor."""
        return inside.branches_running(self)

    def gone(self) -> None:
        """The process is gone, and everything that it had not committed."""
        inside.mark_closed(self)
        inside.catalog(self).close()
        for generation in inside.open_generations(self).values():
            with contextlib.suppress(Exception, GreenletExit):  # a writer waits for its thread, which is gone as well
                generation.writer.close()
