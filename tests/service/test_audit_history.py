"""The audit history: over HTTP for administrators, and by a command on the machine."""

from __future__ import annotations

import ast
import getpass
import inspect
import os
import re
import socket
from contextlib import nullcontext
from pathlib import Path

import pytest

from shadowswitch import Engine
from shadowswitch.service.http.access import Scope
from tests.support.cli_helpers import Cli, imported
from tests.support.engine_helpers import ROOT
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
        assert root.get(f"audit?after={forced[0]['sequence']}&limit=1")["entries"] == [page["entries"][2]]
        assert root.get(f"audit?after={page['newest']}")["entries"] == []
        root.refused(410, "GET", f"audit?after={page['newest'] + 1}")
        assert [one["type"] for one in page["entries"]] == ["branch.created", "lock.forced"] * 2
        assert {one["subject"] for one in server.client(some).get("audit")["entries"]} == {"feature/a"}
        assert cli.json("audit", "--data", data) == page["entries"]
    assert cli.json("audit", "--data", data, "--after", forced[0]["sequence"])[0] == page["entries"][2]
    assert "a drill on main" in cli("audit", "--data", data)


HERE = f"{getpass.getuser()}@{socket.gethostname()}, process {os.getpid()}"


def newest(cli: Cli, data: Path) -> dict[str, tuple[str, str]]:
    """The newest author and reason of each kind of entry."""
    return {one["type"]: (one["data"]["by"], one["data"]["reason"]) for one in cli.json("audit", "--data", data)}


def changes_of(cli: Cli, data: Path, *named: str) -> dict[str, tuple[str, str]]:
    """Author and reason of a build, a switch, a rollback, a cancellation and a change of a branch, by command."""
    found = {}
    for name, call in {
        "build": ("build", "main", "--tokenizer", "ascii", "--switch"),
        "switch": ("build", "main", "--tokenizer", "porter", "--switch"),
        "rollback": ("rollback", "main"),
    }.items():
        cli(*call, "--data", data, *named)
        found[name] = newest(cli, data)["switch.committed"]
    id = cli("build", "main", "--data", data, *named).split()[0]
    found["claim"] = newest(cli, data)["build.claimed"]
    cli("switch", id, "--data", data, *named)
    found["switch of a shadow"] = newest(cli, data)["switch.committed"]
    id = cli("build", "main", "--data", data).split()[0]
    cli("cancel", id, "--data", data, *named)
    found["cancel"] = newest(cli, data)["build.cancelled"]
    cli("branch", "archive", "main", "--data", data, *named)
    found["archive"] = newest(cli, data)["branch.state"]
    return found


@pytest.mark.parametrize(
    ("named", "by", "reason"),
    [((), HERE, "not given"), (("--by", "álice", "--reason", "a drill"), "álice", "a drill")],
    ids=["by default", "named"],
)
@pytest.mark.parametrize("served", [False, True], ids=["alone", "server"])
def test_commands_are_audited_with_author_and_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], named: tuple[str, ...], by: str, reason: str, served: bool
) -> None:
    cli, data = Cli(capsys), imported(tmp_path, capsys)
    with serving(data) if served else nullcontext():
        found = changes_of(cli, data, *named)
    for name, (author, why) in found.items():
        assert author.startswith(f"{by} (as " if served else by), name
        assert why.startswith(reason) or (name == "cancel" and why.startswith("Manual cancellation")), name


def test_over_http_headers_name_author_and_reason_and_the_token_stays_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli, data = Cli(capsys), imported(tmp_path, capsys)
    secret, entry = token_entry("ci", list(Scope))
    with serving(data, SHADOWSWITCH_TOKENS=entry) as server:
        client = server.client(secret)
        body = {"branch_name": "main", "index_type": "SEARCH_INDEX", "resource_types": ["file"]}
        id = client.post("shadow-index/start", body)["shadow_index_id"]
        assert newest(cli, data)["build.claimed"] == ("ci", "not given")
        client.wait_for(id, "BUILT")
        said = {"X-Audit-By": "%C3%A1lice", "X-Audit-Reason": "a%20drill"}
        client.post(f"shadow-index/{id}/switch", {}, headers=said)
        assert newest(cli, data)["switch.committed"] == ("álice (as ci)", "a drill")
        id = client.post("shadow-index/start", body, headers=said)["shadow_index_id"]
        assert newest(cli, data)["build.claimed"] == ("álice (as ci)", "a drill")
        client.ok("DELETE", f"shadow-index/{id}", headers=said)
        assert newest(cli, data)["build.cancelled"] == ("álice (as ci)", "a drill (by ci)")
        client.post("branch-locks/force-unlock/main", {"reason": "another drill"}, headers=said)
        assert newest(cli, data)["lock.forced"] == ("álice (as ci)", "another drill")
        client.post("branches/main/archive", headers=said)
        assert newest(cli, data)["branch.state"] == ("álice (as ci)", "a drill")
        client.post("branches", {"name": "new"}, headers=said)
        assert newest(cli, data)["branch.created"] == ("álice (as ci)", "a drill")
        client.post("branch-locks/indexing/new/start", {"reason": "a new schema"}, headers=said)
        assert newest(cli, data)["indexing.started"] == ("álice (as ci)", "a new schema")
        client.post("branch-locks/indexing/new/complete", {"reason": "all is in"}, headers=said)
        assert newest(cli, data)["indexing.completed"] == ("álice (as ci)", "all is in")
        for wrong in ({"X-Audit-By": "%FF"}, {"X-Audit-By": "a" * 121}, {"X-Audit-Reason": "a" * 501}):
            client.refused(400, "POST", "shadow-index/start", body, headers=wrong)


def test_an_import_names_the_author_of_a_new_branch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli, data = Cli(capsys), imported(tmp_path, capsys)
    assert newest(cli, data)["branch.created"] == (HERE, "not given")
    texts = tmp_path / "more"
    texts.mkdir()
    cli("import", "other", texts, "--data", data, "--by", "alice", "--reason", "a drill")
    assert newest(cli, data)["branch.created"] == ("alice", "a drill")


def calls_of_the_engine(path: Path) -> list[ast.Call]:
    """The calls of a method of an engine in a file."""
    return [
        node
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value).split(".")[-1] in ("engine", "_engine")
    ]


def takes_an_author(call: ast.Call) -> bool:
    assert isinstance(call.func, ast.Attribute)
    method = getattr(Engine, call.func.attr, None)
    names = inspect.signature(method).parameters if callable(method) else {}
    return bool({"by", "admin", "request"} & set(names)) and call.func.attr != "event_outcome"


@pytest.mark.parametrize("folder", ["service/http/routes", "service/daemon", "service/cli"])
def test_every_changing_call_of_the_service_says_for_which_author(folder: str) -> None:
    """The name of the token over HTTP, `--by` and `--reason` of a command, the settings file."""
    found = {path: calls_of_the_engine(path) for path in (ROOT / folder).rglob("*.py")}
    calls = [(path, call) for path, every in found.items() for call in every if takes_an_author(call)]
    assert calls
    for path, call in calls:
        given = ast.unparse(call)
        assert re.search(r"caller\.(author|name)|caller\)|\bby\b|AUTHOR|request|\bhow\b", given), f"{path}: {given}"


def test_every_command_that_changes_something_takes_an_author_and_a_reason() -> None:
    source = ast.parse((ROOT / "service/cli/write_commands.py").read_text("utf-8"))
    for command in (node for node in source.body if isinstance(node, ast.FunctionDef)):
        options = {one.arg for one in command.args.kwonlyargs}
        if "data" in options:
            assert {"by", "reason"} <= options, command.name
