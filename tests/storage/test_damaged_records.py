"""Records and journal chunks carry a checksum: damage is found by readers, builds and fsck, and mended by a repair.

Each test flips bits in a closed directory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shadowswitch import BuildFailed, CorruptData, Delete, Engine, Put
from shadowswitch.storage.catalog import keys
from tests.support.damage import flip, raw_catalog, record_key, without_checksums

KIND = "SEARCH_INDEX"
OBJECT = "object_type"
BODY = keys.RECORD_HEADER.size + keys.CHECKSUM.size
"""Where the id of a stored record begins."""
TEXT = "the owner of a record signs in, and reads"


def fields(number: int) -> dict[str, Any]:
    return {"title": f"title of w{number}", "body": f"{TEXT} w{number}", "size": number}


def filled(engine: Engine, backend: str) -> None:
    """300 records, one of them with a long id; a live index; the journal of the first is trimmed."""
    engine.create_branch("main")
    first = [Put(OBJECT, "é" * 240, fields(7)), Put("other_type", "5", {"n": 5}), Put("other_type", "6", {"n": 6})]
    engine.write("main", first + [Put(OBJECT, str(n), fields(n)) for n in range(299)])
    engine.rebuild("main", KIND, [OBJECT], {"backend": backend})
    for _ in range(2):
        engine.write("main", [Put("other_type", f"k{n}", {"n": n}) for n in range(150)])
    with engine.reader("main", KIND, min_lsn=602):
        pass


@pytest.fixture(params=["fts5", "kv"])
def data(request: pytest.FixtureRequest, data_dir: Path, open_engine: Any) -> Path:
    """A closed directory whose records are in a live index of either backend, and no more in the journal."""
    with open_engine(journal_keep_changes=20, soak_s=0.0) as engine:
        filled(engine, request.param)
        engine.clean_up()
        assert engine.branch("main").oldest_lsn > 200
    return data_dir


@pytest.fixture
def journalled(data_dir: Path, open_engine: Any) -> Path:
    """A closed directory without an index, whose journal has every change."""
    with open_engine() as engine:
        engine.create_branch("main")
        for n in range(100):
            engine.write("main", [Put(OBJECT, str(n), fields(n)), Put(OBJECT, f"x{n}", {"text": TEXT * 50})])
    return data_dir


def in_body(id: str, offset: int) -> int:
    return BODY + len(id.encode()) + offset


def repaired(engine: Engine, id: str, expected: dict[str, Any]) -> None:
    """The damage is named by everything that reads the record, and a repair puts back what was written."""
    says = f"the record object_type '{id}' of branch 'main', LSN .*damaged.*run `shadowswitch check --repair`"
    with pytest.raises(CorruptData, match=says):
        engine.get("main", OBJECT, id)
    with pytest.raises(CorruptData, match=says):
        list(engine.scan("main"))
    assert {finding.invariant for finding in engine.check()} >= {"ST-4"}
    found = engine.check(repair=True)
    assert all(finding.repaired for finding in found), found
    record = engine.get("main", OBJECT, id)
    assert record is not None
    assert record.fields == expected
    assert engine.check() == []
    assert "catalog.repaired" in [entry.type for entry in engine.audit()]


@pytest.mark.parametrize("mask", [1, 0x80, 0xFF])
def test_a_rebuild_names_a_damaged_record_and_the_live_index_gives_it_back(
    data: Path, open_engine: Any, mask: int
) -> None:
    value_at = in_body("5", 45)  # inside a text
    flip(data, "records", record_key("5"), value_at, mask)
    engine = open_engine(sound=False)
    live = engine.index("main", KIND).generation
    with pytest.raises(BuildFailed, match=r"object_type '5' of branch 'main', LSN 9, .*damaged"):
        engine.rebuild("main", KIND, [OBJECT])
    assert engine.index("main", KIND).generation == live
    repaired(engine, "5", fields(5))
    engine.rebuild("main", KIND, [OBJECT])


@pytest.mark.parametrize("at", [0, 3, 8, 10, 11, 14])
def test_a_damaged_header_is_proven_by_the_content(data: Path, open_engine: Any, at: int) -> None:
    """Format, LSN, length of the id, checksum."""
    flip(data, "records", record_key("5"), at, 4)
    engine = open_engine(sound=False)
    repaired(engine, "5", fields(5))
    assert engine.get("main", OBJECT, "5").lsn == 9


def test_a_record_with_a_long_id_comes_back(data: Path, open_engine: Any) -> None:
    flip(data, "records", record_key("é" * 240), in_body("é" * 240, 45))
    engine = open_engine(sound=False)
    assert all(finding.repaired for finding in engine.check(repair=True))
    assert engine.get("main", OBJECT, "é" * 240).fields == fields(7)


def test_what_is_not_proven_is_not_put_back(data: Path, open_engine: Any) -> None:
    """A record that no index holds; a write or a delete of it ends the damage."""
    for id in ("5", "6"):
        flip(data, "records", record_key(id, "other_type", number=2), in_body(id, 3))
    engine = open_engine(sound=False)
    found = engine.check(repair=True)
    assert [(finding.invariant, finding.repaired) for finding in found] == [("ST-4", ""), ("ST-4", "")]
    assert "other_type" in found[0].where
    with pytest.raises(CorruptData, match="or write the record again"):
        engine.get("main", "other_type", "5")
    engine.write("main", [Put("other_type", "5", {"n": 1}), Delete("other_type", "6")])
    assert engine.check() == []
    assert engine.get("main", "other_type", "5").fields == {"n": 1}


@pytest.mark.parametrize("at", [0, 3, 12, 40])
def test_a_damaged_record_comes_back_from_the_journal(journalled: Path, open_engine: Any, at: int) -> None:
    flip(journalled, "records", record_key("5"), at)
    repaired(open_engine(sound=False), "5", fields(5))


@pytest.mark.parametrize("at", [0, 2, 10, 12, 20, 60, 90])
@pytest.mark.parametrize("mask", [1, 0xFF])
def test_a_damaged_chunk_comes_back_from_its_records(journalled: Path, open_engine: Any, at: int, mask: int) -> None:
    flip(journalled, "journal", keys.JOURNAL_KEY.pack(1, 101), at, mask)
    engine = open_engine(sound=False)
    before = engine.changes("main", 0, limit=100)
    with pytest.raises(CorruptData, match="check --repair"):
        engine.changes("main", 100)
    found = engine.check(repair=True)
    assert all(finding.repaired for finding in found), found
    assert engine.check() == []
    assert len(before) == 100
    assert engine.changes("main", 100)[0].fields == fields(50)
    engine.rebuild("main", KIND, [OBJECT])


def test_records_of_an_older_version_are_read_and_get_a_checksum(data: Path, open_engine: Any) -> None:
    assert without_checksums(data) == 452
    engine = open_engine()
    assert engine.check() == []
    assert engine.get("main", OBJECT, "5").fields == fields(5)
    engine.write("main", [Put(OBJECT, "6", fields(6))])
    engine.rebuild("main", KIND, [OBJECT])
    assert engine.check(repair=True) == []
    entry = next(entry for entry in engine.audit() if entry.type == "catalog.repaired")
    assert entry.data["records"] == 451
    engine.close()
    with raw_catalog(data) as (txn, db):
        assert {value[0] for _, value in txn.cursor(db["records"])} == {keys.FORMAT}
    assert open_engine().check() == []


def test_damage_without_a_checksum_gets_none_while_an_index_shows_it(data: Path, open_engine: Any) -> None:
    without_checksums(data)
    flip(data, "records", record_key("5"), keys.RECORD_HEADER.size + 1 + 12)
    engine = open_engine(sound=False)
    standing = [finding for finding in engine.check(repair=True) if not finding.repaired]
    assert {finding.invariant for finding in standing} == {"IX-3"}
    engine.close()
    with raw_catalog(data) as (txn, db):
        formats = [value[0] for _, value in txn.cursor(db["records"])]
    assert formats.count(keys.FORMAT_BARE) == 1


def test_text_that_is_no_text_any_more_is_damage_without_a_checksum_too(journalled: Path, open_engine: Any) -> None:
    without_checksums(journalled)
    flip(journalled, "records", record_key("5"), keys.RECORD_HEADER.size + 1 + 12, 0x80)
    engine = open_engine(sound=False)
    with pytest.raises(CorruptData, match="do not decode"):
        engine.get("main", OBJECT, "5")
    assert all(finding.repaired for finding in engine.check(repair=True))
    assert engine.get("main", OBJECT, "5").fields == fields(5)
