"""The view of a branch's locks: state, locks, waiters and builds, read from the disk beside a running host.

A running host writes heartbeats, waiters and build progress within some seconds, so the view may be that old. Without a
host the view shows the state that an engine would restore: the waiters ended with their process, and each holder has
the grace interval to send a heartbeat.
"""

from __future__ import annotations

import shlex
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Group, RenderableType

from shadowswitch.engine.views import RUNNING
from shadowswitch.model.config import Config
from shadowswitch.model.locks import records as lock_records
from shadowswitch.model.locks.branch_state import BranchState
from shadowswitch.model.locks.info import Lock, LockWaiter, lock_info, waiter_info
from shadowswitch.model.locks.records import Progress
from shadowswitch.model.locks.refusal import STATE_ADVICE, free_types, in_words
from shadowswitch.model.locks.table import LockTable
from shadowswitch.model.shadow_state import UNDER_WAY, ShadowState
from shadowswitch.service.cli import output
from shadowswitch.service.cli.builds import builds_of_server, shadow_status, types_of
from shadowswitch.service.host_file import holder_of
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.locks import LocksRow, find_locks
from shadowswitch.storage.catalog.rows import BranchRow
from shadowswitch.storage.catalog.source.shadow_table import stored_shadows
from shadowswitch.storage.disk import boot_id

LOCK_HEADINGS = ("holder", "lock", "covers", "since", "done", "left", "expires in", "reason")


def locks_of(catalog: Catalog, data: Path, branch: str) -> output.View:
    """The view of one branch. Raises UnknownBranch.

    `advice` lists the ways out of a state that refuses every write; other states have none.
    """
    row = catalog.branch(branch)
    host = holder_of(data)
    stored = find_locks(catalog, row.number)
    locks, waiters = held_and_waiting(catalog, stored, hosted=host is not None)
    covering = stored.table.locks if stored is not None else ()
    held = {lock.lock_id for lock in locks}
    free = free_types(types_of(catalog, branch), [lock for lock in covering if lock.lock_id in held])
    under_way = stored_shadows(catalog, lambda head: head.branch == row.number and head.state in UNDER_WAY)
    now = builds_of_server(data, catalog)
    builds = [shadow_status(one, host is not None, now.get(one.id)) for one in under_way]
    return {
        "branch": branch,
        "host": host,
        **_state(row, stored),
        "advice": list(STATE_ADVICE.get(BranchState(row.state), ())),
        "locks": locks,
        "waiters": waiters,
        "free_resource_types": list(free),
        "builds": builds,
    }


def _state(row: BranchRow, stored: LocksRow | None) -> dict[str, Any]:
    if stored is None:
        since = datetime.fromtimestamp(row.created_at, UTC)
        return {"state": row.state, "since": since, "by": "", "reason": "", "indexing": [], "indexing_failed": []}
    status = stored.status
    return {
        "state": row.state,
        "since": status.since,
        "by": status.by,
        "reason": status.reason,
        "indexing": [work.name for work in status.indexing],
        "indexing_failed": list(status.failed),
    }


def held_and_waiting(
    catalog: Catalog, stored: LocksRow | None, *, hosted: bool
) -> tuple[list[Lock], tuple[LockWaiter, ...]]:
    """The held locks and the waiters of a branch now; `hosted`: an engine has the data directory open."""
    if stored is None:
        return [], ()
    now, wall = time.monotonic(), datetime.now(UTC)
    clock_id = boot_id()
    if hosted and clock_id and stored.table.clock_id == clock_id:
        # the host writes heartbeats late, so every lock that the host did not end is held
        table = LockTable.resume(stored.table)
        locks = [lock for lock in table.locks.values() if lock.expires_at is None or lock.expires_at > now]
    else:
        table = LockTable.load(stored.table, now, Config().lock_grace_s, clock_id=clock_id)
        locks = list(table.live(now))
    held = [lock_info(_with_build_progress(catalog, lock, now), now, wall) for lock in locks]
    waiting = (waiter for waiter in table.waiters if waiter.deadline > now)
    return held, tuple(waiter_info(waiter, table.branch, now, wall) for waiter in waiting)


def _with_build_progress(catalog: Catalog, lock: lock_records.Lock, now: float) -> lock_records.Lock:
    """A lock of a build takes the stored progress of this build."""
    row = catalog.find_shadow(lock.build) if lock.build else None
    if row is None:
        return lock
    running = row.state in RUNNING
    known = running or row.state in UNDER_WAY or row.state == ShadowState.ACTIVE
    percent, eta_s = (row.progress, row.eta_s) if running else (100.0, 0.0)
    progress = Progress(percent, now, percent, now, eta_s, row.phase) if known else None
    return msgspec.structs.replace(lock, progress=progress)


def stable_locks(found: output.View) -> Any:
    """The part of the view without values that change by themselves, such as an ETA."""
    locks = [msgspec.structs.replace(lock, eta_s=None, expires_at=None, heartbeat_by=None) for lock in found["locks"]]
    waiters = [(waiter.owner, waiter.wants, waiter.since) for waiter in found["waiters"]]
    return {**found, "locks": locks, "waiters": waiters}


def render_locks(found: output.View) -> RenderableType:
    """The view as text and tables."""
    by = f", by {found['by']}" if found["by"] else ""
    why = f": {found['reason']}" if found["reason"] else ""
    parts: list[RenderableType] = [output.plain(f"branch {found['branch']} is {found['state']}{by}{why}")]
    if found["advice"]:
        parts.append(output.plain(f"no write is possible, with or without a lock: {'; or '.join(found['advice'])}"))
        operation = {BranchState.ERROR: "recover", BranchState.MERGED: "reopen"}.get(found["state"])
        if operation:
            command = f"shadowswitch branch {operation} {shlex.quote(found['branch'])} --data DATA"
            parts.append(output.plain(f"    {command}"))
    elif not found["locks"] and not found["waiters"]:
        parts.append(output.plain("no locks: the branch is free"))
    if found["locks"]:
        parts.append(output.table("locks", LOCK_HEADINGS, map(lock_cells, found["locks"])))
        if not found["advice"]:
            parts.append(output.plain(f"free: {', '.join(found['free_resource_types']) or 'nothing else'}"))
    if found["waiters"]:
        columns = ["owner", "for", "waiting", "gives up in", "reason"]
        parts.append(output.table("waiting, in this order", columns, map(_waiter_cells, found["waiters"])))
    if found["builds"]:
        columns = ["index", "state", "done", "left"]
        parts.append(output.table("builds, without effect on writers", columns, map(_build_cells, found["builds"])))
    named = [(name, found[key]) for name, key in (("indexing", "indexing"), ("indexing failed", "indexing_failed"))]
    parts += [output.plain(f"{name}: {', '.join(works)}") for name, works in named if works]
    return Group(*parts)


def lock_cells(lock: Lock) -> list[str]:
    """A lock as the row of a table with `LOCK_HEADINGS`."""
    covers = {"BRANCH": "the branch", "RESOURCE_TYPE": f"{lock.resource_type}"}
    done = "" if lock.progress_percent is None else f"{lock.progress_percent:g} %"
    return [
        lock.owner,
        "write lease" if lock.shared else str(lock.lock_type),
        covers.get(lock.scope, f"{lock.resource_type} {lock.resource_id}"),
        f"{lock.granted_at:%Y-%m-%d %H:%M:%S}",
        f"{done} {lock.progress_message}".strip(),
        _span(lock.eta_s),
        "" if lock.expires_at is None else _span((lock.expires_at - datetime.now(UTC)).total_seconds()),
        lock.reason,
    ]


def _waiter_cells(waiter: LockWaiter) -> list[str]:
    now = datetime.now(UTC)
    waited, left = (now - waiter.since).total_seconds(), (waiter.deadline - now).total_seconds()
    return [waiter.owner, ", ".join(waiter.wants), _span(waited), _span(left), waiter.reason]


def _build_cells(build: dict[str, Any]) -> list[str]:
    percent, left_s = build["build_progress_percent"], build["estimated_completion_seconds"]
    state = ", ".join(filter(None, (build["state"], output.time_share(build["share"]))))
    return [build["index_type"], state, f"{percent:g} %", _span(left_s)]


def _span(seconds: float | None) -> str:
    return "" if seconds is None else in_words(max(0.0, seconds))
