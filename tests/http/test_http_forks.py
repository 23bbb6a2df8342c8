"""Forks over HTTP: fork, diff by page, merge, rebase, drop; bad input, locks, callers that reach one branch only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shadowswitch.service.http.access import Scope
from tests.support.http_helpers import Client, Server, segment, serving, token_entry

FORK = "feature/a"
PLACE = f"branches/{segment(FORK)}"
ALL = list(Scope)


def put(id: str, **fields: Any) -> dict[str, Any]:
    return {"resource_type": "object_type", "id": id, "fields": fields}


def write(client: Client, branch: str, *changes: dict[str, Any]) -> int:
    return int(client.post(f"branches/{segment(branch)}/write", {"changes": list(changes)})["lsn"])


def delete(id: str) -> dict[str, Any]:
    return {"resource_type": "object_type", "id": id, "kind": "delete"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("forks") / "data", "--quiet") as started:
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A client of a server with `main`, which has ten records."""
    made = server.client()
    made.post("branches", {"name": "main"})
    write(made, "main", *(put(f"k{n}", a=n, b=n) for n in range(10)))
    yield made
    made.ok("DELETE", "branches/main?cascade=true")
    made.close()


@pytest.fixture
def forked(client: Client) -> Client:
    """The same with a fork of `main`."""
    client.post(f"{PLACE}/fork", {"parent": "main"})
    return client


def newest(client: Client, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = [one["data"] for one in client.get("audit")["entries"] if one["type"] == kind][-1]
    return found


def ids(client: Client, branch: str) -> dict[str, Any]:
    page = client.get(f"branches/{segment(branch)}/records?resource_type=object_type")
    return {one["id"]: one["fields"] for one in page["records"]}


def test_a_fork_shows_its_parent_and_its_own_changes(client: Client) -> None:
    head = client.get("branches/main")["head_lsn"]
    answer = client.call("POST", f"{PLACE}/fork", {"parent": "main", "mode": "snapshot", "reason": "a try"})
    assert answer.status == 201
    assert {"name": FORK, "parent": "main", "fork_lsn": head, "mode": "snapshot"}.items() <= answer.body.items()
    assert answer.body["record_count"] == 10
    assert client.get("branches")["branches"][-1] == client.get(PLACE)
    assert client.get("branches/main")["parent"] is None
    write(client, FORK, put("k0", a=100, b=0), delete("k1"), put("new", a=1))
    write(client, "main", put("k5", a=500, b=5))
    assert ids(client, FORK).keys() == {"k0", "new", *(f"k{n}" for n in range(2, 10))}
    assert ids(client, FORK)["k5"] == {"a": 5, "b": 5}
    assert ids(client, "main")["k0"] == {"a": 0, "b": 0}
    assert newest(client, "branch.forked")["reason"] == "a try"


def test_a_diff_is_read_by_page_and_by_type(forked: Client) -> None:
    lsn = write(forked, FORK, put("k0", a=100, b=0), delete("k1"), put("new", a=1))
    other = {"resource_type": "link_type", "id": "owns", "fields": {"x": 1}}
    write(forked, FORK, other, put("k2", a=2, b=2))
    theirs = write(forked, "main", put("k0", a=7, b=7))
    whole = forked.get(f"{PLACE}/diff")
    assert (whole["branch_name"], whole["against"], whole["cursor"]) == (FORK, "main", None)
    by_id = {one["id"]: one for one in whole["diffs"]}
    assert {id: one["kind"] for id, one in by_id.items()} == {
        "k0": "changed", "k1": "deleted", "new": "added", "owns": "added",
    }  # fmt: skip
    assert (by_id["k0"]["ours_lsn"], by_id["k0"]["theirs_lsn"]) == (lsn - 2, theirs)
    assert by_id["new"]["base_lsn"] == by_id["new"]["theirs_lsn"] == 0
    paged: list[Any] = []
    cursor = ""
    while True:
        page = forked.get(f"{PLACE}/diff?limit=1&cursor={cursor}")
        assert len(page["diffs"]) <= 1
        paged += page["diffs"]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert paged == whole["diffs"]
    assert [one["id"] for one in forked.get(f"{PLACE}/diff?resource_type=link_type&against=main")["diffs"]] == ["owns"]
    assert forked.get(f"{PLACE}/diff?resource_type=nothing")["diffs"] == []


def test_a_merge_and_then_a_rebase(forked: Client) -> None:
    write(forked, FORK, put("k0", a=100, b=0), delete("k1"))
    write(forked, "main", put("k0", a=0, b=200), put("k9", a=900, b=9))
    tried = forked.post(f"{PLACE}/merge-into", {"target": "main", "dry_run": True})
    assert (tried["success"], tried["dry_run"], tried["applied"], tried["receipt"]) == (True, True, 2, None)
    assert ids(forked, "main")["k0"] == {"a": 0, "b": 200}
    merged = forked.post(f"{PLACE}/merge-into", {"target": "main", "reason": "done"})
    assert (merged["success"], merged["applied"], merged["conflict_count"]) == (True, 2, 0)
    assert merged["receipt"]["lsn"] == forked.get("branches/main")["head_lsn"]
    assert ids(forked, "main")["k0"] == {"a": 100, "b": 200}
    assert "k1" not in ids(forked, "main")
    assert newest(forked, "branch.merged")["reason"] == "done"
    rebased = forked.post(f"{PLACE}/rebase")
    assert rebased["success"]
    assert forked.get(PLACE)["fork_lsn"] == forked.get("branches/main")["head_lsn"]
    assert ids(forked, FORK) == ids(forked, "main")
    assert forked.get(f"{PLACE}/diff")["diffs"] == []
    assert "all of it already" in forked.post(f"{PLACE}/merge-into", {"target": "main"})["message"]


def test_conflicts_are_data_and_nothing_is_written(forked: Client) -> None:
    write(forked, FORK, put("k0", a=100, b=0), delete("k1"), put("k2", a=1, b=1))
    write(forked, "main", put("k0", a=200, b=0), put("k1", a=5, b=5))
    before = ids(forked, "main")
    headers = {"Idempotency-Key": "merge-1"}
    refused = forked.post(f"{PLACE}/merge-into", {"target": "main"}, headers=headers)
    assert (refused["success"], refused["applied"], refused["conflict_count"]) == (False, 0, 2)
    assert refused["receipt"] is None
    first, second = sorted(refused["conflicts"], key=lambda one: str(one["id"]))
    assert (first["fields"], first["base"], first["ours"], first["theirs"]) == (
        ["a"], {"a": 0, "b": 0}, {"a": 100, "b": 0}, {"a": 200, "b": 0},
    )  # fmt: skip
    assert (second["fields"], second["ours"]) == ([], None)
    assert ids(forked, "main") == before
    assert not forked.post(f"{PLACE}/rebase")["success"]
    again = forked.call("POST", f"{PLACE}/merge-into", {"target": "main"}, headers=headers)
    assert "idempotency-replayed" not in again.headers
    settled = forked.post(f"{PLACE}/merge-into", {"target": "main", "on_conflict": "ours"})
    assert (settled["success"], settled["applied"], settled["conflict_count"]) == (True, 3, 2)
    assert ids(forked, "main")["k0"] == {"a": 100, "b": 0}
    assert forked.post(f"{PLACE}/rebase", {"on_conflict": "theirs"})["success"]
    assert ids(forked, FORK) == ids(forked, "main")


def test_bad_input_is_refused_with_what_to_do(forked: Client) -> None:
    new = "branches/new"
    assert "exists" in forked.refused(409, "POST", f"{PLACE}/fork", {"parent": "main"})["detail"]
    assert forked.refused(404, "POST", f"{new}/fork", {"parent": "nowhere"})["type"].endswith("unknown-branch")
    of_an_lsn = {"parent": "main", "mode": "following", "at_lsn": 1}
    assert "not as of an LSN" in forked.refused(422, "POST", f"{new}/fork", of_an_lsn)["detail"]
    assert "head" in forked.refused(422, "POST", f"{new}/fork", {"parent": "main", "at_lsn": 1 << 40})["detail"]
    forked.refused(422, "POST", f"branches/{segment(' x')}/fork", {"parent": "main"})
    wrong: Any
    for wrong in (
        {},
        {"parent": 5},
        {"parent": "main", "mode": "deep"},
        {"parent": "main", "at_lsn": "x"},
        {"of": "x"},
    ):
        forked.refused(400, "POST", f"{new}/fork", wrong)
    for wrong in (
        {}, {"target": 5}, {"target": "main", "on_conflict": "guess"}, {"target": "main", "dry_run": "yes"},
        {"target": "main", "timeout_s": 0}, {"target": "main", "other": 1},
    ):  # fmt: skip
        forked.refused(400, "POST", f"{PLACE}/merge-into", wrong)
    forked.refused(400, "POST", f"{PLACE}/rebase", {"on_conflict": ["ours"]})
    for method, path, body in (
        ("GET", "diff", None), ("POST", "rebase", {}), ("POST", "merge-into", {"target": FORK}),
    ):  # fmt: skip
        problem = forked.refused(422, method, f"branches/main/{path}", body)
        assert "no fork" in problem["detail"]
        assert "POST /branches/{name}/fork" in problem["hint"]
        forked.refused(404, method, f"branches/nowhere/{path}", body)
    assert "not of" in forked.refused(422, "POST", f"{PLACE}/merge-into", {"target": FORK})["detail"]
    forked.refused(404, "POST", f"{PLACE}/merge-into", {"target": "nowhere"})
    for query in ("limit=0", "limit=10001", "limit=x", "resource_type=", "types=a"):
        forked.refused(400, "GET", f"{PLACE}/diff?{query}")
    for query in ("cursor=zz", "cursor=00", f"against={segment(FORK)}"):
        forked.refused(422, "GET", f"{PLACE}/diff?{query}")
    forked.refused(404, "GET", f"{PLACE}/diff?against=nowhere")


def test_a_lock_of_the_target_blocks_a_merge_and_its_token_admits_it(forked: Client) -> None:
    write(forked, FORK, put("k0", a=100, b=0))
    wanted = {"branch_name": "main", "lock_type": "MIGRATION", "owner": "bob", "reason": "renaming"}
    lock = forked.post("branch-locks/acquire", wanted)
    body = {"target": "main", "timeout_s": 0.2}
    problem = forked.refused(423, "POST", f"{PLACE}/merge-into", body)
    assert problem["holder"] == "bob"
    assert ids(forked, "main")["k0"] == {"a": 0, "b": 0}
    assert forked.post(f"{PLACE}/merge-into", {**body, "dry_run": True})["applied"] == 1
    assert forked.post(f"{PLACE}/merge-into", {**body, "owner": "bob", "tokens": [lock["token"]]})["applied"] == 1
    forked.ok("DELETE", f"branch-locks/locks/{lock['lock_id']}")
    lock = forked.post("branch-locks/acquire", {**wanted, "branch_name": FORK})
    write(forked, "main", put("k3", a=3, b=33))
    assert forked.refused(423, "POST", f"{PLACE}/rebase", {"timeout_s": 0.2})["branch"] == FORK
    forked.ok("DELETE", f"branch-locks/locks/{lock['lock_id']}")
    assert forked.post(f"{PLACE}/rebase")["success"]


def test_a_parent_is_dropped_with_its_forks_or_not_at_all(forked: Client) -> None:
    forked.post("branches/below/fork", {"parent": FORK})
    problem = forked.refused(409, "DELETE", PLACE)
    assert problem["uses"] == ["below is a fork of it"]
    assert "cascade=true" in problem["hint"]
    forked.ok("DELETE", f"{PLACE}?cascade=true")
    assert [one["name"] for one in forked.get("branches")["branches"]] == ["main"]


def test_a_caller_needs_both_branches(tmp_path: Path) -> None:
    root, entry = token_entry("root", ALL)
    entries, secrets = entry, {"root": root}
    for name, scopes, branches in (
        ("team", ALL, ["feature/*"]), ("reader", [Scope.READ], ["*"]), ("writer", [Scope.WRITE], ["*"]),
    ):  # fmt: skip
        secrets[name], more = token_entry(name, scopes, branches)
        entries += more
    with serving(tmp_path / "data", "--quiet", SHADOWSWITCH_TOKENS=entries) as server:
        root_, team, reader, writer = (server.client(secrets[name]) for name in ("root", "team", "reader", "writer"))
        root_.post("branches", {"name": "secret"})
        assert "secret" in team.refused(403, "POST", f"{PLACE}/fork", {"parent": "secret"})["detail"]
        reader.refused(403, "POST", f"{PLACE}/fork", {"parent": "secret"})
        root_.post(f"{PLACE}/fork", {"parent": "secret"})
        root_.post("branches/secret-below/fork", {"parent": FORK})
        team.post("branches", {"name": "feature/other"})
        for method, path, body in (
            ("GET", "diff", None), ("POST", "rebase", {}), ("POST", "merge-into", {"target": "feature/other"}),
        ):  # fmt: skip
            problem = team.refused(403, method, f"{PLACE}/{path}", body)
            assert "secret" not in str(problem)
        shown = team.get(PLACE)
        assert (shown["parent"], shown["mode"]) == (None, "snapshot")
        assert "secret" not in str(team.get("branches"))
        assert "secret" not in str(team.get("events"))
        assert "secret-below" not in str(team.refused(403, "DELETE", f"{PLACE}?cascade=true"))
        assert reader.get(f"{PLACE}/diff")["against"] == "secret"
        reader.refused(403, "POST", f"{PLACE}/merge-into", {"target": "secret"})
        writer.refused(403, "POST", f"{PLACE}/merge-into", {"target": "secret"})
        writer.refused(403, "POST", f"{PLACE}/rebase")
        root_.post(f"{PLACE}/merge-into", {"target": "secret"})
        root_.ok("DELETE", f"{PLACE}?cascade=true")


def test_the_document_has_the_routes(client: Client) -> None:
    paths = client.get("/schema")["paths"]
    base = "/api/v1/branches/{name}"
    for what in ("fork", "merge-into", "rebase"):
        assert "post" in paths[f"{base}/{what}"]
    for what in ("merge-into", "rebase"):
        assert "Blocked" in str(paths[f"{base}/{what}"]["post"]["responses"]["423"])
    names = {one["name"] for one in paths[f"{base}/diff"]["get"]["parameters"]}
    assert names >= {"against", "resource_type", "cursor", "limit"}
