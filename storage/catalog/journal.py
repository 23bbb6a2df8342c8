"""Reading the journal and the records: slices, each in one short read transaction.

`read_slice` returns the next slice of the journal. A slice ends at the end of a write batch, so that a shard that
applies a slice in one transaction shows whole batches; an index of several shards shows them shard by shard. `coalesce`
keeps the last change of each key.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Any

import lmdb
import msgspec

from shadowswitch.model.digest import bucket_of, key_hash, shard_of
from shadowswitch.model.errors import CorruptData, JournalTrimmed
from shadowswitch.model.records import Change, Item, Record
from shadowswitch.storage.catalog import keys
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal_format import Entry, entries_of, first_lsn

SLICE_BYTES_MAX = 4 << 20
"""A slice of large records ends early, so that it stays small in memory and short in time."""


def read_slice(catalog: Catalog, branch: int, after: int, upto: int, limit: int) -> tuple[list[Entry], int]:
    """The changes of a branch with LSNs in (after, upto], about `limit` of them, cut at the end of a batch.

    Returns the entries and the LSN up to which they reach: `upto` when nothing is left below it. Raises JournalTrimmed
    when the journal no longer holds every change after `after`.
    """
    entries: list[Entry] = []
    size = 0
    with catalog.read() as txn:
        head, oldest = catalog.head_in(txn, branch)
        if after + 1 < oldest and after < head:
            raise trimmed(after, oldest)
        for last, value in chunks(txn, catalog, branch, after):
            found, batch_lsn = entries_of(last, value)
            if found[0].lsn <= after or last > upto:
                found = [entry for entry in found if after < entry.lsn <= upto]
            entries += found
            size += len(value)
            if last >= upto:
                break
            if last == batch_lsn and (len(entries) >= limit or size >= SLICE_BYTES_MAX):
                return entries, last
    return entries, upto


def chunks(txn: lmdb.Transaction, catalog: Catalog, branch: int, after: int) -> Iterator[tuple[int, Any]]:
    """The chunks of a branch's journal that hold changes after an LSN: their last LSNs and values, in order."""
    cursor = txn.cursor(catalog.db["journal"])
    if not cursor.set_range(keys.JOURNAL_KEY.pack(branch, after + 1)):
        return
    for key, value in cursor:
        number, last = keys.JOURNAL_KEY.unpack(key)
        if number != branch:
            return
        yield last, value


def trimmed(after: int, oldest: int) -> JournalTrimmed:
    """The error for a reader whose position is older than the journal."""
    return JournalTrimmed(
        f"changes after LSN {after} were asked for, but the journal begins at {oldest}",
        oldest_lsn=oldest,
        operation="changes",
        hint="read the present records with scan(), then go on with changes(after=head)",
    )


def coalesce(entries: list[Entry], types: Collection[str], shards: int) -> list[list[Item]]:
    """The last change of every key of these types, as items by shard, in LSN order."""
    last: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        if entry.resource_type in types:
            last[entry.resource_type, entry.id] = entry
    by_shard: list[list[Item]] = [[] for _ in range(shards)]
    for entry in sorted(last.values(), key=_by_lsn):
        by_shard[shard_of(bucket_of(entry.key_hash), shards)].append(entry.item())
    return by_shard


def _by_lsn(entry: Entry) -> int:
    return entry.lsn


def changes(catalog: Catalog, branch: int, after: int, limit: int) -> list[Change]:
    """Up to `limit` changes of a branch after an LSN, in order, each with the full image that it wrote."""
    found: list[Change] = []
    with catalog.read() as txn:
        head, oldest = catalog.head_in(txn, branch)
        if after + 1 < oldest and after < head:
            raise trimmed(after, oldest)
        for last, value in chunks(txn, catalog, branch, after):
            found += [entry.change() for entry in entries_of(last, value)[0] if entry.lsn > after]
            if len(found) >= limit:
                break
    return found[:limit]


def get_record(catalog: Catalog, branch: int, types: dict[str, int], resource_type: str, id: bytes) -> Record | None:
    """One record, or None."""
    number = types.get(resource_type)
    if number is None:
        return None
    name = str(id, "utf-8")
    bucket = bucket_of(key_hash(resource_type, name))
    with catalog.read() as txn:
        value = txn.get(keys.record_key(branch, number, bucket, id), db=catalog.db["records"])
        if value is None:
            return None
        lsn, _, fields = keys.split_record(value)
        return Record(resource_type, name, keys.decode_fields(fields), lsn)


class RecordSlice(msgspec.Struct, frozen=True):
    """A slice of a scan. The next one begins after the key `cursor`; `done` when the range is exhausted."""

    items: list[Item]
    cursor: bytes
    done: bool
    size_bytes: int


def read_records(
    catalog: Catalog, branch: int, type_number: int, resource_type: str, buckets: range, cursor: bytes, limit: int
) -> RecordSlice:
    """The next records of one type in a contiguous range of buckets, after `cursor` (b"": from the beginning).

    One read transaction. A slice ends after `limit` records or SLICE_BYTES_MAX.
    """
    items: list[Item] = []
    size = 0
    end = keys.RECORD_PREFIX.pack(branch, type_number, buckets[-1]) + b"\xff" * 500
    start = cursor + b"\0" if cursor else keys.RECORD_PREFIX.pack(branch, type_number, buckets[0])
    with catalog.read() as txn:
        position = txn.cursor(catalog.db["records"])
        if position.set_range(start):
            for key, value in position:
                last = bytes(key)
                if last > end:
                    break
                cursor = last  # the key of a record in this range, never of one behind it
                lsn, id, fields = keys.split_record(value)
                items.append(Item(lsn, resource_type, id, key_hash(resource_type, id), keys.decode_fields(fields)))
                size += len(value)
                if len(items) >= limit or size >= SLICE_BYTES_MAX:
                    return RecordSlice(items, cursor, False, size)
    return RecordSlice(items, cursor, True, size)


def journal_begin(catalog: Catalog, txn: lmdb.Transaction, branch: int) -> int | None:
    """The LSN of the oldest change that a branch's journal holds; None when it holds none. O(1)."""
    for last, value in chunks(txn, catalog, branch, 0):
        with contextlib.suppress(CorruptData):
            return first_lsn(last, value)
        return last
    return None
