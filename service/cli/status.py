"""What `status` shows, read from the disk, beside whatever host has the directory open.

The names are those of BranchInfo, IndexInfo and ShadowIndex. What a running host has not written down yet (progress
since the last note, the LSN that a shadow has reached) is as of that note, some seconds old at most.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch.engine.reader import outside_reader
from shadowswitch.engine.views import moment
from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.model.locks.info import Lock, LockWaiter
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.service.cli.held import held_and_waiting
from shadowswitch.storage import data_directory
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.locks import all_locks
from shadowswitch.storage.catalog.rows import BranchRow, IndexRow, ShadowRow


def status_of(catalog: Catalog, data: Path) -> dict[str, Any]:
    """Host, branches, live indexes and shadows, locks and who waits for them, JSON-like."""
    branches = {row.number: row for row in catalog.branches()}
    live = (row for row in catalog.indexes() if row.live)
    host = holder_of(data)
    stored = {row.branch: row for row in all_locks(catalog)}
    held = {number: held_and_waiting(catalog, row, hosted=host is not None) for number, row in stored.items()}
    return {
        "host": host,
        "branches": [_branch(catalog, row, held.get(row.number)) for row in branches.values()],
        "indexes": [_index(catalog, data, row, branches[row.branch].name) for row in live],
        "shadows": [shadow_status(row) for row in catalog.shadows()],
        "locks": [lock for locks, _ in held.values() for lock in locks],
        "waiters": [
            {"branch": branches[number].name, **msgspec.structs.asdict(waiter)}
            for number, (_, waiters) in held.items()
            for waiter in waiters
        ],
    }


def _branch(catalog: Catalog, row: BranchRow, held: tuple[list[Lock], tuple[LockWaiter, ...]] | None) -> dict[str, Any]:
    head, oldest = catalog.head(row.number)
    locks, waiters = held or ([], ())
    return {
        "name": row.name,
        "state": row.state,
        "head_lsn": head,
        "record_count": sum(digest.count for digest in catalog.digests(row.number).values()),
        "locks": len(locks),
        "waiting": len(waiters),
        "oldest_lsn": oldest,
        "created_at": moment(row.created_at),
    }


def _index(catalog: Catalog, data: Path, row: IndexRow, branch: str) -> dict[str, Any]:
    """`lag_changes` counts from what readers see at this moment; an index that cannot be opened says why."""
    head = catalog.head(row.branch)[0]
    generation = catalog.generation(row.live)
    shadow = catalog.find_shadow(generation.shadow_id) if generation is not None else None
    found: dict[str, Any] = {
        "branch_name": branch,
        "index_type": row.index_type,
        "resource_types": generation.resource_types if generation is not None else [],
        "generation": row.live,
        "shadow_index_id": shadow.id if shadow is not None else "",
        "previous_generation": row.previous or None,
        "head_lsn": head,
        "switches": row.epoch,
        "switched_at": moment(row.switched_at),
        "build_config": shadow.build_config if shadow is not None else {},
    }
    try:
        with outside_reader(data, catalog, branch, row.index_type) as reader:
            count = reader.count()
            found |= {"record_count": count, "applied_lsn": reader.lsn, "lag_changes": max(0, head - reader.lsn)}
    except ShadowSwitchError as error:
        found |= {"record_count": None, "applied_lsn": None, "lag_changes": None, "error": str(error)}
    return found


def shadow_status(row: ShadowRow) -> dict[str, Any]:
    """One shadow, JSON-like."""
    return {
        "shadow_index_id": row.id,
        "branch_name": row.branch_name,
        "index_type": row.index_type,
        "resource_types": row.resource_types,
        "state": str(row.state),
        "phase": row.phase,
        "build_progress_percent": round(row.progress, 1),
        "estimated_completion_seconds": row.eta_s,
        "switch_ready": row.state == ShadowState.BUILT,
        "index_size_bytes": row.size_bytes,
        "record_count": row.record_count,
        "backend": row.backend,
        "build_config": row.build_config,
        "generation": row.generation,
        "created_at": moment(row.created_at),
        "started_at": moment(row.started_at),
        "completed_at": moment(row.completed_at),
        "switched_at": moment(row.switched_at),
        "error": row.error,
    }


def types_of(catalog: Catalog, branch: str) -> list[str]:
    """The resource types of which a branch has records. Raises UnknownBranch."""
    names = catalog.types()
    digests = catalog.digests(catalog.branch(branch).number)
    return sorted(names[number] for number, digest in digests.items() if digest.count)


def holder_of(data: Path) -> dict[str, Any] | None:
    """What the engine that has the directory open wrote into its lock file (pid, host, command, since), or None.

    Looks the lock up in /proc/locks. Trying the lock itself would answer too, and could make an engine that starts at
    that very moment believe that another one has the directory.
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(data / data_directory.LOCK, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            holder, inode = data_directory.read_holder(descriptor), os.fstat(descriptor).st_ino
        finally:
            os.close(descriptor)
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()  # 1: FLOCK  ADVISORY  WRITE 4242 08:01:1311 0 EOF
            if words[1:2] == ["FLOCK"] and words[4] == str(holder.get("pid")) and words[5].endswith(f":{inode}"):
                return holder
    return None
