"""Groups over HTTP: start, status, switch, rollback, dissolve; one member alone; callers that reach one branch only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shadowswitch.service.http.access import Scope
from tests.support.engine_helpers import TYPES, wait_until
from tests.support.http_helpers import Client, Server, serving, token_entry

ALL = list(Scope)
CONFIG = {"backend": "kv", "parallel_workers": 1}
LONG = {"switch_timeout_seconds": 60}


def fill(client: Client, branch: str) -> None:
    client.post("branches", {"name": branch})
    change = {"resource_type": TYPES[0], "id": "1", "fields": {"text": "hello"}}
    client.post(f"branches/{branch}/write", {"changes": [change]})


def body(*branches: str, **more: Any) -> dict[str, Any]:
    members = [
        {"branch_name": branch, "index_type": "GRAPH_INDEX", "resource_types": TYPES, "build_config": CONFIG}
        for branch in branches
    ]
    return {"name": "pair", "members": members, **more}


def built(client: Client, *branches: str) -> str:
    group = client.post("groups", body(*branches))
    wait_until(lambda: client.get(f"groups/{group['id']}")["state"] == "BUILT", 60)
    return str(group["id"])


def serving_of(client: Client) -> dict[str, int]:
    return {one["branch_name"]: one["generation"] for one in client.get("indexes")["indexes"]}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "data", "--quiet") as started:
        yield started


@pytest.fixture
def client(server: Server) -> Client:
    """A client of a server with two branches."""
    made = server.client()
    for branch in ("left", "right"):
        fill(made, branch)
    return made


def test_a_group_is_started_switched_rolled_back_and_dissolved(client: Client) -> None:
    answer = client.call("POST", "groups", body("right", "left", reason="schema 42"))
    assert answer.status == 201
    assert [one["branch_name"] for one in answer.body["members"]] == ["left", "right"]
    first = answer.body["id"]
    wait_until(lambda: client.get(f"groups/{first}")["state"] == "BUILT", 60)
    assert client.post(f"groups/{first}/switch", LONG)["success"]
    before = serving_of(client)
    second = built(client, "left", "right")
    switched = client.post(f"groups/{second}/switch", LONG)
    assert (switched["success"], switched["epoch"], switched["group_id"]) == (True, 1, second)
    assert {one["generation"] for one in switched["members"]} == set(serving_of(client).values())
    alone = client.post("indexes/rollback", {"branch_name": "left", "index_type": "GRAPH_INDEX", **LONG})
    assert not alone["success"]
    assert f"group 'pair' ({second})" in alone["message"]
    uses = client.refused(409, "DELETE", "indexes?branch_name=left&index_type=GRAPH_INDEX")
    assert "POST /groups/{id}/dissolve" in uses["hint"]
    assert client.post(f"groups/{second}/rollback", LONG)["epoch"] == 2
    assert serving_of(client) == before
    ended = client.post(f"groups/{second}/dissolve", {"reason": "done"})
    assert ended["state"] == "DISSOLVED"
    assert [one["state"] for one in client.get("groups")["groups"]] == ["COMPLETE", "DISSOLVED"]
    row = next(one["data"] for one in client.get("audit")["entries"] if one["type"] == "group.started")
    assert row["reason"] == "schema 42"


def test_one_member_is_switched_alone_by_breaking_the_group_up(client: Client) -> None:
    group = built(client, "left", "right")
    shadow = client.get(f"groups/{group}")["members"][0]["shadow_index_id"]
    assert not client.post(f"shadow-index/{shadow}/switch", LONG)["success"]
    assert client.post(f"shadow-index/{shadow}/switch", {**LONG, "break_group": True})["success"]
    assert client.get(f"groups/{group}")["state"] == "DISSOLVED"


def test_what_is_wrong_is_refused(client: Client) -> None:
    assert "GET /groups" in client.refused(404, "GET", "groups/group-9")["hint"]
    client.refused(400, "POST", "groups", {"name": "pair", "members": []})
    client.refused(400, "POST", "groups", {"name": "", "members": body("left")["members"]})
    client.refused(422, "POST", "groups", body("left", "left"))
    client.refused(404, "POST", "groups", body("left", "nowhere"))
    group = built(client, "left")
    client.refused(409, "POST", "groups", body("left", "right"))
    client.refused(409, "POST", f"groups/{group}/rollback", {})
    assert len(client.get("groups")["groups"]) == 1


def test_a_caller_needs_the_branch_of_every_member(tmp_path: Path) -> None:
    secrets, entries = {}, []
    for name, branches in {"root": ["*"], "left": ["left"]}.items():
        secrets[name], entry = token_entry(name, ALL, branches)
        entries.append(entry)
    with serving(tmp_path / "data", SHADOWSWITCH_TOKENS="\n".join(entries)) as server:
        root, left = server.client(secrets["root"]), server.client(secrets["left"])
        for branch in ("left", "right"):
            fill(root, branch)
        left.refused(403, "POST", "groups", body("left", "right"))
        both, own = built(root, "right"), built(left, "left")
        for method, path in (("GET", ""), ("POST", "/switch"), ("POST", "/rollback"), ("POST", "/dissolve")):
            left.refused(403, method, f"groups/{both}{path}", {} if method == "POST" else None)
        assert [one["id"] for one in left.get("groups")["groups"]] == [own]
        assert left.post(f"groups/{own}/switch", LONG)["success"]
