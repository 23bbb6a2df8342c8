"""Reading the journal and the records: slices, each in one short read transaction.

`read_slice` returns the next slice of the journal. A slice ends at the end of a write batch, so that a shard that
applies a slice in one transaction shows whole batches; an index of several shards shows them shard by shard. `coalesce`
keeps the last change of each key.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import lmdb
import msgspec

from shadowswitch.model.digest import bucket_of, key_hash, shard_of
from shadowswitch.model.errors import CorruptData, JournalTrimmed
from shadowswitch.model.records import Change, Item, Record
from shadowswitch.storage.catalog import keys
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal_format import Entry, entries_of, first_lsn
from shadowswitch.storage.catalog.rows import decode_branch
from shadowswitch.storage.catalog.source.versions import shown, shown_records, stored_version

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


def changes(catalog: Catalog, branch: int, after: int, limit: int, size_max_bytes: int | None = None) -> list[Change]:
    """Up to `limit` changes of a branch after an LSN, in order, each with the full image that it wrote.

    It ends early, at the end of a chunk, when the chunks are as large as `size_max_bytes`.
    """
    found: list[Change] = []
    size = 0
    with catalog.read() as txn:
        head, oldest = catalog.head_in(txn, branch)
        if after + 1 < oldest and after < head:
            raise trimmed(after, oldest)
        for last, value in chunks(txn, catalog, branch, after):
            found += [entry.change() for entry in entries_of(last, value)[0] if entry.lsn > after]
            size += len(value)
            if len(found) >= limit or (size_max_bytes is not None and size >= size_max_bytes):
                break
    return found[:limit]


def read_version(catalog: Catalog, branch: int, resource_type: str, id: str, lsn: int) -> dict[str, Any] | None:
    """The fields of a record as the change of an LSN wrote them; None when the journal does not hold that change."""
    with catalog.read() as txn:
        for last, value in chunks(txn, catalog, branch, lsn - 1):
            for entry in entries_of(last, value)[0]:
                if (entry.lsn, entry.resource_type, entry.id) == (lsn, resource_type, id):
                    return entry.fields
            return None
    return None


def get_record(catalog: Catalog, branch: int, resource_type: str, id: bytes) -> Record | None:
    """One record, or None."""
    return get_records(catalog, branch, [(resource_type, id)])[0]


def get_records(catalog: Catalog, branch: int, wanted: Sequence[tuple[str, bytes]]) -> list[Record | None]:
    """Each of these records, by resource type and id, or None, all as of one moment."""
    found: list[Record | None] = []
    with catalog.read() as txn:
        numbers = catalog.types_in(txn).numbers
        lineage = catalog.lineage_in(txn, branch)
        for resource_type, id in wanted:
            number, name = numbers.get(resource_type), str(id, "utf-8")
            record = None
            if number is not None:
                place = keys.record_key(branch, number, bucket_of(key_hash(resource_type, name)), id)
                stored = shown(stored_version(txn, catalog.db, branch, lineage, place[keys.BRANCH.size :]))
                if stored is not None:
                    lsn, _, fields = _content(catalog, txn, resource_type, *stored)
                    record = Record(resource_type, name, fields, lsn)
            found.append(record)
    return found


def _item(catalog: Catalog, txn: lmdb.Transaction, resource_type: str, key: Any, value: Any) -> Item:
    """A stored record. Raises as `_content`."""
    lsn, id, fields = _content(catalog, txn, resource_type, key, value)
    return Item(lsn, resource_type, id, key_hash(resource_type, id), fields)


def _content(
    catalog: Catalog, txn: lmdb.Transaction, resource_type: str, key: Any, value: Any
) -> tuple[int, str, dict[str, Any]]:
    """LSN, id and fields of a stored record. Raises CorruptData, with the name of the record, for a damaged one."""
    try:
        lsn, id, fields = keys.split_record(key, value)
        return lsn, id, keys.decode_fields(fields)
    except CorruptData as error:
        row = txn.get(key[: keys.BRANCH.size], db=catalog.db["branches"])
        branch = repr(decode_branch(row).name) if row is not None else keys.BRANCH.unpack_from(key)[0]
        id, lsn = keys.claimed_id(key, value), keys.claimed_lsn(value)
        raise CorruptData(
            f"the record {resource_type} {id[:80]!r} of branch {branch}, LSN {lsn}, is damaged: {error.message}",
            operation="read",
            object=f"{resource_type} {id}",
            hint=f"{keys.REPAIR}, or write the record again",
        ) from error


class RecordSlice(msgspec.Struct, frozen=True):
    """A slice of a scan. The next one begins after the key `cursor`; `done` when the range is exhausted."""

    items: list[Item]
    cursor: bytes
    done: bool
    size_bytes: int


def read_records(
    catalog: Catalog, branch: int, type_number: int, resource_type: str, buckets: range, cursor: bytes, limit: int,
    left_out: Callable[[str], None] | None = None,
) -> RecordSlice:  # fmt: skip
    """The next records of one type in a contiguous range of buckets, after `cursor` (b"": from the beginning).

    One read transaction. A slice ends after `limit` records or SLICE_BYTES_MAX. Raises CorruptData, with the name of
    the record, for a damaged one; with `left_out` it calls that with the id of the record, and continues.
    """
    items: list[Item] = []
    size = 0
    with catalog.read() as txn:
        for place, key, value in _shown_from(catalog, txn, branch, type_number, buckets, cursor):
            cursor = place  # in this range, never behind it
            size += len(value)
            try:
                items.append(_item(catalog, txn, resource_type, key, value))
            except CorruptData:
                if left_out is None:
                    raise
                left_out(keys.claimed_id(key, value))
            if len(items) >= limit or size >= SLICE_BYTES_MAX:
                return RecordSlice(items, cursor, False, size)
    return RecordSlice(items, cursor, True, size)


def read_unlike(
    catalog: Catalog, branch: int, type_number: int, resource_type: str, bucket: int, cursor: bytes, limit: int,
    versions: dict[tuple[str, str], int],
) -> RecordSlice:  # fmt: skip
    """The records that a shard with these `versions` has not, or has otherwise, among the next `limit` of a bucket.

    A key that a record has is taken out of `versions`. One read transaction, as `read_records`.
    """
    items: list[Item] = []
    size = looked = 0
    with catalog.read() as txn:
        for place, key, value in _shown_from(catalog, txn, branch, type_number, range(bucket, bucket + 1), cursor):
            cursor, looked = place, looked + 1
            try:
                lsn, id, _ = keys.split_record(key, value)
            except CorruptData:
                lsn, id = -1, ""  # `_item` names it
            if versions.pop((resource_type, id), None) != lsn:
                items.append(_item(catalog, txn, resource_type, key, value))
                size += len(value)
            if looked >= limit or size >= SLICE_BYTES_MAX:
                return RecordSlice(items, cursor, False, size)
    return RecordSlice(items, cursor, True, size)


def _shown_from(
    catalog: Catalog, txn: lmdb.Transaction, branch: int, type_number: int, buckets: range, cursor: bytes
) -> Iterator[tuple[bytes, bytes, Any]]:
    """What a branch shows in these buckets behind a cursor: the next cursor, and the record as it is stored."""
    if catalog.lineage_in(txn, branch).ancestors:
        of_branch, after = keys.BRANCH.pack(branch), cursor[keys.BRANCH.size :]
        first = cursor[keys.TYPE_PREFIX.size] if cursor else buckets[0]
        for bucket in range(first, buckets[-1] + 1):
            behind = after if bucket == first else b""
            for key, value in shown_records(catalog, txn, branch, type_number, bucket, behind):
                yield of_branch + key[keys.BRANCH.size :], key, value
        return
    end = keys.RECORD_PREFIX.pack(branch, type_number, buckets[-1]) + b"\xff" * 500
    position = txn.cursor(catalog.db["records"])
    if position.set_range(cursor + b"\0" if cursor else keys.RECORD_PREFIX.pack(branch, type_number, buckets[0])):
        for view, value in position:
            key = bytes(view)
            if key > end:
                return
            yield key, key, value


def types_with_records(catalog: Catalog, branch: int) -> Iterator[int]:
    """The numbers of the types of which a branch has records, in order, each looked for when it is asked for.

    Those of a fork are looked for at once, by its digests.
    """
    with catalog.read() as txn:
        is_fork = bool(catalog.lineage_in(txn, branch).ancestors)
        counted = sorted(catalog.counts_in(txn, branch)) if is_fork else []
    if is_fork:
        yield from counted
        return
    number = 0
    while True:
        with catalog.read() as txn:
            position = txn.cursor(catalog.db["records"])
            there = position.set_range(keys.TYPE_PREFIX.pack(branch, number))
            of, number = keys.TYPE_PREFIX.unpack_from(position.key()) if there else (0, 0)
        if not there or of != branch:
            return
        yield number
        number += 1


def journal_begin(catalog: Catalog, txn: lmdb.Transaction, branch: int) -> int | None:
    """The LSN of the oldest change that a branch's journal holds; None when it holds none. O(1)."""
    for last, value in chunks(txn, catalog, branch, 0):
        with contextlib.suppress(CorruptData):
            return first_lsn(last, value)
        return last
    return None
