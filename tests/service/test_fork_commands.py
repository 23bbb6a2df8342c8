"""The commands for forks, without a server and beside one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shadowswitch import Conflict, Delete, Engine, MergeResult, Put, Receipt
from shadowswitch.service.cli.branches.shown import VALUE_CHARS_MAX, conflict_lines, output_value
from shadowswitch.service.merge_report import report_of
from tests.support.cli_helpers import Cli, Commands
from tests.support.http_helpers import serving

FORK = "feature/a"


@pytest.fixture(params=[False, True], ids=["without a server", "beside one"])
def commands(tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Iterator[Commands]:
    """A fork of `main` that changed one record, deleted one and added one; `main` changed the first one, too."""
    data = tmp_path / "data"
    with Engine.open(data) as engine:
        engine.create_branch("main")
        engine.write("main", [Put("object_type", f"k{n}", {"a": n, "text": f"text {n}"}) for n in range(10)])
        engine.fork_branch(FORK, "main")
        changed = Put("object_type", "k0", {"a": 100, "text": "ours"})
        engine.write(FORK, [changed, Delete("object_type", "k1"), Put("link_type", "new", {"x": 1})])
        engine.write("main", [Put("object_type", "k0", {"a": 200, "text": "text 0"})])
    if not request.param:
        yield Commands(data, Cli(capsys))
        return
    with serving(data, "--quiet"):
        yield Commands(data, Cli(capsys))


def test_processes_end_with_0_1_and_2(commands: Commands) -> None:
    status, text = commands.process("merge", FORK, "main")
    assert (status, "nothing was written to main" in text) == (1, True), text
    assert commands.process("diff", FORK, "--json")[0] == 0
    assert commands.process("diff", "main")[0] == 2
    status, text = commands.process("merge", FORK, "main", "--on-conflict", "theirs")
    assert (status, "3 records were written to main, 1 conflict settled" in text) == (0, True), text


def test_a_fork_is_made_shown_and_dropped(commands: Commands) -> None:
    assert commands("fork", "below", FORK).startswith(f"below is a fork of {FORK} as of LSN 13, with 10 records")
    found = commands.json("fork", "other", "main", "--by", "alice", "--reason", "a drill")
    assert (found["name"], found["parent"], found["mode"]) == ("other", "main", "snapshot")
    row = commands.json("audit")[-1]
    assert row["type"] == "branch.forked"
    assert row["data"]["by"].startswith("alice")
    assert row["data"]["reason"] == "a drill"
    status = commands.json("status")
    assert {one["name"]: one["parent"] for one in status["branches"]} == {
        "main": None, FORK: "main", "below": FORK, "other": "main",
    }  # fmt: skip
    assert "main as of LSN 10" in commands("status")
    refused = commands.json("drop", "main", status=1)["error"]
    assert refused["uses"] == [f"{FORK} is a fork of it", "other is a fork of it"]
    assert "--cascade" in refused["hint"]
    commands("drop", FORK, "--cascade")
    assert {one["name"] for one in commands.json("status")["branches"]} == {"main", "other"}


def test_a_fork_is_made_of_an_earlier_lsn(commands: Commands) -> None:
    assert commands("fork", "early", "main", "--at-lsn", "10").startswith("early is a fork of main as of LSN 10")
    assert "has not reached LSN 99" in commands("fork", "later", "main", "--at-lsn", "99", status=2)


def test_a_diff_lists_what_the_fork_changed(commands: Commands) -> None:
    found = commands.json("diff", FORK)
    assert (found["branch_name"], found["against"], found["cursor"]) == (FORK, "main", None)
    assert {one["id"]: one["kind"] for one in found["diffs"]} == {"k0": "changed", "k1": "deleted", "new": "added"}
    first = commands.json("diff", FORK, "--limit", "2")
    rest = commands.json("diff", FORK, "--limit", "2", "--cursor", first["cursor"])
    assert first["diffs"] + rest["diffs"] == found["diffs"]
    assert [one["id"] for one in commands.json("diff", FORK, "--type", "link_type")["diffs"]] == ["new"]
    text = commands("diff", FORK, "--limit", "1")
    assert f"{FORK} against main: 1 record" in text
    assert f"--cursor {commands.json('diff', FORK, '--limit', '1')['cursor']}" in text


def test_a_refused_merge_prints_the_conflicts_and_a_settled_one_is_rebased(commands: Commands) -> None:
    text = commands("merge", FORK, "main", status=1)
    assert text.splitlines()[:5] == [
        f"ours: {FORK}; theirs: main",
        "conflict: object_type k0, field a",
        "    base:   0",
        "    ours:   100",
        "    theirs: 200",
    ]
    assert "refused: 1 conflict, and nothing was written to main" in text
    refused = commands.json("merge", FORK, "main", "--dry-run", status=1)
    assert (refused["success"], refused["dry_run"], refused["conflicts"][0]["ours"]["a"]) == (False, True, 100)
    assert "refused" in commands("rebase", FORK, status=1)
    tried = commands.json("merge", FORK, "main", "--on-conflict", "ours", "--dry-run")
    assert (tried["success"], tried["applied"], tried["receipt"]) == (True, 3, None)
    assert "3 records were written to main, 1 conflict settled" in commands(
        "merge", FORK, "main", "--on-conflict", "ours", "--by", "alice", "--reason", "a drill"
    )
    row = commands.json("audit")[-1]
    assert (row["type"], row["data"]["reason"], row["data"]["source"]) == ("branch.merged", "a drill", FORK)
    assert commands.json("rebase", FORK)["success"]
    assert commands.json("diff", FORK)["diffs"] == []
    assert "main has all of it already" in commands("merge", FORK, "main")


def test_a_wrong_call_ends_with_2_and_a_refusal_with_1(commands: Commands) -> None:
    assert "exists already" in commands("fork", FORK, "main", status=2)
    assert "no branch 'nowhere'" in commands("fork", "new", "nowhere", status=1)
    commands("fork", " x", "main", status=2)
    for arguments in (("diff", "main"), ("rebase", "main"), ("merge", "main", FORK)):
        text = commands(*arguments, status=2)
        assert "no fork" in text, arguments
        assert "shadowswitch fork" in text
    assert "not of" in commands("merge", FORK, FORK, status=2)
    assert "not of" in commands("diff", FORK, "--against", FORK, status=2)
    for arguments in (("diff", "nowhere"), ("rebase", "nowhere"), ("merge", "nowhere", "main"), ("merge", FORK, "no")):
        assert "no branch" in commands(*arguments, status=1), arguments
    commands("merge", FORK, "main", "--on-conflict", "guess", status=2)
    commands("merge", FORK, status=2)
    commands("rebase", FORK, "--timeout", "0", status=2)
    commands("diff", FORK, "--limit", "0", status=2)
    assert "begin again without a cursor" in commands("diff", FORK, "--cursor", "zz", status=2)
    assert commands.json("diff", FORK, "--cursor", "zz", status=2)["error"]["kind"] == "InvalidConfig"


def test_a_conflict_of_a_whole_record_shows_the_fields_that_differ() -> None:
    base, theirs = {"a": 1, "same": 5}, {"a": 2, "same": 5}
    lines = list(conflict_lines(Conflict("t", "k", (), base, None, theirs)))
    assert lines == [
        "conflict: t k, the whole record",
        '    base:   {"a":1,"same":5}',
        "    ours:   deleted",
        '    theirs: {"a":2,"same":5}',
    ]
    both = list(conflict_lines(Conflict("t", "k", (), None, {"a": 1, "b": 2}, {"a": 2, "b": 2})))
    assert both[1] == "    base:   no record"
    removed = list(conflict_lines(Conflict("t", "k", ("a",), {"a": 1}, {}, {"a": 2})))
    assert removed[2] == "    ours:   no such field"


def test_a_long_value_is_cut_and_a_long_list_is_bounded() -> None:
    assert len(output_value("x" * 10_000)) < VALUE_CHARS_MAX + 50
    one = Conflict("t", "k", ("a",), {"a": 1}, {"a": "x" * (1 << 20)}, {"a": 2})
    report = report_of(MergeResult(0, 0, [one] * 2000, None), "refuse", "main")
    assert not report.success
    assert report.conflict_count == 2000
    assert 1 <= len(report.conflicts) <= 8
    small = report_of(MergeResult(0, 0, [Conflict("t", "k", ("a",), {}, {}, {})] * 2000, None), "refuse", "main")
    assert len(small.conflicts) == 1000
    late = report_of(MergeResult(500, 0, [one], Receipt(7, 500)), "refuse", "main")
    assert "500 records were written to main before, and stay" in late.message
