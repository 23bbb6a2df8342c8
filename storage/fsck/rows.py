"""fsck of what the catalog holds besides records: pointers, states, counters, names, locks, events; and directories."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shadowswitch.model.shadow_state import GenerationRole, ShadowState
from shadowswitch.model.views import Finding
from shadowswitch.storage import data_directory
from shadowswitch.storage.catalog import keys, rows
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.inbox import check_received
from shadowswitch.storage.catalog.locks import check_locks
from shadowswitch.storage.catalog.outbox import check_events
from shadowswitch.storage.catalog.retention import check_holds
from shadowswitch.storage.catalog.rows import GenerationRow, IndexRow, ShadowRow
from shadowswitch.storage.catalog.transitions.removal import IN_SLICES
from shadowswitch.storage.fsck.forks import check_forks
from shadowswitch.storage.fsck.found import first
from shadowswitch.storage.fsck.groups import check_groups
from shadowswitch.storage.repair.catalog import catalog_faults

ROLES = {
    ShadowState.PREPARING: {GenerationRole.BUILDING},
    ShadowState.BUILDING: {GenerationRole.BUILDING},
    ShadowState.FAILED: {GenerationRole.BUILDING, GenerationRole.RETIRING},
    ShadowState.BUILT: {GenerationRole.STANDBY},
    ShadowState.SWITCHING: {GenerationRole.STANDBY},
    ShadowState.ACTIVE: {GenerationRole.LIVE, GenerationRole.SOAKING},
    ShadowState.CLEANUP: {GenerationRole.RETIRING},
    ShadowState.CANCELLED: {GenerationRole.RETIRING},
}


def check_rows(catalog: Catalog, root: Path) -> list[Finding]:
    """Everything of the catalog but journals and records, and which directories there are."""
    findings: list[Finding] = []
    with catalog.read() as txn:
        findings += first(fault.finding for fault in catalog_faults(catalog, txn))
    for check in (
        _check_rows,
        _check_left,
        check_locks,
        check_events,
        check_holds,
        check_received,
        check_forks,
        check_groups,
    ):
        findings += first(check(catalog))
    return findings + first(_check_directories(catalog, root))


def _check_rows(catalog: Catalog) -> Iterator[Finding]:
    """IX-1, IX-6, ST-4: pointers, states and roles, all as of one transaction."""
    with catalog.read() as txn:
        shadows = {r.id: r for r in _decoded(txn, catalog, "shadows", catalog.lists.shadow)}
        gens = {r.number: r for r in _decoded(txn, catalog, "generations", catalog.lists.generation)}
        indexes = list(_decoded(txn, catalog, "indexes", rows.decode_index))
        branches = {r.number for r in _decoded(txn, catalog, "branches", rows.decode_branch)}
    for shadow in shadows.values():
        yield from _check_shadow(shadow, gens.get(shadow.generation), branches)
    live = {index.live for index in indexes if index.live}
    for index in indexes:
        yield from _check_index(index, gens)
    for row in gens.values():
        if row.role is GenerationRole.LIVE and row.number not in live:
            yield Finding("IX-1", f"generation {row.number}", "its role is live, but no index points to it")
        if row.shadow_id not in shadows:
            yield Finding("ST-4", f"generation {row.number}", f"its shadow {row.shadow_id} has no row")


def _check_left(catalog: Catalog) -> Iterator[Finding]:
    """ST-4: no row of a branch that has none itself."""
    with catalog.read() as txn:
        branches = {bytes(key) for key, _ in txn.cursor(catalog.db["branches"])}
        for database in (name for name in IN_SLICES if name in catalog.db):
            cursor = txn.cursor(catalog.db[database])
            there = cursor.first()
            while there:
                prefix = bytes(cursor.key()[: keys.BRANCH.size])
                number = keys.BRANCH.unpack(prefix)[0]
                if prefix not in branches:
                    yield Finding("ST-4", database, f"it has rows of branch {number}, which has no row")
                there = number < (1 << 32) - 1 and cursor.set_range(keys.BRANCH.pack(number + 1))


def _decoded(txn: Any, catalog: Catalog, database: str, decode: Any) -> Iterator[Any]:
    for _, value in txn.cursor(catalog.db[database]):
        yield decode(value, txn) if database in ("shadows", "generations") else decode(value)


def _check_shadow(shadow: ShadowRow, row: GenerationRow | None, branches: set[int]) -> Iterator[Finding]:
    where = f"shadow {shadow.id}"
    if shadow.branch not in branches:
        yield Finding("ST-4", where, f"its branch {shadow.branch} has no row")
    if row is None:
        if shadow.state not in (ShadowState.CLEANUP, ShadowState.CANCELLED, ShadowState.FAILED):
            yield Finding("IX-6", where, f"it is {shadow.state}, and its generation {shadow.generation} has no row")
    elif row.role not in ROLES[shadow.state]:
        yield Finding("IX-6", where, f"it is {shadow.state}, its generation {row.number} is {row.role}")


def _check_index(index: IndexRow, gens: dict[int, GenerationRow]) -> Iterator[Finding]:
    where = f"{index.index_type} of branch {index.branch}"
    for number, role in ((index.live, GenerationRole.LIVE), (index.previous, GenerationRole.SOAKING)):
        row = gens.get(number)
        if not number:
            continue
        if row is None:
            yield Finding("IX-1", where, f"its {role} generation {number} has no row")
        elif row.role != role or (row.branch, row.index_type) != (index.branch, index.index_type):
            yield Finding(
                "IX-1",
                where,
                f"generation {number} must be {role} here; it is {row.role} on branch {row.branch}, {row.index_type}",
            )


def _check_directories(catalog: Catalog, root: Path) -> Iterator[Finding]:
    """IX-5: no generation directory without a row."""
    known = {row.path for row in catalog.generations()}
    for path in sorted((root / data_directory.GENERATIONS).glob("*/*/*")):
        relative = str(path.relative_to(root))
        if relative not in known and relative not in {row.path for row in catalog.generations()} and path.exists():
            yield Finding(
                "IX-5", relative, "no generation of the catalog has this directory; remove it if it is not needed"
            )
