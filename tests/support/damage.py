"""Damage of a closed data directory: single bits of the catalog, flipped behind the back of the product."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb

from shadowswitch.model.digest import bucket_of, key_hash
from shadowswitch.storage import data_directory
from shadowswitch.storage.catalog import keys
from shadowswitch.storage.catalog.environment import DATABASES


@contextmanager
def raw_catalog(data: Path) -> Iterator[tuple[lmdb.Transaction, dict[str, Any]]]:
    """A write transaction on the catalog, without any of its rules."""
    env = lmdb.open(str(data / data_directory.CATALOG), max_dbs=20, map_size=64 << 30, lib_version=0)
    try:
        databases = {name: env.open_db(name.encode()) for name in DATABASES} | {"meta": env.open_db(None)}
        with env.begin(write=True) as txn:
            yield txn, databases
    finally:
        env.close()


def flip(data: Path, database: str, key: bytes, at: int, mask: int = 1) -> None:
    """Flip bits of one byte of a value."""
    with raw_catalog(data) as (txn, db):
        value = bytearray(txn.get(key, db=db[database]) or b"")
        value[at] ^= mask
        assert txn.put(key, bytes(value), db=db[database])


def record_key(id: str, name: str = "object_type", branch: int = 1, number: int = 1) -> bytes:
    """The key of a record."""
    return keys.record_key(branch, number, bucket_of(key_hash(name, id)), id.encode())


def digest_key(branch: int = 1, number: int = 1) -> bytes:
    """The key of a digest in `heads`."""
    return keys.TYPE_PREFIX.pack(branch, number)


def without_checksums(data: Path) -> int:
    """Store every record as versions without checksums did; how many there are."""
    with raw_catalog(data) as (txn, db):
        stored = [(bytes(key), bytes(value)) for key, value in txn.cursor(db["records"])]
        for key, value in stored:
            lsn, id, fields = keys.split_record(key, value)
            bare = keys.RECORD_HEADER.pack(keys.FORMAT_BARE, lsn, len(id.encode())) + id.encode() + bytes(fields)
            txn.put(key, bare, db=db["records"])
    return len(stored)
