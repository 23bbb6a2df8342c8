"""fsck: every invariant over everything on disk. Reads only; works beside a running host, from any process.

fsck stops nothing. It reads each bucket of records and its digest in one transaction. This module has the catalog,
`storage.fsck_generation` has the indexes. A damaged file may end the process that reads it, so
`actors.build.disk_check` runs each part in a worker process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from shadowswitch.model.digest import BUCKETS, Digest, bucket_of, key_hash
from shadowswitch.model.errors import CorruptData
from shadowswitch.model.shadow_state import OPEN_ROLES, GenerationRole, ShadowState
from shadowswitch.model.views import Finding
from shadowswitch.storage import data_directory
from shadowswitch.storage.catalog import keys, rows
from shadowswitch.storage.catalog.environment import Catalog, scan_prefix
from shadowswitch.storage.catalog.inbox import check_received
from shadowswitch.storage.catalog.journal import chunks
from shadowswitch.storage.catalog.journal_format import Entry, entries_of, first_lsn, fragments_of
from shadowswitch.storage.catalog.locks import check_locks
from shadowswitch.storage.catalog.outbox import check_events
from shadowswitch.storage.catalog.retention import check_holds
from shadowswitch.storage.catalog.rows import BranchRow, GenerationRow, IndexRow, ShadowRow
from shadowswitch.storage.repair.catalog import catalog_faults

T = TypeVar("T")
FINDINGS_MAX = 20
"""Findings of one kind in one place; more add nothing."""
SLICE = 2000
SLICE_CHUNKS = 300

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


def generations_to_check(catalog: Catalog, findings: list[Finding]) -> list[GenerationRow]:
    """The generations that are whole, by the catalog; none where a row does not decode, which is a finding."""
    return [row for row in readable(catalog.generations, findings) or [] if row.role in OPEN_ROLES]


def check_catalog(catalog: Catalog, root: Path) -> list[Finding]:
    """Check the catalog, and which directories there are."""
    findings: list[Finding] = []
    types = readable(catalog.types, findings) or {}
    for branch in readable(catalog.branches, findings) or []:
        findings += first(_check_journal(catalog, branch))
        findings += first(_check_records(catalog, branch, types))
    with catalog.read() as txn:
        findings += first(fault.finding for fault in catalog_faults(catalog, txn))
    for check in (_check_rows, check_locks, check_events, check_holds, check_received):
        findings += first(check(catalog))
    findings += first(_check_directories(catalog, root))
    return findings


def readable(read: Callable[[], T], findings: list[Finding]) -> T | None:
    """What `read` returns. What does not decode is a finding, and the check goes on without it."""
    try:
        return read()
    except (CorruptData, ValueError, msgspec.MsgspecError) as error:
        findings.append(Finding("ST-4", "catalog", f"a part of it does not decode: {error}"))
        return None


def first(found: Iterator[Finding]) -> list[Finding]:
    """The findings of a check of the catalog; its end where something does not decode is one, too."""
    listed: list[Finding] = []
    while len(listed) < FINDINGS_MAX:
        finding = readable(lambda: next(found, None), listed)
        if finding is None:
            break
        listed.append(finding)
    return listed


# -- the catalog ---------------------------------------------------------------------------------------------------


def _check_journal(catalog: Catalog, branch: BranchRow) -> Iterator[Finding]:
    """ST-1 and ST-2. A later delete must follow a put without a record."""
    where = f"journal of branch {branch.name!r}"
    missing: dict[tuple[str, str], int] = {}
    later: dict[tuple[str, str], int] = {}
    after = catalog.head(branch.number)[1] - 1
    last = 0
    overtaken = False  # by a trim, which removed chunks before this check had read them
    while True:
        with catalog.read() as txn:
            overtaken = overtaken or catalog.head_in(txn, branch.number)[1] > after + 1
            numbers = catalog.types_in(txn).numbers
            batch = list(islice(chunks(txn, catalog, branch.number, after), SLICE_CHUNKS))
            for reached, value in batch:
                try:
                    entries, _ = entries_of(reached, value)
                    if entries[0].lsn <= last:
                        yield Finding("ST-1", where, f"the chunk up to LSN {reached} begins at or before LSN {last}")
                    for entry, fragment in zip(entries, fragments_of(value), strict=True):
                        number, fields = numbers[entry.resource_type], bytes(fragment[3])
                        yield from _check_entry(catalog, txn, branch, entry, number, fields, missing, later)
                except Exception as error:
                    yield Finding("ST-4", where, f"the chunk up to LSN {reached} does not decode: {error}")
                last = reached
        if not batch:
            break
        after = last
    for (name, id), lsn in missing.items() if not overtaken else ():
        yield Finding(
            "ST-2", where, f"{name} {id[:80]!r} was written at LSN {lsn}, not deleted since, and has no record"
        )
    for (name, id), lsn in later.items() if not overtaken else ():
        yield Finding(
            "ST-2", where, f"{name} {id[:80]!r} has LSN {lsn}, and the journal has no entry of it at that LSN"
        )


def _check_entry(
    catalog: Catalog, txn: Any, branch: BranchRow, entry: Entry, number: int, fields: bytes,
    missing: dict[tuple[str, str], int], later: dict[tuple[str, str], int],
) -> Iterator[Finding]:  # fmt: skip
    """`later` holds the LSNs of records that later entries must have."""
    where = f"journal of branch {branch.name!r}"
    name, lsn = f"{entry.resource_type} {entry.id[:80]!r}", entry.lsn
    if entry.key_hash != key_hash(entry.resource_type, entry.id):
        yield Finding("ST-4", where, f"{name} of LSN {lsn} has the key hash of another record")
        return
    key = keys.record_key(branch.number, number, bucket_of(entry.key_hash), entry.id.encode())
    stored = txn.get(key, db=catalog.db["records"])
    present = keys.claimed_lsn(stored) if stored is not None else 0
    if present > lsn:
        later[entry.resource_type, entry.id] = present
    else:
        later.pop((entry.resource_type, entry.id), None)
    if entry.fields is None:
        missing.pop((entry.resource_type, entry.id), None)
        if 0 < present < lsn:
            yield Finding("ST-2", where, f"{name} was deleted at LSN {lsn}, and has a record of LSN {present}")
    elif present == 0:
        missing[entry.resource_type, entry.id] = lsn
    elif present < lsn:
        yield Finding("ST-2", where, f"{name} was written at LSN {lsn}, the record has LSN {present}")
    else:
        missing.pop((entry.resource_type, entry.id), None)
        if present == lsn and entry.id.encode() + fields != keys.claimed_content(stored):
            yield Finding("ST-2", where, f"{name} has other content than its journal entry at LSN {lsn}")


def _check_records(catalog: Catalog, branch: BranchRow, types: dict[int, str]) -> Iterator[Finding]:
    """ST-2 to ST-4: every record decodes, lies in its bucket, is in the journal; the buckets' digests are right."""
    last_lsn = catalog.last_lsn()
    for number, name in types.items():
        for bucket in range(BUCKETS):
            where = f"branch {branch.name!r}, type {name!r}, bucket {bucket}"
            with catalog.read() as txn:
                recomputed = Digest()
                for key, value in scan_prefix(
                    txn, catalog.db["records"], keys.RECORD_PREFIX.pack(branch.number, number, bucket)
                ):
                    try:
                        lsn, id, fields = keys.split_record(key, value)
                        keys.decode_fields(fields)
                    except Exception as error:
                        lsn, id = keys.claimed_lsn(value), keys.claimed_id(key, value)
                        yield Finding("ST-4", where, f"the record {id[:80]!r} of LSN {lsn} is damaged: {error}")
                        recomputed.add(key_hash(name, id), lsn)
                        continue
                    hashed = key_hash(name, id)
                    if bucket_of(hashed) != bucket:
                        yield Finding("ST-4", where, f"{id!r} belongs to bucket {bucket_of(hashed)}")
                    recomputed.add(hashed, lsn)
                    if lsn > max(last_lsn, catalog.number("last_lsn", txn)):
                        yield Finding("ST-1", where, f"{id!r} has LSN {lsn}, above the last LSN")
                    yield from _check_last_entry(catalog, txn, branch, lsn, f"{where}, {id[:80]!r}")
                kept = Digest.stored(txn.get(keys.TYPE_PREFIX.pack(branch.number, number), db=catalog.db["heads"]))
            if kept.differing(recomputed, [bucket]):
                yield Finding(
                    "ST-3",
                    where,
                    f"the digest has {kept.counts[bucket]} records, {kept.sums[bucket]:016x}; the stored records give"
                    f" {recomputed.counts[bucket]}, {recomputed.sums[bucket]:016x}",
                )


def _check_last_entry(catalog: Catalog, txn: Any, branch: BranchRow, lsn: int, where: str) -> Iterator[Finding]:
    """ST-2 from the record's side: the journal has the entry that wrote it, as far back as it is kept."""
    last, chunk = next(chunks(txn, catalog, branch.number, lsn - 1), (0, memoryview(b"")))
    try:
        there = bool(last) and first_lsn(last, chunk) <= lsn
    except CorruptData:
        return  # `_check_journal` reports it
    if not there and lsn >= catalog.head_in(txn, branch.number)[1]:
        yield Finding("ST-2", where, f"it has LSN {lsn}, and the journal has no entry at that LSN")


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
