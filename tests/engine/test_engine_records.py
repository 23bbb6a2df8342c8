"""Branches, records, batches and the journal."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from shadowswitch import (
    Change,
    Delete,
    Engine,
    InvalidChange,
    InvalidName,
    JournalTrimmed,
    Put,
    Record,
    Timeout,
    UnknownBranch,
)
from shadowswitch.model.records import ChangeKind
from tests.support import inside

Eventually = Callable[[Callable[[], bool]], None]


def put(id: str, text: str = "x", resource_type: str = "object_type") -> Put:
    return Put(resource_type, id, {"text": text})


def test_a_written_record_is_read_back_with_its_lsn(engine: Engine) -> None:
    receipt = engine.write("main", [put("a", "one"), put("b")])
    assert (receipt.lsn, receipt.count) == (2, 2)
    assert engine.get("main", "object_type", "a") == Record("object_type", "a", {"text": "one"}, 1)
    assert engine.head("main") == 2


def test_the_delete_of_a_missing_record_succeeds(engine: Engine) -> None:
    assert engine.write("main", [Delete("link_type", "owns")]).lsn == 1
    assert engine.get("main", "link_type", "owns") is None
    assert engine.count("main") == 0


def test_the_last_change_of_a_key_in_a_batch_wins_and_the_journal_has_them_all(engine: Engine) -> None:
    engine.write("main", [put("a", "1"), Delete("object_type", "a"), put("a", "3")])
    record = engine.get("main", "object_type", "a")
    assert record is not None
    assert (record.fields["text"], record.lsn) == ("3", 3)
    assert engine.count("main") == 1
    assert engine.changes("main") == [
        Change(1, ChangeKind.PUT, "object_type", "a", {"text": "1"}),
        Change(2, ChangeKind.DELETE, "object_type", "a", None),
        Change(3, ChangeKind.PUT, "object_type", "a", {"text": "3"}),
    ]


def test_counts_are_kept_by_type_and_scans_give_every_record_once(engine: Engine) -> None:
    engine.write(
        "main", [put(str(n)) for n in range(1200)] + [put(str(n), resource_type="link_type") for n in range(7)]
    )
    engine.write("main", [Delete("object_type", str(n)) for n in range(0, 1200, 2)])
    assert engine.count("main", "object_type") == 600
    assert engine.count("main", "link_type") == 7
    assert engine.count("main", "never_used") == 0
    ids = [record.id for record in engine.scan("main", "object_type")]
    assert sorted(ids, key=int) == [str(n) for n in range(1, 1200, 2)]
    assert len(list(engine.scan("main"))) == 607


def test_branches_are_apart_and_share_one_order_of_lsns(engine: Engine) -> None:
    engine.create_branch("feature/user-schema")
    engine.write("main", [put("a")])
    engine.write("feature/user-schema", [put("a", "other"), put("b")])
    assert (engine.head("main"), engine.head("feature/user-schema")) == (1, 3)
    assert engine.count("main") == 1
    record = engine.get("main", "object_type", "a")
    assert record is not None
    assert record.fields == {"text": "x"}
    assert [info.name for info in engine.branches()] == ["main", "feature/user-schema"]


BAD_CHANGES: list[Any] = [
    Put("object_type", "a", {"x": {1, 2}}),
    Put("object_type", "a", {"x": float("nan")}),
    Put("object_type", "a", {"x": 1 << 70}),
    Put("object_type", "a", {1: "x"}),  # type: ignore[dict-item]
    Put("object_type", "a", ["x"]),  # type: ignore[arg-type]
    Put("object_type", "a", {"x": "\ud800"}),
    Put("object_type", "a", {"x": "y" * (1 << 20)}),
    Put("object_type", "", {}),
    Put("object_type", "a\0b", {}),
    Put("object_type", "\ud800", {}),
    Put("object_type", "i" * 2001, {}),
    Put("", "a", {}),
    Put("t" * 101, "a", {}),
    Put("with\nnewline", "a", {}),
    "not a change",
]


@pytest.mark.parametrize("bad", BAD_CHANGES, ids=range(len(BAD_CHANGES)))
def test_a_bad_change_is_refused_and_nothing_of_its_batch_is_written(engine: Engine, bad: Any) -> None:
    with pytest.raises((InvalidChange, InvalidName)):
        engine.write("main", [put("before"), bad, put("after")])
    assert engine.head("main") == 0
    assert engine.count("main") == 0


def test_empty_and_oversized_batches_are_refused(engine: Engine) -> None:
    with pytest.raises(InvalidChange, match="empty"):
        engine.write("main", [])
    with pytest.raises(InvalidChange, match="10000"):
        engine.write("main", [put("a")] * 10_001)


def test_long_ids_work_and_stay_apart_although_a_key_is_short(engine: Engine) -> None:
    ids = ["k" * 1999 + "a", "k" * 1999 + "b", "k" * 400, "k" * 401, "한" * 600, "🦊" * 200]
    engine.write("main", [put(id, id[-1]) for id in ids])
    for id in ids:
        record = engine.get("main", "object_type", id)
        assert record is not None
        assert (record.id, record.fields["text"]) == (id, id[-1])
    assert {record.id for record in engine.scan("main")} == set(ids)


GOOD_NAMES = [
    "a",
    "..x",
    "../../etc",
    "a/b",
    "..",
    ".",
    "x" * 200,
    "한" * 200,
    "🦊" * 200,
    "A",
    "e\u0301",
    "\u00e9",
    "a%2Fb",
    "~",
]
BAD_NAMES = ["", "x" * 201, "a\0b", "tab\there", " leading", "trailing ", "\ud800", "line\u2028sep"]


def test_every_good_name_is_a_branch_of_its_own_inside_the_data_directory(engine: Engine) -> None:
    for number, name in enumerate(GOOD_NAMES):
        engine.create_branch(name)
        engine.write(name, [put("n", str(number))])
        result = engine.rebuild(name, "SEARCH_INDEX", ["object_type"], {"parallel_workers": 1})
        assert result.success, result.message
    paths = {engine.index(name, "SEARCH_INDEX").path for name in GOOD_NAMES}
    assert len(paths) == len(GOOD_NAMES)
    assert {str(engine.path / "generations") == path.rsplit("/", 3)[0] for path in paths} == {True}
    for number, name in enumerate(GOOD_NAMES):
        with engine.reader(name, "SEARCH_INDEX") as reader:
            held = reader.get("object_type", "n")
            assert held is not None
            assert held.fields == {"text": str(number)}


@pytest.mark.parametrize("name", BAD_NAMES, ids=range(len(BAD_NAMES)))
def test_a_bad_branch_name_is_refused(engine: Engine, name: str) -> None:
    with pytest.raises(InvalidName):
        engine.create_branch(name)
    with pytest.raises(UnknownBranch):
        engine.write(name, [put("a")])
    assert len(engine.branches()) == 1


def test_a_branch_is_made_once(engine: Engine) -> None:
    with pytest.raises(InvalidName, match="exists already"):
        engine.create_branch("main")
    with pytest.raises(UnknownBranch, match="no branch 'other'"):
        engine.write("other", [put("a")])


def test_many_writers_share_commits_and_each_gets_its_own_lsn(engine: Engine) -> None:
    receipts: list[int] = []

    def write(number: int) -> None:
        receipts.extend([engine.write("main", [put(f"{number}-{n}")]).lsn for n in range(25)])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(receipts) == list(range(1, 401))
    assert engine.count("main") == 400
    assert engine.stats()["counters"]["commits"] < 400


def test_the_journal_is_trimmed_below_the_needed_changes_and_says_so(
    engine: Engine, open_engine: Any, tmp_path: Any
) -> None:
    other = open_engine(tmp_path / "other", journal_keep_changes=100)
    other.create_branch("main")
    for n in range(10):
        other.write("main", [put(f"{n}-{m}") for m in range(200)])
    other.clean_up()
    oldest = other.branch("main").oldest_lsn
    assert 1 < oldest <= 1901
    with pytest.raises(JournalTrimmed) as caught:
        other.changes("main", after=5)
    assert caught.value.oldest_lsn == oldest
    assert other.changes("main", after=oldest - 1, limit=5)[0].lsn == oldest
    assert other.changes("main", after=2000) == []


def test_a_write_that_was_not_begun_in_time_is_not_written(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    inside.replace(monkeypatch, inside.Step.BRANCH_FAILPOINT, lambda name: go_on.wait(60))
    try:
        with pytest.raises(Timeout, match="nothing was done"):
            engine.write("main", [put("late")], timeout_s=0.05)
    finally:
        go_on.set()
    engine.write("main", [put("next")])
    assert engine.get("main", "object_type", "late") is None
    assert engine.head("main") == 1


def test_records_survive_closing_and_opening(open_engine: Any) -> None:
    first = open_engine()
    first.create_branch("main")
    first.write("main", [put("a", "kept")])
    first.close()
    second = open_engine()
    record = second.get("main", "object_type", "a")
    assert record is not None
    assert record.fields == {"text": "kept"}
    assert second.write("main", [put("b")]).lsn == 2
