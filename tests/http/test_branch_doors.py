"""A branch leaves every state with a way out by a call over HTTP or by a command, as refusals advise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Engine
from shadowswitch.service.http.access import Scope
from tests.support.cli_helpers import Cli
from tests.support.http_helpers import Client, segment, serving, token_entry

BRANCH = "feature/a"
PLACE = f"branches/{segment(BRANCH)}"
CHANGE = {"changes": [{"resource_type": "object_type", "id": "1", "fields": {"text": "hello"}}]}


def failed(data: Path, name: str = BRANCH) -> None:
    """Create a branch in ERROR: the indexing of the whole branch failed."""
    with Engine.open(data) as engine:
        engine.create_branch(name)
        engine.start_indexing(name, "funnel")
        engine.complete_indexing(name, failed=True, reason="out of memory")
        assert engine.branch(name).state == "ERROR"


def ready(client: Client) -> None:
    """Make the branch READY."""
    client.post(f"branch-locks/indexing/{segment(BRANCH)}/start", {"force_branch_lock": True})
    client.post(f"branch-locks/indexing/{segment(BRANCH)}/complete")


def test_every_way_out_is_a_route_for_administrators_and_in_the_events(tmp_path: Path) -> None:
    failed(tmp_path / "data")
    secret, entry = token_entry("root", list(Scope))
    other, others = token_entry("writer", [Scope.READ, Scope.WRITE, Scope.LOCK])
    with serving(tmp_path / "data", SHADOWSWITCH_TOKENS=entry + others) as server:
        root, writer = server.client(secret), server.client(other)
        assert "recover" in writer.call("POST", f"{PLACE}/write", CHANGE).body["hint"]
        writer.refused(403, "POST", f"{PLACE}/recover", {})
        assert root.post(f"{PLACE}/recover", {"reason": "more memory"})["state"] == "ACTIVE"
        writer.post(f"{PLACE}/write", CHANGE)
        assert "possible from here" in root.refused(409, "POST", f"{PLACE}/recover")["hint"]
        ready(root)
        assert root.post(f"{PLACE}/merge")["state"] == "MERGED"
        assert "reopen" in writer.refused(423, "POST", f"{PLACE}/write", CHANGE)["hint"]
        assert root.post(f"{PLACE}/reopen")["state"] == "ACTIVE"
        lock = root.post("branch-locks/acquire", {"branch_name": BRANCH, "lock_type": "BACKUP"})
        assert root.refused(409, "POST", f"{PLACE}/archive")["holder"] == "root"
        root.ok("DELETE", f"branch-locks/locks/{lock['lock_id']}")
        assert root.post(f"{PLACE}/archive", {"reason": "done"})["state"] == "ARCHIVED"
        root.refused(409, "POST", f"{PLACE}/reopen")
        root.refused(404, "POST", "branches/nowhere/reopen")
        states: list[dict[str, Any]] = [
            e["data"] for e in root.get("events")["events"] if e["type"].endswith("h.state")
        ]
        assert {"state": "ACTIVE", "by": "root", "reason": "more memory"}.items() <= states[-6].items(), states
        assert (states[-1]["state"], states[-1]["by"], states[-1]["reason"]) == ("ARCHIVED", "root", "done")


@pytest.mark.parametrize("hosted", [True, False], ids=["through the server", "without one"])
def test_the_command_does_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str], hosted: bool) -> None:
    data, cli = tmp_path / "data", Cli(capsys)
    failed(data)

    def commands() -> None:
        assert cli("branch", "recover", BRANCH, "--data", data).strip() == f"branch {BRANCH} is ACTIVE"
        assert "ACTIVE, which does not allow" in cli.error("branch", "reopen", BRANCH, "--data", data, status=1)
        assert cli.json("branch", "archive", BRANCH, "--data", data, "--reason", "old")["state"] == "ARCHIVED"
        assert "final" in cli.error("branch", "merge", BRANCH, "--data", data, status=1)
        assert "no branch" in cli.error("branch", "merge", "nowhere", "--data", data, status=1)
        cli.error("branch", "burn", BRANCH, "--data", data, status=2)

    if not hosted:
        commands()
        return
    with serving(data):
        commands()
