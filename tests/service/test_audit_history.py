"""The audit history: over HTTP for administrators, and by a command on the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowswitch.service.http.access import Scope
from tests.support.cli_helpers import Cli
from tests.support.http_helpers import serving, token_entry


def test_http_and_the_audit_command_show_actor_and_reason_of_a_forced_unlock(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli, data = Cli(capsys), tmp_path / "data"
    (secret, entry), (other, others) = token_entry("root", list(Scope)), token_entry("dev", set(Scope) - {Scope.ADMIN})
    some, rest = token_entry("some", list(Scope), ["feature/*"])
    with serving(data, SHADOWSWITCH_TOKENS=entry + others + rest) as server:
        root = server.client(secret)
        for branch in ("main", "feature%2Fa"):
            root.post("branches", {"name": branch.replace("%2F", "/")})
            root.post(f"branch-locks/force-unlock/{branch}", {"reason": f"a drill on {branch}"})
        server.client(other).refused(403, "GET", "audit")
        page = root.get("audit")
        forced = [one for one in page["entries"] if one["type"] == "lock.forced"]
        assert [(one["subject"], one["data"]["by"]) for one in forced] == [("main", "root"), ("feature/a", "root")]
        assert forced[0]["data"]["reason"] == "a drill on main"
        assert page["next_after"] == page["newest"] == page["entries"][-1]["sequence"]
        assert root.get(f"audit?after={forced[0]['sequence']}&limit=1")["entries"] == [page["entries"][1]]
        assert root.get(f"audit?after={page['newest']}")["entries"] == []
        root.refused(410, "GET", f"audit?after={page['newest'] + 1}")
        assert {one["subject"] for one in server.client(some).get("audit")["entries"]} == {"feature/a"}
        assert cli.json("audit", "--data", data) == page["entries"]
    assert cli.json("audit", "--data", data, "--after", forced[0]["sequence"])[0] == page["entries"][1]
    assert "a drill on main" in cli("audit", "--data", data)
