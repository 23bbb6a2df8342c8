"""What the catalog holds twice is derived again by `check(repair=True)`. Each test flips bits in a closed directory."""

from __future__ import annotations

import itertools
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import BuildFailed, Delete, Engine, Event, Put
from shadowswitch.storage.catalog import keys
from shadowswitch.storage.catalog.environment import meta_key, name_key
from tests.support import inside
from tests.support.damage import digest_key, flip, raw_catalog, without_checksums
from tests.support.engine_helpers import wait_until

KIND = "SEARCH_INDEX"
OBJECT = "object_type"


@pytest.fixture
def data(data_dir: Path, open_engine: Any) -> Path:
    """A closed directory of 300 records in a live and a soaking generation, and an event."""
    with open_engine() as engine:
        engine.create_branch("main")
        engine.write("main", [Put(OBJECT, str(n), {"text": f"hello w{n}"}) for n in range(300)])
        engine.rebuild("main", KIND, [OBJECT])
        engine.rebuild("main", KIND, [OBJECT])
        engine.note_event_position("webhook", 3)
    return data_dir


def repairs(engine: Engine) -> list[Event]:
    return [entry for entry in engine.audit() if entry.type == "catalog.repaired"]


def repaired(engine: Engine, invariant: str) -> None:
    """One repair mends everything, and it is an event and in the audit history."""
    assert engine.check() != []
    found = engine.check(repair=True, by="ana", reason="a flipped bit")
    assert found
    assert all(finding.repaired for finding in found), found
    assert invariant in {finding.invariant for finding in found}
    assert engine.check() == []
    audit = repairs(engine)
    assert len(audit) == len(found)
    assert (audit[0].data["by"], audit[0].data["reason"]) == ("ana", "a flipped bit")
    assert [e.type for e in engine.events() if "catalog.repaired" in e.type] != []


@pytest.mark.parametrize("at", [8 * 5, 64 * 8 + 8 * 5 + 3], ids=["count", "sum"])
def test_a_flipped_bit_of_a_digest_is_named_by_a_rebuild_and_repaired(data: Path, open_engine: Any, at: int) -> None:
    flip(data, "heads", digest_key(), at)
    engine = open_engine(sound=False)
    with pytest.raises(BuildFailed, match="digest of the catalog is wrong: run `shadowswitch check --repair`"):
        engine.rebuild("main", KIND, [OBJECT])
    gone_back = engine.rollback("main", KIND)
    assert not gone_back.success
    assert "shadowswitch check --repair" in gone_back.message
    repaired(engine, "ST-3")
    assert engine.count("main") == 300
    assert engine.rollback("main", KIND).success
    engine.rebuild("main", KIND, [OBJECT])


def test_writes_beside_a_repair_keep_the_digest_right(data: Path, open_engine: Any) -> None:
    flip(data, "heads", digest_key(), 64 * 8 + 8 * 5 + 3)
    engine = open_engine(sound=False)
    engine.write("main", [Put(OBJECT, str(n), {"text": "again"}) for n in range(0, 300, 2)])
    engine.write("main", [Delete(OBJECT, str(n)) for n in range(0, 300, 3)])
    repaired(engine, "ST-3")
    engine.write("main", [Put(OBJECT, str(n), {"text": "later"}) for n in range(0, 300, 5)])
    assert engine.check() == []


def test_a_branch_that_is_dropped_beside_its_repair_gets_no_row_back(
    data: Path, open_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(data, "heads", digest_key(), 64 * 8 + 8 * 5 + 3)
    engine = open_engine(sound=False)

    def drop() -> None:
        engine.drop_branch("main")
        wait_until(lambda: engine.stats()["catalog"]["entries"]["branches"] == 0)

    inside.after(monkeypatch, inside.Step.REPAIR_MEASURE, drop)
    assert engine.check(repair=True) == []
    assert repairs(engine) == []
    assert engine.stats()["catalog"]["entries"]["heads"] == 0
    assert engine.check() == []


def test_a_count_below_the_records_does_not_hinder_writes(data: Path, open_engine: Any) -> None:
    with raw_catalog(data) as (txn, db):
        txn.put(digest_key(), bytes(1024), db=db["heads"])
    engine = open_engine(sound=False)
    engine.write("main", [Delete(OBJECT, str(n)) for n in range(100)])
    repaired(engine, "ST-3")
    assert engine.count("main") == 200


def test_a_digest_of_another_size_is_an_empty_one(data: Path, open_engine: Any) -> None:
    with raw_catalog(data) as (txn, db):
        txn.put(digest_key(), bytes(100), db=db["heads"])
    engine = open_engine(sound=False)
    engine.write("main", [Delete(OBJECT, "7")])
    repaired(engine, "ST-3")
    assert engine.count("main") == 299


def test_a_repair_runs_beside_writers(data: Path, open_engine: Any) -> None:
    flip(data, "heads", digest_key(), 64 * 8 + 8 * 5 + 3)
    without_checksums(data)
    engine = open_engine(sound=False)
    ended = threading.Event()

    def write(own: int) -> None:
        for n in itertools.count():
            put = Put(OBJECT, str((own + 7 * n) % 400), {"text": f"{own} {n}"})
            engine.write("main", [put, Delete(OBJECT, str(n % 400))])
            if ended.is_set():
                return

    with ThreadPoolExecutor(2) as writers:
        running = [writers.submit(write, own) for own in (1, 2)]
        found = engine.check(repair=True)
        ended.set()
        for one in running:
            one.result(60)
    assert {finding.invariant for finding in found if finding.repaired} == {"ST-3"}
    assert engine.check() == []


@pytest.mark.parametrize(
    ("database", "key", "value", "invariant"),
    [
        ("heads", keys.BRANCH.pack(1), keys.HEAD.pack(2, 1), "ST-1"),
        ("heads", keys.BRANCH.pack(1), keys.HEAD.pack(300, 17), "ST-1"),
        ("heads", keys.BRANCH.pack(1), keys.HEAD.pack(300 + (1 << 40), 1), ""),
        ("meta", meta_key("last_lsn"), keys.SEQUENCE.pack(3), ""),
        ("meta", meta_key("event"), keys.SEQUENCE.pack(1), ""),
        ("meta", meta_key("event"), keys.SEQUENCE.pack(1 << 40), ""),
        ("meta", meta_key("audit"), keys.SEQUENCE.pack(0), ""),
        ("meta", meta_key("branch"), keys.SEQUENCE.pack(0), ""),
        ("meta", meta_key("token"), keys.SEQUENCE.pack(0), ""),
        ("meta", meta_key("generation"), keys.SEQUENCE.pack(1), ""),
        ("types", keys.BRANCH.pack(1), b"object_typf", "ST-4"),
        ("types", keys.BRANCH.pack(1), b"object_typ\xff", "ST-4"),
        ("branch_names", name_key("main"), keys.BRANCH.pack(5), "ST-4"),
    ],
)
def test_numbers_and_names_are_derived_again(
    data: Path,
    open_engine: Any,
    monkeypatch: pytest.MonkeyPatch,
    database: str,
    key: bytes,
    value: bytes,
    invariant: str,
) -> None:
    inside.replace(monkeypatch, inside.Step.RECHECK, lambda _: None)  # it reads by the damaged name, if it comes first
    with raw_catalog(data) as (txn, db):
        txn.put(key, value, db=db[database])
    engine = open_engine(sound=False)
    if invariant:
        repaired(engine, invariant)
    else:  # nothing may begin with such a number: the start has derived it again
        assert engine.check() == []
        assert len(repairs(engine)) == 1
    engine.close()
    engine = open_engine()
    receipt = engine.write("main", [Put(OBJECT, "new", {"text": "zebra"})])
    assert receipt.lsn == 301
    assert engine.create_branch("other").name == "other"
    engine.rebuild("main", KIND, [OBJECT])
    with engine.reader("main", KIND, min_lsn=receipt.lsn) as reader:
        assert [hit.id for hit in reader.search("zebra")] == ["new"]
        assert reader.count() == engine.count("main") == 301


def test_a_position_beyond_the_newest_event_is_set_to_it(data: Path, open_engine: Any) -> None:
    with raw_catalog(data) as (txn, db):
        for key, _ in txn.cursor(db["positions"]):
            txn.put(key, struct.pack(">Q", 1 << 40), db=db["positions"])
    engine = open_engine(sound=False)
    newest = engine.event_span()[1]
    repaired(engine, "EV-1")
    assert newest <= engine.event_position("webhook") <= engine.event_span()[1]


def test_a_sound_directory_needs_no_repair(data: Path, open_engine: Any) -> None:
    engine = open_engine()
    events = engine.event_span()
    assert engine.check(repair=True) == []
    assert engine.event_span() == events


def test_the_key_of_a_name_that_no_branch_has_is_removed(data: Path, open_engine: Any) -> None:
    with raw_catalog(data) as (txn, db):
        txn.put(b"n" * 16, keys.BRANCH.pack(1), db=db["branch_names"])
    engine = open_engine(sound=False)
    repaired(engine, "ST-4")
