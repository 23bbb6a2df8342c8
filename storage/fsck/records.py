"""fsck of records: every record of a range decodes, lies in its bucket, is in the journal; each bucket has its digest.

What a fork shows is read like its own records, so a fork takes as long as its parent (BR-1, BR-2).

A range goes from one place (branch, type, bucket) to another, as `keys.RECORD_PREFIX` has them. Cursors over records
and digests read it in order. A transaction ends behind a bucket once it has read SLICE records.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lmdb

from shadowswitch.model.digest import BUCKETS, Digest, bucket_of, key_hash
from shadowswitch.model.errors import CorruptData
from shadowswitch.model.views import Finding
from shadowswitch.storage.catalog import keys
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal_format import first_lsn
from shadowswitch.storage.catalog.rows import DROPPING, decode_branch
from shadowswitch.storage.catalog.source.versions import shown_records
from shadowswitch.storage.fsck.found import UNREADABLE, Bounded, undecoded
from shadowswitch.storage.reading import Count, no_look

SLICE = 2000
PLACE_BYTES, GROUP_BYTES = keys.RECORD_PREFIX.size, keys.TYPE_PREFIX.size
BEGIN, END = bytes(PLACE_BYTES), b"\xff" * PLACE_BYTES


def check_records(catalog: Catalog, begin: bytes, end: bytes, looked: Count = no_look) -> list[Finding]:
    """ST-1 to ST-4 for the buckets from the place `begin` up to the place `end`, whose bucket is not checked."""
    found, place = Bounded(), begin
    while place < end:
        with catalog.read() as txn:
            part = _Slice(catalog, txn, end, found)
            place = part.read(place)
        looked(part.rows)
    return found.findings


def next_group(txn: lmdb.Transaction, catalog: Catalog, place: bytes) -> bytes | None:
    """The first branch and type, at a place or behind it, that has a digest or a record; None behind the last."""
    found = []
    heads, records = txn.cursor(catalog.db["heads"]), txn.cursor(catalog.db["records"])
    there = heads.set_range(place[:GROUP_BYTES])
    while there and len(heads.key()) != GROUP_BYTES:
        there = heads.next()
    if there:
        found.append(bytes(heads.key()))
    if records.set_range(place):
        found.append(bytes(records.key()[:GROUP_BYTES]))
    return min(found, default=None)


def behind(prefix: bytes) -> bytes:
    """The first place behind all that begin with `prefix`."""
    number = int.from_bytes(prefix, "big") + 1
    return END if number >> 8 * len(prefix) else number.to_bytes(len(prefix), "big").ljust(PLACE_BYTES, b"\0")


class _Group:
    """A resource type of a branch, as of a transaction."""

    def __init__(self, catalog: Catalog, txn: lmdb.Transaction, prefix: bytes, branch_name: str, name: str) -> None:
        self.prefix = prefix
        self.branch, self.number = keys.TYPE_PREFIX.unpack(prefix)
        self.is_fork = bool(catalog.lineage_in(txn, self.branch).ancestors)
        self.name = name
        self.where = f"branch {branch_name!r}, type {name!r}"
        self.kept = Digest.stored(txn.get(prefix, db=catalog.db["heads"]))
        self.recomputed = Digest()
        self.oldest = catalog.head_in(txn, self.branch)[1]


class _Slice:
    """What one transaction reads."""

    def __init__(self, catalog: Catalog, txn: lmdb.Transaction, end: bytes, found: Bounded) -> None:
        self.rows = 0
        self._catalog, self._txn, self._end, self._found = catalog, txn, end, found
        self._last_lsn = catalog.number("last_lsn", txn)
        self._journal = txn.cursor(catalog.db["journal"])
        self._branch_name: tuple[int, str | None] = (0, None)

    def read(self, place: bytes) -> bytes:
        """Read at least SLICE records from a place on, or all up to the end. The place of the next one."""
        while self.rows < SLICE:
            prefix = next_group(self._txn, self._catalog, place)
            if prefix is None or prefix.ljust(PLACE_BYTES, b"\0") >= self._end:
                return END
            first = place[GROUP_BYTES] if place.startswith(prefix) else 0
            stop = self._end[GROUP_BYTES] if self._end.startswith(prefix) else BUCKETS
            try:
                group = self._group(prefix)
                reached = self._buckets(group, first, stop) if group is not None else stop
            except UNREADABLE as error:
                self._found.add(keys.BRANCH.unpack_from(prefix)[0], undecoded(error))
                reached = stop
            self.rows += 1  # for the digest
            place = prefix + bytes([reached]) if reached < BUCKETS else behind(prefix)
        return place

    def _group(self, prefix: bytes) -> _Group | None:
        """None for a dropped branch, and without a row of the branch and a name of the type, which others check."""
        branch, number = keys.TYPE_PREFIX.unpack(prefix)
        if self._branch_name[0] != branch:
            row = self._txn.get(prefix[: keys.BRANCH.size], db=self._catalog.db["branches"])
            stored = decode_branch(row) if row is not None else None
            self._branch_name = branch, stored.name if stored is not None and stored.state != DROPPING else None
        name = self._txn.get(keys.BRANCH.pack(number), db=self._catalog.db["types"])
        if self._branch_name[1] is None or name is None:
            return None
        return _Group(self._catalog, self._txn, prefix, self._branch_name[1], str(name, "utf-8", "replace"))

    def _buckets(self, group: _Group, first: int, stop: int) -> int:
        """Check buckets up to `stop`, or fewer once there are SLICE records; the first that was not checked."""
        bucket, reached = first, stop
        for key, value in self._shown(group, first):
            if key[GROUP_BYTES] != bucket:
                bucket = key[GROUP_BYTES]
                if bucket >= stop:
                    break
                if self.rows >= SLICE:
                    reached = bucket
                    break
            self.rows += 1
            self._record(group, bucket, key, value)
        kept, recomputed = group.kept, group.recomputed
        for bucket in kept.differing(recomputed, range(first, reached)):
            self._found.add(
                group.branch,
                Finding(
                    "BR-1" if group.is_fork else "ST-3",
                    f"{group.where}, bucket {bucket}",
                    f"the digest has {kept.counts[bucket]} records, {kept.sums[bucket]:016x}; the stored records give"
                    f" {recomputed.counts[bucket]}, {recomputed.sums[bucket]:016x}",
                ),
            )
        return reached

    def _shown(self, group: _Group, first: int) -> Iterator[tuple[bytes, Any]]:
        """What the branch shows of the type, from a bucket on."""
        if group.is_fork:
            for bucket in range(first, BUCKETS):
                yield from shown_records(self._catalog, self._txn, group.branch, group.number, bucket)
            return
        cursor = self._txn.cursor(self._catalog.db["records"])
        there = cursor.set_range(group.prefix + bytes([first]))
        for view, value in cursor if there else ():
            key = bytes(view)
            if not key.startswith(group.prefix):
                return
            yield key, value

    def _record(self, group: _Group, bucket: int, key: bytes, value: Any) -> None:
        try:
            lsn, id, fields = keys.split_record(key, value)
            keys.decode_fields(fields)
        except Exception as error:
            lsn, id = keys.claimed_lsn(value), keys.claimed_id(key, value)
            self._add(group, bucket, "ST-4", f"the record {id[:80]!r} of LSN {lsn} is damaged: {error}")
            if bucket_of(hashed := key_hash(group.name, id)) == bucket:
                group.recomputed.add(hashed, lsn)
            return
        hashed = key_hash(group.name, id)
        if hashed >> 58 == bucket:
            group.recomputed.add(hashed, lsn)
        else:
            self._add(group, bucket, "ST-4", f"{id!r} belongs to bucket {bucket_of(hashed)}")
        if lsn > self._last_lsn:
            self._add(group, bucket, "ST-1", f"{id!r} has LSN {lsn}, above the last LSN")
        if lsn >= group.oldest and not self._has_entry(group.branch, lsn):
            where = f"{group.where}, bucket {bucket}, {id[:80]!r}"
            problem = f"it has LSN {lsn}, and the journal has no entry at that LSN"
            self._found.add(group.branch, Finding("ST-2", where, problem))

    def _add(self, group: _Group, bucket: int, invariant: str, problem: str) -> None:
        self._found.add(group.branch, Finding(invariant, f"{group.where}, bucket {bucket}", problem))

    def _has_entry(self, branch: int, lsn: int) -> bool:
        """ST-2 from the side of the record. A chunk that does not decode is a finding of the check of the journal."""
        if not self._journal.set_range(keys.JOURNAL_KEY.pack(branch, lsn)):
            return False
        number, last = keys.JOURNAL_KEY.unpack(self._journal.key())
        try:
            return number == branch and first_lsn(last, self._journal.value()) <= lsn
        except CorruptData:
            return True
