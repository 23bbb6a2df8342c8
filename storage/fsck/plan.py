"""What there is to check, cut into parts of like length by counters. Damaged counters only make them unlike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from shadowswitch.model.digest import BUCKETS, Digest
from shadowswitch.model.shadow_state import OPEN_ROLES
from shadowswitch.model.views import Finding
from shadowswitch.storage.catalog import keys
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.rows import GenerationRow
from shadowswitch.storage.catalog.source.type_table import numbered
from shadowswitch.storage.fsck.found import readable
from shadowswitch.storage.fsck.records import BEGIN, END

PART_ROWS = 40_000
"""A part takes some tenths of a second: short beside the whole, long beside the message that starts it."""
DIGEST_ROWS = 2
"""A digest takes as long as so many records."""
CHUNK_ROWS = 10
"""A chunk of the journal is counted as so many; only its content says how many changes it has."""
INDEX_ROWS = 3
"""A row of an index takes as long as so many records: it is read, its source is read, and the shard checks itself."""
ROW_ROWS = 3
"""Another row of the catalog takes as long as so many records: a branch is met by several checks."""
ROWS = ("branches", "shadows", "generations", "locks", "outbox", "audit", "received", "positions", "holds")
SLICE = 5_000


class CheckRows(msgspec.Struct, frozen=True, tag=True):
    """To a worker: check the catalog, but for journals and records."""

    root: str


class CheckJournals(msgspec.Struct, frozen=True, tag=True):
    """To a worker: check the journals of the branches with numbers in [begin, end)."""

    begin: int
    end: int


class CheckRecords(msgspec.Struct, frozen=True, tag=True):
    """To a worker: check records and digests from one place up to another, see `fsck.records`."""

    begin: bytes
    end: bytes


class CheckGeneration(msgspec.Struct, frozen=True, tag=True):
    """To a worker: check one shard of a generation against its source."""

    root: str
    number: int
    shard: int = 0


class Part(msgspec.Struct, frozen=True):
    """A part of the check, and its length: it takes as long as about so many records."""

    task: CheckRows | CheckJournals | CheckRecords | CheckGeneration
    rows: int


def rows_part(catalog: Catalog, root: str) -> Part:
    """The part with all rows but those of records and journals."""
    with catalog.read() as txn:
        entries = sum(txn.stat(catalog.db[name])["entries"] for name in ROWS)
    return Part(CheckRows(root), ROW_ROWS * entries)


def record_parts(catalog: Catalog) -> Iterator[Part]:
    """Parts that have all records and digests between them."""
    with catalog.read() as txn:
        records = txn.stat(catalog.db["records"])["entries"]
    begin, rows = BEGIN, 0
    for prefix, digest in _digests(catalog):
        rows += DIGEST_ROWS
        if rows + (count := digest.count) < PART_ROWS:
            rows += count
            continue
        for bucket in range(BUCKETS):
            if rows >= PART_ROWS:
                end = prefix + bytes([bucket])
                yield Part(CheckRecords(begin, end), rows)
                begin, rows = end, 0
            rows += min(digest.counts[bucket], records)
    yield Part(CheckRecords(begin, END), rows)


def _digests(catalog: Catalog) -> Iterator[tuple[bytes, Digest]]:
    after = b""
    while True:
        found: list[tuple[bytes, Digest]] = []
        with catalog.read() as txn:
            cursor = txn.cursor(catalog.db["heads"])
            there = cursor.set_range(after + b"\0") if after else cursor.first()
            while there and len(found) < SLICE:
                after = bytes(cursor.key())
                if len(after) == keys.TYPE_PREFIX.size:
                    found.append((after, Digest.stored(cursor.value())))
                there = cursor.next()
        yield from found
        if not there:
            return


def journal_parts(catalog: Catalog) -> Iterator[Part]:
    """Parts with the journals of several branches, or of one that is long. Branches without a journal are in none."""
    begin, number, rows = 0, 0, 0
    for number, chunks in _journals(catalog):
        begin = begin or number
        if rows and rows + chunks * CHUNK_ROWS > PART_ROWS:
            yield Part(CheckJournals(begin, number), rows)
            begin, rows = number, 0
        rows += chunks * CHUNK_ROWS
    if rows:
        yield Part(CheckJournals(begin, number + 1), rows)


def _journals(catalog: Catalog) -> Iterator[tuple[int, int]]:
    """The number of each branch that has a journal, and of its chunks. Only keys are read."""
    branch, chunks, after = 0, 0, b""
    while True:
        with catalog.read() as txn:
            cursor = txn.cursor(catalog.db["journal"])
            there = cursor.set_range(after + b"\0") if after else cursor.first()
            for _ in range(SLICE if there else 0):
                after = bytes(cursor.key())
                number = int(keys.BRANCH.unpack_from(after)[0])
                if number != branch and chunks:
                    yield branch, chunks
                    chunks = 0
                branch, chunks = number, chunks + 1
                there = cursor.next()
                if not there:
                    break
        if not there:
            break
    if chunks:
        yield branch, chunks


def generation_parts(catalog: Catalog, root: Path, findings: list[Finding]) -> Iterator[Part]:
    """A part for each shard of the generations that are whole. A row that does not decode is a finding."""
    for row in readable(catalog.generations, findings) or []:
        if row.role in OPEN_ROLES:
            rows = _shard_rows(catalog, row)
            yield from (Part(CheckGeneration(str(root), row.number, shard), rows) for shard in range(row.shards))


def _shard_rows(catalog: Catalog, row: GenerationRow) -> int:
    """The length of the check of one shard, in rows of records."""
    types = numbered(catalog.types(), row.resource_types)
    return INDEX_ROWS * catalog.source_digest(row.branch, types)[1].count // max(1, row.shards)
