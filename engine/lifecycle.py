"""Start and stop: every part of an open engine, in one list; the list of what stops is its mirror image.

A part that starts is pushed with its stop on one ExitStack, in the same place. `stop` unwinds the stack; a failure in
the middle of the start unwinds the part of it that is there. So the order of the start is chosen for the stop:

    1   timers        nothing is restarted, and nothing ticks, while its receiver stops
    2   health check  its last rollback ends while everything that a rollback needs still runs
    3   branches      admit nothing more; every admitted write is committed and answered
    4   waiters       every wait raises EngineClosed; no new metadata transaction begins
    5   readers       are closed, each behind the call that runs in it
    6   builds        stop; they go on at the next start
    7   Scrubber, Watcher, Janitor, Dispatcher
    8   Followers     no generation is caught up any more
    9   worker pool   no process reads the files any more
    10  clean close   generations that a power cut could tear are forced to disk; the JournalWriter notes that
    11  JournalWriter no other part writes to the catalog
    12  generations, catalog, and the lock of the directory

The Timers object is older than the actors that it serves, so its stop is pushed twice: where its thread starts, for a
start that fails, and behind everything that it ticks. A second stop does nothing.
"""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from shadowswitch.actors.branch.lock_progress import BuildProgress
from shadowswitch.actors.branch.router import BranchRouter
from shadowswitch.actors.build.builder import ShadowBuilder
from shadowswitch.actors.build.external import ExternalBuilds
from shadowswitch.actors.build.registry import BuildRegistry
from shadowswitch.actors.build.running_builds import RunningBuilds
from shadowswitch.actors.build.scrubber import Scrubber
from shadowswitch.actors.build.silence import note_killed
from shadowswitch.actors.build.validator import ShadowValidator
from shadowswitch.actors.build.worker_answers import WorkerAnswers
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.group.group_switcher import GroupSwitcher
from shadowswitch.actors.journal_writer import JournalWriter, Transact
from shadowswitch.actors.kit.actor import Address
from shadowswitch.actors.kit.attention import Attention
from shadowswitch.actors.kit.changes import StateChanges
from shadowswitch.actors.kit.heads import Heads
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.kit.signals import Kick, Tick
from shadowswitch.actors.kit.supervisor import Supervisor
from shadowswitch.actors.maintenance.dispatcher import Dispatcher
from shadowswitch.actors.maintenance.follower import Follow, Follower
from shadowswitch.actors.maintenance.follower_pool import FollowerPause, FollowerPool
from shadowswitch.actors.maintenance.janitor import Janitor
from shadowswitch.actors.maintenance.remover import BranchRemover
from shadowswitch.actors.maintenance.subscribers import Subscribers
from shadowswitch.actors.maintenance.trimmer import Trimmer
from shadowswitch.actors.maintenance.watcher import Watcher
from shadowswitch.actors.maintenance.watches import Watches
from shadowswitch.actors.switch.live_index import LiveIndexes
from shadowswitch.actors.switch.open_generations import OpenGenerations
from shadowswitch.actors.switch.publisher import Publisher
from shadowswitch.actors.switch.running_switches import RunningSwitches
from shadowswitch.actors.switch.schedule import Plans, Schedule
from shadowswitch.actors.switch.switcher import Switcher
from shadowswitch.engine.admission import AdmissionQueue
from shadowswitch.engine.backups.calls import BackupCalls
from shadowswitch.engine.branch_directory import BranchDirectory
from shadowswitch.engine.calls.branches import BranchCalls
from shadowswitch.engine.calls.builds import BuildCalls
from shadowswitch.engine.calls.changes import ChangeCalls
from shadowswitch.engine.calls.events import EventCalls
from shadowswitch.engine.calls.folders import FolderCalls
from shadowswitch.engine.calls.inbound import InboundCalls
from shadowswitch.engine.calls.indexes import IndexCalls
from shadowswitch.engine.calls.locks import LockCalls
from shadowswitch.engine.calls.records import RecordCalls
from shadowswitch.engine.calls.removal import RemovalCalls
from shadowswitch.engine.calls.soak import SoakCalls
from shadowswitch.engine.calls.switches import ScheduleCalls, SwitchCalls
from shadowswitch.engine.forks.calls import ForkCalls
from shadowswitch.engine.forks.indexes import ForkIndexes
from shadowswitch.engine.groups.calls import GroupCalls
from shadowswitch.engine.groups.reading import GroupReading, OpenViews
from shadowswitch.engine.inspection import LiveChecks, Readiness, Statistics
from shadowswitch.engine.log_lines import begin_story, prepare_log
from shadowswitch.engine.machine import Machine, lock_directory
from shadowswitch.engine.open_state import OpenState
from shadowswitch.engine.quality.comparing import CompareCalls
from shadowswitch.engine.quality.costing import CostCalls
from shadowswitch.engine.quality.mirroring import Mirrors
from shadowswitch.engine.quality.preview import Previews
from shadowswitch.engine.reader import OpenReaders
from shadowswitch.engine.recovery import Recovery
from shadowswitch.engine.search.calls import SearchCalls
from shadowswitch.engine.views import Views
from shadowswitch.model.config import Config
from shadowswitch.model.errors import CorruptData, InvalidConfig, ShadowSwitchError
from shadowswitch.model.metrics import Metrics
from shadowswitch.storage import asked_process, data_directory
from shadowswitch.storage.catalog import retention
from shadowswitch.storage.catalog.environment import LOCK_FILE
from shadowswitch.storage.catalog.rows import ShadowRow
from shadowswitch.storage.catalog.source.shadow_table import ShadowTable
from shadowswitch.storage.disk import disk_errors
from shadowswitch.storage.failpoints import failpoint
from shadowswitch.storage.generations.manifest import refuse_foreign

logger = logging.getLogger("shadowswitch")

STOP_TIMEOUT_S = 10.0


class Lifecycle:
    """The parts of an open engine. Each part gets in its constructor what it uses; no part gets this object."""

    def __init__(self, path: str | os.PathLike[str], config: Config | None, state: OpenState, machine: Machine) -> None:
        """Take the directory's lock, recover, start. Raises as `Engine` says; then nothing is left running."""
        prepare_log()
        config = config if config is not None else Config()
        if not isinstance(config, Config):
            raise InvalidConfig(f"config must be a Config, not {config!r:.80}", hint="say Config(soak_s=60)")
        self._kicked: list[Address] = []
        with ExitStack() as stack:
            self._machine = machine
            root, hold = lock_directory(path, config, machine, stack)
            with disk_errors("open"):
                self._start(root, hold, config, stack)
                self._make_calls(state, stack)
                self._set_going(stack)
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """Stop everything, in the opposite order of the start."""
        self._stack.close()

    # -- the list ------------------------------------------------------------------------------------------------------

    def _start(self, root: Path, hold: data_directory.DirectoryLock, config: Config, stack: ExitStack) -> None:
        data_directory.refuse_lost_catalog(root)
        catalog_path = data_directory.make_directories(root, data_directory.CATALOG)
        data_directory.make_directories(root, data_directory.GENERATIONS)
        failpoint("open.directories")
        clock, metrics = self._machine.clock, Metrics()
        self.supervisor = Supervisor(clock)
        crashed = self.supervisor.crashed
        catalog = self.catalog = self._machine.open_catalog(catalog_path, config)
        stack.callback(catalog.close)
        hold.watch(catalog_path / LOCK_FILE, catalog_path / data_directory.DATA_FILE)
        failpoint("open.catalog")
        refuse_foreign(root, catalog)
        self.generations = OpenGenerations(root, catalog)
        stack.callback(self.generations.close)
        self.heads, self.followers = Heads(catalog), FollowerPool(config.followers)
        changes, shadows, check = StateChanges(catalog, clock), ShadowTable(catalog, set()), hold.check_commit
        self.journal = Address(lambda: JournalWriter.start(catalog, metrics, self._committed, crashed, check))
        stack.callback(self.journal.stop, STOP_TIMEOUT_S)
        stack.callback(_close_cleanly, self.generations, self.journal)
        self.context = EngineContext(
            root, hold, config, catalog, shadows, metrics, clock, Attention(clock), changes, self.journal, crashed
        )
        context = self.context
        self.timers = self._machine.start_timers()
        stack.callback(self.timers.close)
        self.pool = self._machine.start_workers(root, config, partial(note_killed, self.journal, root))
        stack.callback(self.pool.close)
        self._make_bookkeeping(context)
        begin_story(context, self.subscribers, stack)
        self.recovered = Recovery(
            context, self.generations, self.indexes, self.publisher, self.validator, self.locks
        ).run()  # fmt: skip
        for number in range(config.followers):
            self.followers.addresses.append(Address(partial(self._start_follower, number)))
            stack.callback(self.followers.addresses[number].stop, STOP_TIMEOUT_S)
        stack.callback(asked_process.interrupt_all)
        self.dispatcher = Address(lambda: Dispatcher.start(context, self.subscribers))
        self._kicked.append(self.dispatcher)
        stack.callback(self.dispatcher.stop, STOP_TIMEOUT_S)
        self.janitor = Address(self._start_janitor)
        stack.callback(self.janitor.stop, STOP_TIMEOUT_S)
        self.watcher = Address(lambda: Watcher.start(context, self.watches))
        stack.callback(self.watcher.stop, STOP_TIMEOUT_S)
        scrub = partial(Scrubber.start, context, self.validator, self.generations, self.followers, self._leave)
        self.scrubber = Address(scrub)
        stack.callback(self.scrubber.stop, STOP_TIMEOUT_S)
        self.builds = BuildRegistry(
            context, self.router, self.external, self.generations, self.followers, self.running_builds,
            self.build_progress, self._start_builder,
        )  # fmt: skip
        stack.callback(self.builds.close, STOP_TIMEOUT_S)
        self.readers, self.views = OpenReaders(clock), OpenViews(context)
        stack.callback(self.readers.shut, STOP_TIMEOUT_S)
        stack.callback(changes.close)
        stack.callback(self.router.close, STOP_TIMEOUT_S)

    def _set_going(self, stack: ExitStack) -> None:
        """Last: builds go on, and the timers tick."""
        context, timers = self.context, self.timers
        if self.recovered.resume:
            self.dispatcher.tell(Tick())  # what the recovery did is in the log before its builds go on
        self.builds.go_on(self.recovered.resume)
        stack.callback(timers.close)
        for follower in self.followers.addresses:
            timers.every(context.config.refresh_interval_ms / 1000, partial(_tick_if_idle, follower))
        timers.every(context.config.janitor_interval_s, lambda: self.janitor.tell(Tick()))
        timers.every(1.0, lambda: self.dispatcher.tell(Tick()))
        timers.every(1.0, self._supervise)
        timers.every(1.0, lambda: _tick_if_idle(self.schedule) if self.plans.shadows else None)
        timers.every(min(1.0, context.config.recheck_interval_s or 1.0), partial(_tick_if_idle, self.scrubber))

    # -- parts that start nothing --------------------------------------------------------------------------------------

    def _make_bookkeeping(self, context: EngineContext) -> None:
        self.indexes = LiveIndexes(context.clock, context.changes)
        self.publisher = Publisher(context, self.indexes)
        self.pause = FollowerPause(context.clock, context.config.followers)
        self.running_builds, self.switches = RunningBuilds(context.config, context.metrics), RunningSwitches()
        self.subscribers, self.watches = Subscribers(), Watches()
        self.answers = WorkerAnswers(
            self.pool, context.config, context.clock, context.attention, context.metrics,
            lambda: context.changes.closing,
        )  # fmt: skip
        self.validator = ShadowValidator(context, self.answers, self.indexes)
        self.previews = Previews(self.catalog, context.clock, self.generations, self.indexes, self.followers)
        self.mirrors = Mirrors(context.config.mirror_share)
        self.admission = AdmissionQueue(context.clock)
        self.build_progress = BuildProgress(context.catalog, self.running_builds)
        self.router = BranchRouter(context, self.timers, self.build_progress, self.switches)
        self.locks = self.router.locks
        self.external = ExternalBuilds(
            context, self.validator, self.generations, self.heads, self.followers, self.running_builds
        )

    def _make_calls(self, state: OpenState, stack: ExitStack) -> None:
        context, generations, validator, broken = self.context, self.generations, self.validator, self.recovered.broken
        directory = BranchDirectory(state, self.catalog, self.router)
        self.plans = Plans(context.shadows, context.clock, self.heads)
        views = Views(context, self.heads, generations, self.locks, self.running_builds, self.plans)
        branches = BranchCalls(context, state, directory, views)
        records = RecordCalls(context, state, directory, self.router, self.admission, self.running_builds)
        builds = BuildCalls(
            context, state, directory, self.builds, self.external, self.running_builds, views,
            {row.id for row in (*self.recovered.resume, *self.recovered.left)},
        )  # fmt: skip
        switches = SwitchCalls(context, state, directory, generations, validator, broken, self._start_switcher, builds)
        groups = GroupCalls(
            context, state, directory, generations, validator, self.builds, broken, self._start_group_switcher
        )
        soak = SoakCalls(context, state, generations, validator, switches, groups, views)
        stack.callback(soak.close, STOP_TIMEOUT_S)
        self.schedule = Address(lambda: Schedule.start(context, self.plans, switches.switch))
        stack.callback(self.schedule.stop, STOP_TIMEOUT_S)
        schedule = ScheduleCalls(context, state, validator, self.plans, views)
        hurry = partial(_tick_if_idle, self.schedule)
        forked = ForkIndexes(context, self.indexes, builds, self.builds, schedule, hurry)
        indexes = IndexCalls(
            context, state, directory, self.indexes, self.heads, self.followers, self.readers, broken, soak.distrust,
            views, forked.made, self.previews, self.mirrors,
        )  # fmt: skip
        compare = self._make_compare(state, directory, indexes, stack)
        statistics = self._make_statistics()
        checks = LiveChecks(self.catalog, self.indexes, generations, self.switches, self.publisher)
        readiness = Readiness(context, self.indexes, broken, builds.unsound, self._core, self.timers)
        forks = ForkCalls(context, state, directory, records, views)
        self.calls: dict[type[Any], Any] = {
            BranchCalls: branches,
            RecordCalls: records,
            ForkCalls: forks,
            SearchCalls: SearchCalls(state, indexes.reader, context.clock, context.config.search_timeout_s),
            ChangeCalls: ChangeCalls(context, state, directory, views),
            BuildCalls: builds, SwitchCalls: switches, SoakCalls: soak, GroupCalls: groups,
            GroupReading: GroupReading(
                context, directory, self.indexes, indexes, self.readers, self.views, soak.distrust
            ),
            ScheduleCalls: schedule,
            IndexCalls: indexes,
            CompareCalls: compare,
            CostCalls: CostCalls(context, state, directory, self.answers),
            BackupCalls: BackupCalls(context, state, self.answers),
            RemovalCalls: RemovalCalls(
                context, directory, self.router, self.indexes, generations, self.switches, broken
            ),
            LockCalls: LockCalls(context, state, directory, self.router, self.locks),
            EventCalls: EventCalls(
                context, state, self.subscribers, self.dispatcher, self.janitor, statistics, checks, readiness,
                self.answers,
            ),
            InboundCalls: InboundCalls(context, state, branches, forks, builds, switches),
            FolderCalls: FolderCalls(state, context.clock, self.timers, self.watches, self.watcher),
        }  # fmt: skip

    def _make_compare(
        self, state: OpenState, directory: BranchDirectory, indexes: IndexCalls, stack: ExitStack
    ) -> CompareCalls:
        compare = CompareCalls(
            self.context, state, directory, self.indexes, indexes, self.previews, self.answers, self.mirrors
        )
        stack.callback(self.mirrors.close)
        self.mirrors.begin(compare.mirror)
        return compare

    def _make_statistics(self) -> Statistics:
        return Statistics(
            self.context, self.router, self.builds.builders, self.pool, self.admission, self.generations, self.heads,
            self.supervisor,
        )  # fmt: skip

    def _leave(self, generation: int, error: CorruptData) -> None:
        self.calls[SoakCalls].distrust(generation, error)

    # -- while it runs -------------------------------------------------------------------------------------------------

    def _start_switcher(self) -> Any:
        return Switcher.start(
            self.context, self.router, self.indexes, self.generations, self.heads, self.followers, self.pause,
            self.publisher, self.switches, self.validator,
        )  # fmt: skip

    def _start_group_switcher(self) -> Any:
        return GroupSwitcher.start(
            self.context, self.indexes, self.generations, self.heads, self.followers, self.pause, self.publisher,
            self.switches, self.validator,
        )  # fmt: skip

    def _start_builder(self, row: ShadowRow, parallel_workers: int) -> Any:
        return ShadowBuilder.start(
            self.context, row, parallel_workers, self.pool, self.validator, self.generations, self.heads,
            self.followers, self.timers, self.running_builds, self.builds.builders.leave_place,
        )  # fmt: skip

    def _start_janitor(self) -> Any:
        trimmer = Trimmer(self.context, self.heads, self.generations, self.pause)
        remover = BranchRemover(self.context, self.generations, self.indexes, self.pause)
        return Janitor.start(
            self.context, self.router, self.external, self.generations, self.indexes, self.followers, self.publisher,
            self.switches, trimmer, remover,
        )  # fmt: skip

    def _start_follower(self, number: int) -> Any:
        """A Follower; also one in the place of another that died, so it is given the generations to follow."""
        ref = Follower.start(
            self.context, number, self.followers, self.pause, self.heads, self.generations, self.indexes
        )
        for generation in self.generations.all():
            mine = generation.row.number % self.context.config.followers == number
            row = self.catalog.generation(generation.row.number) if mine and not generation.closed else None
            if row is not None and row.role in ("live", "soaking", "standby"):
                ref.tell(Follow(generation))
        return ref

    def _committed(self, heads: dict[int, int], metadata: bool) -> None:
        """After each commit, on the JournalWriter's thread."""
        self.heads.advance(heads)
        self.followers.note_written(heads)
        if metadata:
            self.context.changes.notify()
            for address in self._kicked:
                address.tell(Kick())

    def _core(self) -> dict[str, Address]:
        core = {"journal": self.journal, "dispatcher": self.dispatcher, "janitor": self.janitor}
        core |= {"watcher": self.watcher, "scrubber": self.scrubber, "schedule": self.schedule}
        return core | {f"follower {number}": address for number, address in enumerate(self.followers.addresses)}

    def _supervise(self) -> None:
        self.context.attention.look()
        self.supervisor.mend(self._core(), self.builds.mend)
        self.running_builds.way.look(busy=self.builds.builders.count() > 0)
        self.readers.reclaim()
        self.views.expire()


def _tick_if_idle(address: Address) -> None:
    """Tick an actor whose work may take longer than the interval of its ticks."""
    if address.ref.actor_inbox.empty():
        address.tell(Tick())


def _close_cleanly(generations: OpenGenerations, journal: Address) -> None:
    """Force every generation that a power cut could tear to disk, so that the next start need not check it."""
    closed = []
    for generation in generations.all():
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
        journal.tell(Transact(partial(retention.note_boot, numbers=closed, boot=""), reply))
        try:
            reply.result(STOP_TIMEOUT_S)
        except (ShadowSwitchError, TimeoutError) as error:
            logger.warning("the catalog does not note that indexes were closed: %s", error)
