"""Forks that follow their parent: what they show, what they are compared with, their indexes, restarts and kills."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Config, Delete, Engine, InUse, InvalidConfig, Put
from shadowswitch.storage.catalog.retention import trim_journal
from tests.support import inside
from tests.support.engine_helpers import fill

CONFIG = Config(disk_reserve_bytes=0, janitor_interval_s=3600)
KIND, TYPES = "SEARCH_INDEX", ["object_type"]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A branch of five records, and a fork that follows it."""
    with Engine.open(tmp_path / "data", CONFIG) as opened:
        opened.create_branch("main")
        fill(opened, 5)
        opened.fork_branch("fork", "main", mode="following", by="me", reason="a view of it")
        yield opened


def put(id: str, text: str) -> Put:
    return Put("object_type", id, {"text": text})


def text(engine: Engine, branch: str, id: str) -> object:
    record = engine.get(branch, "object_type", id)
    return record.fields["text"] if record is not None else None


def shown(engine: Engine, branch: str) -> dict[str, object]:
    return {record.id: record.fields["text"] for record in engine.scan(branch)}


def indexed(engine: Engine, branch: str) -> set[str]:
    with engine.reader(branch, KIND, min_lsn=engine.head(branch), timeout_s=30) as reader:
        return {row.id for row in reader.scan()}


def test_it_shows_its_parent_until_it_changes_a_record_itself(engine: Engine) -> None:
    assert engine.branch("fork").mode == "following"
    engine.write("main", [put("1", "of main"), Delete("object_type", "2"), put("new", "of main")])
    assert shown(engine, "fork") == shown(engine, "main")
    engine.write("fork", [put("1", "of fork"), Delete("object_type", "3")])
    engine.write("main", [put("1", "later"), put("3", "later"), put("4", "later")])
    expected = shown(engine, "main") | {"1": "of fork"}
    del expected["3"]
    assert shown(engine, "fork") == expected
    assert engine.count("fork") == engine.branch("fork").record_count == len(expected)
    assert list(engine.check()) == []


def test_its_journal_has_what_its_parent_changes(engine: Engine) -> None:
    """So `changes` of it is a feed of what it shows, and a reader can wait for an LSN of its parent."""
    begin = engine.head("fork")
    engine.write("fork", [put("1", "of fork")])
    receipt = engine.write("main", [put("0", "of main"), put("1", "of main"), put("2", "of main"), put("3", "of main")])
    found = [(change.id, change.lsn) for change in engine.changes("fork", after=begin, limit=10)]
    assert found == [("1", begin + 1), ("0", begin + 2), ("2", begin + 4), ("3", begin + 5)]
    assert engine.head("fork") == receipt.lsn
    assert list(engine.check()) == []


def test_a_parent_that_only_changes_what_the_fork_has_changed_does_not_move_it(engine: Engine) -> None:
    mine = engine.write("fork", [put("1", "of fork")])
    engine.write("main", [put("1", "of main")])
    assert engine.head("fork") == mine.lsn
    assert list(engine.check()) == []


def test_a_delete_of_what_it_does_not_show_makes_no_record_its_own(engine: Engine) -> None:
    """Whether the parent remembers a delete of its own, for another fork, or not."""
    engine.fork_branch("moment", "main")
    engine.write("main", [Delete("object_type", "1")])
    engine.write("fork", [Delete("object_type", "1"), Delete("object_type", "never")])
    engine.write("main", [put("1", "again"), put("never", "once")])
    assert shown(engine, "fork") == shown(engine, "main")
    assert list(engine.diff("fork")) == []


def test_its_index_follows_its_parent(engine: Engine) -> None:
    assert engine.rebuild("main", KIND, TYPES).success
    engine.write("fork", [put("mine", "of fork"), Delete("object_type", "0")])
    assert indexed(engine, "fork") == {"1", "2", "3", "4", "mine"}
    engine.write("main", [put("new", "of main"), Delete("object_type", "1"), put("0", "again")])
    assert indexed(engine, "fork") == {"2", "3", "4", "mine", "new"}
    assert indexed(engine, "main") == {"0", "2", "3", "4", "new"}
    assert engine.rebuild("fork", KIND, TYPES, {"tokenizer": "porter"}).success
    assert indexed(engine, "fork") == {"2", "3", "4", "mine", "new"}
    assert list(engine.check()) == []


def test_a_receipt_of_its_parent_is_an_lsn_to_read_it_from(engine: Engine) -> None:
    """Also one of changes that do not show on it, behind which its own head stays."""
    assert engine.rebuild("main", KIND, TYPES).success
    engine.fork_branch("view", "fork", mode="following")
    engine.write("fork", [put("1", "of fork")])
    for branch in ("fork", "view"):
        shown_by = engine.write("main", [put("0", f"for {branch}")])
        with engine.reader(branch, KIND, min_lsn=shown_by.lsn, timeout_s=30) as reader:
            assert len(reader.search(f"for {branch}")) == 1
        hidden = engine.write("main", [put("1", "of main")])
        assert engine.head(branch) < hidden.lsn
        with engine.reader(branch, KIND, min_lsn=hidden.lsn, timeout_s=30) as reader:
            assert not reader.search("main")
        with engine.read_group(branch, [KIND], min_lsn=hidden.lsn) as view:
            assert view[KIND].count() == 5
        with pytest.raises(InvalidConfig, match="beyond the head of branch"):
            engine.reader(branch, KIND, min_lsn=hidden.lsn + 1)


def test_it_is_compared_with_what_it_changed_and_not_with_what_its_parent_was(engine: Engine) -> None:
    """Two fields that the parent changed after the fork, and before the fork's own change, are no conflict."""
    engine.write("main", [Put("object_type", "1", {"a": 0, "b": 0})])
    engine.write("fork", [Put("object_type", "1", {"a": 0, "b": 1})])
    (diff,) = engine.diff("fork")
    assert (diff.id, diff.kind, diff.theirs_lsn) == ("1", "changed", diff.base_lsn)
    engine.write("main", [Put("object_type", "1", {"a": 2, "b": 0})])
    result = engine.merge_into("main", "fork")
    assert (result.applied, result.conflicts) == (1, [])
    record = engine.get("main", "object_type", "1")
    assert record is not None
    assert record.fields == {"a": 2, "b": 1}


def test_a_value_that_it_sets_back_to_an_older_one_is_a_change(engine: Engine) -> None:
    engine.write("main", [put("1", "second")])
    engine.write("fork", [put("1", "hello word1")])
    assert engine.merge_into("main", "fork").applied == 1
    assert text(engine, "main", "1") == "hello word1"


def test_what_both_changed_is_a_conflict_and_a_rebase_settles_it(engine: Engine) -> None:
    engine.write("fork", [put("1", "of fork"), put("2", "of fork"), put("3", "of fork")])
    engine.write("main", [put("1", "of main"), Delete("object_type", "2"), put("3", "of fork")])
    tried = engine.merge_into("main", "fork")
    assert {conflict.id for conflict in tried.conflicts} == {"1", "2"}
    assert (tried.applied, tried.receipt) == (0, None)
    refused = engine.rebase("fork")
    assert ({conflict.id for conflict in refused.conflicts}, refused.applied) == ({"1", "2"}, 0)
    assert text(engine, "fork", "1") == "of fork"
    assert len(engine.rebase("fork", on_conflict="ours").conflicts) == 2
    assert not engine.rebase("fork").conflicts
    assert {diff.id for diff in engine.diff("fork")} == {"1", "2"}
    result = engine.merge_into("main", "fork")
    assert (result.applied, result.conflicts) == (2, [])
    assert shown(engine, "main") == shown(engine, "fork")
    assert list(engine.check()) == []


def test_a_rebase_looks_again_at_a_record_that_the_parent_changes_meanwhile(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.write("fork", [Put("object_type", "1", {"a": 1, "b": 0, "text": "hello word1"})])
    engine.write("main", [Put("object_type", "1", {"c": 1, "text": "hello word1"})])
    chance = iter([True])

    def write() -> None:
        if next(chance, False):
            engine.write("main", [Put("object_type", "1", {"c": 2, "text": "hello word1"})])

    inside.before(monkeypatch, inside.Step.BRING, write)
    assert engine.rebase("fork").applied == 1
    record = engine.get("fork", "object_type", "1")
    assert record is not None
    assert record.fields == {"a": 1, "b": 0, "c": 2, "text": "hello word1"}
    assert not engine.merge_into("main", "fork").conflicts


def test_it_can_be_forked_itself_in_either_way(engine: Engine) -> None:
    engine.write("fork", [put("1", "of fork")])
    engine.fork_branch("moment", "fork")
    engine.fork_branch("view", "fork", mode="following")
    engine.write("main", [put("0", "later"), Delete("object_type", "2"), put("1", "later")])
    engine.write("fork", [put("3", "later")])
    before = {"0": "hello word0", "1": "of fork", "2": "hello word2", "3": "hello word3", "4": "hello word4"}
    assert shown(engine, "moment") == before
    assert shown(engine, "view") == shown(engine, "fork") == {
        "0": "later", "1": "of fork", "3": "later", "4": "hello word4",
    }  # fmt: skip
    inside.sweep(engine)
    assert shown(engine, "moment") == before
    with pytest.raises(InUse):
        engine.drop_branch("fork")
    assert not engine.rebase("moment").conflicts
    assert shown(engine, "moment") == shown(engine, "fork")
    engine.drop_branch("main", cascade=True)
    assert engine.branches() == []


def test_a_rebase_of_its_fork_finds_what_came_from_above_where_the_journal_is_trimmed(engine: Engine) -> None:
    engine.fork_branch("moment", "fork")
    engine.write("main", [put("0", "later"), Delete("object_type", "2")])
    number = engine.branch("fork").number
    inside.transact(engine, lambda commit: trim_journal(commit, number, engine.head("fork"), 1000))
    assert not engine.rebase("moment").conflicts
    assert shown(engine, "moment") == shown(engine, "main")


def test_ten_may_follow_a_branch_and_its_followers_count(engine: Engine) -> None:
    engine.fork_branch("second", "fork", mode="following")
    for number in range(8):
        engine.fork_branch(f"view-{number}", "main", mode="following")
    for of in ("main", "second"):
        with pytest.raises(InvalidConfig, match=r"10 forks follow branch 'main' already.*drop one"):
            engine.fork_branch("more", of, mode="following")
    engine.fork_branch("moment", "second")
    engine.fork_branch("of the moment", "moment", mode="following")
    engine.drop_branch("view-3")
    engine.fork_branch("more", "second", mode="following")
    engine.write("main", [put("new", "of main")])
    assert text(engine, "more", "new") == "of main"
    assert text(engine, "of the moment", "new") is None
    assert list(engine.check()) == []


def test_what_cannot_be_is_refused_with_words(engine: Engine) -> None:
    with pytest.raises(InvalidConfig, match="the mode of a fork is 'snapshot' or 'following', not 'live'"):
        engine.fork_branch("other", "main", mode="live")
    with pytest.raises(InvalidConfig, match=r"shows it as it is, not as of an LSN.*leave at_lsn out"):
        engine.fork_branch("other", "main", mode="following", at_lsn=3)
    with pytest.raises(InUse, match="fork is a fork of it"):
        engine.drop_branch("main")


def test_what_it_kept_goes_with_it(engine: Engine) -> None:
    engine.write("fork", [put("1", "of fork"), Delete("object_type", "2")])
    engine.drop_branch("fork")
    inside.sweep(engine)
    with inside.catalog(engine).read() as txn:
        left = {name: txn.stat(inside.catalog(engine).db[name])["entries"] for name in ("bases", "forks", "undo")}
    assert left == {"bases": 0, "forks": 0, "undo": 0}


def test_a_batch_of_which_the_fork_has_some_is_whole_in_its_journal(engine: Engine) -> None:
    """Chunks are cut where changes are left out; a slice of the journal still ends at the end of a batch."""
    engine.write("fork", [put(str(number), "of fork") for number in range(0, 400, 7)])
    engine.write("main", [put(str(number), "x" * 50) for number in range(400)])
    begin = engine.head("fork")
    engine.write(
        "main", [put(str(number), "y" * (number % 90)) for number in range(399)] + [Delete("object_type", "0")]
    )
    changes = engine.changes("fork", after=begin, limit=1000)
    assert [change.id for change in changes] == [str(number) for number in range(399) if number % 7]
    assert list(engine.check()) == []


def test_it_goes_on_behind_a_restart(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "data", CONFIG) as engine:
        engine.create_branch("main")
        fill(engine, 5)
        engine.fork_branch("fork", "main", mode="following")
        engine.write("fork", [put("1", "of fork")])
    with Engine.open(tmp_path / "data", CONFIG) as engine:
        engine.write("main", [put("0", "later"), put("1", "later")])
        assert (text(engine, "fork", "0"), text(engine, "fork", "1")) == ("later", "of fork")
        assert list(engine.check()) == []


def test_a_lost_place_in_the_list_of_forks_is_found_and_put_back(tmp_path: Path) -> None:
    """Without it the writes of the parent would not reach the fork."""
    data = tmp_path / "data"
    with Engine.open(data, CONFIG) as engine:
        engine.create_branch("main")
        fill(engine, 5)
        engine.fork_branch("fork", "main", mode="following")

        def forget(commit: Any) -> None:
            with commit.txn.cursor(commit.db["forks"]) as cursor:
                while cursor.first():
                    cursor.delete()
            commit.forks_changed()

        inside.transact(engine, forget)
        assert {finding.invariant for finding in engine.check()} == {"BR-4"}
        assert all(finding.repaired for finding in engine.check(repair=True))
        assert list(engine.check()) == []
        engine.write("main", [put("2", "later")])
        assert shown(engine, "fork") == shown(engine, "main")
        assert list(engine.check()) == []


def test_writers_of_both_and_readers_of_its_index_see_one_line_of_changes(engine: Engine) -> None:
    """Each writer raises numbers; a reader of the fork's index never sees one go back, nor misses one at its LSN."""
    assert engine.rebuild("main", KIND, TYPES).success
    indexed(engine, "fork")
    stop, wrong = threading.Event(), list[str]()
    last: dict[str, int] = {}

    def write(branch: str, ids: list[str]) -> None:
        chance, number = random.Random(branch), 0
        while not stop.is_set():
            number += 1
            id = chance.choice(ids)
            engine.write(branch, [Put("object_type", id, {"text": f"n{number}", "n": number})])
            last[f"{branch} {id}"] = number

    def read() -> None:
        seen: dict[str, int] = {}
        while not stop.is_set():
            known = dict(last)
            with engine.reader("fork", KIND, min_lsn=engine.head("fork"), timeout_s=30) as reader:
                rows = {row.id: row.lsn for row in reader.scan()}
            for key in known:
                if key.partition(" ")[2] not in rows:
                    wrong.append(f"{key} is missing")
            wrong.extend(f"{id} goes back" for id, lsn in rows.items() if lsn < seen.get(id, 0))
            seen.update(rows)

    work = [("main", ["m1", "m2", "m3"]), ("fork", ["f1", "f2"])]
    threads = [threading.Thread(target=write, args=one) for one in work] + [threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    assert engine.rebuild("fork", KIND, TYPES, {"tokenizer": "porter"}).success
    assert engine.rollback("fork", KIND).success
    stop.set()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    for key, number in last.items():
        record = engine.get("fork", "object_type", key.partition(" ")[2])
        assert record is not None
        assert record.fields["n"] == number
    assert list(engine.check()) == []
