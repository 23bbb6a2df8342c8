"""What holds for every route of the OpenAPI document: unknown parameters, bodies that are not UTF-8, HEAD."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.http_helpers import Client, Server, serving

NEEDED = {
    "q": "hello",
    "resource_type": "object_type",
    "branch_name": "main",
    "index_type": "NO_INDEX",
    "index": "main",
}
"""Values of the parameters that a route requires."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("every") / "data", "--quiet") as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Server) -> Client:
    made = server.client()
    made.post("branches", {"name": "main"})
    change = {"resource_type": "object_type", "id": "1", "fields": {"text": "hello"}}
    made.post("branches/main/write", {"changes": [change]})
    assert made.post(f"shadow-index/{made.built()}/switch", {})["success"]
    return made


def in_query(operation: dict[str, Any], required: bool) -> list[dict[str, Any]]:
    """The parameters of the query that an operation requires, or those that it does not."""
    found = [one for one in operation.get("parameters", ()) if one["in"] == "query"]
    return [one for one in found if one["required"] is required]


def operations(client: Client) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path with its required parameters, and description of every operation."""
    shadow_id = client.get("shadow-index/list")["shadows"][0]["shadow_index_id"]
    places = {"shadow_id": shadow_id, "name": "main", "branch_name": "main", "lock_id": "0-none", "group_id": "group-1"}
    for template, item in client.get("/schema")["paths"].items():
        for method, operation in item.items():
            query = urllib.parse.urlencode({one["name"]: NEEDED[one["name"]] for one in in_query(operation, True)})
            yield method.upper(), template.format(**places) + "?" + query, operation


def test_an_unknown_parameter_is_400_and_the_hint_names_the_known_ones(client: Client) -> None:
    found = list(operations(client))
    assert len(found) > 40
    for method, path, operation in found:
        body: dict[str, Any] | None = {} if method == "POST" else None
        problem = client.refused(400, method, f"{path}&field=title&limits=5", body)
        assert "unknown parameter: field, limits" in problem["detail"], path
        for one in (*in_query(operation, True), *in_query(operation, False)):
            assert one["name"] in problem["hint"]


def test_a_filter_that_search_does_not_have_is_refused(client: Client) -> None:
    problem = client.refused(400, "GET", "branches/main/search?q=hello&resource_types=user")
    assert "resource_types" in problem["detail"]
    known = "index_type, limit, min_lsn, offset, q, resource_type, shadow_index_id, timeout_s, where"
    assert problem["hint"].endswith(known)


def test_a_query_that_is_not_utf_8_is_refused(client: Client) -> None:
    problem = client.refused(400, "GET", "branches/main/search?q=%ff")
    assert problem["detail"] == "the query is not valid UTF-8"


def test_every_parameter_of_the_document_is_known(client: Client) -> None:
    for method, path, operation in operations(client):
        for one in in_query(operation, False) if method == "GET" and "stream" not in path else ():
            answer = client.call("GET", f"{path}&{one['name']}=")
            assert answer.status in (200, 400, 422)
            assert "unknown parameter" not in str(answer.body)


def test_a_body_that_is_not_utf_8_is_never_a_defect_of_the_server(client: Client) -> None:
    headers = {"Content-Type": "application/vnd.api+json"}
    for method, path, operation in operations(client):
        if method == "POST" and "requestBody" in operation:
            problem = client.refused(400, method, path, raw=b'{"reason": "\xff"}', headers=headers)
            assert "not UTF-8" in problem["detail"]
            answer = client.call(method, path, raw=json.dumps({"none": 1}).encode(), headers=headers)
            assert answer.status in (400, 404), path
            assert "media type" not in str(answer.body)


def test_head_is_answered_wherever_get_is(client: Client) -> None:
    for method, path, _ in operations(client):
        if method == "GET" and "stream" not in path:
            assert client.call("HEAD", path).status == client.call("GET", path).status, path
