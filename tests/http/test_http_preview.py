"""Preview over HTTP: a search names a shadow; a token sees no shadow of a branch that it does not reach."""

from __future__ import annotations

from pathlib import Path

from shadowswitch.service.http.access import Scope
from tests.support.http_helpers import serving, token_entry


def test_a_search_names_a_shadow_of_a_branch_that_the_token_reaches(tmp_path: Path) -> None:
    admin_secret, admin = token_entry("admin", list(Scope))
    bound_secret, bound = token_entry("bound", [Scope.READ], ["other"])
    with serving(tmp_path / "data", SHADOWSWITCH_TOKENS=f"{admin}\n{bound}") as server:
        client = server.client(admin_secret)
        for branch in ("main", "other"):
            client.post("branches", {"name": branch})
            record = {"resource_type": "object_type", "id": "1", "fields": {"text": "running"}}
            lsn = client.post(f"branches/{branch}/write", {"changes": [record]})["lsn"]
        first = client.built()
        assert client.post(f"shadow-index/{first}/switch", {})["success"]
        id = client.built(tokenizer="porter")
        where = f"branches/main/search?q=run&min_lsn={lsn - 1}"
        assert client.get(where)["hits"] == []
        found = client.get(f"{where}&shadow_index_id={id}")
        assert [hit["id"] for hit in found["hits"]] == ["1"]
        assert found["generation"] == client.get(f"shadow-index/{id}/status")["generation"]
        assert client.refused(404, "GET", f"{where}&shadow_index_id={'f' * 32}")["hint"]
        wrong = client.refused(422, "GET", f"branches/other/search?q=run&shadow_index_id={id}")
        assert "of branch 'main'" in wrong["detail"]
        assert "offset" in client.refused(422, "GET", f"{where}&shadow_index_id={id}&cursor=new")["hint"]
        other = server.client(bound_secret)
        hidden = other.refused(403, "GET", f"branches/other/search?q=run&shadow_index_id={id}")
        assert "SEARCH_INDEX" not in hidden["detail"]
        client.ok("DELETE", f"shadow-index/{id}")
        assert "is CANCELLED" in client.refused(409, "GET", f"{where}&shadow_index_id={id}")["detail"]
