"""Comparing a fork with its parent, in slices: each is one short transaction, and other threads run in between."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import product

from shadowswitch.model.errors import InvalidConfig, JournalTrimmed
from shadowswitch.model.forks.merging import same
from shadowswitch.model.forks.views import DiffKind, DiffPage, RecordDiff
from shadowswitch.model.names import check_named_branch
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal import read_slice
from shadowswitch.storage.catalog.keys import (
    BRANCH,
    ID_IN_KEY_MAX,
    RECORD_PREFIX,
    TYPE_PREFIX,
    claimed_id,
    claimed_lsn,
)
from shadowswitch.storage.catalog.rows import BranchRow
from shadowswitch.storage.catalog.source.branch_pages import branch_rows
from shadowswitch.storage.catalog.source.own_changes import SLICE, Sides, own_changes, sides_of
from shadowswitch.storage.catalog.source.versions import BEHIND_PLACE

PAUSE_S = 0.0005
"""After each slice other threads have the interpreter."""
SCANNED = 2_000
"""Keys that one transaction reads in search of what a parent changed."""
PAGE_SLICES_MAX = 250
"""Slices of the comparison that one page of a diff reads: 10,000 records of the fork."""
PLACE_ID_BYTES_MAX = ID_IN_KEY_MAX + 32
TYPE_NUMBER = struct.Struct(">I")
"""At the begin of a place."""


def fork_and_parent(catalog: Catalog, name: str, parent: str | None, operation: str) -> tuple[BranchRow, BranchRow]:
    """A fork as it is stored now, and its parent. Raises UnknownBranch; InvalidConfig if it is none, or of another."""
    check_named_branch(name)
    fork = catalog.branch(name)
    of = branch_rows(catalog, [fork.parent]).get(fork.parent)
    if of is None:
        raise InvalidConfig(
            f"branch {name!r} is no fork", operation=operation, object=name, hint="make forks with fork_branch"
        )
    if parent is not None:
        check_named_branch(parent)
        if catalog.branch(parent).number != of.number:
            raise InvalidConfig(
                f"{name!r} is a fork of {of.name!r}, not of {parent!r}",
                operation=operation,
                object=name,
                hint=f"use {of.name!r}; from there its changes can be merged on, one branch after the other",
            )
    return fork, of


def diff_of(sides: Sides) -> RecordDiff:
    """What a fork did to a record."""
    kind = DiffKind.ADDED if sides.base.fields is None else DiffKind.CHANGED
    if sides.ours.fields is None:
        kind = DiffKind.DELETED
    return RecordDiff(sides.resource_type, sides.id, kind, sides.base.lsn, sides.ours.lsn, sides.theirs.lsn)


def diff_page(catalog: Catalog, fork: BranchRow, resource_type: str | None, cursor: str | None, limit: int) -> DiffPage:
    """The next entries of a diff, at most `limit` of them. Raises InvalidConfig for a cursor of something else."""
    after: bytes | None = _place(catalog, resource_type, cursor)
    found: list[RecordDiff] = []
    last = b""
    for _ in range(PAGE_SLICES_MAX):
        compared, after = own_changes(catalog, fork, after or b"", resource_type)
        for sides in compared:
            if same(sides.ours.fields, sides.base.fields):
                continue
            if len(found) == limit:  # there is one more: the next page begins behind the last one of this page
                return DiffPage(found, last.hex())
            found.append(diff_of(sides))
            last = sides.place
        if after is None:
            return DiffPage(found, None)
        catalog.clock.sleep(PAUSE_S)
    return DiffPage(found, after.hex() if after else None)


def _place(catalog: Catalog, resource_type: str | None, cursor: str | None) -> bytes:
    """The place of a record, by a cursor. Raises InvalidConfig for one that is not of a diff of this type."""
    if cursor is None:
        return b""
    try:
        place = bytes.fromhex(cursor)
    except (TypeError, ValueError):
        place = b""
    of_type = TYPE_NUMBER.pack(catalog.type_numbers().get(resource_type, 0)) if resource_type is not None else b""
    begin = RECORD_PREFIX.size - BRANCH.size
    if not begin < len(place) <= begin + PLACE_ID_BYTES_MAX or not place.startswith(of_type):
        raise InvalidConfig("the cursor is not of this diff", operation="diff", hint="begin again without a cursor")
    return place


def changed_on_fork(catalog: Catalog, fork: BranchRow, resource_type: str | None = None) -> Iterator[list[Sides]]:
    """What a fork changed itself, of one type or of all, with its parent as it is now. Raises CorruptData."""
    after: bytes | None = b""
    while after is not None:
        found, after = own_changes(catalog, fork, after, resource_type)
        yield [sides for sides in found if not same(sides.ours.fields, sides.base.fields)]
        catalog.clock.sleep(PAUSE_S)


def moved_below(catalog: Catalog, fork: BranchRow) -> Iterator[list[Sides]]:
    """What a fork that follows changed itself, and its parent changed as well since then. Raises CorruptData."""
    after: bytes | None = b""
    while after is not None:
        found, after = own_changes(catalog, fork, after)
        yield [sides for sides in found if sides.theirs.lsn != sides.base.lsn]
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
    """Records that are newer than the fork, and every record that has an old image.

    Those of the parent, and of the branches that it follows.
    """
    names, parents = catalog.types(), [fork.parent]
    while (of := branch_rows(catalog, parents[-1:]).get(parents[-1])) is not None and of.follows:
        parents.append(of.parent)
    for number, (database, behind) in product(parents, (("records", 0), ("undo", BEHIND_PLACE))):
        prefix = after = BRANCH.pack(number)
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
                    name = names.get(TYPE_PREFIX.unpack_from(key)[1])  # None: of a type that came since
                    if name is not None and (behind or claimed_lsn(value) > fork.fork_lsn):
                        found.append((name, claimed_id(key[: len(key) - behind], value)))
                    there = cursor.next()
                after = bytes(cursor.key()) if there else b""
            yield from found
            catalog.clock.sleep(PAUSE_S)
