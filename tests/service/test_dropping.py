"""Dropping over HTTP and on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shadowswitch import Engine
from tests.support.cli_helpers import Cli
from tests.support.engine_helpers import KIND, TYPES, fill, live
from tests.support.http_helpers import Server, serving


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with a live index of `main`."""
    with Engine.open(tmp_path / "data") as engine:
        engine.create_branch("main")
        fill(engine, 20)
        live(engine)
    return tmp_path / "data"


@pytest.fixture
def server(data: Path) -> Iterator[Server]:
    with serving(data, "--quiet") as started:
        yield started


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def test_an_index_is_dropped_over_http(server: Server) -> None:
    client = server.client()
    place = f"indexes?branch_name=main&index_type={KIND}"
    body = {"branch_name": "main", "index_type": KIND, "resource_types": TYPES, "external": True}
    shadow = client.post("shadow-index/start", body)["shadow_index_id"]
    problem = client.refused(409, "DELETE", place)
    assert problem["type"].endswith("in-use")
    assert problem["uses"] == [f"shadow {shadow} of {KIND} is BUILDING"]
    assert "DELETE /shadow-index/{id}" in problem["hint"]
    client.call("DELETE", f"shadow-index/{shadow}")
    answer = client.call("DELETE", f"{place}&reason=not%20used")
    assert (answer.status, answer.body["index_type"]) == (200, KIND)
    assert client.get("indexes")["indexes"] == []
    assert client.refused(404, "DELETE", place)["type"].endswith("unknown-index")
    (said,) = [entry for entry in client.get("audit")["entries"] if entry["type"] == "index.dropped"]
    assert said["data"]["reason"] == "not used"


def test_an_index_is_dropped_on_the_command_line(data: Path, cli: Cli) -> None:
    found = cli.json("drop", "main", KIND, "--data", data, "--by", "alice", "--reason", "not used")
    assert found == {"branch_name": "main", "index_type": KIND, "dropped": True}
    assert "has no live" in cli.error("drop", "main", KIND, "--data", data, status=1)


def test_an_index_is_dropped_on_the_command_line_beside_a_server(server: Server, data: Path, cli: Cli) -> None:
    cli("drop", "main", KIND, "--data", data, "--by", "alice", "--reason", "not used")
    client = server.client()
    assert client.get("indexes")["indexes"] == []
    (said,) = [entry for entry in client.get("audit")["entries"] if entry["type"] == "index.dropped"]
    assert said["data"]["by"].startswith("alice")
    assert said["data"]["reason"] == "not used"


def test_a_branch_is_dropped_over_http(server: Server) -> None:
    client = server.client()
    wanted = {"branch_name": "main", "lock_type": "MANUAL", "owner": "bob", "reason": "care"}
    lock = client.post("branch-locks/acquire", wanted)
    problem = client.refused(409, "DELETE", "branches/main")
    assert problem["type"].endswith("in-use")
    assert "bob" in problem["uses"][0]
    client.ok("DELETE", f"branch-locks/locks/{lock['lock_id']}")
    answer = client.call("DELETE", "branches/main?cascade=true&reason=merged")
    assert (answer.status, answer.body["branch_name"]) == (200, "main")
    assert client.get("branches")["total_count"] == 0
    assert client.refused(404, "DELETE", "branches/main")["type"].endswith("unknown-branch")
    (said,) = [entry for entry in client.get("audit")["entries"] if entry["type"] == "branch.dropped"]
    assert said["data"]["reason"] == "merged"


def test_a_branch_is_dropped_on_the_command_line(data: Path, cli: Cli) -> None:
    found = cli.json("drop", "main", "--data", data, "--by", "alice", "--reason", "merged")
    assert found == {"branch_name": "main", "index_type": None, "dropped": True}
    assert "no branch" in cli.error("drop", "main", "--data", data, status=1)
    status = cli.json("status", "--data", data)
    assert (status["branches"], status["indexes"], status["shadows"]) == ([], [], [])


def test_a_branch_is_dropped_on_the_command_line_beside_a_server(server: Server, data: Path, cli: Cli) -> None:
    cli("drop", "main", "--data", data, "--by", "alice", "--reason", "merged")
    assert server.client().get("branches")["branches"] == []


def test_a_refused_drop_is_an_object_with_its_uses(data: Path, cli: Cli) -> None:
    shadow = cli.json("build", "main", "--data", data)["shadow"]["shadow_index_id"]
    assert shadow in str(cli.failure("drop", "main", "--data", data, status=1)["uses"])
    with serving(data):
        assert shadow in str(cli.failure("drop", "main", "--data", data, status=1)["uses"])
