"""The gap between stored digests and their records (ST-3).

A gap is what must be merged into a stored digest to make it right. Each write changes the digest and the records alike,
so a gap that was measured as of one transaction holds for every later one, and the JournalWriter merges it in O(1).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import lmdb

from shadowswitch.model.digest import Digest, key_hash
from shadowswitch.model.errors import CorruptData
from shadowswitch.storage.catalog import keys
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.source.versions import shown_records

SLICE = 256
PAUSE_S = 0.001
"""After each slice other threads have the interpreter."""


def measure_gaps(
    catalog: Catalog, branch: int, types: Mapping[int, str], buckets: Collection[int]
) -> tuple[dict[int, Digest], list[tuple[int, int]]]:
    """The gap of each type, in these buckets; and the (type, bucket)s left out because a record there is damaged."""
    gaps: dict[int, Digest] = {}
    left_out: list[tuple[int, int]] = []
    for number, name in types.items():
        total = gaps[number] = Digest()
        for bucket in buckets:
            with catalog.read() as txn:
                counted = _count(catalog, txn, branch, number, name, bucket)
                kept = stored_digest(catalog, txn, branch, number)
            if counted is None:
                left_out.append((number, bucket))
            else:
                total.merge(counted.minus(kept, [bucket]))
    return gaps, left_out


def stored_digest(catalog: Catalog, txn: lmdb.Transaction, branch: int, number: int) -> Digest:
    """The digest of a type of a branch as of a transaction; empty if there is none."""
    return Digest.stored(txn.get(keys.TYPE_PREFIX.pack(branch, number), db=catalog.db["heads"]))


def _count(catalog: Catalog, txn: lmdb.Transaction, branch: int, number: int, name: str, bucket: int) -> Digest | None:
    """The digest of the records of a bucket; None if one of them is damaged."""
    counted = Digest()
    for at, (key, value) in enumerate(shown_records(catalog, txn, branch, number, bucket), 1):
        try:
            lsn, id, _ = keys.split_record(key, value)
        except CorruptData:
            return None
        counted.add(key_hash(name, id), lsn)
        if at % SLICE == 0:
            catalog.clock.sleep(PAUSE_S)
    return counted
