"""Query kinds by commands, beside nothing and in a pipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowswitch import Engine, Put
from tests.support.cli_helpers import Cli

EDGES = {"backend": "graph", "edges": {"object_type": {"to": "parent"}}}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    with Engine.open(data) as engine:
        engine.create_branch("main")
        engine.write("main", [Put("object_type", f"o{n}", {"parent": f"o{n + 1}"}) for n in range(3)])
        assert engine.rebuild("main", "GRAPH_INDEX", ["object_type"], EDGES).success
    return data


def test_a_query_prints_a_table_and_json(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli = Cli(capsys)
    asked = ("query", "main", "GRAPH_INDEX", "graph")
    out = cli(*asked, "neighbours", '{"key": ["object_type", "o1"]}', "--data", data)
    assert "1 row" in out
    assert '["object_type","o2"]' in out
    found = cli.json(*asked, "impact", '{"key": ["object_type", "o3"], "depth": 2}', "--data", data)
    assert [one["key"][1] for one in found["result"]] == ["o2", "o1"]
    ends = '{"a": ["object_type", "o3"], "b": ["object_type", "o0"]}'
    assert '"result": null' in cli(*asked, "path", ends, "--data", data)
    assert [edge["target"][1] for edge in cli.json(*asked, "dangling", "--data", data)["result"]] == ["o3"]


def test_a_wrong_query_says_what_there_is(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli = Cli(capsys)
    asked = ("query", "main", "GRAPH_INDEX", "graph")
    assert "it has neighbours" in cli.error(*asked, "near", "--data", data, status=2)
    assert "no JSON object" in cli.error(*asked, "neighbours", "[1]", "--data", data, status=2)
    assert "no live OTHER_INDEX" in cli.error("query", "main", "OTHER_INDEX", "graph", "x", "--data", data, status=1)
