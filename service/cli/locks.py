"""What `locks` shows of one branch: state, locks, waiters, builds. Read from the disk, see `held`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shadowswitch.model.locks.branch_state import BranchState
from shadowswitch.model.locks.refusal import STATE_ADVICE, free_types
from shadowswitch.model.shadow_state import UNDER_WAY
from shadowswitch.service.cli.held import held_and_waiting
from shadowswitch.service.cli.status import holder_of, shadow_status, types_of
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.locks import LocksRow, find_locks
from shadowswitch.storage.catalog.rows import BranchRow


def locks_of(catalog: Catalog, data: Path, branch: str) -> dict[str, Any]:
    """Locks, waiters, builds and state of a branch, JSON-like. Raises UnknownBranch.

    `advice` says what can be done about a state that refuses every write, whoever holds what; empty for the others.
    """
    row = catalog.branch(branch)
    host = holder_of(data)
    stored = find_locks(catalog, row.number)
    locks, waiters = held_and_waiting(catalog, stored, hosted=host is not None)
    state = _state(row, stored)
    covering = stored.table.locks if stored is not None else ()
    held = {lock.lock_id for lock in locks}
    free = free_types(types_of(catalog, branch), [lock for lock in covering if lock.lock_id in held])
    builds = [shadow_status(shadow) for shadow in catalog.shadows() if shadow.branch == row.number]
    return {
        "branch": branch,
        "host": host,
        **state,
        "advice": list(STATE_ADVICE.get(BranchState(row.state), ())),
        "locks": locks,
        "waiters": waiters,
        "free_resource_types": list(free),
        "builds": [build for build in builds if build["state"] in UNDER_WAY],
    }


def _state(row: BranchRow, stored: LocksRow | None) -> dict[str, Any]:
    status = stored.status if stored is not None else None
    return {
        "state": row.state,
        "since": status.since if status is not None else datetime.fromtimestamp(row.created_at, UTC),
        "by": status.by if status is not None else "",
        "reason": status.reason if status is not None else "",
        "indexing": [work.name for work in status.indexing] if status is not None else [],
        "indexing_failed": list(status.failed) if status is not None else [],
    }
