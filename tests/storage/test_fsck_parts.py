"""fsck in parts: the parts hold everything, and find what one part would find, however small they are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Config, Delete, Engine, Put
from shadowswitch.actors.build.disk_check import check_closed
from shadowswitch.storage.catalog import keys
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.fsck import tasks
from shadowswitch.storage.fsck.plan import CheckJournals, CheckRecords
from shadowswitch.storage.fsck.records import BEGIN, END, check_records
from shadowswitch.storage.fsck.tasks import Plan, PlanCheck, check_all
from tests.support import inside
from tests.support.damage import raw_catalog

BRANCHES, TYPES = 5, ("a", "b", "c")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A closed directory: branches with and without records, types of unlike sizes, deleted records."""
    with Engine.open(tmp_path / "data", Config(disk_reserve_bytes=0)) as engine:
        for number in range(BRANCHES):
            engine.create_branch(f"b{number}")
            for size, name in enumerate(TYPES):
                changes = [Put(name, f"{number} {one}", {"text": "word " * 30}) for one in range(40 * number * size)]
                if changes:
                    engine.write(f"b{number}", changes)
                    engine.write(f"b{number}", [Delete(name, f"{number} {one}") for one in range(5)])
    return tmp_path / "data"


@pytest.fixture(params=[1, 7, 100, 1 << 30], ids=lambda rows: f"parts of {rows} rows")
def length(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    rows = int(request.param)
    inside.patch_limit(monkeypatch, inside.Limit.FSCK_PART_ROWS, rows)
    inside.patch_limit(monkeypatch, inside.Limit.FSCK_SLICE, min(rows, 2000))
    inside.patch_limit(monkeypatch, inside.Limit.FSCK_SLICE_CHUNKS, min(rows, 300))
    return rows


def with_catalog(data: Path, look: Callable[[Catalog], Any]) -> Any:
    catalog = Catalog(data / "catalog", readonly=True)
    try:
        return look(catalog)
    finally:
        catalog.close()


def test_the_parts_meet_and_hold_everything(data: Path, length: int) -> None:
    plan = with_catalog(data, lambda catalog: tasks.perform(catalog, PlanCheck(str(data))))
    assert isinstance(plan, Plan)
    records = [part.task for part in plan.catalog if isinstance(part.task, CheckRecords)]
    assert (records[0].begin, records[-1].end) == (BEGIN, END)
    assert all(one.end == other.begin for one, other in pairwise(records))
    journals = sorted((p.task.begin, p.task.end) for p in plan.catalog if isinstance(p.task, CheckJournals))
    assert (journals[0][0], journals[-1][1]) == (2, BRANCHES + 1)
    assert all(one[1] == other[0] for one, other in pairwise(journals))
    assert (len(records) == 1) == (length > 10_000)


def test_a_sound_directory_has_no_findings_in_any_parts(data: Path, length: int) -> None:
    assert with_catalog(data, lambda catalog: check_all(catalog, data)) == []


def _record(txn: Any, db: Any) -> bytes:
    cursor = txn.cursor(db["records"])
    assert cursor.set_range(keys.TYPE_PREFIX.pack(4, 2))
    return bytes(cursor.key())


def _lose_record(txn: Any, db: Any) -> None:
    txn.delete(_record(txn, db), db=db["records"])


def _move_record(txn: Any, db: Any) -> None:
    key = bytearray(_record(txn, db))
    value = bytes(txn.pop(bytes(key), db=db["records"]))
    key[keys.TYPE_PREFIX.size] ^= 1
    txn.put(bytes(key), value, db=db["records"])


def _lose_digest(txn: Any, db: Any) -> None:
    assert txn.delete(keys.TYPE_PREFIX.pack(4, 2), db=db["heads"])


def _invent_digest(txn: Any, db: Any) -> None:
    other = bytes(txn.get(keys.TYPE_PREFIX.pack(4, 2), db=db["heads"]))
    txn.put(keys.TYPE_PREFIX.pack(1, 2), other, db=db["heads"])


def _lose_chunk(txn: Any, db: Any) -> None:
    cursor = txn.cursor(db["journal"])
    assert cursor.set_range(keys.JOURNAL_KEY.pack(4, 0))
    assert cursor.delete()


def _damage_digest_count(txn: Any, db: Any) -> None:
    key = keys.TYPE_PREFIX.pack(4, 2)
    txn.put(key, b"\xff" * len(txn.get(key, db=db["heads"])), db=db["heads"])


@pytest.mark.parametrize(
    ("damage", "invariants"),
    [
        (_lose_record, {"ST-2", "ST-3"}),
        (_move_record, {"ST-2", "ST-3", "ST-4"}),
        (_lose_digest, {"ST-3"}),
        (_invent_digest, {"ST-3"}),
        (_lose_chunk, {"ST-2"}),
        (_damage_digest_count, {"ST-3"}),
    ],
)
def test_damage_is_found_in_any_parts(data: Path, length: int, damage: Any, invariants: set[str]) -> None:
    with raw_catalog(data) as (txn, db):
        damage(txn, db)
    findings = with_catalog(data, lambda catalog: check_all(catalog, data))
    assert {finding.invariant for finding in findings} == invariants, findings


def test_a_check_beside_writers_finds_nothing(tmp_path: Path, length: int) -> None:
    """Each part reads as of transactions of its own: what moves between them is no finding."""
    with Engine.open(tmp_path / "data", Config(journal_keep_changes=5, janitor_interval_s=0.02)) as engine:
        engine.create_branch("main")
        engine.write("main", [Put("t", str(n), {"n": n}) for n in range(100)])
        stopped = threading.Event()

        def write() -> None:
            number = 0
            while not stopped.is_set():
                number += 1
                engine.write("main", [Put("t", str(number % 90), {"n": number}), Delete("t", str(number % 50))])

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(5):
                assert check_all(inside.catalog(engine), engine.path) == []
        finally:
            stopped.set()
            writer.join()


def test_branches_are_read_many_in_one_transaction(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was one transaction for each bucket of each type of each branch."""
    begun: list[int] = []
    inside.before(monkeypatch, inside.Step.CATALOG_READ, lambda: begun.append(0))
    assert with_catalog(data, lambda catalog: check_records(catalog, BEGIN, END)) == []
    assert len(begun) == 1


def test_workers_share_the_parts_and_each_reports(data: Path) -> None:
    seen: list[Any] = []
    assert check_closed(data, seen.append) == []
    assert seen[-1].percent == 100
    assert seen[-1].parts_done == seen[-1].parts > 2
    percents = [progress.percent for progress in seen]
    assert percents == sorted(percents)


def test_a_host_tells_how_far_its_checks_are(data: Path) -> None:
    with Engine.open(data) as engine:
        during: list[Any] = []
        assert engine.check(progress=lambda progress: during.append((progress, engine.checks()))) == []
        assert all(running == [progress] for progress, running in during)
        assert during[-1][0].percent == 100
        assert engine.checks() == []


def test_an_error_of_the_callback_ends_the_check_and_its_workers(data: Path) -> None:
    def refuse(progress: Any) -> None:
        raise KeyError("enough")

    with Engine.open(data) as engine:
        with pytest.raises(KeyError, match="enough"):
            engine.check(progress=refuse)
        assert (engine.checks(), engine.stats()["worker_pids"]) == ([], [])
        assert engine.check() == []
