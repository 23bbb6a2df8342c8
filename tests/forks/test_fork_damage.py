"""fsck and repair over forks: planted damage of each kind is found, and what can be derived again is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import pytest

from shadowswitch import Config, Delete, Engine, Put
from shadowswitch.model.digest import bucket_of, key_hash
from shadowswitch.storage import data_directory
from shadowswitch.storage.catalog import keys, rows
from shadowswitch.storage.catalog.environment import ADDED, DATABASES, Catalog
from shadowswitch.storage.catalog.source.fork_table import FORK
from shadowswitch.storage.fsck.tasks import check_all

CONFIG = Config(disk_reserve_bytes=0, janitor_interval_s=3600)
MAIN, FORK_NUMBER = 1, 2


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A closed directory: "main" with 40 records, changed and deleted since it was forked; a fork with changes."""
    path = tmp_path / "data"
    with Engine.open(path, CONFIG) as engine:
        engine.create_branch("main")
        engine.write("main", [Put("t", str(number), {"a": number}) for number in range(40)])
        engine.fork_branch("fork", "main")
        engine.write("main", [Put("t", "1", {"a": "main"}), Delete("t", "2")])
        engine.write("fork", [Put("t", "3", {"a": "fork"}), Delete("t", "4")])
        assert engine.check() == []
    return path


@contextmanager
def raw(data: Path) -> Iterator[tuple[lmdb.Transaction, dict[str, Any]]]:
    """A write transaction on the catalog, without any of its rules."""
    env = lmdb.open(str(data / data_directory.CATALOG), max_dbs=20, map_size=64 << 30, lib_version=0)
    try:
        databases = {name: env.open_db(name.encode()) for name in DATABASES}
        with env.begin(write=True) as txn:
            yield txn, databases
    finally:
        env.close()


def found(data: Path) -> set[str]:
    catalog = Catalog(data / data_directory.CATALOG, readonly=True)
    try:
        return {finding.invariant for finding in check_all(catalog, data)}
    finally:
        catalog.close()


def is_mended(data: Path) -> None:
    """A repair finds the damage, derives it again, and leaves nothing to find; the fork shows what it did."""
    with Engine.open(data, CONFIG) as engine:
        assert any(finding.repaired for finding in engine.check(repair=True))
        assert engine.check() == []
        engine.write("main", [Put("t", "9", {"a": "later"})])
        shown = {record.id: record.fields["a"] for record in engine.scan("fork")}
        assert shown == {str(number): number for number in range(40) if number != 4} | {"3": "fork"}
        assert engine.check() == []


def key(branch: int, id: str) -> bytes:
    return keys.record_key(branch, 1, bucket_of(key_hash("t", id)), id.encode())


def test_an_old_image_that_is_gone_is_found(data: Path) -> None:
    """BR-1, BR-2: the fork shows another version than its digest has."""
    with raw(data) as (txn, db):
        cursor = txn.cursor(db["undo"])
        assert cursor.first()
        cursor.delete()
    assert "BR-1" in found(data)


def test_a_tombstone_that_is_gone_is_found(data: Path) -> None:
    with raw(data) as (txn, db):
        assert txn.delete(key(FORK_NUMBER, "4"), db=db["records"])
    assert {"BR-1", "ST-2"} & found(data)


def test_a_damaged_record_is_found_on_every_branch_that_shows_it(data: Path) -> None:
    with raw(data) as (txn, db):
        value = bytearray(txn.get(key(MAIN, "7"), db=db["records"]) or b"")
        value[-1] ^= 1
        txn.put(key(MAIN, "7"), bytes(value), db=db["records"])
    assert "ST-4" in found(data)
    is_mended(data)


def test_a_digest_of_a_fork_is_derived_again(data: Path) -> None:
    with raw(data) as (txn, db):
        at = keys.TYPE_PREFIX.pack(FORK_NUMBER, 1)
        value = bytearray(txn.get(at, db=db["heads"]) or b"")
        value[512 + 8 * 3] ^= 1
        txn.put(at, bytes(value), db=db["heads"])
    assert found(data) == {"BR-1"}
    is_mended(data)


def test_a_parent_that_has_no_mark_is_found(data: Path) -> None:
    """BR-3: it would be written to as if it had no old images."""
    with raw(data) as (txn, db):
        assert txn.delete(keys.BRANCH.pack(MAIN), db=db["forks"])
    assert found(data) == {"BR-3"}
    is_mended(data)


def test_a_fork_that_its_parent_does_not_list_is_found(data: Path) -> None:
    """BR-4: its parent would save no old images for it."""
    with raw(data) as (txn, db):
        assert txn.delete(FORK.pack(MAIN, 40, FORK_NUMBER), db=db["forks"])
    assert found(data) == {"BR-4"}
    is_mended(data)


@pytest.mark.parametrize(("parent", "lsn"), [(2, 40), (9, 40), (1, 99)])
def test_a_fork_whose_parent_cannot_be_is_found(data: Path, parent: int, lsn: int) -> None:
    """BR-4: a branch that is its own ancestor, one without a row, an LSN above the head."""
    with raw(data) as (txn, db):
        at = keys.BRANCH.pack(FORK_NUMBER)
        row = rows.decode_branch(txn.get(at, db=db["branches"]) or b"")
        fields = {name: getattr(row, name) for name in row.__struct_fields__} | {"parent": parent, "fork_lsn": lsn}
        txn.put(at, rows.encode_row(rows.BranchRow(**fields)), db=db["branches"])
    assert "BR-4" in found(data)


def test_a_reader_beside_a_directory_of_an_older_version_finds_no_forks(data: Path) -> None:
    """A directory that lacks the databases of forks opens for reading as it is, and for writing with them."""
    older = data.parent / "older"
    with Engine.open(older, CONFIG) as engine:
        engine.create_branch("main")
        engine.write("main", [Put("t", "1", {"a": 1})])
    with raw(older) as (txn, db):
        for name in ADDED:
            txn.drop(db[name])
    assert found(older) == set()
    with Engine.open(older, CONFIG) as engine:
        engine.fork_branch("fork", "main")
        assert engine.count("fork") == 1
