"""The story of an index that gets another analyzer. Its audit finds a planted failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shadowswitch.model.errors import StorageFull
from shadowswitch.service.demo.search_story import HITS, SHOWN
from tests.support import inside
from tests.support.cli_helpers import Cli


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def test_the_story_switches_to_the_better_index_and_refuses_the_worse(cli: Cli, tmp_path: Path) -> None:
    found = json.loads(cli("demo", "--search", "--keep", tmp_path / "kept", "--json"))  # the log has the refusal
    assert (found["ok"], found["problems"]) == (True, [])
    assert "the shadow is better: nDCG +" in found["better"]
    assert "the shadow is worse: nDCG -" in found["refused"]
    assert [side["query"] for side in found["sides"]] == list(SHOWN)
    for side in found["sides"]:
        assert len(side["before"]) < len(side["after"]) <= HITS
        assert all(side["query"] in text for text in side["after"])
    assert found["written"] > 0
    hits = cli.json("search", "main", "권한", "--data", tmp_path / "kept")["hits"]
    assert {"whole", "particle", "inside"} == {hit["id"].split("-")[0] for hit in hits}, "the better one is live"


def test_a_write_that_is_refused_is_no_success(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def write(ordinary: Any, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 20:
            raise StorageFull("planted")
        return ordinary(*arguments)

    inside.wrap(monkeypatch, inside.Step.BRANCH_WRITE, write)
    found = cli.json("demo", "--search", status=1)
    assert not found["ok"]
    assert any("a write failed: planted" in problem for problem in found["problems"])


def test_two_stories_at_once_and_a_folder_that_is_not_empty_are_refused(cli: Cli, tmp_path: Path) -> None:
    assert "name one" in cli.error("demo", "--search", "--branches", status=2)
    (tmp_path / "file").touch()
    assert "is not empty" in cli.error("demo", "--search", "--keep", tmp_path, status=2)
