"""Who gets in, as what, and how often: tokens, scopes, branch patterns, names, origins, limits, idempotency."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.service.http.access import Access, Scope, load_tokens, new_token, now
from shadowswitch.service.http.app import MODULES
from shadowswitch.service.http.host import Options
from shadowswitch.service.http.routing import PUBLIC
from tests.cli_helpers import Cli
from tests.http_helpers import API, Client, Events, Server, segment, serving, token_entry

TOKENS = {
    "reader": ([Scope.READ], ["*"]),
    "writer": ([Scope.READ, Scope.WRITE], ["feature/*"]),
    "builder": ([Scope.READ, Scope.WRITE, Scope.BUILD, Scope.SWITCH, Scope.ROLLBACK, Scope.LOCK], ["*"]),
    "admin": (list(Scope), ["*"]),
}
CHANGE = {"changes": [{"resource_type": "object_type", "id": "1", "fields": {"text": "hello"}}]}


class Guarded:
    """A server with tokens, and a client for each."""

    def __init__(self, server: Server, secrets: dict[str, str]) -> None:
        self.server = server
        self.secrets = secrets

    def __getattr__(self, name: str) -> Client:
        return self.server.client(self.secrets[name])


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    place = tmp_path_factory.mktemp("guarded")
    secrets, lines = {}, []
    for name, (scopes, branches) in TOKENS.items():
        secrets[name], entry = token_entry(name, scopes, branches)
        lines.append(entry)
    file = place / "tokens.toml"
    file.write_text("\n".join(lines))
    file.chmod(0o600)
    with serving(place / "data", "--token-file", str(file)) as server:
        found = Guarded(server, secrets)
        for branch in ("main", "feature/a"):
            found.admin.post("branches", {"name": branch})
        yield found
        assert all(secret not in server.log for secret in secrets.values()), "a secret is in the log"


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("open") / "data", "--max-body-mb", "1") as server:
        server.client().post("branches", {"name": "main"})
        yield server


def test_without_a_token_nothing_but_the_public_is_seen(guarded: Guarded) -> None:
    nobody = guarded.server.client()
    for path in ("/health", "/health/live", "/health/ready", "/schema", "/"):
        assert nobody.call("GET", path).status == 200
    for path in ("/metrics", f"{API}/branches", f"{API}/events", f"{API}/events/stream", f"{API}/metrics"):
        problem = nobody.refused(401, "GET", path)
        assert "Authorization" in problem["hint"]
    assert nobody.call("GET", "branches").headers["www-authenticate"].startswith("Bearer")
    guarded.server.client("wrong").refused(401, "GET", "branches")
    nobody.refused(401, "GET", "branches", headers={"Authorization": "Bearer \xff\xfe"})


def test_every_route_has_a_scope_and_refuses_who_lacks_it(guarded: Guarded) -> None:
    groups = [group for module in MODULES for group in module.HANDLERS]
    handlers = [one for group in groups for one in (group if isinstance(group, list) else [group])]
    assert len(handlers) > 40
    for handler in handlers:
        scope = handler.opt.get("scope")
        assert scope == PUBLIC or isinstance(scope, Scope), handler.fn
        if scope in (PUBLIC, Scope.READ):
            continue
        (path,) = handler.paths
        (method,) = handler.http_methods
        for parameter in ("shadow_id", "name", "lock_id", "branch_name"):
            path = path.replace(f"{{{parameter}:str}}", "main")
        problem = guarded.reader.refused(403, str(method), path, {})
        assert str(scope) in problem["hint"]


def test_a_branch_pattern_bounds_everything_a_token_does(guarded: Guarded) -> None:
    guarded.writer.post(f"branches/{segment('feature/a')}/write", CHANGE)
    problem = guarded.writer.refused(403, "POST", "branches/main/write", CHANGE)
    assert "feature/*" in problem["hint"]
    guarded.writer.refused(403, "GET", "branches/main/changes")
    guarded.writer.refused(403, "GET", "branches/main/search?q=x")
    guarded.writer.refused(403, "POST", "branches", {"name": "other"})
    guarded.writer.refused(403, "GET", "branch-locks/status/main")
    assert [one["name"] for one in guarded.writer.get("branches")["branches"]] == ["feature/a"]
    guarded.admin.post("branches/main/write", CHANGE)
    shadow = guarded.builder.built("main")
    guarded.writer.refused(403, "GET", f"shadow-index/{shadow}/status")
    assert guarded.writer.get("shadow-index/list")["total_count"] == 0
    subjects = {event["data"].get("branch_name") for event in guarded.writer.get("events")["events"]}
    assert subjects == {"feature/a"}
    guarded.builder.ok("DELETE", f"shadow-index/{shadow}")


def test_force_takes_a_scope_of_its_own_and_is_audited_by_name(guarded: Guarded) -> None:
    shadow = guarded.builder.built("main")
    guarded.builder.refused(403, "POST", f"shadow-index/{shadow}/switch", {"force_switch": True})
    guarded.builder.refused(403, "POST", "branch-locks/force-unlock/main", {"reason": "because"})
    assert guarded.admin.post(f"shadow-index/{shadow}/switch", {"force_switch": True})["success"] is True
    committed = [e for e in guarded.admin.get("events")["events"] if e["type"].endswith("switch.committed")]
    assert committed[-1]["data"]["by"] == "admin"
    guarded.builder.post("branch-locks/acquire", {"branch_name": "main", "lock_type": "BACKUP"})
    assert guarded.admin.post("branch-locks/force-unlock/main", {"reason": "because"})["locks_released"] == 1
    forced = [e for e in guarded.admin.get("events")["events"] if e["type"].endswith("lock.forced")]
    assert (forced[-1]["data"]["by"], forced[-1]["data"]["reason"]) == ("admin", "because")


def test_a_lock_belongs_to_its_owner(guarded: Guarded) -> None:
    asked = {"branch_name": "feature/a", "lock_type": "MIGRATION", "owner": "job 7", "heartbeat_s": 60}
    lock = guarded.builder.post("branch-locks/acquire", asked)
    assert lock["lock"]["locked_by"] == "builder/job 7"
    place = f"branch-locks/locks/{lock['lock_id']}"
    shown = guarded.reader.get(place)
    assert (shown["id"], "token" in shown) == (lock["lock_id"], False)
    assert guarded.reader.get(f"{place}/health")["heartbeat_health"] == "healthy"
    summary = guarded.reader.get("branch-locks/health-summary")
    assert summary["health_summary"] == {"healthy": 1, "warning": 0, "critical": 0}
    blocked = guarded.writer.call(
        "POST", f"branches/{segment('feature/a')}/write", {**CHANGE, "owner": "builder/job 7"}
    )
    assert (blocked.status, blocked.body["holder"]) == (423, "builder/job 7")
    guarded.writer.refused(403, "DELETE", place)
    guarded.builder.refused(409, "POST", f"{place}/heartbeat", {"token": lock["token"] + 1})
    assert guarded.builder.post(f"{place}/heartbeat", {"service_name": "x", "token": lock["token"]})["success"]
    longer = guarded.builder.post(f"{place}/extend-ttl", {"extension_hours": 1, "reason": "slow"})
    assert longer["new_expires_at"] > lock["expires_at"]
    mine = {**CHANGE, "owner": "job 7", "tokens": [lock["token"]]}
    guarded.builder.post(f"branches/{segment('feature/a')}/write", mine)
    guarded.builder.ok("DELETE", place)
    guarded.builder.refused(404, "GET", place)
    guarded.builder.refused(403, "POST", "branch-locks/acquire", {"branch_name": "main", "lock_type": "MANUAL"})


def test_other_names_and_other_pages_are_refused(open_server: Server) -> None:
    client = open_server.client()
    rebound = client.refused(403, "GET", "branches", headers={"Host": "evil.example:80"})
    assert "--allowed-host" in rebound["hint"]
    client.get("branches")
    write = "branches/main/write"
    client.refused(403, "POST", write, CHANGE, headers={"Origin": "http://evil.example"})
    client.refused(403, "POST", write, CHANGE, headers={"Origin": "null"})
    client.refused(403, "POST", write, CHANGE, headers={"Sec-Fetch-Site": "cross-site"})
    client.post(write, CHANGE, headers={"Origin": open_server.url, "Sec-Fetch-Site": "same-origin"})
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert client.call("POST", write, raw=b"changes=1", headers=form).status in (400, 415)
    page = client.call("GET", "/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"


def test_bodies_that_are_wrong_or_too_long_are_problems(open_server: Server) -> None:
    client = open_server.client()
    write = "branches/main/write"
    json_ = {"Content-Type": "application/json"}
    for raw in (b"", b"{", b"[]", b"null", b'"x"', b'{"changes": 1}', b'{"changes": [{}]}', b"\xff\xfe", b"{}"):
        client.refused(400, "POST", write, raw=raw, headers=json_)
    for raw in (b"{", b"[1]"):
        client.refused(400, "POST", "shadow-index/x/switch", raw=raw, headers=json_)
    client.refused(400, "POST", write, {**CHANGE, "unknown": 1})
    client.refused(400, "POST", write, {"changes": [{"resource_type": "a", "id": 5, "fields": {}}]})
    client.refused(422, "POST", write, {"changes": [{"resource_type": "a", "id": "5", "kind": "delete", "fields": {}}]})
    client.refused(422, "POST", write, {"changes": [{"resource_type": "a", "id": "5"}]})
    client.refused(422, "POST", write, {"changes": [{"resource_type": "a", "id": "a\0b", "fields": {}}]})
    huge = {"changes": [{"resource_type": "a", "id": "5", "fields": {"x": "y" * (2 << 20)}}]}
    client.refused(413, "POST", write, huge)
    open_server.client().refused(413, "POST", write, huge, headers={"Idempotency-Key": "long"})
    open_server.client().refused(404, "GET", "/no/such/path")
    client.refused(405, "DELETE", "branches")
    assert client.call("DELETE", "branches").headers["allow"] == "GET, OPTIONS, POST"
    options = client.call("OPTIONS", "branch-locks/locks/any")
    assert (options.status, options.headers["allow"]) == (204, "DELETE, GET, OPTIONS")
    client.refused(404, "GET", "branches/%2e%2e%2f%2e%2e%2fetc%2fpasswd")
    client.refused(400, "GET", "branches/%ff%fe")
    client.refused(422, "POST", "branches", {"name": "unprintable\u0007"})
    client.refused(404, "GET", "branch-locks/locks/nothing")
    assert client.get("branches/main")["name"] == "main"


@pytest.mark.parametrize(
    "name", ["a/b", "..", "a//b", "%2F", "a%2Fb", "x?y#z", "é 사용자 🙂", "a\\b", "'\";--", "list"]
)
def test_a_branch_may_have_any_printable_name(open_server: Server, name: str) -> None:
    client = open_server.client()
    client.post("branches", {"name": name})
    quoted = segment(name).replace(".", "%2E")
    assert client.get(f"branches/{quoted}")["name"] == name
    lsn = client.post(f"branches/{quoted}/write", CHANGE)["lsn"]
    assert client.get(f"branches/{quoted}/changes")["changes"][0]["lsn"] == lsn
    assert client.get(f"branch-locks/status/{quoted}")["branch_name"] == name


def test_the_same_idempotency_key_gets_the_first_answer(open_server: Server) -> None:
    client = open_server.client()
    key = {"Idempotency-Key": "k-1"}
    first = client.call("POST", "branches/main/write", CHANGE, headers=key)
    again = client.call("POST", "branches/main/write", CHANGE, headers=key)
    assert (again.status, again.body) == (200, first.body)
    assert (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]) == (None, "true")
    other = {"changes": [{"resource_type": "object_type", "id": "2", "fields": {}}]}
    client.refused(409, "POST", "branches/main/write", other, headers=key)
    assert client.get("branches/main")["head_lsn"] == first.body["lsn"]
    client.refused(400, "POST", "branches/main/write", CHANGE, headers={"Idempotency-Key": "x" * 201})
    refused = client.call("POST", "branches", {"name": "main"}, headers={"Idempotency-Key": "k-2"})
    assert client.call("POST", "branches", {"name": "main"}, headers={"Idempotency-Key": "k-2"})[:2] == refused[:2]


def test_two_requests_with_one_key_at_once_are_done_once(open_server: Server) -> None:
    before = open_server.client().get("branches/main")["head_lsn"]
    answers: list[tuple[int, object]] = []

    def call() -> None:
        answer = open_server.client().call("POST", "branches/main/write", CHANGE, headers={"Idempotency-Key": "k-3"})
        answers.append((answer.status, answer.body.get("lsn")))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(answers) == 8
    assert {answer for answer in answers if answer[0] != 409} == {(200, before + 1)}
    assert open_server.client().get("branches/main")["head_lsn"] == before + 1


def test_events_go_on_after_the_last_that_was_seen(open_server: Server) -> None:
    client = open_server.client()
    stream = Events(client, 0)
    client.post("branches", {"name": "seen"})
    stream.wait_for("branch.created")
    client.post("branches", {"name": "later"})
    numbers = [one[0] for one in stream.events]
    stream.close()
    again = Events(client, numbers[0])
    again.wait_for("branch.created")
    first, page = again.events[0], client.get(f"events?after={numbers[0]}&limit=1")
    again.close()
    assert first[0] == numbers[0] + 1
    assert page["events"] == [first[2]]
    assert page["next_after"] == first[0]
    client.refused(400, "GET", "events/stream", headers={"Last-Event-ID": "yesterday"})


def test_cloud_events_come_in_structured_and_binary(open_server: Server) -> None:
    client = open_server.client()
    client.post("branches/main/write", CHANGE)
    event: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "funnel"}
    event["type"] = "com.oms.shadow.indexing.failed"
    start = {"branch_name": "main", "index_type": "SEARCH_INDEX", "resource_types": ["object_type"], "external": True}
    shadow = client.post("shadow-index/start", start)["shadow_index_id"]
    event["data"] = data = {"branch_name": "main", "shadow_index_id": shadow, "error_message": "no memory"}
    structured = {"Content-Type": "application/cloudevents+json"}
    outcome = client.post("events", raw=json.dumps(event).encode(), headers=structured)
    assert (outcome["outcome"], outcome["duplicate"]) == ("failed", False)
    assert client.post("events", raw=json.dumps(event).encode(), headers=structured)["duplicate"] is True
    assert client.get(f"shadow-index/{shadow}/status")["error"] == "no memory"
    binary = {f"ce-{name}": str(value) for name, value in event.items() if name != "data"} | {"ce-id": "2"}
    outcome = client.post("events", data, headers={**binary, "Content-Type": "application/json"})
    assert (outcome["id"], outcome["outcome"]) == ("2", "refused")
    for raw in (b"", b"[]", b"{", b'{"specversion": "1.0"}', b"[{}]", b'"x"', b"{}", json.dumps(data).encode()):
        client.refused(400, "POST", "events", raw=raw, headers=structured)
    client.refused(400, "POST", "events", data)
    client.refused(422, "POST", "events", raw=json.dumps({**event, "type": "other"}).encode(), headers=structured)


def test_metrics_are_of_the_engine(open_server: Server) -> None:
    text = open_server.client().get("/metrics")
    for name in ("commit_seconds_bucket", "write_seconds_count", "branch_head_lsn", "disk_free_bytes", "pins"):
        assert f"shadowswitch_{name}" in text


def test_too_many_requests_are_told_to_wait(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--rate", "5") as server:
        client = server.client()
        answers = [client.call("GET", "branches") for _ in range(30)]
        assert {answer.status for answer in answers} == {200, 429}
        refused = next(answer for answer in answers if answer.status == 429)
        assert refused.headers["retry-after"] == "1"
        assert client.call("GET", "/health/live").status == 200


def test_a_public_address_takes_tokens(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="no token"):
        Options(host="0.0.0.0").check(Access())
    _, token = new_token("a", [Scope.READ])
    Options(host="0.0.0.0").check(Access([token]))
    Options(host="127.0.0.1").check(Access())


def test_token_files_are_checked(tmp_path: Path) -> None:
    secret, token = new_token("a", [Scope.READ])
    entry = f'[[token]]\nname = "a"\nsha256 = "{token.sha256}"\nscopes = ["read"]\n'
    file = tmp_path / "tokens"
    file.write_text(entry)
    file.chmod(0o600)
    caller = Access(load_tokens(file)).caller(f"Bearer {secret}", now())
    assert caller is not None
    assert (caller.name, caller.may(Scope.READ, "any"), caller.may(Scope.WRITE)) == ("a", True, False)
    assert load_tokens(None, entry) == load_tokens(file)
    for text in (
        entry + entry,
        entry + "secret = 1",
        entry.replace("read", "rule"),
        "token = 1",
        entry.replace("a", "g"),
    ):
        with pytest.raises(InvalidConfig):
            load_tokens(None, text)
    expired = load_tokens(None, entry + "expires = 2020-01-01T00:00:00Z\n")
    with pytest.raises(Exception, match="not known"):
        Access(expired).caller(f"Bearer {secret}", now())
    with pytest.raises(InvalidConfig, match="time zone"):
        load_tokens(None, entry + "expires = 2020-01-01T00:00:00\n")
    file.chmod(0o666)
    with pytest.raises(InvalidConfig, match="chmod"):
        load_tokens(file)


def test_the_token_command_makes_what_a_token_file_takes(capsys: pytest.CaptureFixture[str]) -> None:
    made = Cli(capsys).json("token", "ci", "--scope", "read", "--scope", "write", "--branch", 'fea"ture/*')
    (token,) = load_tokens(None, made["entry"])
    assert (token.name, token.branches) == ("ci", ('fea"ture/*',))
    assert token.scopes == frozenset({Scope.READ, Scope.WRITE})
    caller = Access([token]).caller(f"Bearer {made['token']}", now())
    assert caller is not None
    Cli(capsys).error("token", "ci", "--scope", "rule", status=2)


def test_where_the_server_is_only_its_user_can_read(open_server: Server, guarded: Guarded) -> None:
    for server in (open_server, guarded.server):
        state = os.stat(server.data / "HOST")
        assert state.st_mode & 0o777 == 0o600
        found = json.loads((server.data / "HOST").read_text())
        assert found["url"] == server.url
        assert server.client(found["token"]).get("branches")


def test_a_request_that_is_no_http_ends_only_itself(open_server: Server) -> None:
    parts = urlsplit(open_server.url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    connection.connect()
    connection.sock.sendall(b"\x16\x03\x01nonsense\r\n\r\n")
    assert b"400" in connection.sock.recv(1000)
    connection.close()
    assert open_server.client().get("branches")
