"""The story of an index that gets another embedding model. Its audit finds a planted failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shadowswitch.model.errors import StorageFull
from shadowswitch.service.demo.vector_story import HITS, SHOWN
from tests.support import inside
from tests.support.cli_helpers import Cli


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def test_the_story_changes_the_model_and_goes_back(cli: Cli, tmp_path: Path) -> None:
    found = cli.json("demo", "--vectors", "--keep", tmp_path / "kept")
    assert (found["ok"], found["problems"]) == (True, [])
    assert [side["query"] for side in found["sides"]] == list(SHOWN)
    assert all(len(side[name]) == HITS for side in found["sides"] for name in ("before", "after"))
    bill = found["embedded"]
    modules = bill["write records, build an index with the first model"]
    assert modules > 50
    assert bill["build another one beside it, with the second model"] >= modules
    assert found["written"] > 0
    assert found["searches"] > 0
    asked = ("query", "main", "VECTOR_INDEX", "vector", "nearest", '{"query": ["module", "json"], "limit": 1}')
    assert cli.json(*asked, "--data", tmp_path / "kept")["result"][0]["id"] == "json"


def test_a_write_that_is_refused_is_no_success(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def write(ordinary: Any, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 20:
            raise StorageFull("planted")
        return ordinary(*arguments)

    inside.wrap(monkeypatch, inside.Step.BRANCH_WRITE, write)
    found = cli.json("demo", "--vectors", status=1)
    assert not found["ok"]
    assert any("a write failed: planted" in problem for problem in found["problems"])
