"""fsck of the journals of branches, against the records."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from shadowswitch.model.digest import bucket_of, key_hash
from shadowswitch.model.views import Finding
from shadowswitch.storage.catalog import keys
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal import chunks
from shadowswitch.storage.catalog.journal_format import Entry, Fragment, entries_of, fragments_of
from shadowswitch.storage.catalog.rows import DROPPING, BranchRow, decode_branch
from shadowswitch.storage.catalog.source.versions import shown, stored_version
from shadowswitch.storage.catalog.transitions.removal import is_dropped
from shadowswitch.storage.fsck.found import UNREADABLE, first
from shadowswitch.storage.reading import Count, no_look

SLICE_CHUNKS = 300
BRANCHES = 1000
"""Rows of branches that are read at a time."""


def check_journals(catalog: Catalog, begin: int, end: int, looked: Count = no_look) -> list[Finding]:
    """ST-1, ST-2 and ST-4 for the journals of the branches with numbers in [begin, end)."""
    findings: list[Finding] = []
    while begin < end:
        branches, begin = _branches(catalog, begin, end)
        for branch in branches:
            found = first(check_journal(catalog, branch, looked)) if branch.state != DROPPING else []
            findings += [] if found and is_dropped(catalog, branch.number) else found  # its rows go meanwhile
    return findings


def _branches(catalog: Catalog, begin: int, end: int) -> tuple[list[BranchRow], int]:
    """The next branches, and the number behind them. A row that does not decode is a finding of another part."""
    found: list[BranchRow] = []
    with catalog.read() as txn:
        cursor = txn.cursor(catalog.db["branches"])
        if cursor.set_range(keys.BRANCH.pack(begin)):
            for key, value in islice(cursor, BRANCHES):
                begin = keys.BRANCH.unpack(key)[0] + 1
                if begin > end:
                    return found, end
                try:
                    found.append(decode_branch(value))
                except UNREADABLE:
                    continue
            return found, begin
    return found, end


def check_journal(catalog: Catalog, branch: BranchRow, looked: Count = no_look) -> Iterator[Finding]:
    """ST-1 and ST-2. A later delete must follow a put without a record."""
    check = _JournalCheck(catalog, branch)
    after = catalog.head(branch.number)[1] - 1
    overtaken = False  # by a trim, which removed chunks before this check had read them
    while True:
        with catalog.read() as txn:
            overtaken = overtaken or catalog.head_in(txn, branch.number)[1] > after + 1
            batch = list(islice(chunks(txn, catalog, branch.number, after), SLICE_CHUNKS))
            for reached, value in batch:
                yield from check.chunk(txn, reached, value)
        if not batch:
            break
        after = batch[-1][0]
        looked(check.taken())
    if not overtaken:
        yield from check.left()


class _JournalCheck:
    def __init__(self, catalog: Catalog, branch: BranchRow) -> None:
        self._catalog, self._branch = catalog, branch
        self._where = f"journal of branch {branch.name!r}"
        self._numbers: dict[str, int] = {}
        self._last = self._entries = 0
        self._missing: dict[tuple[str, str], int] = {}
        """The LSNs of puts without a record, which deletes must follow."""
        self._later: dict[tuple[str, str], int] = {}
        """The LSNs of records that later entries must have."""

    def chunk(self, txn: Any, reached: int, value: Any) -> list[Finding]:
        """Check a chunk against the records of the same transaction."""
        found: list[Finding] = []
        try:
            entries, _ = entries_of(reached, value)
            if entries[0].lsn <= self._last:
                text = f"the chunk up to LSN {reached} begins at or before LSN {self._last}"
                found.append(Finding("ST-1", self._where, text))
            for entry, fragment in zip(entries, fragments_of(value), strict=True):
                if entry.resource_type not in self._numbers:
                    self._numbers = self._catalog.types_in(txn).numbers
                problem = self._problem(txn, entry, self._numbers[entry.resource_type], fragment)
                if problem is not None:
                    name = f"{entry.resource_type} {entry.id[:80]!r}"
                    found.append(Finding(problem[0], self._where, f"{name} {problem[1]}"))
            self._entries += len(entries)
        except Exception as error:
            found.append(Finding("ST-4", self._where, f"the chunk up to LSN {reached} does not decode: {error}"))
        self._last = reached
        return found

    def _problem(self, txn: Any, entry: Entry, number: int, fragment: Fragment) -> tuple[str, str] | None:
        """The invariant that an entry and the record of its key break, and what breaks it."""
        record, lsn = (entry.resource_type, entry.id), entry.lsn
        if entry.key_hash != key_hash(*record):
            return "ST-4", f"of LSN {lsn} has the key hash of another record"
        id = entry.id.encode()
        key = keys.record_key(self._branch.number, number, bucket_of(entry.key_hash), id)
        stored: Any = txn.get(key, db=self._catalog.db["records"])
        if stored is None and self._branch.follows:  # its journal has the changes of its parent
            lineage = self._catalog.lineage_in(txn, self._branch.number)
            place = key[keys.BRANCH.size :]
            found = shown(stored_version(txn, self._catalog.db, self._branch.number, lineage, place))
            stored = found[1] if found is not None else None
        present = keys.claimed_lsn(stored) if stored is not None else 0
        if present > lsn:
            self._later[record] = present
        else:
            self._later.pop(record, None)
        if entry.fields is not None and present == 0:
            self._missing[record] = lsn
            return None
        if 0 < present < lsn:
            if entry.fields is not None:
                return "ST-2", f"was written at LSN {lsn}, the record has LSN {present}"
            self._missing.pop(record, None)
            return "ST-2", f"was deleted at LSN {lsn}, and has a record of LSN {present}"
        self._missing.pop(record, None)
        if present == lsn and entry.fields is not None and id + bytes(fragment[3]) != keys.claimed_content(stored):
            return "ST-2", f"has other content than its journal entry at LSN {lsn}"
        return None

    def left(self) -> Iterator[Finding]:
        """What the whole journal leaves open."""
        for (name, id), lsn in self._missing.items():
            problem = f"{name} {id[:80]!r} was written at LSN {lsn}, not deleted since, and has no record"
            yield Finding("ST-2", self._where, problem)
        for (name, id), lsn in self._later.items():
            problem = f"{name} {id[:80]!r} has LSN {lsn}, and the journal has no entry of it at that LSN"
            yield Finding("ST-2", self._where, problem)

    def taken(self) -> int:
        """The number of entries since the last call."""
        entries, self._entries = self._entries, 0
        return entries
