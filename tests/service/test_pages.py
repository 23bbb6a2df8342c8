"""Lists by page over HTTP and on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.cli_helpers import Cli
from tests.support.engine_helpers import KIND, TYPES
from tests.support.http_helpers import serving


def all_of(client: Any, path: str, name: str) -> list[list[Any]]:
    """The pages of a list."""
    pages, after = [], 0
    while True:
        page = client.get(f"{path}?limit=2&after={after}")
        pages.append(page[name])
        if page["next_after"] is None:
            return pages
        assert page["total_count"] == 5
        after = page["next_after"]


def test_branches_and_shadows_come_by_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(tmp_path / "data", "--quiet") as server:
        client = server.client()
        names = [f"b{number}" for number in range(5)]
        ids = []
        for name in names:
            client.post("branches", {"name": name})
            body = {"branch_name": name, "index_type": KIND, "resource_types": TYPES, "external": True}
            ids.append(client.post("shadow-index/start", body)["shadow_index_id"])
        found = [[one["name"] for one in page] for page in all_of(client, "branches", "branches")]
        assert found == [names[:2], names[2:4], names[4:]]
        pages = all_of(client, "shadow-index/list", "shadows")
        assert [[one["shadow_index_id"] for one in page] for page in pages] == [ids[:2], ids[2:4], ids[4:]]
        whole = client.get("shadow-index/list")
        assert (len(whole["shadows"]), whole["total_count"], whole["active_builds"]) == (5, 5, 5)
        assert client.get("branches")["next_after"] is None
        client.refused(400, "GET", "branches?limit=0")
    cli = Cli(capsys)
    status = cli.json("status", "--data", tmp_path / "data", "--limit", 2, "--after", 2)
    assert [one["name"] for one in status["branches"]] == names[2:4]
    assert [one["shadow_index_id"] for one in status["shadows"]] == ids[3:]
    assert (status["counts"], status["next_after"]) == (
        {"branches": 5, "indexes": 0, "shadows": 5, "locks": 0, "waiters": 0},
        4,
    )
    assert "2 of 5 branches" in cli("status", "--data", tmp_path / "data", "--limit", 2)
