"""Who holds what on a branch, and who waits: read from the disk, beside whatever host is running.

What a running host has not written down yet (a heartbeat, who waits, the progress of a build) is some seconds old at
most. Without a host the answer is what an engine would find if it were opened now: waiters are gone with the process
that they waited in, and holders have the grace interval to be heard of.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

import msgspec

from shadowswitch.model.config import Config
from shadowswitch.model.locks import records as lock_records
from shadowswitch.model.locks.info import Lock, LockWaiter, lock_info, waiter_info
from shadowswitch.model.locks.records import Progress
from shadowswitch.model.locks.table import LockTable
from shadowswitch.model.shadow_state import UNDER_WAY, ShadowState
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.locks import LocksRow
from shadowswitch.storage.data_directory import boot_id


def held_and_waiting(
    catalog: Catalog, stored: LocksRow | None, *, hosted: bool
) -> tuple[list[Lock], tuple[LockWaiter, ...]]:
    """The locks that are held now and those who wait, as of what is stored."""
    if stored is None:
        return [], ()
    now, wall = time.monotonic(), datetime.now(UTC)
    clock_id = boot_id()
    if hosted and clock_id and stored.table.clock_id == clock_id:
        # heartbeats are written down a little late: what the host has not ended is held
        table = LockTable.resume(stored.table)
        locks = [lock for lock in table.locks.values() if lock.expires_at is None or lock.expires_at > now]
    else:
        table = LockTable.load(stored.table, now, Config().lock_grace_s, clock_id=clock_id)
        locks = list(table.live(now))
    told = [lock_info(_measured(catalog, lock, now), now, wall) for lock in locks]
    return told, tuple(
        waiter_info(waiter, table.branch, now, wall) for waiter in table.waiters if waiter.deadline > now
    )


def _measured(catalog: Catalog, lock: lock_records.Lock, now: float) -> lock_records.Lock:
    """With the progress of the build that is the work under it, as last written down."""
    row = catalog.find_shadow(lock.build) if lock.build else None
    if row is None:
        return lock
    going = row.state in (ShadowState.PREPARING, ShadowState.BUILDING)
    known = going or row.state in UNDER_WAY or row.state == ShadowState.ACTIVE
    percent, eta_s = (row.progress, row.eta_s) if going else (100.0, 0.0)
    progress = Progress(percent, now, percent, now, eta_s, row.phase) if known else None
    return msgspec.structs.replace(lock, progress=progress)
