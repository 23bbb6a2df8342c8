"""Start and stop: everything that runs in an open engine, in one list and its mirror image."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from shadowswitch.actors.branch.router import BranchRouter
from shadowswitch.actors.build.external import ExternalBuilds
from shadowswitch.actors.build.registry import BuildRegistry
from shadowswitch.actors.build.scrubber import Scrubber
from shadowswitch.actors.build.validator import ShadowValidator
from shadowswitch.actors.build.worker_pool import WorkerPool
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.house import House
from shadowswitch.actors.journal_writer import JournalWriter
from shadowswitch.actors.kit.actor import Address
from shadowswitch.actors.kit.changes import StateChanges
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.kit.supervisor import Supervisor
from shadowswitch.actors.kit.timers import Timers
from shadowswitch.actors.maintenance.dispatcher import Dispatcher
from shadowswitch.actors.maintenance.follower import Follower
from shadowswitch.actors.maintenance.janitor import Janitor
from shadowswitch.actors.maintenance.watcher import Watcher
from shadowswitch.actors.messages import Follow, Kick, Tick, Transact
from shadowswitch.engine.admission import AdmissionQueue, KeyedLocks
from shadowswitch.engine.reader import OpenReaders
from shadowswitch.engine.recovery import recover
from shadowswitch.model.config import Config
from shadowswitch.model.errors import (
    EngineClosed,
    InvalidConfig,
    InvalidName,
    ShadowSwitchError,
    UnknownBranch,
)
from shadowswitch.model.metrics import Metrics
from shadowswitch.model.names import check_branch
from shadowswitch.storage import data_directory
from shadowswitch.storage.catalog import durability
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.rows import BranchRow
from shadowswitch.storage.clock import Clock
from shadowswitch.storage.disk import disk_errors
from shadowswitch.storage.failpoints import failpoint

logger = logging.getLogger("shadowswitch")

STOP_TIMEOUT_S = 10.0
TROUBLE_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
WAIT_MAX_S = 1e9
"""Thirty years: longer waits do not fit into what the operating system counts in."""


class Running:
    """An open data directory: its lock, its actors, its start and stop."""

    def __init__(self, path: str | os.PathLike[str], config: Config | None = None) -> None:
        """Take the directory's exclusive lock, recover, start. Raises EngineAlreadyOpen, InvalidConfig for what can be
        no data directory, UnsupportedFilesystem, UnsupportedFormat, CorruptData, StorageFull."""
        config = config if config is not None else Config()
        if not isinstance(config, Config):
            raise InvalidConfig(f"config must be a Config, not {config!r:.80}", hint="say Config(soak_s=60)")
        with disk_errors("open"), _usable(path):
            root = Path(path).absolute()
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not config.allow_remote_filesystem:
                data_directory.refuse_remote(root)
            self._lock = data_directory.DirectoryLock(root)
            failpoint("open.locked")
        self._closed = False
        self._close_lock = threading.Lock()
        self._branch_rows: dict[str, BranchRow] = {}
        self._distrusted: set[int] = set()
        self._stopping = threading.Event()
        self._helpers: list[threading.Thread] = []
        self._readers = OpenReaders()
        self._room = AdmissionQueue()
        self._turns = KeyedLocks()
        try:
            with disk_errors("open"):
                self._start(root, config)
        except BaseException:
            self.close()
            raise

    # -- start and stop: mirror images -----------------------------------------------------------------------------

    def _start(self, root: Path, config: Config) -> None:
        self._supervisor = Supervisor()
        catalog_path = data_directory.make_directories(root, data_directory.CATALOG)
        data_directory.make_directories(root, data_directory.GENERATIONS)
        failpoint("open.directories")
        clock, metrics, crashed = Clock(), Metrics(), self._supervisor.crashed
        catalog = Catalog(catalog_path, map_size_bytes=config.map_size_bytes, clock=clock)
        changes = StateChanges(catalog, clock)
        failpoint("open.catalog")
        journal = Address(lambda: JournalWriter.start(catalog, metrics, self._committed, crashed))
        context = EngineContext(root, config, catalog, metrics, clock, changes, journal, crashed)
        self._house = house = House(context)
        house.timers = Timers()
        house.pool = WorkerPool(root, config.worker_nice, config.idle_workers)
        house.validator = ShadowValidator(context, house.pool, house.indexes)
        self._branches = house.router = BranchRouter(house)
        house.locks.load()
        found = recover(house)
        self._broken = found.broken
        house.followers.addresses = [
            Address(partial(self._start_follower, number)) for number in range(config.followers)
        ]
        house.dispatcher = Address(lambda: Dispatcher.start(house))
        house.external = ExternalBuilds(house)
        house.janitor = Address(lambda: Janitor.start(house, self._branches))
        house.watcher = Address(lambda: Watcher.start(house))
        house.scrubber = Address(lambda: Scrubber.start(house))
        self._builds = house.builds = BuildRegistry(house)
        for row in found.resume:
            self._builds.go_on(row)
        house.timers.every(config.refresh_interval_ms / 1000, self._tick_followers)
        house.timers.every(config.janitor_interval_s, lambda: house.janitor.tell(Tick()))
        house.timers.every(1.0, lambda: house.dispatcher.tell(Tick()))
        house.timers.every(1.0, self._supervise)
        if config.recheck_interval_s:
            house.timers.every(min(1.0, config.recheck_interval_s), self._tick_scrubber)

    def close(self) -> None:
        """Stop admitting, let what was admitted end, stop builds (they go on at the next open), close. Idempotent."""
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
        self._stopping.set()
        for thread in self._helpers:
            thread.join(timeout=STOP_TIMEOUT_S)
        house = getattr(self, "_house", None)
        if house is not None:
            self._stop(house)
        self._lock.release()

    def _stop(self, house: House) -> None:
        present = house.__dict__
        if "timers" in present:
            house.timers.close()
        if hasattr(self, "_branches"):
            self._branches.close(STOP_TIMEOUT_S)
        house.changes.close()
        self._readers.shut(STOP_TIMEOUT_S)
        if hasattr(self, "_builds"):
            self._builds.close(STOP_TIMEOUT_S)
        for name in ("scrubber", "watcher", "janitor", "dispatcher"):
            if name in present:
                present[name].stop(STOP_TIMEOUT_S)
        for follower in house.followers.addresses:
            follower.stop(STOP_TIMEOUT_S)
        if "pool" in present:
            house.pool.close()
        _close_cleanly(house)
        house.journal.stop(STOP_TIMEOUT_S)
        for generation in house.generations.all():
            generation.close()
        house.catalog.close()

    @property
    def config(self) -> Config:
        """The settings that the engine was opened with."""
        return self._house.config

    @property
    def path(self) -> Path:
        """The data directory."""
        return self._house.root

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- what keeps it going ---------------------------------------------------------------------------------------

    def _start_follower(self, number: int) -> Any:
        house = self._house
        ref = Follower.start(house, number, house.followers.written[number])
        for generation in house.generations.all():
            mine = generation.row.number % house.config.followers == number
            row = house.catalog.generation(generation.row.number) if mine and not generation.closed else None
            if row is not None and row.role in ("live", "soaking", "standby"):
                ref.tell(Follow(generation))
        return ref

    def _tick_followers(self) -> None:
        for follower in self._house.followers.addresses:
            if follower.ref.actor_inbox.empty():
                follower.tell(Tick())

    def _tick_scrubber(self) -> None:
        scrubber = self._house.scrubber
        if scrubber.ref.actor_inbox.empty():  # it may be at work for long
            scrubber.tell(Tick())

    def _committed(self, heads: dict[int, int], metadata: bool) -> None:
        """After each commit, on the JournalWriter's thread."""
        house = self._house
        house.heads.advance(heads)
        house.followers.note_written(heads)
        if metadata:
            house.changes.notify()
            if "dispatcher" in house.__dict__:
                house.dispatcher.tell(Kick())

    def _supervise(self) -> None:
        house = self._house
        core = {"journal": house.journal, "dispatcher": house.dispatcher, "janitor": house.janitor}
        core |= {"watcher": house.watcher, "scrubber": house.scrubber}
        core |= {f"follower {number}": address for number, address in enumerate(house.followers.addresses)}
        self._supervisor.mend(core, self._builds)

    def _alive(self) -> House:
        if self._closed:
            raise EngineClosed("the engine is closed", hint="open it again with Engine.open")
        return self._house

    def _branch_row(self, name: str) -> BranchRow:
        house = self._alive()
        row = self._branch_rows.get(name) if isinstance(name, str) else None
        if row is None:
            try:
                check_branch(name)
            except InvalidName as error:
                raise UnknownBranch(f"there is no branch {name!r}: {error.message}", hint=error.hint) from error
            row = self._branch_rows[name] = house.catalog.branch(name)
        return row


@contextlib.contextmanager
def _usable(path: object) -> Iterator[None]:
    """Say InvalidConfig where the operating system, or Python, says that this can be no data directory."""
    try:
        yield
    except (TypeError, ValueError, OSError) as error:
        if isinstance(error, ShadowSwitchError) or getattr(error, "errno", None) in TROUBLE_OF_DISKS:
            raise
        raise InvalidConfig(
            f"{path!r:.200} can be no data directory: {getattr(error, 'strerror', None) or error}",
            operation="open",
            object=str(path)[:200],
            hint="give the path of a directory of yours, or of one that you may make",
        ) from error


def check_seconds(name: str, value: float) -> float:
    """How long to wait, as a number that every clock can add; raises InvalidConfig for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise InvalidConfig(f"{name} must be a number of seconds, not {value!r:.80}", hint="say 10, or 0.5")
    return max(-WAIT_MAX_S, min(WAIT_MAX_S, value))


def text_of(name: str, value: str, most: int) -> str:
    """A text that can be stored; raises InvalidConfig otherwise."""
    if not isinstance(value, str) or len(value) > most:
        raise InvalidConfig(f"{name} must be a string of at most {most} characters", hint=f"shorten the {name}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidConfig(f"{name} is not valid Unicode", hint="remove lone surrogates") from error
    return value


def check_whole(name: str, value: int, least: int) -> None:
    """Raise InvalidConfig unless a value is a whole number of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidConfig(f"{name} must be a whole number of at least {least}, not {value!r}")


def _close_cleanly(house: House) -> None:
    """Force to disk what a power cut could tear, so that it need not be checked at the next start."""
    closed = []
    for generation in house.generations.all():
        if generation.backend.torn_by_power_cut and not generation.closed:
            try:
                generation.writer.flush()
            except ShadowSwitchError as error:
                logger.warning("generation %d could not be forced to disk: %s", generation.row.number, error)
                continue
            finally:
                generation.close()
            closed.append(generation.row.number)
    if closed:
        reply: Reply[None] = Reply()
        house.journal.tell(Transact(partial(durability.note_boot, numbers=closed, boot=""), reply))
        try:
            reply.result(STOP_TIMEOUT_S)
        except (ShadowSwitchError, TimeoutError) as error:
            logger.warning("it could not be noted that indexes were closed: %s", error)
