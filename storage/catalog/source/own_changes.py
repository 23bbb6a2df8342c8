"""What a fork changed itself, and what its parent changed since: each record with its sides. In slices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import lmdb

from shadowswitch.model.digest import bucket_of, key_hash
from shadowswitch.model.errors import CorruptData, InvalidTransition
from shadowswitch.storage.catalog import keys
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.keys import BRANCH, TYPE_PREFIX
from shadowswitch.storage.catalog.rows import LSN_MAX, BranchRow
from shadowswitch.storage.catalog.source.followed import base_of
from shadowswitch.storage.catalog.source.versions import Stored, stored_version
from shadowswitch.storage.catalog.transaction import Commit

SLICE = 40
"""Records that one transaction reads: about a millisecond, so that a writer beside a merge has its turn."""
SLICE_BYTES = 1 << 20


class Side(NamedTuple):
    """A version of a record. `lsn` is 0 where there is none; `fields` is None there, and for a tombstone."""

    lsn: int
    fields: dict[str, Any] | None


class Sides(NamedTuple):
    """A record at the fork, on the fork, and on its parent. `place` is its key without the branch."""

    place: bytes
    resource_type: str
    id: str
    base: Side
    ours: Side
    theirs: Side


def own_changes(
    catalog: Catalog, fork: BranchRow, after: bytes, resource_type: str | None = None
) -> tuple[list[Sides], bytes | None]:
    """The next records that a fork has of its own, behind a place; and the place to go on from, None at the end.

    Of the same content as at the fork are those that were changed back. Raises CorruptData.
    """
    found: list[Sides] = []
    with catalog.read() as txn:
        table = catalog.types_in(txn)
        prefix = BRANCH.pack(fork.number)
        if resource_type is not None:
            prefix = TYPE_PREFIX.pack(fork.number, table.numbers.get(resource_type, 0))
        cursor = txn.cursor(catalog.db["records"])
        there = cursor.set_range(prefix[: BRANCH.size] + after + b"\0" if after else prefix)
        size = 0
        while there and bytes(cursor.key()[: len(prefix)]) == prefix:
            if len(found) == SLICE or size > SLICE_BYTES:
                return found, found[-1].place
            key, value = bytes(cursor.key()), cursor.value()
            size += len(value)
            name = table.names[TYPE_PREFIX.unpack_from(key)[1]]
            found.append(_sides(catalog, txn, fork, name, keys.claimed_id(key, value), key[BRANCH.size :], LSN_MAX))
            there = cursor.next()
    return found, None


def sides_of(catalog: Catalog, fork: BranchRow, records: Iterable[tuple[str, str]], upto: int) -> list[Sides]:
    """These records, (type, id), with the parent as of an LSN."""
    with catalog.read() as txn:
        numbers = catalog.types_in(txn).numbers
        return [_sides(catalog, txn, fork, name, id, place_of(numbers[name], name, id), upto) for name, id in records]


def place_of(type_number: int, resource_type: str, id: str) -> bytes:
    """The key of a record without its branch."""
    bucket = bucket_of(key_hash(resource_type, id))
    return keys.record_key(0, type_number, bucket, id.encode())[BRANCH.size :]


def _sides(
    catalog: Catalog, txn: lmdb.Transaction, fork: BranchRow, name: str, id: str, place: bytes, upto: int
) -> Sides:
    parent = catalog.lineage_in(txn, fork.parent)
    own = catalog.lineage_in(txn, fork.number)
    try:
        if fork.follows:
            base = _side(base_of(txn, catalog.db, fork.number, place))
        else:
            base = _side(stored_version(txn, catalog.db, fork.parent, parent, place, fork.fork_lsn))
        ours = _side(stored_version(txn, catalog.db, fork.number, own, place))
        theirs = _side(stored_version(txn, catalog.db, fork.parent, parent, place, upto))
    except CorruptData as error:
        raise CorruptData(
            f"the record {name} {id[:80]!r} of branch {fork.name!r}, or of its parent, is damaged: {error.message}",
            operation="compare",
            object=f"{name} {id}",
            hint=f"{keys.REPAIR}, or write the record again on both branches",
        ) from error
    return Sides(place, name, id, base, ours, theirs)


def _side(found: Stored | None) -> Side:
    if found is None:
        return Side(0, None)
    lsn, _, fields = keys.split_record(*found)
    return Side(lsn, None if keys.is_tombstone(found[1]) else keys.decode_fields(fields))


class Moved(InvalidTransition):
    """A record was written between its comparison and the transaction of the merge."""


def check_unmoved(commit: Commit, branch: int, expected: list[tuple[bytes, int]]) -> None:
    """In a transaction: raise Moved unless a branch shows these versions, each a place and an LSN (0: none).

    Raises UnknownBranch for a branch that was dropped: its records may be half gone.
    """
    commit.branch(branch)
    lineage = commit.lineage(branch)
    for place, lsn in expected:
        found = stored_version(commit.txn, commit.db, branch, lineage, place)
        if (keys.claimed_lsn(found[1]) if found is not None else 0) != lsn:
            raise Moved("a record was written while it was merged", operation="merge", hint="merge again")


def check_base(commit: Commit, fork: BranchRow) -> None:
    """In a transaction: raise InvalidTransition if a fork was rebased since it was compared with its base.

    Old images of the base may be gone then. Raises UnknownBranch for a fork that was dropped.
    """
    if commit.branch(fork.number).fork_lsn != fork.fork_lsn:
        raise InvalidTransition(
            f"branch {fork.name!r} was rebased meanwhile", operation="merge", object=fork.name, hint="merge again"
        )
