"""fsck finds planted damage. Each test plants it in a closed data directory."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import pytest

from shadowswitch import Config, Delete, Engine, Finding, Put
from shadowswitch.model.digest import bucket_of, key_hash
from shadowswitch.storage import data_directory
from shadowswitch.storage.catalog import keys, rows
from shadowswitch.storage.catalog.environment import DATABASES, Catalog
from shadowswitch.storage.catalog.journal_format import entries_of
from shadowswitch.storage.catalog.retention import trim_journal
from shadowswitch.storage.fsck.found import FINDINGS_MAX
from shadowswitch.storage.fsck.journal import check_journal
from shadowswitch.storage.fsck.tasks import check_all
from tests.support import inside

KIND = "SEARCH_INDEX"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A closed and sound data directory with a live and a soaking generation of 300 records."""
    path = tmp_path / "data"
    with Engine.open(path, Config(disk_reserve_bytes=0)) as engine:
        engine.create_branch("main")
        engine.write("main", [Put("object_type", str(n), {"text": f"hello w{n}"}) for n in range(300)])
        engine.rebuild("main", KIND, ["object_type"])
        engine.rebuild("main", KIND, ["object_type"])
        engine.write("main", [Put("object_type", "7", {"text": "changed"})])
        with engine.reader("main", KIND, min_lsn=301):
            pass
        assert engine.check() == []
    return path


def check(data: Path) -> list[Finding]:
    catalog = Catalog(data / data_directory.CATALOG, readonly=True)
    try:
        return check_all(catalog, data)
    finally:
        catalog.close()


def found(data: Path) -> set[str]:
    return {finding.invariant for finding in check(data)}


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


def shard_of_record(data: Path, id: str) -> Path:
    """The SQLite file of the live generation that holds a record."""
    for path in sorted((data / "generations").glob("*/*/00000002/shard-*/shard.sqlite")):
        connection = sqlite3.connect(path)
        held = connection.execute("SELECT count(*) FROM docs WHERE id = ?", (id,)).fetchone()[0]
        connection.close()
        if held:
            return path
    raise AssertionError(f"no shard holds {id}")


def in_shard(data: Path, id: str, *statements: str) -> None:
    connection = sqlite3.connect(shard_of_record(data, id))
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def stored(txn: lmdb.Transaction, key: bytes, database: Any) -> bytes:
    value = txn.get(key, db=database)
    assert value is not None
    return bytes(value)


def record_key(id: str) -> bytes:
    return keys.record_key(1, 1, bucket_of(key_hash("object_type", id)), id.encode())


def test_a_sound_directory_has_no_findings(data: Path) -> None:
    assert check(data) == []


def test_an_altered_row_of_a_shard_is_found(data: Path) -> None:
    in_shard(data, "5", "UPDATE docs SET c0 = 'altered' WHERE id = '5'")
    assert {"IX-3", "IX-4"} <= found(data)


def test_an_altered_lsn_in_a_shard_is_found(data: Path) -> None:
    in_shard(data, "5", "UPDATE docs SET lsn = lsn + 1 WHERE id = '5'")
    assert {"IX-2", "IX-3"} <= found(data)


def test_a_record_missing_from_a_shard_is_found(data: Path) -> None:
    in_shard(data, "5", "DELETE FROM docs WHERE id = '5'")
    assert {"IX-2", "IX-3"} <= found(data)


def test_a_record_that_came_back_in_a_shard_is_found(data: Path) -> None:
    with Engine.open(data) as engine:
        path = engine.index("main", KIND).path
        lsn = engine.write("main", [Delete("object_type", "5")]).lsn
        with engine.reader("main", KIND, min_lsn=lsn):
            pass
    assert path
    source = shard_of_record(data, "6")
    connection = sqlite3.connect(source)
    with connection:
        kh = key_hash("object_type", "5") - (1 << 63)
        connection.execute(
            "INSERT INTO docs(kh, lsn, type, id, c0) SELECT ?, 6, type, '5', c0 FROM docs WHERE id = '6'", (kh,)
        )
    connection.close()
    assert {"IX-2", "IX-3"} <= found(data)


def test_a_record_missing_from_the_catalog_is_found(data: Path) -> None:
    with raw(data) as (txn, db):
        assert txn.delete(record_key("5"), db=db["records"])
    assert {"ST-2", "ST-3", "IX-3"} <= found(data)


def test_a_record_with_altered_content_is_found(data: Path) -> None:
    with raw(data) as (txn, db):
        value = stored(txn, record_key("5"), db["records"])
        txn.put(record_key("5"), value.replace(b"hello", b"jello"), db=db["records"])
    assert "IX-3" in found(data)


def test_a_record_that_does_not_decode_is_found(data: Path) -> None:
    with raw(data) as (txn, db):
        txn.put(record_key("5"), b"\x09rubbish", db=db["records"])
    assert "ST-4" in found(data)


def test_a_stale_digest_bucket_is_found(data: Path) -> None:
    with raw(data) as (txn, db):
        key = keys.TYPE_PREFIX.pack(1, 1)
        value = bytearray(stored(txn, key, db["heads"]))
        value[512 + 8 * 3] ^= 1
        txn.put(key, bytes(value), db=db["heads"])
    findings = [finding for finding in check(data) if finding.invariant == "ST-3"]
    assert [finding.where for finding in findings] == ["branch 'main', type 'object_type', bucket 3"]


def test_a_journal_that_lost_its_end_is_found(data: Path) -> None:
    with raw(data) as (txn, db):
        assert txn.delete(keys.JOURNAL_KEY.pack(1, 301), db=db["journal"])
    assert "ST-1" in found(data)


def first_chunk(txn: lmdb.Transaction, db: Any) -> tuple[bytes, bytes]:
    """The oldest chunk of the journal: its key and its value."""
    cursor = txn.cursor(db["journal"])
    assert cursor.first()
    return bytes(cursor.key()), bytes(cursor.value())


def test_a_gap_in_the_middle_of_the_journal_is_found(data: Path) -> None:
    with raw(data) as (txn, db):
        key, value = first_chunk(txn, db)
        last = keys.JOURNAL_KEY.unpack(key)[1]
        count = len(entries_of(last, memoryview(value))[0])
        assert txn.delete(key, db=db["journal"])
    findings = check(data)
    assert {finding.invariant for finding in findings} == {"ST-2"}
    missing = [finding for finding in findings if "the journal has no entry" in finding.problem]
    assert count - 2 > FINDINGS_MAX == len(missing), "each record whose entry is gone; one was changed since"


def test_a_record_with_the_lsn_of_another_is_found(data: Path) -> None:
    with raw(data) as (txn, db):
        value = stored(txn, record_key("5"), db["records"])
        txn.put(record_key("5"), value[:1] + (300).to_bytes(8, "big") + value[9:], db=db["records"])
    findings = [finding.problem for finding in check(data) if finding.invariant == "ST-2"]
    assert findings == ["object_type '5' has LSN 300, and the journal has no entry of it at that LSN"]


def test_a_trim_that_overtakes_the_check_is_no_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine.open(tmp_path / "data", Config(disk_reserve_bytes=0, janitor_interval_s=3600)) as engine:
        engine.create_branch("main")
        engine.write("main", [Put("t", "gone", {})])
        engine.write("main", [Put("t", "changed", {})])
        for n in range(3):
            engine.write("main", [Put("t", str(n), {})])
        engine.write("main", [Delete("t", "gone")])
        engine.write("main", [Put("t", "changed", {"again": 1})])
        engine.write("main", [Put("t", "last", {})])
        calls: list[int] = []

        def read_journal(ordinary: Any, txn: Any, catalog: Catalog, branch: int, after: int) -> Any:
            calls.append(after)
            if len(calls) == 3:  # the check has read the old changes, and not yet the later ones of the same records
                inside.transact(engine, lambda commit: trim_journal(commit, branch, 8, 100), "trim")
            return ordinary(txn, catalog, branch, after)

        inside.patch_limit(monkeypatch, inside.Limit.FSCK_SLICE_CHUNKS, 1)
        inside.wrap(monkeypatch, inside.Step.FSCK_READ_JOURNAL, read_journal)
        catalog = inside.catalog(engine)
        assert list(check_journal(catalog, catalog.branch("main"))) == []
        assert calls[:4] == [0, 1, 2, 3]
        assert engine.branch("main").oldest_lsn == 8


def test_overlapping_chunks_of_the_journal_are_found(data: Path) -> None:
    with raw(data) as (txn, db):
        key, value = first_chunk(txn, db)
        branch, last = keys.JOURNAL_KEY.unpack(key)
        txn.put(keys.JOURNAL_KEY.pack(branch, last + 1), value, db=db["journal"])
    assert "ST-1" in found(data)


@pytest.mark.parametrize("damage", [lambda value: b"", lambda value: b"\x09" + value[1:], lambda value: value[:-1]])
def test_a_chunk_of_the_journal_that_does_not_decode_is_found(data: Path, damage: Any) -> None:
    with raw(data) as (txn, db):
        key, value = first_chunk(txn, db)
        txn.put(key, damage(value), db=db["journal"])
    assert "ST-4" in found(data)


def test_a_journal_and_a_head_that_lost_their_end_together_are_found(data: Path) -> None:
    with raw(data) as (txn, db):
        assert txn.delete(keys.JOURNAL_KEY.pack(1, 301), db=db["journal"])
        txn.put(keys.BRANCH.pack(1), keys.HEAD.pack(300, 1), db=db["heads"])
    assert "ST-2" in found(data)


def test_an_altered_entry_of_the_journal_is_found(data: Path) -> None:
    with raw(data) as (txn, db):
        key, value = first_chunk(txn, db)
        txn.put(key, value.replace(b"hello", b"jello"), db=db["journal"])
    assert found(data) == {"ST-4"}


def test_a_shard_without_its_file_is_found(data: Path) -> None:
    (data / "generations" / "main" / KIND / "00000002" / "shard-001" / "shard.sqlite").unlink()
    assert found(data) & {"IX-1", "IX-4"}


@pytest.mark.parametrize("text", ["", "not json", "[]", '{"generation": 2}'])
def test_a_manifest_that_cannot_be_read_is_found(data: Path, text: str) -> None:
    (data / "generations" / "main" / KIND / "00000002" / "manifest.json").write_text(text)
    assert found(data) == {"IX-1"}


@pytest.mark.parametrize(
    "alter",
    [lambda row: rows.IndexRow(1, row.branch, row.index_type, 1, 2, 9, 0, 0.0), lambda row: rows.IndexRow(
        1, row.branch, row.index_type, 77, 0, 9, 0, 0.0)],
    ids=["the soaking one", "one that is not there"],
)  # fmt: skip
def test_a_wrong_live_pointer_is_found(data: Path, alter: Callable[[rows.IndexRow], rows.IndexRow]) -> None:
    with raw(data) as (txn, db):
        key = keys.BRANCH.pack(1) + KIND.encode()
        row = rows.decode_index(stored(txn, key, db["indexes"]))
        txn.put(key, rows.encode_row(alter(row)), db=db["indexes"])
    assert "IX-1" in found(data)


def test_a_directory_without_a_generation_is_found(data: Path) -> None:
    (data / "generations" / "main" / KIND / "00000099").mkdir()
    assert found(data) == {"IX-5"}


def test_a_generation_without_its_files_is_found(data: Path) -> None:
    shutil.rmtree(data / "generations" / "main" / KIND / "00000002" / "shard-000")
    assert found(data) & {"IX-1", "IX-4"}


def test_a_manifest_of_another_generation_is_found(data: Path) -> None:
    path = data / "generations" / "main" / KIND / "00000002" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "generation": 1}))
    assert "IX-1" in found(data)


def test_a_shadow_and_a_generation_that_disagree_are_found(data: Path) -> None:
    with raw(data) as (txn, db):
        key = keys.SEQUENCE.pack(1)
        row = rows.decode_generation(stored(txn, key, db["generations"]))
        fields = {name: getattr(row, name) for name in row.__struct_fields__}
        txn.put(key, rows.encode_row(rows.GenerationRow(**{**fields, "role": "building"})), db=db["generations"])
    assert {"IX-1", "IX-6"} <= found(data)
