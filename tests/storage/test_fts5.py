"""The fts5 backend beyond the suite: queries, ranking, options, its file, and errors of the disk."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowswitch.model.digest import key_hash
from shadowswitch.model.errors import CorruptData, InvalidConfig, StorageFull, Timeout
from shadowswitch.model.records import Item
from shadowswitch.model.search.query import TOKENS_MAX
from shadowswitch.storage.backends.fts5 import options as fts5_options
from shadowswitch.storage.backends.fts5 import store as fts5_store
from shadowswitch.storage.backends.fts5.options import Layout
from shadowswitch.storage.backends.fts5.query import parse
from shadowswitch.storage.conformance.expected import rows_of
from tests.support import inside
from tests.support.fts5_index import BACKEND, Index, put

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shard-000"


@pytest.fixture
def index(path: Path) -> Iterator[Index]:
    with closing(Index(path)) as index:
        yield index
    assert BACKEND.check(path, index.options) == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("fox", ["fox", "foxes"]),
        ("FOX", ["fox", "foxes"]),
        ("brown fox", ["fox"]),
        ('"quick brown"', ["fox"]),
        ('"brown quick"', []),
        ("fo*", ["fox", "foxes"]),
        ('"quick bro"*', ["fox"]),
        ('"quick', ["fox"]),
        ("quick-brown", ["fox"]),
        ("- fox ...", ["fox", "foxes"]),
        ("fox AND brown", ["fox"]),
        ("fox OR dog", ["dog", "fox", "foxes"]),
        ("fox -brown", ["foxes"]),
        ("NOT fox", []),
        ("NOT", []),
        ("body:fox", []),
        ("cafe", ["cafe"]),
        ("CAFÉ", ["cafe"]),
        ("\0fox\0", ["fox", "foxes"]),
        ("", []),
        ('... "" *', []),
    ],
)
def test_a_plain_text_query_finds_the_records_with_its_words(index: Index, query: str, expected: list[str]) -> None:
    index.add(fox="the quick brown fox", dog="a lazy dog", foxes="foxes, fox and friends", cafe="Café")
    assert sorted(index.find(query)) == expected


@given(st.text(st.characters(), max_size=30))
def test_no_query_reaches_the_query_language(query: str) -> None:
    expression = parse(query, Layout(BACKEND.configure({}))).match
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE VIRTUAL TABLE fts USING fts5(c0)")
        connection.execute("INSERT INTO fts VALUES('something')")
        if expression:
            connection.execute("SELECT * FROM fts WHERE fts MATCH ?", (expression,)).fetchall()


def test_what_is_beyond_the_bounds_of_a_query_does_not_count(index: Index) -> None:
    index.add(a="word")
    assert index.find("word " * TOKENS_MAX + "absent") == ["a"]
    assert index.find("word " * (TOKENS_MAX - 1) + "absent") == []
    assert index.find("x" * 5000) == []
    assert index.find("word " + " " * 4000 + "absent") == ["a"]
    with pytest.raises(InvalidConfig):
        index.find(None)  # type: ignore[arg-type]


def test_more_matches_rank_higher_and_ties_are_broken_by_key_even_at_the_limit(index: Index) -> None:
    index.add(**{f"z{number}": "pear apple" for number in range(30)})
    index.add(best="apple apple apple", **{f"a{number}": "pear apple" for number in range(30)})
    ties = sorted([f"z{number}" for number in range(30)] + [f"a{number}" for number in range(30)])
    everything = index.reader.search("apple", 100)
    assert [hit.id for hit in everything] == ["best", *ties]
    assert everything[0].score > everything[1].score == everything[-1].score > 0
    for limit in (1, 2, 3, 31, 60, 61, 62):
        assert index.find("apple", limit) == ["best", *ties][:limit]


def test_the_weight_of_a_column_decides_between_equal_texts(path: Path) -> None:
    for weights, expected in (({"title": 5, "body": 1}, ["t", "b"]), ({"title": 1, "body": 5}, ["b", "t"])):
        with closing(Index(path, columns=weights)) as index:
            index.add(t={"title": "apple", "body": "pear"}, b={"title": "pear", "body": "apple"}, c={"title": "plum"})
            assert index.find("apple") == expected
            assert index.options["columns"] == {"body": float(weights["body"]), "title": float(weights["title"])}


def test_columns_hold_the_strings_of_their_own_field_and_nothing_else(path: Path) -> None:
    with closing(Index(path, columns=["tags", 'c0"; DROP TABLE docs; --', "n"])) as index:
        index.add(a={"tags": ["red", {"x": "blue"}, 3], 'c0"; DROP TABLE docs; --': "odd", "n": 7, "other": "unseen"})
        record = index.reader.get("t", "a")
        assert record is not None
        assert record.fields == {"tags": "red\nblue", 'c0"; DROP TABLE docs; --': "odd", "n": ""}
        assert index.find("blue") == index.find("odd") == ["a"]
        assert index.find("unseen") == []


@pytest.mark.parametrize(
    ("tokenizer", "query", "found"),
    [
        ("unicode61", "run", False),
        ("porter", "run", True),
        ("porter unicode61 remove_diacritics 0", "naive", False),
        ("unicode61 remove_diacritics 2", "naive", True),
        ("ascii", "naive", False),
        ("trigram", "nnin", True),
        ("trigram", "NNIN", True),
        ("trigram case_sensitive 1", "NNIN", False),
        ("trigram", "ni", True),
        ("trigram", "nx", False),
    ],
)
def test_a_tokenizer_defines_the_words_of_a_text(path: Path, tokenizer: str, query: str, found: bool) -> None:
    with closing(Index(path, tokenizer=tokenizer, prefix=[2])) as index:
        index.add(a="running naïve")
        assert bool(index.find(query)) is found
        assert index.options["tokenizer"].split()[0] == tokenizer.split()[0]


def test_different_spellings_of_the_same_options_have_one_canonical_form() -> None:
    assert BACKEND.configure({}) == BACKEND.configure({"tokenizer": " unicode61 ", "columns": None, "prefix": ()})
    assert BACKEND.configure({"tokenizer": "porter"}) == BACKEND.configure({"tokenizer": "porter unicode61"})
    one = BACKEND.configure({"columns": {"b": 2, "a": 1}, "prefix": [3, 2]})
    assert one == BACKEND.configure({"columns": {"a": 1.0, "b": 2.0}, "prefix": [2, 3]})
    assert fts5_store.spec_text({**one, "columns": dict(reversed(one["columns"].items()))}) == fts5_store.spec_text(one)


@given(JSON)
def test_strings_in_finds_all_strings_in_order_and_nothing_else(value: Any) -> None:
    def strings(inner: Any) -> Iterator[str]:
        if isinstance(inner, str):
            yield inner
        elif isinstance(inner, (list, dict)):
            for part in inner.values() if isinstance(inner, dict) else inner:
                yield from strings(part)

    assert fts5_options.strings_in(value) == "\n".join(strings(value))


def test_two_keys_with_the_same_hash_stay_two_records(index: Index) -> None:
    hash_ = key_hash("t", "a")
    both = [Item(lsn, "t", id, hash_, {"body": f"word{lsn}"}) for lsn, id in enumerate(("a", "b"), 1)]
    index.writer.apply(both, 2)
    index.writer.apply([Item(3, "t", "b", hash_, {"body": "word3"})], 3)
    assert rows_of(index.reader) == [("t", "a", 1), ("t", "b", 3)]
    assert (index.find("word1"), index.find("word2"), index.find("word3")) == (["a"], [], ["b"])
    index.writer.apply([Item(4, "t", "b", hash_, None)], 4)
    assert rows_of(index.reader) == [("t", "a", 1)]


def test_one_key_twice_in_a_batch_keeps_the_newest(index: Index) -> None:
    assert index.writer.apply([put(2, "a", body="new"), put(1, "a", body="old")], 2) == 1
    assert rows_of(index.reader) == [("t", "a", 2)]
    assert index.reader.count() == 1


def test_an_update_moves_to_a_rowid_above_all_others(index: Index) -> None:
    index.add(**{f"id{number}": "text" for number in range(300)})
    index.add(id5="newer", id299="newer", id0="newer")
    with closing(sqlite3.connect(index.path / fts5_store.FILE)) as connection:
        rows = connection.execute("SELECT rowid FROM docs WHERE c0 = 'newer'").fetchall()
        (highest_old,) = connection.execute("SELECT max(rowid) FROM docs WHERE c0 = 'text'").fetchone()
    assert all(rowid > highest_old for (rowid,) in rows)
    assert len(rows) == 3


def test_flush_lets_the_log_start_over_while_a_reader_stays_open(index: Index) -> None:
    log = index.path / f"{fts5_store.FILE}-wal"
    sizes = []
    for number in range(12):
        index.add(**{f"id{number}-{other}": f"some text {other}" for other in range(200)})
        index.find("text")
        index.writer.flush()
        sizes.append(log.stat().st_size)
    assert max(sizes[6:]) < sum(sizes[:6])
    assert max(sizes) < 4 << 20


def test_a_full_disk_is_storage_full_and_nothing_of_the_batch_is_kept(index: Index) -> None:
    index.add(a="kept")
    before = index.writer.state()
    connection = index.writer._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(StorageFull) as full:
        index.add(a="replaced", **{f"id{number}": "much text " * 500 for number in range(50)})
    assert full.value.recoverable
    assert full.value.hint
    assert index.writer.state() == before
    assert index.writer.flush() == before.applied_lsn
    connection.execute("PRAGMA max_page_count=1073741823")
    index.add(b="later")
    assert rows_of(index.reader) == [("t", "a", 1), ("t", "b", 53)]
    assert index.find("kept") == ["a"]


def test_a_second_writer_that_never_ends_is_a_timeout_and_loses_nothing(index: Index) -> None:
    index.writer._connection.execute("PRAGMA busy_timeout=0")
    with closing(sqlite3.connect(index.path / fts5_store.FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Timeout):
            index.add(a="refused")
        index.find("refused")
        other.execute("ROLLBACK")
    index.add(b="accepted")
    assert index.find("accepted") == ["b"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "no space"), StorageFull),
        (OSError(errno.EDQUOT, "quota"), StorageFull),
        (OSError(errno.EIO, "input/output"), CorruptData),
        (FileNotFoundError(errno.ENOENT, "gone"), CorruptData),
    ],
)
def test_an_error_of_the_system_becomes_an_error_of_the_library(error: OSError, expected: type[Exception]) -> None:
    assert isinstance(fts5_store.translate(error, "flush", Path("/")), expected)


@pytest.mark.parametrize(
    ("code", "room", "expected"),
    [
        (sqlite3.SQLITE_FULL, True, StorageFull),
        (sqlite3.SQLITE_IOERR_WRITE, False, StorageFull),
        (sqlite3.SQLITE_IOERR_WRITE, True, CorruptData),
        (sqlite3.SQLITE_CORRUPT_VTAB, True, CorruptData),
        (sqlite3.SQLITE_NOTADB, True, CorruptData),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, True, Timeout),
    ],
)
def test_an_error_of_sqlite_becomes_an_error_of_the_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, room: bool, expected: type[Exception]
) -> None:
    inside.patch_limit(monkeypatch, inside.Limit.FREE_BYTES_MIN, 0 if room else 1 << 70)
    error = sqlite3.OperationalError("something")
    error.sqlite_errorcode = code
    assert isinstance(fts5_store.translate(error, "apply", tmp_path), expected)


def test_other_options_than_those_of_the_build_are_refused(index: Index) -> None:
    other = BACKEND.configure({"tokenizer": "porter"})
    with pytest.raises(CorruptData):
        BACKEND.open_reader([index.path], other)
    assert BACKEND.check(index.path, other)


@pytest.mark.parametrize(
    ("statement", "where"),
    [
        ("UPDATE docs SET lsn = lsn + 1 WHERE id = 'a'", "digest"),
        ("UPDATE docs SET id = 'z' WHERE id = 'a'", "rows"),
        ("DELETE FROM docs WHERE id = 'a'", "terms"),
        ("INSERT INTO docs SELECT 99, kh, lsn, type, id, c0 FROM docs WHERE id = 'a'", "rows"),
        ("DELETE FROM fts_data WHERE id > 10", "terms"),
        ("UPDATE state SET digest = zeroblob(1024)", "digest"),
        ("UPDATE state SET digest = x'00'", "state"),
    ],
)
def test_check_names_the_damage(path: Path, statement: str, where: str) -> None:
    with closing(Index(path)) as index:
        index.add(a="apple", b="birch")
    with closing(sqlite3.connect(path / fts5_store.FILE)) as connection, connection:
        connection.execute(statement)
    findings = BACKEND.check(path, index.options)
    assert any(where in finding for finding in findings), findings


def test_check_leaves_no_file_and_removes_the_copy_of_a_killed_check(index: Index) -> None:
    index.add(a="apple")
    dead = index.path / f"check-{2**22 + 1}-1.sqlite"
    alive = index.path / f"check-{os.getpid()}-0.sqlite"
    for file in (dead, alive):
        file.write_text("half a copy")
    assert BACKEND.check(index.path, index.options) == []
    assert sorted(file.name for file in index.path.glob("check-*")) == [alive.name]


def test_check_does_not_block_a_writer(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    index.writer._connection.execute("PRAGMA busy_timeout=0")

    def write() -> None:
        index.add(b="written during the check")
        index.writer.flush()

    inside.before(monkeypatch, inside.Step.FTS5_CHECK_TERMS, write)
    index.add(a="apple")
    assert BACKEND.check(index.path, index.options) == []
    assert index.find("during") == ["b"]
