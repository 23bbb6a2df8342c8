"""Reading the journal and the records: slices, each in one short read transaction.

Who needs a stretch of the journal calls `read_slice` again and again; a slice ends at the end of a write batch, so that
whoever applies a whole slice in one transaction shows whole batches (an index of several shards: shard by shard).
`coalesce` keeps the last change of each key.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lmdb
import msgspec

from shadowswitch.model.digest import bucket_of, key_hash, shard_of
from shadowswitch.model.errors import JournalTrimmed
from shadowswitch.model.records import Change, Item, Record
from shadowswitch.storage import keys
from shadowswitch.storage.catalog import Catalog

SLICE_BYTES_MAX = 4 << 20
"""A slice of large records ends early, so that it stays small in memory and short in time."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One journal entry, its fields still encoded."""

    lsn: int
    kind: int
    type_number: int
    batch_lsn: int
    key_hash: int
    id: bytes
    fields: bytes


def _entry(lsn: int, value: memoryview) -> Entry:
    _, kind, type_number, batch_lsn, hashed, length = keys.JOURNAL_HEADER.unpack_from(value)
    start = keys.JOURNAL_HEADER.size
    return Entry(
        lsn, kind, type_number, batch_lsn, hashed, bytes(value[start : start + length]), bytes(value[start + length :])
    )


def read_slice(catalog: Catalog, branch: int, after: int, upto: int, limit: int) -> tuple[list[Entry], int]:
    """The changes of a branch with LSNs in (after, upto], about `limit` of them, cut at the end of a batch.

    Returns the entries and the LSN up to which they reach: `upto` itself when there is nothing left below it.
    Raises JournalTrimmed when changes after `after` are gone.
    """
    entries: list[Entry] = []
    size = 0
    with catalog.read() as txn:
        head, oldest = catalog.head_in(txn, branch)
        if after + 1 < oldest and after < head:
            raise trimmed(after, oldest)
        for lsn, value in _scan(txn, catalog, branch, after, upto):
            entry = _entry(lsn, value)
            entries.append(entry)
            size += len(entry.fields)
            if entry.lsn == entry.batch_lsn and (len(entries) >= limit or size >= SLICE_BYTES_MAX):
                return entries, entry.lsn
    return entries, upto


def _scan(txn: lmdb.Transaction, catalog: Catalog, branch: int, after: int, upto: int) -> Iterator[tuple[int, Any]]:
    cursor = txn.cursor(catalog.db["journal"])
    if not cursor.set_range(keys.JOURNAL_KEY.pack(branch, after + 1)):
        return
    last = keys.JOURNAL_KEY.pack(branch, upto)
    for key, value in cursor:
        if bytes(key) > last:
            return
        yield keys.JOURNAL_KEY.unpack(key)[1], value


def trimmed(after: int, oldest: int) -> JournalTrimmed:
    """The error for a reader that comes too late."""
    return JournalTrimmed(
        f"changes after LSN {after} were asked for, but the journal begins at {oldest}",
        oldest_lsn=oldest,
        operation="changes",
        hint="read the present records with scan(), then go on with changes(after=head)",
    )


def coalesce(entries: list[Entry], types: dict[int, str], shards: int) -> list[list[Item]]:
    """The last change of every key of these types, as items by shard, in LSN order."""
    last: dict[tuple[int, bytes], Entry] = {}
    for entry in entries:
        if entry.type_number in types:
            last[entry.type_number, entry.id] = entry
    by_shard: list[list[Item]] = [[] for _ in range(shards)]
    for entry in sorted(last.values(), key=lambda e: e.lsn):
        fields = keys.decode_fields(entry.fields) if entry.kind == keys.PUT else None
        item = Item(entry.lsn, types[entry.type_number], str(entry.id, "utf-8"), entry.key_hash, fields)
        by_shard[shard_of(bucket_of(entry.key_hash), shards)].append(item)
    return by_shard


def changes(catalog: Catalog, branch: int, after: int, limit: int) -> list[Change]:
    """Up to `limit` changes of a branch after an LSN, in order, with the full image each of them wrote."""
    names = catalog.types()
    found: list[Change] = []
    with catalog.read() as txn:
        head, oldest = catalog.head_in(txn, branch)
        if after + 1 < oldest and after < head:
            raise trimmed(after, oldest)
        for lsn, value in _scan(txn, catalog, branch, after, (1 << 64) - 1):
            entry = _entry(lsn, value)
            if entry.type_number not in names:  # a type that came with a commit after `names` was read
                break
            fields = keys.decode_fields(entry.fields) if entry.kind == keys.PUT else None
            kind = keys.KIND_NAMES[entry.kind]
            found.append(Change(lsn, kind, names[entry.type_number], str(entry.id, "utf-8"), fields))
            if len(found) >= limit:
                break
    return found


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
    """A slice of a scan; `cursor` is the key to go on after, `done` says that the range is exhausted."""

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
                cursor = last  # of a record of this range, never of what lies behind it
                lsn, id, fields = keys.split_record(value)
                items.append(Item(lsn, resource_type, id, key_hash(resource_type, id), keys.decode_fields(fields)))
                size += len(value)
                if len(items) >= limit or size >= SLICE_BYTES_MAX:
                    return RecordSlice(items, cursor, False, size)
    return RecordSlice(items, cursor, True, size)


def head_of(catalog: Catalog, branch: int) -> int:
    """The LSN of the branch's last change."""
    return catalog.head(branch)[0]


def journal_begin(catalog: Catalog, txn: lmdb.Transaction, branch: int) -> int | None:
    """The LSN of the oldest change that a branch's journal holds; None when it holds none. O(1)."""
    prefix = keys.BRANCH.pack(branch)
    cursor = txn.cursor(catalog.db["journal"])
    if not cursor.set_range(prefix):
        return None
    key = bytes(cursor.key())
    return int(keys.JOURNAL_KEY.unpack(key)[1]) if key[: len(prefix)] == prefix else None
