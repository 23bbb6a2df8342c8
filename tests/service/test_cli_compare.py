"""`shadowswitch compare`, and `--check RELEVANCE`: beside a server, and without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Engine, SwitchRequest
from tests.support.cli_helpers import Cli
from tests.support.engine_helpers import KIND, TYPES
from tests.support.http_helpers import serving
from tests.support.korean import JUDGED, judgments, records


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Korean records with judgments, and a live index."""
    with Engine.open(tmp_path / "data") as engine:
        engine.create_branch("main")
        engine.write("main", [*records(), *judgments()])
        assert engine.rebuild("main", KIND, TYPES, {"parallel_workers": 1}, SwitchRequest()).success
    return tmp_path / "data"


def trigram(cli: Cli, data: Path) -> str:
    """A shadow of every resource type but the judgments."""
    shadow: dict[str, Any] = cli.json("build", "main", "--tokenizer", "trigram", "--data", data)["shadow"]
    assert shadow["resource_types"] == TYPES
    return str(shadow["shadow_index_id"])


def test_two_columns_what_moved_and_the_verdict(cli: Cli, data: Path) -> None:
    id = trigram(cli, data)
    text = cli("compare", id[:8], "기차", "할머니는", "--data", data)
    for part in ("live", "in the shadow", "object_type quoted-0", "new", "overlap", "2 queries (given) of generation"):
        assert part in text
    found = cli.json("compare", id, "기차", "--limit", "1", "--data", data)
    assert [len(row["live"]) for row in found["rows"]] == [1]
    judged = cli("compare", id, "--data", data)
    assert f"{JUDGED} queries (judged)" in judged
    assert f"{JUDGED - 10} more queries: --json has them" in judged
    assert "the shadow is worse: nDCG -" in judged
    assert cli.failure("compare", "?" * 8, "--data", data, status=1)["kind"] == "UnknownShadow"
    assert cli.failure("compare", id, " ", "--data", data, status=2)["kind"] == "InvalidConfig"
    assert cli("compare", id, "x", "--limit", "0", "--data", data, status=2) == ""


def test_what_vanished_is_named(cli: Cli, data: Path) -> None:
    id = cli.json("build", "main", "--column", "title", "--data", data)["shadow"]["shadow_index_id"]
    text = cli("compare", id, "할머니는", "--data", data)
    assert "vanished: object_type quoted-1" in text
    assert "without hits: 0 in the live index, 1 in the shadow, 1 in the shadow alone" in text
    assert "1 of 1 queries with hits in the live index have none in the shadow: '할머니는'" in text


def test_a_check_is_added_to_those_of_a_switch_a_schedule_and_a_group(cli: Cli, data: Path) -> None:
    id = trigram(cli, data)
    refused = cli.json("switch", id, "--check", "RELEVANCE", "--data", data, status=1)
    assert "RELEVANCE: the shadow is worse" in refused["message"]
    assert "known checks" in cli.error("switch", id, "--check", "RELEVANT", "--data", data, status=2)
    assert cli.json("schedule", id, "--check", "RELEVANCE", "--data", data)["scheduled_switch"]
    with Engine.open(data) as engine:
        plan = engine.shadow(id).scheduled_switch
    assert plan is not None
    cli("cancel", id, "--data", data)
    member = 'main:SEARCH_INDEX:{"tokenizer": "trigram"}'
    group = ("group", "start", "one", "--member", member, "--switch", "--check", "RELEVANCE", "--switch-timeout", "60")
    assert "RELEVANCE: the shadow is worse" in str(cli.json(*group, "--data", data, status=1))


def test_a_server_compares_for_commands(cli: Cli, data: Path) -> None:
    with serving(data) as server:
        id = trigram(cli, data)
        server.client().get("branches/main/search?q=word")
        found = cli.json("compare", id, "기차", "--data", data)
        assert found["rows"][0]["overlap"] < 1.0
        assert found["summary"]["verdict"]["outcome"] == "too_few"
        refused = cli.json("switch", id, "--check", "RELEVANCE", "--switch-timeout", "60", "--data", data, status=1)
        assert "RELEVANCE: the shadow is worse" in refused["message"]
