"""Comparing a fork with its parent, in slices: each is one short transaction, and other threads run in between."""

from __future__ import annotations

from collections.abc import Iterator

from shadowswitch.model.errors import JournalTrimmed
from shadowswitch.model.forks.merging import same
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal import read_slice
from shadowswitch.storage.catalog.keys import BRANCH, SEQUENCE, TYPE_PREFIX, claimed_id, claimed_lsn
from shadowswitch.storage.catalog.rows import BranchRow
from shadowswitch.storage.catalog.source.own_changes import SLICE, Sides, own_changes, sides_of

PAUSE_S = 0.0005
"""After each slice other threads have the interpreter."""
SCANNED = 2_000
"""Keys that one transaction reads in search of what a parent changed."""


def changed_on_fork(catalog: Catalog, fork: BranchRow, resource_type: str | None = None) -> Iterator[list[Sides]]:
    """What a fork changed itself, of one type or of all, with its parent as it is now. Raises CorruptData."""
    after: bytes | None = b""
    while after is not None:
        found, after = own_changes(catalog, fork, after, resource_type)
        yield [sides for sides in found if not same(sides.ours.fields, sides.base.fields)]
        catalog.clock.sleep(PAUSE_S)


def changed_on_parent(catalog: Catalog, fork: BranchRow, upto: int) -> Iterator[list[Sides]]:
    """What a parent changed between the LSN of its fork and another one. Raises CorruptData.

    Costs as much as the parent's journal of that time, while it is kept; else as much as the parent has records.
    """
    try:
        changed = list(_by_journal(catalog, fork, upto))
    except JournalTrimmed:
        changed = list(dict.fromkeys(_by_records(catalog, fork)))
    for begin in range(0, len(changed), SLICE):
        compared = sides_of(catalog, fork, changed[begin : begin + SLICE], upto)
        yield [sides for sides in compared if sides.theirs.lsn != sides.base.lsn]
        catalog.clock.sleep(PAUSE_S)


def _by_journal(catalog: Catalog, fork: BranchRow, upto: int) -> Iterator[tuple[str, str]]:
    after, seen = fork.fork_lsn, set[tuple[str, str]]()
    while after < upto:
        entries, after = read_slice(catalog, fork.parent, after, upto, SCANNED)
        seen.update((entry.resource_type, entry.id) for entry in entries)
        catalog.clock.sleep(PAUSE_S)
    yield from sorted(seen)


def _by_records(catalog: Catalog, fork: BranchRow) -> Iterator[tuple[str, str]]:
    """Records that are newer than the fork, and every record that has an old image."""
    names, prefix = catalog.types(), BRANCH.pack(fork.parent)
    for database, behind in (("records", 0), ("undo", SEQUENCE.size)):
        after = prefix
        while after:
            found: list[tuple[str, str]] = []
            with catalog.read() as txn:
                cursor = txn.cursor(catalog.db[database])
                there = cursor.set_range(after)
                for _ in range(SCANNED):
                    if not there or not bytes(cursor.key()).startswith(prefix):
                        there = False
                        break
                    key, value = bytes(cursor.key()), cursor.value()
                    if behind or claimed_lsn(value) > fork.fork_lsn:
                        name = names[TYPE_PREFIX.unpack_from(key)[1]]
                        found.append((name, claimed_id(key[: len(key) - behind], value)))
                    there = cursor.next()
                after = bytes(cursor.key()) if there else b""
            yield from found
            catalog.clock.sleep(PAUSE_S)
