"""Hints use the words of their interface: calls in Python, routes over HTTP, commands on the command line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from shadowswitch import Engine
from shadowswitch.service.hints import in_commands, in_http
from tests.support.cli_helpers import Cli
from tests.support.engine_helpers import KIND, ROOT, TYPES
from tests.support.http_helpers import serving

ONLY_IN_PYTHON = {"release_changes", "add_merge_condition", "set_health_check", "watch_folder", "read_group"}
"""Calls without a route and without a command."""
CALLS = [name for name in dir(Engine) if "_" in name.strip("_") and not name.startswith("_")]
SPOKEN = re.compile(rf"\b({'|'.join(sorted(set(CALLS) - ONLY_IN_PYTHON))})\b|\b[a-z_]+\(\)|\bEngine\.\w+")


def texts_of(hint: ast.expr) -> Iterator[str]:
    """The text of a hint, without the values in it."""
    for node in ast.walk(hint):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def hints() -> Iterator[str]:
    """Every hint of the library, and every alternative of a refusal."""
    for folder in ("engine", "actors", "storage", "model"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.keyword) and node.arg in ("hint", "alternatives"):
                    yield from texts_of(node.value)
                if isinstance(node, ast.Assign) and any(
                    isinstance(target, ast.Name) and target.id in ("hint", "ways") for target in node.targets
                ):
                    yield from texts_of(node.value)


def test_no_translated_hint_names_a_python_call() -> None:
    found = list(hints())
    assert sum(SPOKEN.search(text) is not None for text in found) > 10
    for translate in (in_http, in_commands):
        assert [text for text in found if SPOKEN.search(translate(text))] == []


def test_hints_over_http_name_routes_and_problems_of_bodies_name_fields(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        client = server.client()
        assert "POST /branches" in client.refused(404, "GET", "branches/main")["hint"]
        client.post("branches", {"name": "main"})
        assert "GET /shadow-index/list" in client.refused(404, "GET", "shadow-index/none/status")["hint"]
        assert "POST /shadow-index/start" in client.refused(404, "GET", "branches/main/search?q=x")["hint"]
        body = {"branch_name": "main", "index_type": KIND, "resource_types": TYPES, "external": True}
        shadow = client.post("shadow-index/start", body)["shadow_index_id"]
        assert "/status" in client.refused(409, "POST", f"shadow-index/{shadow}/switch", {})["hint"]
        again = client.refused(409, "POST", "shadow-index/start", body)
        assert "cancel_build" not in str(again)
        headers = {"Content-Type": "application/json"}
        for raw, says in ((b"", "it is empty"), (b"[]", "not array"), (b"{}", "missing required field `name`")):
            problem = client.refused(400, "POST", "branches", raw=raw, headers=headers)
            assert "the body" in problem["detail"]
            assert says in problem["detail"]


@pytest.mark.parametrize("hosted", [True, False], ids=["through the server", "without one"])
def test_hints_on_the_command_line_name_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], hosted: bool
) -> None:
    data, cli = tmp_path / "data", Cli(capsys)
    with Engine.open(data) as engine:
        engine.create_branch("main")
        shadow = engine.start_build("main", KIND, TYPES, external=True).shadow_index_id
        engine.wait_for(shadow, "BUILDING", timeout_s=60)

    def refused() -> str:
        return cli.error("switch", shadow, "--data", data, status=1)

    if hosted:
        with serving(data):
            line = refused()
    else:
        line = refused()
    assert "wait for it with shadowswitch status" in line


def test_a_phrase_is_translated_once() -> None:
    for text in ("lower Config.disk_reserve_bytes, then retry_build", "raise Config.builds_max"):
        assert in_commands(text).count("shadowswitch.toml") == 1
        assert in_commands(in_http(text)).count("shadowswitch.toml") == 1
