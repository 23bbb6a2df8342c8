"""Compare and RELEVANCE over HTTP: as in the library, for tokens that reach the branch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from shadowswitch.service.http.access import Scope
from tests.support.http_helpers import Client, Server, serving, token_entry
from tests.support.korean import JUDGED, judgments, records


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Client, str]]:
    """A server with Korean records and a live index, its client, and the secret of a token for another branch."""
    admin_secret, admin = token_entry("admin", list(Scope))
    bound_secret, bound = token_entry("bound", [Scope.READ], ["other"])
    data = tmp_path_factory.mktemp("compare") / "data"
    with serving(data, SHADOWSWITCH_TOKENS=f"{admin}\n{bound}") as server:
        client = server.client(admin_secret)
        client.post("branches", {"name": "main"})
        changes = [
            {"resource_type": one.resource_type, "id": one.id, "fields": one.fields}
            for one in [*records(), *judgments()]
        ]
        client.post("branches/main/write", {"changes": changes})
        client.post(f"shadow-index/{client.built()}/switch", {})
        yield server, client, bound_secret


def shadow(client: Client) -> str:
    waiting: list[dict[str, Any]] = client.get("shadow-index/list?state=BUILT")["shadows"]
    return str(waiting[0]["shadow_index_id"]) if waiting else client.built(tokenizer="trigram")


def test_queries_of_the_caller_have_rows_and_those_that_are_judged_a_verdict(
    running: tuple[Server, Client, str],
) -> None:
    _, client, _ = running
    id = shadow(client)
    found = client.get(f"shadow-index/{id}/compare?q={quote('기차')}&q={quote('이야기')}&limit=3")
    assert [row["query"] for row in found["rows"]] == ["기차", "이야기"]
    assert all(len(row[side]) <= 3 for row in found["rows"] for side in ("live", "shadow"))
    assert found["rows"][0]["ndcg"]["live"] > found["rows"][0]["ndcg"]["shadow"]
    judged = client.get(f"shadow-index/{id}/compare")
    assert judged["summary"]["asked_from"] == "judgments"
    assert judged["summary"]["verdict"]["judged"] == JUDGED
    assert judged["summary"]["verdict"]["outcome"] == "worse"


def test_a_switch_that_asks_for_relevance_is_refused_and_says_why(running: tuple[Server, Client, str]) -> None:
    _, client, _ = running
    request = {"validation_checks": ["RELEVANCE"], "switch_timeout_seconds": 60}
    result = client.post(f"shadow-index/{shadow(client)}/switch", request)
    assert not result["success"]
    assert "RELEVANCE: the shadow is worse" in result["message"]


def test_wrong_comparisons_are_refused(running: tuple[Server, Client, str]) -> None:
    server, client, bound = running
    id = shadow(client)
    other = server.client(bound)
    hidden = other.refused(403, "GET", f"shadow-index/{id}/compare?q=x")
    assert "SEARCH_INDEX" not in hidden["detail"]
    assert client.refused(404, "GET", f"shadow-index/{'f' * 32}/compare?q=x")["hint"]
    assert client.refused(422, "GET", f"shadow-index/{id}/compare?q=%20")["hint"]
    for wrong in ("limit=0", "limit=101", "timeout_s=0", "timeout_s=31", "query=x"):
        assert client.call("GET", f"shadow-index/{id}/compare?{wrong}").status == 400
    live = client.get("indexes")["indexes"][0]["shadow_index_id"]
    assert "compared with itself" in client.refused(409, "GET", f"shadow-index/{live}/compare?q=x")["detail"]
