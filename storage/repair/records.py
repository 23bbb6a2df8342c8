"""Damaged records, and records without a checksum: found in slices, mended in short transactions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from shadowswitch.model.errors import CorruptData, ShadowSwitchError
from shadowswitch.model.records import Record
from shadowswitch.model.shadow_state import OPEN_ROLES, GenerationRole
from shadowswitch.model.views import Finding
from shadowswitch.storage import data_directory
from shadowswitch.storage.backends import registry
from shadowswitch.storage.backends.protocol import IndexReader
from shadowswitch.storage.catalog import keys
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal import chunks
from shadowswitch.storage.catalog.journal_format import entries_of, fragments_of, has_checksum
from shadowswitch.storage.catalog.rows import BranchRow, GenerationRow
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.generations.directory import shard_paths, shared_pin
from shadowswitch.storage.repair.copies import Copy, Damaged, of_generation, prove
from shadowswitch.storage.repair.digests import PAUSE_S
from shadowswitch.storage.repair.faults import Fault, Readable, Transact
from shadowswitch.storage.repair.journal import JournalRepair

SLICE = 100
"""Records read, or given a checksum, with nothing in between."""
DAMAGED_MAX = 1_000
"""Of one branch in one repair; the next one takes the rest."""


class RecordRepair:
    """The records of one branch. `run` is its whole life."""

    def __init__(
        self,
        catalog: Catalog,
        root: Path,
        branch: BranchRow,
        transact: Transact,
        journal: JournalRepair,
        readable: Readable,
    ) -> None:
        self._catalog, self._root, self._branch = catalog, root, branch
        self._journal, self._readable = journal, readable
        self._transact = transact
        self._damaged: list[Damaged] = []
        self.upgraded = 0
        """Records that got a checksum."""

    def find(self, types: dict[int, str]) -> None:
        """Find what is damaged, and give every other record a checksum."""
        with contextlib.ExitStack() as stack:
            readers = list(self._readers(stack))
            for number, name in types.items():
                cursor = keys.TYPE_PREFIX.pack(self._branch.number, number)
                while cursor:
                    cursor, bare = self._slice(cursor, number, name)
                    bare = [(key, value) for key, value in bare if self._agrees(name, key, value, readers)]
                    if bare:
                        self.upgraded += self._transact(partial(_upgrade, bare=bare), "repair")
                    self._catalog.clock.sleep(PAUSE_S)

    def _slice(self, cursor: bytes, number: int, name: str) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """The next key to begin with (b"" at the end), and the sound records without a checksum."""
        prefix = keys.TYPE_PREFIX.pack(self._branch.number, number)
        bare: list[tuple[bytes, bytes]] = []
        with self._catalog.read() as txn:
            position = txn.cursor(self._catalog.db["records"])
            there = position.set_range(cursor)
            for _ in range(SLICE):
                if not there or bytes(position.key()[: len(prefix)]) != prefix:
                    return b"", bare
                key, value = position.item()
                try:
                    lsn, id, fields = keys.split_record(key, value)
                    if keys.is_tombstone(value):
                        there = position.next()
                        continue
                    keys.decode_fields(fields)
                    self._journal.offer(lsn, name, id, fields)
                    if not keys.has_checksum(value):
                        bare.append((bytes(key), bytes(value)))
                except CorruptData:
                    if len(self._damaged) < DAMAGED_MAX:
                        self._damaged.append(Damaged(self._branch, name, bytes(key), bytes(value)))
                there = position.next()
            return bytes(position.key()) if there else b"", bare

    def _agrees(self, name: str, key: bytes, value: bytes, readers: list[tuple[GenerationRow, IndexReader]]) -> bool:
        """No generation holds other content at the same LSN: a checksum must not make damage look sound."""
        lsn, id, encoded = keys.split_record(key, value)
        fields = keys.decode_fields(encoded)
        for row, reader in readers:
            if name in row.resource_types:
                held = _held(reader, name, id)
                projected = registry.backend(row.backend).project(row.options, fields)
                if held is not None and held.lsn == lsn and held.fields != projected:
                    return False
        return True

    def faults(self) -> Iterator[Fault]:
        """The damaged records that `find` found and a proven copy exists of."""
        if not self._damaged:
            return
        copies = self._journal_copies()
        with contextlib.ExitStack() as stack:
            readers = list(self._readers(stack))
            for damaged in self._damaged:
                where = f"branch {self._branch.name!r}"
                finding = Finding("ST-4", where, f"the record {damaged.name} of LSN {damaged.lsn} is damaged")
                key = (damaged.resource_type, damaged.id)
                held = [copies[key]] if key in copies else []
                for row, reader in readers:
                    found = _held(reader, *key) if damaged.resource_type in row.resource_types else None
                    if found is not None:
                        held.append(of_generation(row.number, found))
                proven = prove(damaged, held)
                if proven is not None:
                    yield Fault(finding, proven.proof, partial(_put_back, damaged=damaged, value=proven.value))

    def _journal_copies(self) -> dict[tuple[str, str], Copy]:
        """The last change of each damaged record, unless the journal has no entry of it or a delete."""
        wanted = {(damaged.resource_type, damaged.id) for damaged in self._damaged}
        copies: dict[tuple[str, str], Copy] = {}
        after: int | None = 0
        while after is not None:
            after = self._chunk_copies(after, wanted, copies)
            self._catalog.clock.sleep(PAUSE_S)
        return copies

    def _chunk_copies(
        self, after: int, wanted: set[tuple[str, str]], copies: dict[tuple[str, str], Copy]
    ) -> int | None:
        """Read some chunks behind an LSN; returns the LSN that they reach, None at the end."""
        with self._catalog.read() as txn:
            for at, (last, value) in enumerate(chunks(txn, self._catalog, self._branch.number, after), 1):
                try:
                    entries, _ = entries_of(last, value)
                except CorruptData:  # a later change of any of them may have been here
                    copies.update({key: copy._replace(proven=False) for key, copy in copies.items()})
                    entries = []
                for at_entry, entry in enumerate(entries):
                    key = (entry.resource_type, entry.id)
                    if key not in wanted:
                        continue
                    copies.pop(key, None)
                    if entry.fields is not None:
                        encoded = bytes(fragments_of(value)[at_entry][3])
                        source = f"the journal entry of LSN {entry.lsn}"
                        copies[key] = Copy(source, entry.lsn, entry.fields, encoded, has_checksum(value))
                if at == SLICE:
                    return last
        return None

    def _readers(self, stack: contextlib.ExitStack) -> Iterator[tuple[GenerationRow, IndexReader]]:
        """The generations of the branch that can be read, the live ones first."""
        rows = [row for row in self._catalog.generations() if row.branch == self._branch.number and not row.opaque]
        for row in sorted(rows, key=lambda row: (row.role != GenerationRole.LIVE, -row.number)):
            if row.role not in OPEN_ROLES or not self._readable(row):
                continue
            with contextlib.suppress(ShadowSwitchError, OSError):  # a generation that is not whole has no copy
                path = data_directory.inside(self._root, row.path)
                stack.enter_context(shared_pin(path))
                reader = registry.backend(row.backend).open_reader(shard_paths(path, row.shards), row.options)
                stack.callback(reader.close)
                yield row, reader


def _held(reader: IndexReader, name: str, id: str) -> Record | None:
    try:
        return reader.get(name, id)
    except (ShadowSwitchError, OSError):  # damaged as well: it has no copy
        return None


def _upgrade(commit: Commit, bare: list[tuple[bytes, bytes]]) -> int:
    """Give records a checksum, except those that were written again since they were read."""
    number = 0
    for key, value in bare:
        if commit.txn.get(key, db=commit.db["records"]) == value:
            lsn, id, fields = keys.split_record(key, value)
            content = bytes(fields)
            body = keys.body_checksum(id.encode(), content)
            commit.txn.put(key, keys.record_value(key, lsn, id.encode(), content, body), db=commit.db["records"])
            number += 1
    return number


def _put_back(commit: Commit, damaged: Damaged, value: bytes) -> None:
    """Put a proven record back, unless it was written again meanwhile."""
    if commit.txn.get(damaged.key, db=commit.db["records"]) == damaged.value:
        commit.txn.put(damaged.key, value, db=commit.db["records"])
