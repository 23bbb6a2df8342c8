"""Methods and statuses: HEAD works where GET does, and a branch that exists is 409."""

from __future__ import annotations

from pathlib import Path

from shadowswitch.service.http.access import Scope
from tests.support.http_helpers import API, serving, token_entry


def test_head_has_the_headers_of_get_and_no_body(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        client = server.client()
        client.post("branches", {"name": "main"})
        for path in ("/", "/health", "/schema", f"{API}/branches", f"{API}/branches/main", f"{API}/audit"):
            got, head = client.call("GET", path), client.call("HEAD", path)
            assert (head.status, head.headers["content-type"]) == (got.status, got.headers["content-type"])
            if path != "/health":  # its body has the time
                assert head.headers["content-length"] == got.headers["content-length"]
        assert client.call("HEAD", "events/stream").status == 200
        assert client.call("HEAD", "branches/none").status == 404
        assert client.call("HEAD", "shadow-index/start").status == 405
        allowed = client.call("OPTIONS", "branches").headers["allow"]
        assert allowed == "GET, HEAD, OPTIONS, POST"
        assert client.get("branches/main")["name"] == "main"


def test_head_takes_the_scope_of_get(tmp_path: Path) -> None:
    writer, entry = token_entry("writer", [Scope.WRITE])
    with serving(tmp_path / "data", SHADOWSWITCH_TOKENS=entry) as server:
        assert server.client().call("HEAD", "branches").status == 401
        assert server.client(writer).call("HEAD", "branches").status == 403


def test_a_branch_that_exists_is_409_and_a_name_that_cannot_be_is_422(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        client = server.client()
        client.post("branches", {"name": "main"})
        problem = client.refused(409, "POST", "branches", {"name": "main"})
        assert problem["type"].endswith(":branch-exists")
        client.refused(422, "POST", "branches", {"name": " main"})
