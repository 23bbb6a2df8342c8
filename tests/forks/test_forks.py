"""Forks as a host uses them: what they show, their indexes, what is refused, and what goes when they go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shadowswitch import (
    BranchExists,
    Config,
    Delete,
    Engine,
    InUse,
    InvalidConfig,
    InvalidName,
    MergeResult,
    Put,
    UnknownBranch,
)
from shadowswitch.storage.catalog.retention import trim_journal
from tests.support import inside
from tests.support.engine_helpers import fill, found, live, put

CONFIG = Config(disk_reserve_bytes=0, janitor_interval_s=3600)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine.open(tmp_path / "data", CONFIG) as opened:
        opened.create_branch("main")
        yield opened


def text(engine: Engine, branch: str, id: str) -> object:
    record = engine.get(branch, "object_type", id)
    return record.fields["text"] if record is not None else None


def entries(engine: Engine, database: str) -> int:
    with inside.catalog(engine).read() as txn:
        return int(txn.stat(inside.catalog(engine).db[database])["entries"])


def test_each_side_shows_its_own_changes_alone(engine: Engine) -> None:
    fill(engine, 5)
    fork = engine.fork_branch("fork", "main", by="me", reason="a try")
    engine.write("main", [put("1", "of main"), Delete("object_type", "2"), put("new", "of main")])
    engine.write("fork", [put("3", "of fork"), Delete("object_type", "4")])
    assert (fork.parent, fork.fork_lsn, fork.mode) == ("main", 5, "snapshot")
    assert (fork.head_lsn, fork.oldest_lsn, fork.record_count) == (5, 6, 5)
    assert text(engine, "fork", "1") == "hello word1"
    assert sorted(record.id for record in engine.scan("fork")) == ["0", "1", "2", "3"]
    assert sorted(record.id for record in engine.scan("main")) == ["0", "1", "3", "4", "new"]
    assert (engine.count("fork"), engine.count("main", "object_type")) == (4, 5)
    assert engine.changes("fork", fork.head_lsn)[0].id == "3"
    row = engine.audit()[-1]
    assert (row.type, row.data["by"], row.data["parent"]) == ("branch.forked", "me", "main")
    assert engine.check() == []


def test_an_index_of_a_fork_is_built_followed_and_proven(engine: Engine) -> None:
    """IX-3, BR-1: the digest of what a fork shows is that of its index."""
    fill(engine, 300)
    live(engine)
    engine.fork_branch("fork", "main")
    engine.write("main", [put("1", "mainonly"), Delete("object_type", "5")])
    engine.write("fork", [put("2", "forkonly"), Delete("object_type", "6")])
    live(engine, "fork")
    receipt = engine.write("fork", [put("7", "laterfork"), Delete("object_type", "2")])
    assert found(engine, "laterfork", "fork", min_lsn=receipt.lsn) == {"7"}
    assert found(engine, "mainonly", "fork") == found(engine, "forkonly", "fork") == set()
    assert found(engine, "word5", "fork") == {"5"}
    assert found(engine, "word6", "fork") == set()
    assert found(engine, "mainonly", min_lsn=engine.head("main")) == {"1"}
    assert engine.check() == []


def test_a_merge_is_in_the_result_the_audit_and_the_index(engine: Engine) -> None:
    fill(engine, 10)
    live(engine)
    engine.fork_branch("fork", "main")
    engine.write("fork", [Put("object_type", "1", {"text": "forked"}), Delete("object_type", "2"), put("n", "forked")])
    engine.write("main", [put("3", "of main")])
    dry = engine.merge_into("main", "fork", dry_run=True)
    assert (dry.applied, dry.receipt, dry.conflicts) == (3, None, [])
    assert text(engine, "main", "1") == "hello word1"
    result = engine.merge_into("main", "fork", by="me", reason="done")
    assert result.receipt is not None
    assert (result.applied, result.same, result.conflicts) == (3, 0, [])
    assert found(engine, "forked", min_lsn=result.receipt.lsn) == {"1", "n"}
    row = engine.audit()[-1]
    assert (row.type, row.data["by"], row.data["applied"], row.data["source"]) == ("branch.merged", "me", 3, "fork")
    assert engine.merge_into("main", "fork") == MergeResult(0, 3, [], None)
    assert engine.audit()[-1] == row


def test_a_conflict_is_data_and_nothing_is_written(engine: Engine) -> None:
    engine.write("main", [Put("t", "1", {"a": 0, "b": 0}), Put("t", "2", {"a": 0})])
    engine.fork_branch("fork", "main")
    engine.write("fork", [Put("t", "1", {"a": 1, "b": 1}), Put("t", "2", {"a": 1})])
    engine.write("main", [Put("t", "1", {"a": 2, "b": 0})])
    refused = engine.merge_into("main", "fork")
    (conflict,) = refused.conflicts
    assert (refused.applied, refused.receipt) == (0, None)
    assert (conflict.fields, conflict.base, conflict.ours) == (("a",), {"a": 0, "b": 0}, {"a": 1, "b": 1})
    assert (conflict.resource_type, conflict.id, conflict.theirs) == ("t", "1", {"a": 2, "b": 0})
    record = engine.get("main", "t", "2")
    assert record is not None
    assert record.fields == {"a": 0}
    settled = engine.merge_into("main", "fork", lambda one: {**(one.theirs or {}), "settled": True})
    assert (settled.applied, len(settled.conflicts)) == (2, 1)
    record = engine.get("main", "t", "1")
    assert record is not None
    assert record.fields == {"a": 2, "b": 0, "settled": True}


def test_a_diff_has_what_changed_and_not_what_was_changed_back(engine: Engine) -> None:
    engine.write("main", [Put("t", str(number), {"a": 0}) for number in range(4)] + [Put("u", "1", {"a": 0})])
    engine.fork_branch("fork", "main")
    engine.write("fork", [Put("t", "1", {"a": 1}), Delete("t", "2"), Put("t", "n", {}), Put("t", "3", {"a": 9})])
    engine.write("fork", [Put("t", "3", {"a": 0}), Put("u", "1", {"a": 1}), Put("t", "gone", {})])
    engine.write("fork", [Delete("t", "gone")])
    engine.write("main", [Put("t", "1", {"a": 2})])
    found = {(diff.resource_type, diff.id): diff for diff in engine.diff("fork", "main")}
    assert {key: str(diff.kind) for key, diff in found.items()} == {
        ("t", "1"): "changed",
        ("t", "2"): "deleted",
        ("t", "n"): "added",
        ("u", "1"): "changed",
    }
    assert (found["t", "1"].base_lsn, found["t", "1"].ours_lsn, found["t", "1"].theirs_lsn) == (2, 6, 14)
    assert [diff.id for diff in engine.diff("fork", resource_type="u")] == ["1"]


def test_a_rebase_brings_in_what_the_parent_changed(engine: Engine) -> None:
    fill(engine, 6)
    engine.fork_branch("fork", "main")
    live(engine, "fork")
    engine.write("fork", [put("1", "of fork")])
    engine.write("main", [put("2", "of main"), Delete("object_type", "3"), put("n", "of main")])
    engine.write("main", [put("4", "for a while")])
    engine.write("main", [put("4")])
    result = engine.rebase("fork", by="me")
    assert (result.applied, result.conflicts) == (4, [])
    assert engine.branch("fork").fork_lsn == engine.head("main")
    assert sorted(record.id for record in engine.scan("fork")) == ["0", "1", "2", "4", "5", "n"]
    assert [diff.id for diff in engine.diff("fork")] == ["1"]
    assert found(engine, "main", "fork", min_lsn=engine.head("fork")) == {"2", "n"}
    assert engine.audit()[-1].type == "branch.rebased"
    assert engine.rebase("fork") == MergeResult(0, 0, [], None)
    assert engine.check() == []


def test_a_change_of_state_behind_a_rebase_leaves_the_fork_where_it_is(engine: Engine) -> None:
    """BR-4: the branch's actor has read its row long before."""
    fill(engine, 3)
    engine.fork_branch("fork", "main")
    engine.start_indexing("fork", "me")
    engine.complete_indexing("fork")
    engine.reopen_branch("fork")
    engine.write("main", [put("1", "later")])
    assert engine.rebase("fork").applied == 1
    moved = engine.branch("fork").fork_lsn
    engine.start_indexing("fork", "me")
    assert engine.branch("fork").fork_lsn == moved == engine.head("main")
    engine.complete_indexing("fork")
    assert (engine.branch("fork").state, engine.branch("fork").fork_lsn) == ("READY", moved)
    assert list(engine.check()) == []


def test_a_rebase_with_a_conflict_changes_nothing(engine: Engine) -> None:
    engine.write("main", [Put("t", "1", {"a": 0}), Put("t", "2", {"a": 0})])
    engine.fork_branch("fork", "main")
    engine.write("fork", [Put("t", "1", {"a": 1})])
    engine.write("main", [Put("t", "1", {"a": 2}), Put("t", "2", {"a": 2})])
    before = engine.branch("fork")
    refused = engine.rebase("fork")
    assert ([one.id for one in refused.conflicts], refused.applied) == (["1"], 0)
    assert engine.branch("fork") == before
    settled = engine.rebase("fork", "ours")
    assert (settled.applied, len(settled.conflicts)) == (1, 1)
    assert [diff.id for diff in engine.diff("fork")] == ["1"]
    assert engine.check() == []


def test_a_rebase_reads_the_records_where_the_journal_is_trimmed(engine: Engine) -> None:
    fill(engine, 6)
    engine.fork_branch("fork", "main")
    engine.write("main", [put("2", "of main"), Delete("object_type", "3"), put("n", "of main")])
    fill(engine, 3, text="again")
    inside.transact(engine, lambda commit: trim_journal(commit, 1, 10, 100))
    assert engine.branch("main").oldest_lsn == 10
    engine.rebase("fork")
    assert {r.id: r.fields for r in engine.scan("fork")} == {r.id: r.fields for r in engine.scan("main")}
    assert list(engine.diff("fork")) == []
    assert engine.check() == []


def test_a_fork_of_a_rebased_fork_shows_what_it_showed(engine: Engine) -> None:
    """BR-1: the branch in the middle is compared with its parent as of later, and shows it as of before."""
    fill(engine, 4)
    engine.fork_branch("middle", "main")
    engine.fork_branch("leaf", "middle")
    engine.write("main", [put("1", "of main"), put("n", "of main")])
    engine.rebase("middle")
    assert text(engine, "middle", "n") == "of main wordn"
    assert (text(engine, "leaf", "1"), text(engine, "leaf", "n")) == ("hello word1", None)
    engine.rebase("leaf")
    assert text(engine, "leaf", "n") == "of main wordn"
    engine.drop_branch("leaf")
    engine.write("main", [put("2", "later")])
    engine.rebase("middle")
    assert text(engine, "middle", "2") == "later word2"
    assert engine.check() == []


def test_a_fork_of_an_empty_branch_is_rebased_like_any_other(engine: Engine) -> None:
    """LSN 0 is one as of which a parent can be shown."""
    engine.fork_branch("middle", "main")
    engine.fork_branch("leaf", "middle")
    assert engine.rebase("middle") == MergeResult(0, 0, [], None)
    fill(engine, 2)
    assert engine.rebase("middle").applied == 2
    assert (engine.count("middle"), engine.count("leaf"), engine.branch("leaf").fork_lsn) == (2, 0, 0)
    assert engine.check() == []


def test_old_images_go_with_the_last_fork_that_shows_them(engine: Engine) -> None:
    """BR-3: then the parent is written to in the plain way again, and a later fork revives nothing."""
    fill(engine, 50)
    engine.fork_branch("one", "main")
    engine.write("main", [put(str(number), "new") for number in range(20)])
    engine.write("main", [Delete("object_type", str(number)) for number in range(10)])
    engine.fork_branch("two", "main")
    assert entries(engine, "undo") == 30
    engine.drop_branch("one")
    inside.sweep(engine)
    assert entries(engine, "undo") == 0
    assert entries(engine, "forks") == 2
    engine.drop_branch("two")
    inside.sweep(engine)
    assert (entries(engine, "undo"), entries(engine, "forks")) == (0, 0)
    engine.fork_branch("three", "main")
    assert text(engine, "three", "1") is None
    assert engine.check() == []


def test_a_branch_with_forks_is_dropped_with_them_or_not_at_all(engine: Engine) -> None:
    fill(engine, 3)
    engine.fork_branch("a", "main")
    engine.fork_branch("a/b", "a")
    with pytest.raises(InUse) as refused:
        engine.drop_branch("a")
    assert "a/b is a fork of it" in refused.value.uses
    engine.drop_branch("a", cascade=True)
    assert [branch.name for branch in engine.branches()] == ["main"]
    inside.sweep(engine)
    inside.sweep(engine)
    assert entries(engine, "forks") == 0
    assert engine.check() == []


def test_what_cannot_be_is_refused_with_words(engine: Engine) -> None:
    fill(engine, 3)
    engine.create_branch("other")
    engine.fork_branch("fork", "main")
    with pytest.raises(UnknownBranch):
        engine.fork_branch("x", "missing")
    with pytest.raises(BranchExists):
        engine.fork_branch("other", "main")
    with pytest.raises(InvalidName):
        engine.fork_branch("", "main")
    with pytest.raises(InvalidConfig, match="mode"):
        engine.fork_branch("x", "main", mode="live")
    for lsn in (2, 99, True, "3"):
        with pytest.raises(InvalidConfig, match=r"inside a batch|has not reached|whole number"):
            engine.fork_branch("x", "main", at_lsn=lsn)  # type: ignore[arg-type]
    assert engine.fork_branch("x", "main", at_lsn=3).fork_lsn == 3
    with pytest.raises(InvalidConfig, match="is no fork"):
        engine.diff("main")
    with pytest.raises(InvalidConfig, match="a fork of 'main', not of 'other'"):
        engine.merge_into("other", "fork")
    with pytest.raises(InvalidConfig, match="is no fork"):
        engine.rebase("other")
    with pytest.raises(InvalidConfig, match="on_conflict"):
        engine.merge_into("main", "fork", "mine")
    with pytest.raises(UnknownBranch):
        engine.merge_into("main", "missing")


def test_a_rebase_that_was_cut_short_goes_on(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(engine, 1200)
    engine.fork_branch("fork", "main")
    fill(engine, 1200, text="again")
    left = iter([True])

    def cut() -> None:
        if not next(left, False):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        inside.before(patch, inside.Step.BRING, cut)
        with pytest.raises(KeyboardInterrupt):
            engine.rebase("fork")
    fill(engine, 5, text="later")
    engine.rebase("fork")
    assert {r.id: r.fields for r in engine.scan("fork")} == {r.id: r.fields for r in engine.scan("main")}
    assert engine.branch("fork").fork_lsn == engine.head("main")
    assert engine.check() == []


def test_pages_of_a_fork_are_whole_and_in_order(engine: Engine) -> None:
    fill(engine, 500)
    engine.fork_branch("fork", "main")
    engine.write("fork", [put(f"f{number}", "of fork") for number in range(100)] + [Delete("object_type", "7")])
    engine.write("main", [Delete("object_type", str(number)) for number in range(100)])
    pages, cursor = [], None
    while True:
        page = engine.scan_page("fork", "object_type", cursor, limit=7)
        pages += [record.id for record in page.records]
        cursor = page.cursor
        if cursor is None:
            break
    assert len(pages) == len(set(pages)) == 599
    assert pages == [record.id for record in engine.scan("fork")]


def test_a_branch_that_may_exist_is_returned_as_it_is(engine: Engine) -> None:
    fill(engine, 2)
    forked = engine.fork_branch("fork", "main")
    assert engine.create_branch("fork", exist_ok=True) == forked
    assert engine.create_branch("main", True).record_count == 2
    assert engine.create_branch("new", exist_ok=True).record_count == 0
    with pytest.raises(BranchExists):
        engine.create_branch("new")
    with pytest.raises(InvalidConfig, match="exist_ok"):
        engine.create_branch("newer", exist_ok="yes")  # type: ignore[arg-type]
