"""The process of the engine in a world: the same calls, handlers and catalog as an Engine, and no index files.

What `engine.running` starts is started here in the same order, except what needs threads, processes and files of
indexes: worker pool, builds, followers, dispatcher. It dies with `World.crashed` at any step, or at a named point
inside a transaction, and what was committed is all that the next one finds.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from shadowswitch.actors.base import Address
from shadowswitch.actors.branches import Branches
from shadowswitch.actors.house import House
from shadowswitch.actors.janitor import Janitor
from shadowswitch.actors.journal_writer import JournalWriter
from shadowswitch.actors.keepers import load_keepers
from shadowswitch.actors.messages import Tick
from shadowswitch.engine.branching import Branching
from shadowswitch.engine.records import Records
from shadowswitch.engine.room import Room
from shadowswitch.model.settings import Config
from shadowswitch.storage.catalog import Catalog
from shadowswitch.storage.commit import Commit, Counters
from tests.simulation.world import VirtualTimers, World

BRANCHES = ("main", "side")
MAP_SIZE_BYTES = 16 << 20
CONFIG = {"map_size_bytes": MAP_SIZE_BYTES, "lock_grace_s": 5.0}


class Store:
    """A folder for catalogs, which every seed finds in the same state: two empty branches."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "catalog"
        self.folder.mkdir(mode=0o700)
        catalog = Catalog(self.folder, map_size_bytes=MAP_SIZE_BYTES)
        for name in BRANCHES:
            Commit(catalog, Counters(catalog)).run(lambda commit, name=name: commit.create_branch(name, 0.0))  # type: ignore[misc]
        catalog.close()
        self._empty = (self.folder / "data.mdb").read_bytes()

    def reset(self) -> None:
        """As it was in the beginning."""
        (self.folder / "data.mdb").write_bytes(self._empty)


def scratch() -> Path:
    """Where stores lie: in memory, if the machine has that."""
    memory = Path("/dev/shm")
    base = memory if os.access(memory, os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="shadowswitch-simulation-", dir=base))


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


class Host(Records, Branching):
    """An open engine in a world."""

    def __init__(self, world: World, store: Store, idle_s: float, janitor_s: float) -> None:
        self._world = world
        self._closed = False
        self._branch_rows = {}
        self._room = Room()
        self.crashes: list[tuple[str, BaseException]] = []
        config = Config(**CONFIG, branch_idle_s=idle_s, janitor_interval_s=janitor_s)  # type: ignore[arg-type]
        self._house = house = House(store.folder.parent, config, lambda name, error: self.crashes.append((name, error)))
        house.catalog = Catalog(store.folder, map_size_bytes=MAP_SIZE_BYTES)
        house.timers = VirtualTimers(world)  # type: ignore[assignment]
        house.journal = Address(
            lambda: JournalWriter.start(house.catalog, house.metrics, self._committed, house.crashed)
        )
        self._branches = Branches(house)
        load_keepers(house)
        house.followers = []
        house.janitor = Address(lambda: Janitor.start(house, self._branches))
        house.timers.every(config.janitor_interval_s, lambda: house.janitor.tell(Tick()))

    @property
    def house(self) -> House:
        return self._house

    @property
    def failed(self) -> bool:
        """Whether the disk failed, so that only opening it again helps."""
        return self._house.catalog.failed is not None

    def actors(self) -> int:
        """How many branches are awake."""
        return self._branches.running()

    def gone(self) -> None:
        """The process is no more: what it had not committed never was."""
        self._closed = True
        self._house.catalog.close()
