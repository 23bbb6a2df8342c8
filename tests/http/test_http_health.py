"""Health over HTTP and by command: 503 with every reason in JSON, and no branch for callers without a token."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from shadowswitch import Engine
from shadowswitch.service.http.access import Scope
from tests.support.cli_helpers import Cli
from tests.support.engine_helpers import KIND, fill, live
from tests.support.http_helpers import Server, serving, token_entry


def damaged(data: Path) -> None:
    """A data directory with a live index that cannot be opened."""
    with Engine.open(data) as engine:
        engine.create_branch("a secret project")
        fill(engine, 20, "a secret project")
        live(engine, "a secret project")
        path = Path(engine.index("a secret project", KIND).path)
    for shard in path.glob("shard-???"):
        shutil.rmtree(shard)


def test_a_server_is_ready_and_then_lost_and_the_command_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli, data = Cli(capsys), tmp_path / "data"
    server = Server(data)
    try:
        client = server.client()
        assert client.call("GET", "/health/ready").status == 200
        assert cli.json("health", "--data", data)["ready"] is True
        (data / "catalog" / "lock.mdb").unlink()
        answer = client.call("GET", "/health/ready")
        assert (answer.status, answer.body["live"], answer.body["ready"]) == (503, True, False)
        assert "was removed or renamed" in answer.body["reasons"][0]
        assert client.call("GET", "/health").status == client.call("GET", "/health/live").status == 200
        assert cli("health", "--data", data, status=1).startswith("not ready")
    finally:
        server.process.kill()
        server.stop()
    assert "has no server" in cli.error("health", "--data", data, status=1)


def test_an_index_that_is_not_served_is_named_only_where_no_token_is_needed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    damaged(data)
    _, entry = token_entry("root", list(Scope))
    for tokens in ("", entry):
        server = Server(data, SHADOWSWITCH_TOKENS=tokens)
        answer = server.client().call("GET", "/health/ready")
        server.stop()
        assert answer.status == 503
        (reason,) = answer.body["reasons"]
        assert ("a secret project" in reason) == (not tokens)
        assert "index" in reason.lower()


def test_a_server_that_stops_is_not_ready(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        assert server.client().get("/health")["reasons"] == []
