"""The locks of a branch on a terminal, once or again and again."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.text import Text

from shadowswitch.model.locks.branch_state import BranchState
from shadowswitch.model.locks.info import Lock, LockWaiter
from shadowswitch.model.locks.refusal import in_words
from shadowswitch.service.cli import output

LOCK_HEADINGS = ("holder", "lock", "covers", "since", "done", "left", "expires in", "reason")


def show(found: dict[str, Any], json: bool) -> None:
    """Print it once."""
    if json:
        output.print_json(found)
    else:
        output.console().print(drawn(found))


def lasting(found: dict[str, Any]) -> Any:
    """What of it changes only when something happens: an ETA falls, and a computed moment moves a little, by itself."""
    locks = [msgspec.structs.replace(lock, eta_s=None, expires_at=None, heartbeat_by=None) for lock in found["locks"]]
    waiters = [(waiter.owner, waiter.wants, waiter.since) for waiter in found["waiters"]]
    return {**found, "locks": locks, "waiters": waiters}


def drawn(found: dict[str, Any]) -> RenderableType:
    """As it is to be seen."""
    by = f", by {found['by']}" if found["by"] else ""
    why = f": {found['reason']}" if found["reason"] else ""
    parts: list[RenderableType] = [Text(f"branch {found['branch']} is {found['state']}{by}{why}")]
    if found["advice"]:
        parts.append(Text(f"nobody may write, with or without a lock: {'; or '.join(found['advice'])}"))
        parts.extend(Text(command) for command in _commands(found))
    elif not found["locks"] and not found["waiters"]:
        parts.append(Text("no locks: everybody may write"))
    if found["locks"]:
        parts.append(output.drawn("locks", LOCK_HEADINGS, map(lock_cells, found["locks"])))
        if not found["advice"]:
            parts.append(Text(f"free: {', '.join(found['free_resource_types']) or 'nothing else'}"))
    if found["waiters"]:
        columns = ["owner", "for", "waiting", "gives up in", "reason"]
        parts.append(output.drawn("waiting, in this order", columns, map(_waiter_cells, found["waiters"])))
    if found["builds"]:
        rows = [
            [
                b["index_type"],
                b["state"],
                f"{b['build_progress_percent']:g} %",
                _left(b["estimated_completion_seconds"]),
            ]
            for b in found["builds"]
        ]
        parts.append(output.drawn("builds, which block nobody", ["index", "state", "done", "left"], rows))
    told = [(kind.replace("_", " "), found[kind]) for kind in ("indexing", "indexing_failed") if found[kind]]
    parts.extend(Text(f"{kind}: {', '.join(names)}") for kind, names in told)
    return Group(*parts)


def _commands(found: dict[str, Any]) -> list[str]:
    """The first advice as a command, where there is one."""
    operation = {BranchState.ERROR: "recover", BranchState.MERGED: "reopen"}.get(found["state"])
    return [f"    shadowswitch branch {operation} {shlex.quote(found['branch'])} --data DATA"] if operation else []


def lock_cells(lock: Lock) -> list[str]:
    """One lock as a row of a table, in the order of `LOCK_HEADINGS`."""
    covers = {"BRANCH": "the branch", "RESOURCE_TYPE": f"{lock.resource_type}"}
    done = "" if lock.progress_percent is None else f"{lock.progress_percent:g} %"
    return [
        lock.owner,
        "write lease" if lock.shared else str(lock.lock_type),
        covers.get(lock.scope, f"{lock.resource_type} {lock.resource_id}"),
        f"{lock.granted_at:%Y-%m-%d %H:%M:%S}",
        f"{done} {lock.progress_message}".strip(),
        _left(lock.eta_s),
        "" if lock.expires_at is None else _left((lock.expires_at - datetime.now(UTC)).total_seconds()),
        lock.reason,
    ]


def _waiter_cells(waiter: LockWaiter) -> list[str]:
    now = datetime.now(UTC)
    waited, left = (now - waiter.since).total_seconds(), (waiter.deadline - now).total_seconds()
    return [waiter.owner, ", ".join(waiter.wants), _left(waited), _left(left), waiter.reason]


def _left(seconds: float | None) -> str:
    return "" if seconds is None else in_words(max(0.0, seconds))
