"""The lock keepers of an engine: loaded from the catalog when it starts, made when a branch is first used."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import msgspec

from shadowswitch.actors.branch.locks import BranchLocks, Held
from shadowswitch.actors.context import House
from shadowswitch.model.errors import CorruptData
from shadowswitch.model.locks.branch_state import BranchStatus
from shadowswitch.model.locks.table import LockTable
from shadowswitch.storage.catalog.locks import all_locks
from shadowswitch.storage.catalog.rows import BranchRow
from shadowswitch.storage.data_directory import boot_id


def keeper_of(house: House, row: BranchRow) -> BranchLocks:
    """The keeper of a branch, made if there is none; for whoever starts its actor."""
    keeper = house.keepers.get(row.number)
    if keeper is None:
        status = BranchStatus(row.name, datetime.fromtimestamp(row.created_at, UTC))
        keeper = house.keepers[row.number] = BranchLocks(
            house, row, Held(0, LockTable(row.name, clock_id=boot_id()), status)
        )
    return keeper


def load_keepers(house: House) -> None:
    """At the start of an engine: the locks of all branches, their holders with one grace interval to be heard of."""
    try:
        found = all_locks(house.catalog)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptData(
            f"the locks in the catalog do not decode: {error}", operation="open", hint="restore it from a backup"
        ) from error
    if not found:
        return
    branches = {row.number: row for row in house.catalog.branches()}
    now, clock_id = time.monotonic(), boot_id()
    for stored in found:
        table = LockTable.load(stored.table, now, house.config.lock_grace_s, clock_id=clock_id)
        held = Held(stored.revision, table, stored.status)
        house.keepers[stored.branch] = BranchLocks(house, branches[stored.branch], held)
