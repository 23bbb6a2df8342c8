"""fsck: every invariant over everything on disk. Reads only; works beside a running host, from any process.

fsck stops nothing. It reads each bucket of records and its digest in one transaction. It reads each shard as of one
transaction of the shard, at an LSN H, and compares it with the source; it skips records that changed after H.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from shadowswitch.model.digest import BUCKETS, Digest, bucket_of, buckets_of_shard, key_hash, shard_of
from shadowswitch.model.errors import CorruptData, ResourceExhausted, ShadowSwitchError, StorageFull
from shadowswitch.model.shadow_state import OPEN_ROLES, GenerationRole, ShadowState
from shadowswitch.model.views import Finding
from shadowswitch.storage import data_directory
from shadowswitch.storage.backends import registry
from shadowswitch.storage.backends.protocol import Backend, IndexReader
from shadowswitch.storage.catalog import keys, rows
from shadowswitch.storage.catalog.environment import Catalog, scan_prefix
from shadowswitch.storage.catalog.inbox import check_received
from shadowswitch.storage.catalog.journal import chunks, read_records, read_slice
from shadowswitch.storage.catalog.journal_format import Entry, entries_of, first_lsn, fragments_of
from shadowswitch.storage.catalog.locks import check_locks
from shadowswitch.storage.catalog.outbox import check_events
from shadowswitch.storage.catalog.retention import check_holds
from shadowswitch.storage.catalog.rows import BranchRow, GenerationRow, IndexRow, ShadowRow
from shadowswitch.storage.generations.directory import shard_paths, shared_pin
from shadowswitch.storage.generations.external_manifest import CheckDelivery, check_delivery
from shadowswitch.storage.generations.manifest import check_closed_files, check_manifest
from shadowswitch.storage.repair.catalog import catalog_faults
from shadowswitch.storage.shortages import shortages

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


def check_data(catalog: Catalog, root: Path) -> list[Finding]:
    """Check everything: the findings, empty when sound.

    Raises StorageFull, ResourceExhausted when the check of an index has no room, or cannot have what it needs.
    """
    findings: list[Finding] = []
    types = _readable(catalog.types, findings) or {}
    for branch in _readable(catalog.branches, findings) or []:
        findings += _first(_check_journal(catalog, branch))
        findings += _first(_check_records(catalog, branch, types))
    with catalog.read() as txn:
        findings += _first(fault.finding for fault in catalog_faults(catalog, txn))
    for check in (_check_rows, check_locks, check_events, check_holds, check_received):
        findings += _first(check(catalog))
    findings += _first(_check_directories(catalog, root))
    for row in _readable(catalog.generations, findings) or []:
        if row.role in OPEN_ROLES:
            findings += _check_generation(catalog, root, row, types)
    return findings


def _readable(read: Callable[[], T], findings: list[Finding]) -> T | None:
    """What `read` returns. What does not decode is a finding, and the check goes on without it."""
    try:
        return read()
    except (CorruptData, ValueError, msgspec.MsgspecError) as error:
        findings.append(Finding("ST-4", "catalog", f"a part of it does not decode: {error}"))
        return None


def _first(found: Iterator[Finding]) -> list[Finding]:
    """The findings of a check of the catalog; its end where something does not decode is one, too."""
    listed: list[Finding] = []
    while len(listed) < FINDINGS_MAX:
        finding = _readable(lambda: next(found, None), listed)
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
            numbers = {name: number for number, name in catalog.types_in(txn)}
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
        shadows = {r.id: r for r in _decoded(txn, catalog, "shadows", rows.decode_shadow)}
        gens = {r.number: r for r in _decoded(txn, catalog, "generations", rows.decode_generation)}
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
        yield decode(value)


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


# -- generations ---------------------------------------------------------------------------------------------------


def _check_generation(catalog: Catalog, root: Path, row: GenerationRow, types: dict[int, str]) -> list[Finding]:
    where = f"generation {row.number} ({row.role} {row.index_type})"
    path = root / row.path
    try:
        data_directory.inside(root, row.path)
        with shortages("check", str(path)), shared_pin(path):
            again = catalog.generation(row.number)
            if again is None or again.role not in OPEN_ROLES:
                return []
            check_manifest(path, row, catalog.uuid)
            changed = [Finding("IX-8", where, problem) for problem in check_closed_files(path, again.manifest_hash)]
            if row.opaque:
                found = check_delivery(CheckDelivery(str(path), row.shadow_id))
                return [Finding("IX-4", where, problem) for problem in found.problems]
            return changed + _check_shards(catalog, path, row, where, types)
    except (StorageFull, ResourceExhausted):
        raise  # the check had no room for its copy, or no descriptor: no finding about the generation
    except (ShadowSwitchError, OSError) as error:
        again = catalog.generation(row.number)
        if again is None or again.role is GenerationRole.RETIRING:
            return []
        return [Finding("IX-1", where, f"it is not whole: {error}")]


def _check_shards(catalog: Catalog, path: Path, row: GenerationRow, where: str, types: dict[int, str]) -> list[Finding]:
    backend = registry.backend(row.backend)
    findings: list[Finding] = []
    paths = shard_paths(path, row.shards)
    for place in paths:
        findings += [Finding("IX-4", f"{where} {place.name}", text) for text in backend.check(place, row.options)]
    try:
        with contextlib.closing(backend.open_reader(paths, row.options)) as reader:
            for shard in range(row.shards):
                check = _ShardCheck(catalog, row, backend, shard, f"{where} shard {shard}", types)
                findings += islice(check.run(reader), FINDINGS_MAX)
    except (CorruptData, ValueError, TypeError) as error:  # TypeError: a cut row has NULL where no NULL can be
        findings.append(Finding("IX-1", where, f"it is not whole: {error}"))
    return findings


class _ShardCheck:
    """IX-2, IX-3 and ST-6 for one shard."""

    def __init__(
        self, catalog: Catalog, row: GenerationRow, backend: Backend, shard: int, where: str, types: dict[int, str]
    ) -> None:
        self.catalog, self.row, self.backend, self.shard, self.where = catalog, row, backend, shard, where
        self.types = {number: name for number, name in types.items() if name in row.resource_types}
        self.held: dict[tuple[str, str], tuple[int, bytes]] = {}
        self.damaged: list[str] = []
        """The ids of damaged records of the type that is compared."""

    def run(self, reader: IndexReader) -> Iterator[Finding]:
        state, rows = reader.shard_snapshot(self.shard)
        own = Digest()
        for record in rows:
            key = (record.resource_type, record.id)
            hashed = key_hash(*key)
            own.add(hashed, record.lsn)
            if shard_of(bucket_of(hashed), self.row.shards) != self.shard:
                yield Finding("IX-3", self.where, f"{key} belongs to another shard")
            if key in self.held:
                yield Finding("IX-3", self.where, f"{key} has two rows")
            self.held[key] = (record.lsn, _content(record.fields))
        if own != state.digest:
            yield Finding("IX-2", self.where, f"counters say {state.digest!r}, rows say {own!r}")
        head, oldest = self.catalog.head(self.row.branch)
        if state.applied_lsn > head:
            yield Finding("ST-6", self.where, f"it is at LSN {state.applied_lsn}, ahead of its branch at {head}")
            return
        if state.applied_lsn + 1 < oldest and state.applied_lsn < head:
            yield Finding("ST-6", self.where, f"it is at LSN {state.applied_lsn}, the journal begins at {oldest}")
            return
        yield from self._against_source(state.applied_lsn)

    def _against_source(self, lsn: int) -> Iterator[Finding]:
        for number, name in self.types.items():
            cursor, done = b"", False
            buckets = buckets_of_shard(self.shard, self.row.shards)
            while not done:
                part = read_records(
                    self.catalog, self.row.branch, number, name, buckets, cursor, SLICE, self.damaged.append
                )
                cursor, done = part.cursor, part.done
                for item in part.items:
                    held = self.held.pop((item.resource_type, item.id), None)
                    if item.lsn > lsn:
                        continue  # changed since the snapshot
                    key = f"{item.resource_type} {item.id[:80]!r}"
                    if held is None:
                        yield Finding("IX-3", self.where, f"{key} of LSN {item.lsn} is missing at LSN {lsn}")
                    elif held[0] != item.lsn:
                        yield Finding("IX-3", self.where, f"{key} has LSN {held[0]}, its source {item.lsn}")
                    elif held[1] != _content(self.backend.project(self.row.options, item.fields or {})):
                        yield Finding("IX-3", self.where, f"{key} has other content than its source at LSN {item.lsn}")
            for id in self.damaged:
                if self.held.pop((name, id), None) is not None:
                    yield Finding("IX-3", self.where, f"{name} {id[:80]!r} has a source that is damaged")
            self.damaged.clear()
        if self.held:
            yield from self._not_in_source(lsn)

    def _not_in_source(self, lsn: int) -> Iterator[Finding]:
        after, head = lsn, self.catalog.head(self.row.branch)[0]
        while after < head:
            entries, after = read_slice(self.catalog, self.row.branch, after, head, SLICE)
            for entry in entries:
                self.held.pop((entry.resource_type, entry.id), None)
        for (name, id), (own, _) in self.held.items():
            yield Finding(
                "IX-3",
                self.where,
                f"{name} {id[:80]!r} of LSN {own} has a row, and no record in its source at LSN {lsn}",
            )


def _content(fields: dict[str, Any]) -> bytes:
    return blake2b(msgspec.json.encode(fields, order="deterministic"), digest_size=8).digest()
