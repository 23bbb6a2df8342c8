"""The Engine: what a host embeds. This file is the table of contents of the public calls.

Each group of calls is an object of its own in `engine/calls/`; the Engine passes every call on to its group. All calls
may be made from any thread. No call blocks without a deadline. A call checks its arguments, sends a message to an
actor, and waits for the reply.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Concatenate, Generic, ParamSpec, Self, TypeVar

from shadowswitch.engine.backups.calls import BackupCalls
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
from shadowswitch.engine.groups.calls import GroupCalls
from shadowswitch.engine.groups.reading import GroupReading
from shadowswitch.engine.lifecycle import Lifecycle
from shadowswitch.engine.log_lines import OPERATIONS, RefusedCalls
from shadowswitch.engine.machine import Machine
from shadowswitch.engine.open_state import OpenState
from shadowswitch.engine.quality.comparing import CompareCalls
from shadowswitch.engine.quality.costing import CostCalls
from shadowswitch.engine.search.calls import SearchCalls
from shadowswitch.model.config import Config
from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.storage.shortages import shortage

G = TypeVar("G")
P = ParamSpec("P")
R = TypeVar("R")


class _Delegate(Generic[G]):
    """Makes a method of the Engine from a method of a group of calls, with its name, signature and docstring.

    A resource that a call lacks is an error of this library, wherever it was asked for. The log has each refusal of an
    operation.
    """

    def __init__(self, group: type[G]) -> None:
        self._group = group

    def __call__(self, method: Callable[Concatenate[G, P], R]) -> Callable[Concatenate[Engine, P], R]:
        group = self._group

        @functools.wraps(method)
        def call(engine: Engine, /, *args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return method(engine._calls[group], *args, **kwargs)
            except (OSError, MemoryError, RuntimeError) as error:
                lack = None if isinstance(error, ShadowSwitchError) else shortage(error, method.__name__)
                if lack is None:
                    raise
                raise lack from error

        return _noted(call) if method.__name__ in OPERATIONS else call


def _noted(call: Callable[Concatenate[Engine, P], R]) -> Callable[Concatenate[Engine, P], R]:
    """The same method; its refusals have lines in the log."""
    signature = inspect.signature(call)

    @functools.wraps(call)
    def noted(engine: Engine, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(engine, *args, **kwargs)
        except ShadowSwitchError as error:
            engine._refused.note_call(call.__name__, signature.bind(engine, *args, **kwargs), error)
            raise

    return noted


_branches, _builds, _changes = _Delegate(BranchCalls), _Delegate(BuildCalls), _Delegate(ChangeCalls)
_events, _folders, _inbound = _Delegate(EventCalls), _Delegate(FolderCalls), _Delegate(InboundCalls)
_indexes, _locks, _records = _Delegate(IndexCalls), _Delegate(LockCalls), _Delegate(RecordCalls)
_schedule, _forks = _Delegate(ScheduleCalls), _Delegate(ForkCalls)
_groups, _reading, _search = _Delegate(GroupCalls), _Delegate(GroupReading), _Delegate(SearchCalls)
_quality, _costs, _backups = _Delegate(CompareCalls), _Delegate(CostCalls), _Delegate(BackupCalls)
_soak, _switches, _removal = _Delegate(SoakCalls), _Delegate(SwitchCalls), _Delegate(RemovalCalls)


class Engine:
    """One open data directory. Make it with `Engine.open`; close it, or use it as a context manager."""

    _machine = Machine()
    """The clock, the store and the processes of every engine of this class; the simulation has another class."""
    _refused_opens = RefusedCalls(_machine.clock)
    """Of all engines of this process, for a refused open leaves none."""

    def __init__(self, path: str | os.PathLike[str], config: Config | None = None) -> None:
        """Take the directory's exclusive lock, recover, start.

        Raises EngineAlreadyOpen, InvalidConfig for a path that can be no data directory, UnsupportedFilesystem,
        UnsupportedFormat, CorruptData, StorageFull, ResourceExhausted, DirectoryLost.
        """
        self._state = OpenState()
        self._refused = RefusedCalls(self._machine.clock)
        try:
            self._lifecycle = Lifecycle(path, config, self._state, self._machine)
        except ShadowSwitchError as error:
            self._refused_opens.note("open", {"data": str(path)}, "", "", error)
            raise
        self._calls = self._lifecycle.calls

    @classmethod
    def open(cls, path: str | os.PathLike[str], config: Config | None = None) -> Engine:
        """Open (and make, if need be) a data directory."""
        return cls(path, config)

    def close(self) -> None:
        """Stop admitting, let what was admitted end, stop builds (they go on at the next open), close. Idempotent.

        Raises CloseInCallback inside a function that the engine calls; then the engine stays open.
        """
        if self._state.close():
            self._lifecycle.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def config(self) -> Config:
        """The settings that the engine was opened with."""
        return self._lifecycle.context.config

    @property
    def path(self) -> Path:
        """The data directory."""
        return self._lifecycle.context.root

    # -- branches --------------------------------------------------------------------------------------------------

    create_branch = _branches(BranchCalls.create_branch)
    branch = _branches(BranchCalls.branch)
    branches = _branches(BranchCalls.branches)
    count_branches = _branches(BranchCalls.count_branches)
    branch_status = _branches(BranchCalls.branch_status)
    quiet_hours = _branches(BranchCalls.quiet_hours)
    resource_types = _branches(BranchCalls.resource_types)
    start_indexing = _branches(BranchCalls.start_indexing)
    complete_indexing = _branches(BranchCalls.complete_indexing)
    archive_branch = _branches(BranchCalls.archive_branch)
    merge_branch = _branches(BranchCalls.merge_branch)
    reopen_branch = _branches(BranchCalls.reopen_branch)
    recover_branch = _branches(BranchCalls.recover_branch)
    drop_branch = _removal(RemovalCalls.drop_branch)

    # -- forks: branches made from others ------------------------------------------------------------------------------

    fork_branch = _forks(ForkCalls.fork_branch)
    diff = _forks(ForkCalls.diff)
    diff_page = _forks(ForkCalls.diff_page)
    merge_into = _forks(ForkCalls.merge_into)
    rebase = _forks(ForkCalls.rebase)

    # -- records, and the journal of their changes ---------------------------------------------------------------------

    write = _records(RecordCalls.write)
    get = _records(RecordCalls.get)
    scan = _records(RecordCalls.scan)
    scan_page = _records(RecordCalls.scan_page)
    count = _records(RecordCalls.count)
    head = _records(RecordCalls.head)

    changes = _changes(ChangeCalls.changes)
    hold_changes = _changes(ChangeCalls.hold_changes)
    release_changes = _changes(ChangeCalls.release_changes)
    changes_holds = _changes(ChangeCalls.changes_holds)

    # -- builds, of the engine and of programs outside -----------------------------------------------------------------

    start_build = _builds(BuildCalls.start_build)
    cancel_build = _builds(BuildCalls.cancel_build)
    retry_build = _builds(BuildCalls.retry_build)
    pause_build = _builds(BuildCalls.pause_build)
    resume_build = _builds(BuildCalls.resume_build)
    throttle_build = _builds(BuildCalls.throttle_build)
    set_priority = _builds(BuildCalls.set_priority)
    report_progress = _builds(BuildCalls.report_progress)
    complete_build = _builds(BuildCalls.complete_build)
    fail_build = _builds(BuildCalls.fail_build)
    shadow = _builds(BuildCalls.shadow)
    shadows = _builds(BuildCalls.shadows)
    count_shadows = _builds(BuildCalls.count_shadows)
    count_shadow_states = _builds(BuildCalls.count_shadow_states)
    wait_for = _builds(BuildCalls.wait_for)

    # -- switches, and the soak of what was switched to ----------------------------------------------------------------

    switch = _switches(SwitchCalls.switch)
    rollback = _switches(SwitchCalls.rollback)
    rebuild = _switches(SwitchCalls.rebuild)

    schedule_switch = _schedule(ScheduleCalls.schedule_switch)
    unschedule_switch = _schedule(ScheduleCalls.unschedule_switch)

    set_health_check = _soak(SoakCalls.set_health_check)
    add_validator = _soak(SoakCalls.add_validator)

    # -- groups: indexes that are switched, rolled back and read together --------------------------------------------

    start_group = _groups(GroupCalls.start_group)
    group = _groups(GroupCalls.group)
    groups = _groups(GroupCalls.groups)
    switch_group = _groups(GroupCalls.switch_group)
    rollback_group = _groups(GroupCalls.rollback_group)
    dissolve_group = _groups(GroupCalls.dissolve_group)
    add_group_validator = _groups(GroupCalls.add_group_validator)
    read_group = _reading(GroupReading.read_group)

    # -- what is live --------------------------------------------------------------------------------------------------

    index = _indexes(IndexCalls.index)
    indexes = _indexes(IndexCalls.indexes)
    count_indexes = _indexes(IndexCalls.count_indexes)
    index_figures = _indexes(IndexCalls.index_figures)
    reader = _indexes(IndexCalls.reader)
    search_many = _search(SearchCalls.search_many)
    search_pages = _search(SearchCalls.search_pages)
    next_page = _search(SearchCalls.next_page)
    compare = _quality(CompareCalls.compare)
    build_cost = _costs(CostCalls.build_cost)
    backup = _backups(BackupCalls.backup)
    retune = _indexes(IndexCalls.retune)
    drop_index = _removal(RemovalCalls.drop_index)

    # -- locks ---------------------------------------------------------------------------------------------------------

    acquire_lock = _locks(LockCalls.acquire_lock)
    acquire_locks = _locks(LockCalls.acquire_locks)
    confirm_lock = _locks(LockCalls.confirm_lock)
    heartbeat = _locks(LockCalls.heartbeat)
    extend_lock = _locks(LockCalls.extend_lock)
    release_lock = _locks(LockCalls.release_lock)
    force_unlock = _locks(LockCalls.force_unlock)
    locks = _locks(LockCalls.locks)
    find_lock = _locks(LockCalls.find_lock)
    branch_of_lock = _locks(LockCalls.branch_of_lock)
    lock_waiters = _locks(LockCalls.lock_waiters)
    check_write = _locks(LockCalls.check_write)

    # -- events, checks, figures ---------------------------------------------------------------------------------------

    events = _events(EventCalls.events)
    event_span = _events(EventCalls.event_span)
    subscribe = _events(EventCalls.subscribe)
    tell_settings = _events(EventCalls.tell_settings)
    event_position = _events(EventCalls.event_position)
    note_event_position = _events(EventCalls.note_event_position)
    audit = _events(EventCalls.audit)
    audit_span = _events(EventCalls.audit_span)
    check = _events(EventCalls.check)
    checks = _events(EventCalls.checks)
    clean_up = _events(EventCalls.clean_up)
    stats = _events(EventCalls.stats)
    histograms = _events(EventCalls.histograms)
    latencies = _events(EventCalls.latencies)
    trouble = _events(EventCalls.trouble)
    health = _events(EventCalls.health)

    # -- events from outside, and folders ------------------------------------------------------------------------------

    receive_event = _inbound(InboundCalls.receive_event)
    event_outcome = _inbound(InboundCalls.event_outcome)
    add_merge_condition = _inbound(InboundCalls.add_merge_condition)
    watch_folder = _folders(FolderCalls.watch_folder)
