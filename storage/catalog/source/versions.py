"""The versions of a record that a branch shows: its own, an old image, or one of an ancestor.

A fork stores only what it changed itself: records, and tombstones for what it deleted. What it did not change is that
of its parent as of the LSN of the fork. So a branch with forks saves the old image of a record at its first overwrite
since the newest fork:

    undo    key of the record, NUL, LSN u64 counted down from the greatest    -> the record, or a tombstone, as it was

A record that a fork deleted, or deleted again, has a tombstone among its records. A branch without a parent has its
tombstones in `undo`, and there only for a record with an older image: so its records stay what it shows.

    version of key K as of LSN L       own record, if its LSN <= L
                                       else the newest old image with an LSN <= L
                                       else that of the parent, as of the lower of L and the LSN of the fork

A key of another record may stand among the old images of one: ids of more than `ID_IN_KEY_MAX` bytes end with a hash.
So a place counts only if it has the right length. No id has a NUL: old images lie in the order of their records, except
among such long ids that begin alike. Invariants: BR-1, BR-2.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any

import lmdb

from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.keys import BRANCH, ID_IN_KEY_MAX, RECORD_PREFIX, SEQUENCE, claimed_lsn, is_tombstone
from shadowswitch.storage.catalog.rows import LSN_MAX
from shadowswitch.storage.catalog.source.fork_table import Lineage

Stored = tuple[bytes, Any]
"""A record as it is stored, with the key under which it was stored first."""
_FIRST = b"\0\xff"
"""How the LSN of each old image begins: below 2**56, counted down."""
BEHIND_PLACE = 1 + SEQUENCE.size
"""Bytes behind the key of the record."""
_LIKE_BYTES = RECORD_PREFIX.size + ID_IN_KEY_MAX


def undo_key(key: bytes, lsn: int) -> bytes:
    """The place of an old image: the newest one of a record comes first."""
    return key + b"\0" + SEQUENCE.pack(LSN_MAX - lsn)


def undo_lsn(key: bytes | memoryview) -> int:
    """The LSN of an old image, by its place."""
    return LSN_MAX - int(SEQUENCE.unpack(key[-SEQUENCE.size :])[0])


def old_images(txn: lmdb.Transaction, db: Mapping[str, Any], key: bytes, upto: int = LSN_MAX) -> Iterator[Stored]:
    """The old images of a record up to an LSN, the newest first, each with its place."""
    of_record = key + _FIRST
    cursor = txn.cursor(db["undo"])
    there = cursor.set_range(max(of_record, undo_key(key, upto)))
    while there and bytes(cursor.key()[: len(of_record)]) == of_record:
        if len(cursor.key()) == len(key) + BEHIND_PLACE:
            yield bytes(cursor.key()), cursor.value()
        there = cursor.next()


def old_image(txn: lmdb.Transaction, db: Mapping[str, Any], key: bytes, upto: int = LSN_MAX) -> Any | None:
    """The newest old image of a record up to an LSN, or None."""
    return next((value for _, value in old_images(txn, db, key, upto)), None)


def stored_version(
    txn: lmdb.Transaction, db: Mapping[str, Any], branch: int, lineage: Lineage, place: bytes, upto: int = LSN_MAX
) -> Stored | None:
    """The version of a record that a branch shows as of an LSN, also a tombstone; None if there is none.

    `place` is the key of the record without its branch.
    """
    key = BRANCH.pack(branch) + place
    value = txn.get(key, db=db["records"])
    if value is not None and (upto == LSN_MAX or claimed_lsn(value) <= upto):
        return key, value
    if upto < LSN_MAX and lineage.keeps and (value := old_image(txn, db, key, upto)) is not None:
        return key, value
    for number, cut in lineage.ancestors:
        key, cut = BRANCH.pack(number) + place, min(cut, upto)
        value = txn.get(key, db=db["records"])
        if value is None or claimed_lsn(value) > cut:
            value = old_image(txn, db, key, cut)
        if value is not None:
            return key, value
    return None


def shown(found: Stored | None) -> Stored | None:
    """A version that is a record; None for a tombstone."""
    return found if found is not None and not is_tombstone(found[1]) else None


def shown_records(
    catalog: Catalog, txn: lmdb.Transaction, branch: int, type_number: int, bucket: int, after: bytes = b""
) -> Iterator[Stored]:
    """What a branch shows of a bucket of a type, in the order of the places, behind the place `after`.

    Each with the key under which it is stored. Valid inside the transaction. A fork takes about 1 us more for each
    record and ancestor.
    """
    lineage = catalog.lineage_in(txn, branch)
    prefix = RECORD_PREFIX.pack(0, type_number, bucket)[BRANCH.size :]
    own = _records(catalog, txn, branch, prefix, after)
    if not lineage.ancestors:
        yield from ((key, value) for _, key, value in own)
        return
    sources = [own]
    for number, cut in lineage.ancestors:
        sources.append(_records(catalog, txn, number, prefix, after, cut))
        sources.append(_old_images(catalog, txn, number, prefix, after, cut))
    last = None
    for place, key, value in heapq.merge(*sources, key=itemgetter(0)):  # of like places the first source comes first
        if place != last and not is_tombstone(value):
            yield key, value
        last = place


def _records(
    catalog: Catalog, txn: lmdb.Transaction, branch: int, prefix: bytes, after: bytes, cut: int = LSN_MAX
) -> Iterator[tuple[bytes, bytes, Any]]:
    of_branch = BRANCH.pack(branch)
    begin = of_branch + prefix
    cursor = txn.cursor(catalog.db["records"])
    if not cursor.set_range(of_branch + after + b"\0" if after else begin):
        return
    for view, value in cursor:
        key = bytes(view)
        if not key.startswith(begin):
            return
        if cut == LSN_MAX or claimed_lsn(value) <= cut:
            yield key[BRANCH.size :], key, value


def _old_images(
    catalog: Catalog, txn: lmdb.Transaction, branch: int, prefix: bytes, after: bytes, cut: int
) -> Iterator[tuple[bytes, bytes, Any]]:
    begin = BRANCH.pack(branch)
    there = _from(txn, catalog.db["undo"], begin + prefix, begin + (after or prefix))
    for _, alike in groupby(there, lambda entry: entry[0][:_LIKE_BYTES]):
        found: dict[bytes, Any] = {}
        for view, value in alike:
            key = view[:-BEHIND_PLACE]
            if key[BRANCH.size :] > after and key not in found and undo_lsn(view) <= cut:  # the newest one comes first
                found[key] = value
        for key in sorted(found):
            yield key[BRANCH.size :], key, found[key]


def _from(txn: lmdb.Transaction, db: Any, prefix: bytes, begin: bytes) -> Iterator[tuple[bytes, Any]]:
    """The entries whose keys begin with `prefix`, from `begin` on."""
    cursor = txn.cursor(db)
    if cursor.set_range(begin):
        for view, value in cursor:
            key = bytes(view)
            if not key.startswith(prefix):
                return
            yield key, value
