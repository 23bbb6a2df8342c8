"""fsck of one shard of a generation: its files, and every row against its source.

The shard is read as of one transaction of the shard, at an LSN H, and compared with the source; records that changed
after H are skipped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from shadowswitch.model.digest import Digest, bucket_of, buckets_of_shard, key_hash, shard_of
from shadowswitch.model.errors import CorruptData, ResourceExhausted, ShadowSwitchError, StorageFull
from shadowswitch.model.shadow_state import OPEN_ROLES, GenerationRole
from shadowswitch.model.views import Finding
from shadowswitch.storage import data_directory
from shadowswitch.storage.backends import registry
from shadowswitch.storage.backends.protocol import Backend, IndexReader
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal import read_records, read_slice
from shadowswitch.storage.catalog.rows import GenerationRow
from shadowswitch.storage.catalog.source.type_table import numbered
from shadowswitch.storage.catalog.transitions.removal import is_dropped
from shadowswitch.storage.fsck.found import FINDINGS_MAX, readable
from shadowswitch.storage.generations.directory import shard_paths, shared_pin
from shadowswitch.storage.generations.external_manifest import CheckDelivery, check_delivery
from shadowswitch.storage.generations.manifest import check_closed_files, check_manifest
from shadowswitch.storage.generations.shard_reading import probe
from shadowswitch.storage.reading import Count, Note, no_look, no_note
from shadowswitch.storage.shortages import shortages

SLICE = 2000


def check_generation(
    catalog: Catalog, root: Path, row: GenerationRow, shard: int, reading: Note = no_note, looked: Count = no_look
) -> list[Finding]:
    """Check one shard of a generation against its source; with shard 0 also what belongs to all shards.

    Raises StorageFull, ResourceExhausted when the check has no room, or cannot have what it needs.
    """
    where = f"generation {row.number} ({row.role} {row.index_type})"
    path = root / row.path
    is_whole = False
    try:
        data_directory.inside(root, row.path)
        with shortages("check", str(path)), shared_pin(path):
            again = catalog.generation(row.number)
            if again is None or again.role not in OPEN_ROLES:
                return []
            check_manifest(path, row, catalog.uuid)
            is_whole = True
            if row.opaque:
                found = check_delivery(CheckDelivery(str(path), row.shadow_id))
                return [Finding("IX-4", where, problem) for problem in found.problems]
            closed = check_closed_files(path, again.manifest_hash) if shard == 0 else []
            findings = [Finding("IX-8", where, problem) for problem in closed]
            findings += _check_shard(catalog, path, row, shard, where, reading, looked)
            return [] if findings and is_dropped(catalog, row.branch) else findings  # its source goes meanwhile
    except (StorageFull, ResourceExhausted):
        raise  # the check had no room for its copy, or no descriptor: no finding about the generation
    except (ShadowSwitchError, OSError) as error:
        again = catalog.generation(row.number)
        if again is None or again.role is GenerationRole.RETIRING or (shard and not is_whole):
            return []
        return [Finding("IX-1", where, f"it is not whole: {error}")]


def _check_shard(
    catalog: Catalog, path: Path, row: GenerationRow, shard: int, where: str, reading: Note, looked: Count
) -> list[Finding]:
    backend = registry.backend(row.backend)
    place = shard_paths(path, row.shards)[shard]
    reading(place)
    probed = probe(backend, place, row.options)
    if probed:  # its rows cannot be read without danger
        return [Finding("IX-4", f"{where} {place.name}", text) for text in probed]
    findings = [Finding("IX-4", f"{where} {place.name}", text) for text in backend.check(place, row.options)]
    types = readable(catalog.types, []) or {}  # the check of the catalog reports it
    try:
        with contextlib.closing(backend.open_reader([place], row.options)) as reader:
            check = _ShardCheck(catalog, row, backend, shard, f"{where} shard {shard}", types, looked)
            findings += islice(check.run(reader), FINDINGS_MAX)
    except (CorruptData, ValueError, TypeError) as error:  # TypeError: a cut row has NULL where no NULL can be
        findings.append(Finding("IX-1", where, f"it is not whole: {error}"))
    return findings


class _ShardCheck:
    """IX-2, IX-3 and ST-6 for one shard."""

    def __init__(
        self, catalog: Catalog, row: GenerationRow, backend: Backend, shard: int, where: str, types: dict[int, str],
        looked: Count,
    ) -> None:  # fmt: skip
        self.catalog, self.row, self.backend, self.shard, self.where = catalog, row, backend, shard, where
        self.looked = looked
        self.types = numbered(types, row.resource_types)
        self.held: dict[tuple[str, str], tuple[int, int]] = {}
        """LSN and content of each row that no record was compared with yet."""
        self.damaged: list[str] = []
        """The ids of damaged records of the type that is compared."""

    def run(self, reader: IndexReader) -> Iterator[Finding]:
        state, rows = reader.shard_snapshot(0)
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
            if len(self.held) % SLICE == 0:
                self.looked(SLICE)
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
                self.looked(len(part.items))
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


def _content(fields: dict[str, Any]) -> int:
    return hash(msgspec.json.encode(fields, order="deterministic"))
