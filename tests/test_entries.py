"""The journal holds batches in pieces of half a page: encoded by who writes, cut where a reader asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lmdb
import pytest

from shadowswitch import CorruptData, Delete, Engine, Put, UnsupportedFormat
from shadowswitch.engine.preparing import prepare
from shadowswitch.model.settings import Config
from shadowswitch.storage import entries, layout
from shadowswitch.storage.entries import PIECE_BYTES_MAX, Batch, entries_of, first_lsn, fragment_of

TYPE = "object_type"


def put(id: str, size: int = 100) -> Put:
    return Put(TYPE, id, {"text": "x" * size})


def pieces_of(batch: Batch, first: int = 1) -> list[tuple[int, memoryview]]:
    """Last LSN and value of each piece, as `Commit.write` stores them."""
    found, last = [], first - 1
    for count, body in batch.pieces:
        last += count
        end = first + len(batch) - 1
        found.append((last, memoryview(entries.HEADER.pack(entries.FORMAT, count, end) + body)))
    return found


def test_a_batch_is_cut_into_pieces_of_half_a_page_and_comes_back_in_order() -> None:
    changes = [put(f"r{n}") if n % 5 else Delete("link_type", f"é{n}") for n in range(100)]
    batch = prepare(changes, Config())
    found = pieces_of(batch, first=1001)
    assert len(found) > 3
    assert all(len(value) <= PIECE_BYTES_MAX + entries.HEADER.size for _, value in found)
    read = []
    for last, value in found:
        some, batch_lsn = entries_of(last, value)
        assert (batch_lsn, some[-1].lsn, some[0].lsn) == (1100, last, first_lsn(last, value))
        read += some
    assert [entry.lsn for entry in read] == list(range(1001, 1101))
    assert [(entry.resource_type, entry.id) for entry in read] == [(c.resource_type, c.id) for c in changes]
    assert [entry.fields for entry in read] == [c.fields if isinstance(c, Put) else None for c in changes]


def test_a_piece_takes_as_much_as_fits_and_a_large_change_has_its_own() -> None:
    batch = prepare([put("a", 10), put("b", 50_000), put("c", 10), put("d", 10)], Config())
    assert [count for count, _ in batch.pieces] == [1, 1, 2]
    tight = prepare([put(f"{n}", 850) for n in range(4)], Config())
    assert [count for count, _ in tight.pieces] == [2, 2]
    many = prepare([Put(TYPE, f"{n}", {}) for n in range(1000)], Config())
    assert sum(count for count, _ in many.pieces) == 1000
    assert len(many.pieces) < 30


@pytest.mark.parametrize("integer", [0, -1, (1 << 64) - 1, -(1 << 63)])
def test_fields_survive_as_they_were_written(integer: int) -> None:
    fields: dict[str, Any] = {"n": integer, "deep": [{"a": [None, True, 1.5, "é\0"]}], "": {}}
    ((last, value),) = pieces_of(prepare([Put(TYPE, "a" * 500, fields)], Config()))
    (entry,), _ = entries_of(last, value)
    assert (entry.id, entry.fields) == ("a" * 500, fields)
    fragment = fragment_of(last, value, 1)
    assert fragment is not None
    assert fragment[1] == "a" * 500
    assert fragment_of(last, value, 2) is None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda value: value[:5], "cut off"),
        (lambda value: b"\x01" + value[1:], "unknown format 1"),
        (lambda value: value[:-3], "does not decode"),
        (lambda value: value[:1] + b"\0\x09" + value[3:], "instead of 9"),
    ],
)
def test_a_damaged_piece_is_told_as_such(damage: Any, said: str) -> None:
    ((last, value),) = pieces_of(prepare([put("a")], Config()))
    with pytest.raises(CorruptData, match=said):
        entries_of(last, memoryview(damage(bytes(value))))


def test_changes_are_read_from_the_midst_of_a_piece(open_engine: Any) -> None:
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


def test_only_whole_pieces_are_trimmed_and_what_is_said_to_be_kept_is_there(open_engine: Any) -> None:
    engine = open_engine(journal_keep_changes=333, janitor_interval_s=3600)
    engine.create_branch("main")
    for start in range(0, 2000, 100):
        engine.write("main", [put(f"{n}") for n in range(start, start + 100)])
    engine.clean_up()
    oldest = engine.branch("main").oldest_lsn
    assert 2000 - 333 - 200 < oldest <= 2000 - 333 + 1
    assert [change.lsn for change in engine.changes("main", oldest - 1, limit=5000)] == list(range(oldest, 2001))
    assert engine.check() == []


def test_a_directory_of_the_first_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    """It kept its numbers in a database named `meta`."""
    catalog = tmp_path / "data" / layout.CATALOG
    catalog.mkdir(parents=True)
    with lmdb.open(str(catalog), max_dbs=20) as environment:
        meta = environment.open_db(b"meta")
        with environment.begin(write=True) as txn:
            txn.put(b"format", b"shadowswitch-1", db=meta)
    before = (catalog / "data.mdb").read_bytes()
    with pytest.raises(UnsupportedFormat, match="format"):
        Engine.open(tmp_path / "data")
    assert (catalog / "data.mdb").read_bytes() == before
