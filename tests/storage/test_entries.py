"""The journal holds batches in chunks of half a page, encoded on the caller's thread and read from any LSN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lmdb
import msgspec
import pytest

from shadowswitch import CorruptData, Delete, Engine, Put, UnsupportedFormat
from shadowswitch.engine.encode import prepare
from shadowswitch.model.config import Config
from shadowswitch.storage import data_directory
from shadowswitch.storage.catalog import journal_format
from shadowswitch.storage.catalog.environment import FORMAT
from shadowswitch.storage.catalog.journal_format import CHUNK_BYTES_MAX, Batch, entries_of, first_lsn, fragments_of
from shadowswitch.storage.catalog.transaction import Commit
from tests.support import inside

TYPE = "object_type"


def put(id: str, size: int = 100) -> Put:
    return Put(TYPE, id, {"text": "x" * size})


def pieces_of(batch: Batch, first: int = 1) -> list[tuple[int, memoryview]]:
    """Last LSN and value of each chunk, as `Commit.write` stores them."""
    found, last = [], first - 1
    for count, body, checksum in batch.chunks:
        last += count
        end = first + len(batch) - 1
        found.append((last, memoryview(journal_format.chunk_value(last, count, end, body, checksum))))
    return found


def test_a_batch_is_cut_into_chunks_of_half_a_page_and_decodes_in_order() -> None:
    changes = [put(f"r{n}") if n % 5 else Delete("link_type", f"é{n}") for n in range(100)]
    batch = prepare(changes, Config())
    found = pieces_of(batch, first=1001)
    assert len(found) > 3
    assert all(len(value) <= CHUNK_BYTES_MAX + journal_format.HEADER.size + 4 for _, value in found)
    read = []
    for last, value in found:
        some, batch_lsn = entries_of(last, value)
        assert (batch_lsn, some[-1].lsn, some[0].lsn) == (1100, last, first_lsn(last, value))
        read += some
    assert [entry.lsn for entry in read] == list(range(1001, 1101))
    assert [(entry.resource_type, entry.id) for entry in read] == [(c.resource_type, c.id) for c in changes]
    assert [entry.fields for entry in read] == [c.fields if isinstance(c, Put) else None for c in changes]


@pytest.mark.parametrize("resource_type", ["t" * 100, "é" * 100, "漢" * 100, "\U0001f600" * 100])
def test_the_size_of_a_type_is_counted_in_bytes(resource_type: str) -> None:
    batch = prepare([Put(resource_type, f"r{n}", {"n": n}) for n in range(200)], Config())
    assert all(len(value) <= 2018 for _, value in pieces_of(batch)), "LMDB would give it pages of its own"


def test_a_chunk_holds_as_many_changes_as_fit_and_a_large_change_has_its_own() -> None:
    batch = prepare([put("a", 10), put("b", 50_000), put("c", 10), put("d", 10)], Config())
    assert [count for count, *_ in batch.chunks] == [1, 1, 2]
    tight = prepare([put(f"{n}", 850) for n in range(4)], Config())
    assert [count for count, *_ in tight.chunks] == [2, 2]
    many = prepare([Put(TYPE, f"{n}", {}) for n in range(1000)], Config())
    assert sum(count for count, *_ in many.chunks) == 1000
    assert len(many.chunks) < 30


@pytest.mark.parametrize("integer", [0, -1, (1 << 64) - 1, -(1 << 63)])
def test_fields_decode_as_they_were_written(integer: int) -> None:
    fields: dict[str, Any] = {"n": integer, "deep": [{"a": [None, True, 1.5, "é\0"]}], "": {}}
    ((last, value),) = pieces_of(prepare([Put(TYPE, "a" * 500, fields)], Config()))
    (entry,), _ = entries_of(last, value)
    assert (entry.id, entry.fields) == ("a" * 500, fields)
    (fragment,) = fragments_of(value)
    assert fragment[:2] == (TYPE, "a" * 500)
    assert msgspec.msgpack.decode(fragment[3]) == fields


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda value: value[:5], "cut off"),
        (lambda value: b"\x01" + value[1:], "unknown format 1"),
        (lambda value: value[:12], "cut off"),
        (lambda value: value[:-3], "checksum"),
        (lambda value: value[:1] + b"\0\x09" + value[3:], "checksum"),
        (lambda value: b"\x02" + value[1:11] + value[15:-3], "does not decode"),
        (lambda value: b"\x02\0\x09" + value[3:11] + value[15:], "instead of 9"),
        (lambda value: b"\x02\0\0" + value[3:11] + b"\x90", "has 0 changes"),
    ],
)
def test_a_damaged_chunk_is_corrupt_data(damage: Any, said: str) -> None:
    ((last, value),) = pieces_of(prepare([put("a")], Config()))
    with pytest.raises(CorruptData, match=said):
        entries_of(last, memoryview(damage(bytes(value))))


def test_changes_can_be_read_from_the_middle_of_a_chunk(open_engine: Any) -> None:
    engine = open_engine()
    engine.create_branch("main")
    engine.create_branch("other")
    engine.write("main", [put(f"a{n}") for n in range(50)])
    engine.write("other", [put("elsewhere")])
    engine.write("main", [Delete(TYPE, "a3"), put("b")])
    for after in (0, 1, 7, 16, 17, 49, 50, 51):
        lsns = [change.lsn for change in engine.changes("main", after)]
        assert lsns == [lsn for lsn in [*range(1, 51), 52, 53] if lsn > after]
    assert [change.lsn for change in engine.changes("main", 10, limit=9)] == list(range(11, 20))
    assert engine.changes("main", 53) == []
    last = engine.changes("main", 51)
    assert next((change.kind, change.id, change.fields) for change in last) == ("delete", "a3", None)


def test_a_trim_removes_whole_chunks_and_the_journal_has_every_change_from_its_oldest_lsn_on(open_engine: Any) -> None:
    engine = open_engine(journal_keep_changes=333, janitor_interval_s=3600)
    engine.create_branch("main")
    for start in range(0, 2000, 100):
        engine.write("main", [put(f"{n}") for n in range(start, start + 100)])
    engine.clean_up()
    oldest = engine.branch("main").oldest_lsn
    assert 2000 - 333 - 200 < oldest <= 2000 - 333 + 1
    assert [change.lsn for change in engine.changes("main", oldest - 1, limit=5000)] == list(range(oldest, 2001))
    assert engine.check() == []


def test_damage_in_one_journal_does_not_stop_the_trim_of_another(open_engine: Any, data_dir: Path) -> None:
    engine = open_engine(janitor_interval_s=3600)
    for branch in ("a", "b"):
        engine.create_branch(branch)
        for start in range(0, 2000, 100):
            engine.write(branch, [put(f"{n}") for n in range(start, start + 100)])
    engine.close()
    with lmdb.open(str(data_dir / data_directory.CATALOG), max_dbs=20, map_size=1 << 30, lib_version=0) as environment:
        journal = environment.open_db(b"journal")
        with environment.begin(write=True) as txn:
            cursor = txn.cursor(journal)
            cursor.first()
            txn.put(cursor.key(), b"\x07" + cursor.value()[1:], db=journal)
    engine = open_engine(journal_keep_changes=100, janitor_interval_s=3600)
    with pytest.raises(CorruptData):
        engine.changes("a", 0)
    engine.clean_up()
    assert engine.branch("a").oldest_lsn > 1000
    assert engine.branch("b").oldest_lsn > 3000
    assert engine.check() == [], "the trim removed the damaged chunk"


def test_a_version_of_the_first_format_finds_the_name_of_this_format(open_engine: Any, data_dir: Path) -> None:
    open_engine().close()
    with lmdb.open(str(data_dir / data_directory.CATALOG), max_dbs=20, map_size=1 << 30, lib_version=0) as environment:
        meta = environment.open_db(b"meta", create=False)
        with environment.begin() as txn:
            assert txn.get(b"format", db=meta) == FORMAT != b"shadowswitch-1"


def test_a_transaction_stores_each_changed_head_and_digest_once(open_engine: Any) -> None:
    """Metadata operations among writes must not store every head and digest again each time."""
    engine = open_engine()
    for n in range(30):
        engine.create_branch(f"b{n}")
        engine.write(f"b{n}", [put("y")])
    stored: list[bytes] = []

    def group(commit: Commit) -> None:
        commit.txn = Counting(commit.txn, stored)  # type: ignore[assignment]
        for n in range(1, 31):
            commit.write(n, prepare([put("x")], Config()))
            commit.store_heads()

    inside.transact(engine, group, "test")
    assert len([key for key in stored if len(key) in (4, 8)]) == 30 * 2, "a head and a digest for each"
    assert engine.check() == []


class Counting:
    """A transaction whose puts are counted."""

    def __init__(self, txn: Any, stored: list[bytes]) -> None:
        self._txn, self._stored = txn, stored

    def put(self, key: bytes, value: bytes, *more: Any, **named: Any) -> Any:
        self._stored.append(key)
        return self._txn.put(key, value, *more, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._txn, name)


def test_a_directory_of_the_first_format_is_refused_and_unchanged(tmp_path: Path) -> None:
    """It kept its numbers in a database named `meta`."""
    catalog = tmp_path / "data" / data_directory.CATALOG
    catalog.mkdir(parents=True)
    with lmdb.open(str(catalog), max_dbs=20) as environment:
        meta = environment.open_db(b"meta")
        with environment.begin(write=True) as txn:
            txn.put(b"format", b"shadowswitch-1", db=meta)
    before = (catalog / "data.mdb").read_bytes()
    with pytest.raises(UnsupportedFormat, match="no format that this version knows"):
        Engine.open(tmp_path / "data")
    assert (catalog / "data.mdb").read_bytes() == before
