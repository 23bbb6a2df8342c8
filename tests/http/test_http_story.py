"""The scenarios of the field's own test list, over HTTP against a server process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine_helpers import crew
from tests.support.http_helpers import Client, Events, Server, segment, serving

BUILD = {"branch_name": "main", "index_type": "SEARCH_INDEX", "resource_types": ["object_type"]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("story") / "data") as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    found = server.client()
    yield found
    found.close()


@pytest.fixture
def branch(client: Client, request: pytest.FixtureRequest) -> str:
    """A branch of the test with 200 records; its name has every character that is awkward in a path."""
    name = f"feature/{request.node.name} 사용자?#%2F&+;="
    client.post("branches", {"name": name})
    write(client, name, [str(n) for n in range(200)])
    return name


def path(branch: str) -> str:
    return f"branches/{segment(branch)}"


def write(client: Client, branch: str, ids: list[str], text: str = "hello") -> int:
    changes = [{"resource_type": "object_type", "id": id, "fields": {"text": f"{text} word{id}"}} for id in ids]
    receipt = client.post(f"{path(branch)}/write", {"changes": changes})
    assert receipt["count"] == len(ids)
    return int(receipt["lsn"])


def ids(client: Client, branch: str, word: str, lsn: int = 0) -> list[str]:
    found = client.get(f"{path(branch)}/search?q={word}&limit=1000&min_lsn={lsn}")
    return sorted(hit["id"] for hit in found["hits"])


def start(client: Client, branch: str, **more: Any) -> str:
    found = client.post("shadow-index/start", {**BUILD, "branch_name": branch, **more})
    return str(found["shadow_index_id"])


def switched(client: Client, branch: str, **config: Any) -> dict[str, Any]:
    shadow_id = client.built(branch, **config)
    result = client.post(f"shadow-index/{shadow_id}/switch", {"shadow_index_id": shadow_id})
    assert result["success"], result
    return dict(result)


def test_start_build_switch_search_and_roll_back(client: Client, branch: str) -> None:
    first = client.call("POST", "shadow-index/start", {**BUILD, "branch_name": branch, "service_instance_id": "i1"})
    assert first.status == 201
    assert first.body.keys() >= {"shadow_index_id", "message", "estimated_build_time_minutes", "start_lsn"}
    assert first.body["start_lsn"] == client.get(path(branch))["head_lsn"]
    shadow = client.wait_for(first.body["shadow_index_id"], "BUILT")
    assert (shadow["record_count"], shadow["switch_ready"], shadow["service_instance_id"]) == (200, True, "i1")
    result = client.post(f"shadow-index/{first.body['shadow_index_id']}/switch", {})
    assert result["success"] is True
    assert result["sealed_ms"] > 0
    assert ids(client, branch, "word7") == ["7"]
    lsn = write(client, branch, ["new"])
    assert ids(client, branch, "wordnew", lsn) == ["new"]
    switched(client, branch, tokenizer="porter")
    lsn = write(client, branch, ["newer"])
    back = client.post("indexes/rollback", {"branch_name": branch, "index_type": "SEARCH_INDEX"})
    assert (back["success"], back["generation"]) == (True, result["generation"])
    assert ids(client, branch, "wordnewer", lsn) == ["newer"]


def test_a_second_build_of_the_same_index_is_a_duplicate(client: Client, branch: str) -> None:
    shadow_id = start(client, branch)
    problem = client.refused(409, "POST", "shadow-index/start", {**BUILD, "branch_name": branch})
    assert problem["shadow_index_id"] == shadow_id
    assert problem["hint"]
    other = client.post("shadow-index/start", {**BUILD, "branch_name": branch, "index_type": "GRAPH_INDEX"})
    client.wait_for(other["shadow_index_id"], "BUILT")
    client.wait_for(shadow_id, "BUILT")


def test_an_external_build_reports_progress_reads_the_journal_and_fails(client: Client, branch: str) -> None:
    started = client.post("shadow-index/start", {**BUILD, "branch_name": branch, "external": True})
    shadow_id, place = started["shadow_index_id"], Path(started["shadow_index_path"])
    done = client.post(
        f"shadow-index/{shadow_id}/progress",
        {"progress_percent": 40, "estimated_completion_seconds": 30, "record_count": 80},
    )
    assert done["success"] is True
    status = client.get(f"shadow-index/{shadow_id}/status")
    assert (status["state"], status["build_progress_percent"], status["external"]) == ("BUILDING", 40, True)
    assert place.is_dir()
    page = client.get(f"{path(branch)}/changes?after={started['start_lsn']}&limit=10")
    assert (page["changes"], page["head_lsn"]) == ([], started["start_lsn"])
    write(client, branch, ["after"])
    page = client.get(f"{path(branch)}/changes?after={started['start_lsn']}&limit=10")
    assert [(change["kind"], change["id"], change["lsn"]) for change in page["changes"]] == [
        ("put", "after", page["head_lsn"])
    ]
    failed = client.post(f"shadow-index/{shadow_id}/fail", {"error": "the builder ran out of memory"})
    assert failed["success"] is True
    status = client.get(f"shadow-index/{shadow_id}/status")
    assert (status["state"], status["error"]) == ("FAILED", "the builder ran out of memory")
    client.refused(409, "POST", f"shadow-index/{shadow_id}/progress", {"progress_percent": 50})


def test_a_client_that_reports_a_build_of_the_engine_runs_unchanged(client: Client, branch: str) -> None:
    write(client, branch, ["a", "b"])
    shadow_id = start(client, branch)
    noted = client.post(f"shadow-index/{shadow_id}/progress", {"progress_percent": 99})
    assert (noted["success"], noted["shadow_index_id"]) == (True, shadow_id)
    done = client.post(f"shadow-index/{shadow_id}/complete", {"index_size_bytes": 1, "record_count": 999_999})
    assert (done["ready_for_switch"], done["record_count"]) == (True, client.get(path(branch))["record_count"])
    assert client.post(f"shadow-index/{shadow_id}/switch", {})["success"] is True
    client.ok("DELETE", f"shadow-index/{start(client, branch)}")


def test_a_completion_with_claims_that_do_not_match_its_files_is_refused(client: Client, branch: str) -> None:
    started = client.post("shadow-index/start", {**BUILD, "branch_name": branch, "external": True})
    shadow_id = started["shadow_index_id"]
    problem = client.refused(
        409, "POST", f"shadow-index/{shadow_id}/complete", {"index_size_bytes": 1 << 20, "record_count": 200}
    )
    assert problem["type"].endswith("completion-refused")
    assert client.get(f"shadow-index/{shadow_id}/status")["state"] == "BUILDING"
    client.ok("DELETE", f"shadow-index/{shadow_id}")


def test_a_switch_is_refused_while_the_shadow_is_not_built(client: Client, branch: str) -> None:
    shadow_id = start(client, branch, external=True)
    problem = client.refused(409, "POST", f"shadow-index/{shadow_id}/switch", {})
    assert "BUILDING" in problem["detail"]
    client.refused(404, "POST", "shadow-index/no-such-shadow/switch", {})
    mismatch = client.refused(422, "POST", f"shadow-index/{shadow_id}/switch", {"shadow_index_id": "another"})
    assert "path" in mismatch["detail"]


def test_a_switch_that_fails_its_validation_says_why_and_can_be_forced(client: Client, branch: str) -> None:
    first = client.post(f"shadow-index/{client.built(branch, tokenizer='porter')}/switch", {})
    assert first["success"] is True
    assert "query_performance_improvement" not in first, "nothing was compared"
    shadow_id = client.built(branch, tokenizer="ascii")
    request = {"validation_checks": ["QUERY_COMPARISON"], "queries": ["hellos"]}
    result = client.post(f"shadow-index/{shadow_id}/switch", request)
    assert (result["success"], result["validation_passed"]) == (False, False)
    assert result["validation_errors"]
    assert result["query_performance_improvement"] > 0
    assert client.get(f"shadow-index/{shadow_id}/status")["state"] == "BUILT"
    forced = client.post(
        f"shadow-index/{shadow_id}/switch", {**request, "force_switch": True, "reason": "meant to differ"}
    )
    assert forced["success"] is True
    unknown = client.refused(422, "POST", f"shadow-index/{shadow_id}/switch", {"validation_checks": ["NO_SUCH_CHECK"]})
    assert "RECORD_COUNT_VALIDATION" in unknown["hint"]


def test_an_index_that_may_be_empty_takes_the_place_of_one_with_many_records(client: Client, branch: str) -> None:
    changes = [{"resource_type": "object_type", "id": f"n{n}", "fields": {"text": "x"}} for n in range(200)]
    client.post(f"branches/{segment(branch)}/write", {"changes": changes})
    assert client.post(f"shadow-index/{client.built(branch)}/switch", {})["success"]
    body = {"branch_name": branch, "index_type": "SEARCH_INDEX", "resource_types": ["note_type"]}
    empty = str(client.post("shadow-index/start", body)["shadow_index_id"])
    client.wait_for(empty, "BUILT")
    refused = client.post(f"shadow-index/{empty}/switch", {})
    assert [text for text in refused["validation_errors"] if "the index would have 0 records" in text]
    assert client.post(f"shadow-index/{empty}/switch", {"allow_empty": True})["success"]


def test_a_build_is_cancelled_with_a_reason(client: Client, branch: str) -> None:
    shadow_id = start(client, branch)
    done = client.ok("DELETE", f"shadow-index/{shadow_id}?reason=wrong%20tokenizer")
    assert (done["success"], done["shadow_index_id"]) == (True, shadow_id)
    assert client.get(f"shadow-index/{shadow_id}/status")["state"] == "CANCELLED"
    client.refused(409, "DELETE", f"shadow-index/{shadow_id}")
    client.refused(404, "DELETE", "shadow-index/no-such-shadow")


def test_shadows_are_listed_by_branch_and_state(client: Client, branch: str) -> None:
    built = client.built(branch)
    mine = client.get(f"shadow-index/list?branch_name={segment(branch)}")
    assert [one["shadow_index_id"] for one in mine["shadows"]] == [built]
    assert (mine["total_count"], mine["active_builds"], mine["ready_for_switch"]) == (1, 0, 1)
    assert client.get(f"shadow-index/list?branch_name={segment(branch)}&state=ACTIVE")["total_count"] == 0
    client.refused(422, "GET", "shadow-index/list?state=NONSENSE")
    overview = client.get("shadow-index/dashboard")
    assert overview["state_distribution"]["BUILT"] >= 1
    assert overview["recent_activity"][0]["id"] == built


def test_estimates_are_measured(client: Client, branch: str) -> None:
    shadow = client.get(f"shadow-index/{client.built(branch)}/status")
    assert shadow["estimated_completion_seconds"] == 0
    assert shadow["estimated_switch_duration_seconds"] == 1
    assert shadow["estimated_sealed_ms"] is None, "the index was never switched"
    result = client.post(f"shadow-index/{shadow['shadow_index_id']}/switch", {})
    shadow = client.get(f"shadow-index/{client.built(branch, tokenizer='porter')}/status")
    assert shadow["estimated_sealed_ms"] == round(result["sealed_ms"], 3)
    assert shadow["lag_changes"] == 0


def test_indexing_locks_only_the_given_types(client: Client, branch: str) -> None:
    client.post(f"{path(branch)}/write", {"changes": [{"resource_type": "link_type", "id": "owns", "fields": {}}]})
    place = f"branch-locks/indexing/{segment(branch)}"
    started = client.post(f"{place}/start?service_name=funnel", {"resource_types": ["object_type"]})
    assert (started["lock_scope"], started["locked_resource_types"]) == ("resource_type", ["object_type"])
    assert started["other_resources_available"] is True

    heard = client.post(
        f"branch-locks/locks/{segment(started['lock_ids'][0])}/heartbeat",
        {"service_name": "funnel", "progress_info": {"percent": 30, "eta_seconds": 90}},
    )
    assert heard["success"] is True
    change = {"resource_type": "object_type", "id": "1", "fields": {"text": "blocked"}}
    answer = client.call("POST", f"{path(branch)}/write", {"changes": [change]})
    assert answer.status == 423
    assert int(answer.headers["retry-after"]) == answer.body["retry_after"]
    blocked = answer.body
    assert (blocked["error"], blocked["branch"], blocked["holder"]) == ("SchemaFrozen", branch, "funnel")
    assert (blocked["resource_type"], blocked["lock_scope"]) == ("object_type", "resource_type")
    assert (blocked["indexing_progress"], blocked["other_resources_available"]) == (30, True)
    assert blocked["available_resource_types"] == ["link_type"]
    assert blocked["alternative_actions"]
    assert blocked["message"]
    assert 0 < blocked["eta_seconds"] <= 90
    client.post(f"{path(branch)}/write", {"changes": [{**change, "resource_type": "link_type"}]})
    asked: dict[str, Any] = {"branch_name": branch, "resource_type": "object_type"}
    allowed = client.post("branch-locks/check-write", asked)
    assert (allowed["allowed"], allowed["blocked"]["holder"]) == (False, "funnel")

    lease = client.post(
        "branch-locks/check-write", {**asked, "resource_type": "link_type", "lease_s": 5, "owner": "me"}
    )
    assert lease["allowed"] is True
    client.ok("DELETE", f"branch-locks/locks/{lease['lock_id']}")
    assert client.get("branch-locks/waiters") == []

    done = client.post(f"{place}/complete", {"resource_types": ["object_type"]})
    assert (done["completion_type"], done["remaining_locks"]) == ("complete", 0)
    write(client, branch, ["1"], "free again")
    client.refused(409, "POST", f"{place}/complete", {})
    state = client.get(f"branch-locks/status/{segment(branch)}")
    assert (state["current_state"], state["is_write_locked"], state["active_locks"]) == ("READY", False, [])


def test_writers_and_readers_go_on_while_an_index_is_rebuilt(client: Client, server: Server, branch: str) -> None:
    switched(client, branch)
    last: dict[str, int] = {}

    def writer() -> None:
        connection = server.client()
        for number in range(10):
            last[f"w{number}"] = write(connection, branch, [f"w{number}"], "busy")
        connection.close()

    def reader() -> None:
        connection = server.client()
        assert ids(connection, branch, "word7") == ["7"]
        connection.close()

    stream = Events(client)
    with crew() as hands:
        hands.start(writer)
        hands.start(reader, 2)
        for tokenizer in ("porter", "ascii"):
            switched(client, branch, tokenizer=tokenizer)
    stream.wait_for("switch.committed")
    stream.close()
    assert len(ids(client, branch, "busy", max(last.values()))) == 10


def test_a_tracked_build_makes_its_branch_ready_and_a_duplicate_gets_its_progress(client: Client, branch: str) -> None:
    shadow_id = start(client, branch, track_ready=True, external=True, service_name="funnel")
    client.post(f"shadow-index/{shadow_id}/progress", {"progress_percent": 30, "estimated_completion_seconds": 90})
    problem = client.refused(409, "POST", "shadow-index/start", {**BUILD, "branch_name": branch})
    assert (problem["holder"], problem["indexing_progress"]) == ("funnel", 30)
    assert 0 < problem["eta_seconds"] <= 90
    client.ok("DELETE", f"shadow-index/{shadow_id}")
    shadow_id = start(client, branch, track_ready=True, build_config={"parallel_workers": 1})
    client.wait_for(shadow_id, "BUILT")
    assert client.post(f"shadow-index/{shadow_id}/switch", {})["success"]
    assert client.get(path(branch))["state"] == "READY"
