"""Query kinds over HTTP: the calls of a graph, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from shadowswitch.service.http.access import Scope
from tests.support.http_helpers import Client, Server, serving, token_entry

LINK = {"from": "source", "to": "target", "kind": "name", "from_type": "object_type", "to_type": "object_type"}
BUILD = {"backend": "graph", "edges": {"link_type": LINK}}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Client, str]]:
    """A server with a graph, its client, and the secret of a token for another branch."""
    admin_secret, admin = token_entry("admin", list(Scope))
    bound_secret, bound = token_entry("bound", [Scope.READ], ["other"])
    with serving(tmp_path_factory.mktemp("queries") / "data", SHADOWSWITCH_TOKENS=f"{admin}\n{bound}") as server:
        client = server.client(admin_secret)
        client.post("branches", {"name": "main"})
        changes = [
            {"resource_type": "link_type", "id": f"l{n}", "fields": {"source": f"o{n}", "target": "o9", "name": "uses"}}
            for n in range(3)
        ]
        changes.append({"resource_type": "object_type", "id": "o9", "fields": {"title": "o9"}})
        client.post("branches/main/write", {"changes": changes})
        body = {"branch_name": "main", "index_type": "GRAPH_INDEX", "resource_types": ["link_type", "object_type"]}
        shadow_id = client.post("shadow-index/start", {**body, "build_config": BUILD})["shadow_index_id"]
        client.wait_for(shadow_id, "BUILT")
        switched = client.post(f"shadow-index/{shadow_id}/switch", {})
        assert switched["success"], switched
        yield server, client, bound_secret


def asked(call: str, **arguments: Any) -> dict[str, Any]:
    return {"index_type": "GRAPH_INDEX", "kind": "graph", "call": call, "arguments": arguments}


def test_a_graph_is_asked_by_the_names_of_its_calls(running: tuple[Server, Client, str]) -> None:
    _, client, _ = running
    found = client.post("branches/main/query", asked("neighbours", key=["object_type", "o1"]))
    ends = {"source": ["object_type", "o1"], "target": ["object_type", "o9"]}
    edge = {**ends, "kind": "uses", "record": ["link_type", "l1"]}
    assert found["result"] == [edge]
    assert found["generation"] >= 1
    reached = client.post("branches/main/query", asked("impact", key=["object_type", "o9"]))["result"]
    assert [one["key"][1] for one in reached] == ["o0", "o1", "o2"]
    ends = {"a": ["object_type", "o1"], "b": ["object_type", "o2"]}
    assert client.post("branches/main/query", asked("path", **ends))["result"] is None
    change = {"resource_type": "link_type", "id": "l8", "fields": {"source": "o8", "target": "o7", "name": "owns"}}
    lsn = client.post("branches/main/write", {"changes": [change]})["lsn"]
    found = client.post("branches/main/query", {**asked("neighbours", key=["object_type", "o8"]), "min_lsn": lsn})
    assert [edge["kind"] for edge in found["result"]] == ["owns"]
    assert found["lsn"] >= lsn


def test_what_an_index_cannot_be_asked_is_422_with_what_it_can(running: tuple[Server, Client, str]) -> None:
    server, client, bound = running
    for body, words in (
        (asked("near"), "it has neighbours, impact, path, dangling"),
        ({**asked("nearest"), "kind": "vector"}, "it has graph"),
        (asked("neighbours"), "its arguments: key, kinds, direction, limit"),
        (asked("neighbours", key="o1"), "resource type and id"),
    ):
        assert words in client.refused(422, "POST", "branches/main/query", body)["hint"]
    client.refused(404, "POST", "branches/main/query", {**asked("dangling"), "index_type": "OTHER_INDEX"})
    server.client(bound).refused(403, "POST", "branches/main/query", asked("dangling"))
