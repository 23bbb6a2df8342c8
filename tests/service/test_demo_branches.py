"""The story of a branch on a small folder. Its audit finds a planted failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shadowswitch.service.demo.branch_story import FORK, MAIN
from tests.support import inside
from tests.support.cli_helpers import Cli, texts

SHORT = ("--branches", "--seconds", "1.2")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return texts(tmp_path / "texts", 40)


def test_the_story_forks_edits_merges_and_loses_nothing(cli: Cli, folder: Path, tmp_path: Path) -> None:
    found = cli.json("demo", folder, *SHORT, "--keep", tmp_path / "kept")
    assert (found["ok"], found["problems"]) == (True, [])
    assert found["applied"] > 0
    assert found["audited"] > 100
    assert found["conflict"]["fields"] == ["text"]
    assert found["conflict"]["ours"] != found["conflict"]["theirs"]
    titles = " ".join(step["title"] for step in found["steps"])
    assert f"fork {FORK} from {MAIN}" in titles
    kept = cli.json("status", "--data", tmp_path / "kept")
    assert {one["name"] for one in kept["branches"]} == {MAIN, FORK}


def test_a_merge_that_loses_a_record_is_no_success(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(ordinary: Any, bringing: Any, part: Any) -> Any:
        return ordinary(bringing, part[:-1])

    inside.wrap(monkeypatch, inside.Step.BRING, write)
    found = cli.json("demo", folder, *SHORT, status=1)
    assert not found["ok"]
    lost = ("has another text of", "has lost", "again, which was deleted")  # a write, a new record, a delete
    assert any(text in problem for text in lost for problem in found["problems"])


def test_a_folder_that_is_not_empty_is_refused(cli: Cli, folder: Path) -> None:
    assert "is not empty" in cli.error("demo", folder, *SHORT, "--keep", folder, status=2)
