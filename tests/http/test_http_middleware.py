"""The middleware: names, origins, paths, bodies, limits, idempotency. And events, in and out."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from shadowswitch.service.http.host import Options
from tests.support.engine_helpers import wait_until
from tests.support.http_helpers import Events, Server, segment, serving

CHANGE = {"changes": [{"resource_type": "object_type", "id": "1", "fields": {"text": "hello"}}]}


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("open") / "data", "--max-body-mb", "1") as server:
        server.client().post("branches", {"name": "main"})
        yield server


def test_other_names_of_the_server_and_pages_of_other_sites_are_refused(open_server: Server) -> None:
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


def test_a_wrong_or_too_long_body_is_answered_with_a_problem(open_server: Server) -> None:
    client = open_server.client()
    write = "branches/main/write"
    json_ = {"Content-Type": "application/json"}
    for raw in (b"", b"{", b"[]", b"null", b'"x"', b'{"changes": 1}', b'{"changes": [{}]}', b"\xff\xfe", b"{}"):
        client.refused(400, "POST", write, raw=raw, headers=json_)
    assert client.refused(400, "POST", write, raw=b"{", headers=json_)["detail"].startswith("the body is not JSON")
    for raw in (b"{", b"[1]"):
        client.refused(400, "POST", "shadow-index/x/switch", raw=raw, headers=json_)
    client.refused(400, "POST", write, {**CHANGE, "unknown": 1})
    client.refused(400, "POST", write, {"changes": [{"resource_type": "a", "id": 5, "fields": {}}]})
    client.refused(422, "POST", write, {"changes": [{"resource_type": "a", "id": "5", "kind": "delete", "fields": {}}]})
    client.refused(422, "POST", write, {"changes": [{"resource_type": "a", "id": "5"}]})
    client.refused(422, "POST", write, {"changes": [{"resource_type": "a", "id": "a\0b", "fields": {}}]})
    for deep in ("[" * 20_000 + "]" * 20_000, '{"a":' * 5000 + "1" + "}" * 5000):
        text = '{"changes": [{"resource_type": "a", "id": "5", "fields": {"x": ' + deep + "}}]}"
        client.refused(400, "POST", write, raw=text.encode(), headers=json_)
    for depth, status in (
        (60, 201),
        (70, 422),
        (95, 422),
        (105, 400),
        (900, 400),
        (1100, 400),
        (5000, 400),
        (50_000, 400),
    ):
        deep = "[" * depth + "]" * depth
        text = '{"changes": [{"resource_type": "a", "id": "5", "fields": {"x": ' + deep + "}}]}"
        answer = client.call("POST", write, raw=text.encode(), headers=json_)
        assert answer.status in ((200, 201) if status == 201 else (status,)), (depth, answer)
        started = (
            '{"branch_name": "main", "index_type": "A", "resource_types": ["a"], "build_config": {"x": ' + deep + "}}"
        )
        if depth > 60:
            assert client.call("POST", "shadow-index/start", raw=started.encode(), headers=json_).status == status
    for wrong in ("9" * 5000, "NaN", "1e400", '"\\ud800"'):
        text = '{"changes": [{"resource_type": "a", "id": "5", "fields": {"x": ' + wrong + "}}]}"
        client.refused(400, "POST", write, raw=text.encode(), headers=json_)
    huge = {"changes": [{"resource_type": "a", "id": "5", "fields": {"x": "y" * (2 << 20)}}]}
    client.refused(413, "POST", write, huge)
    open_server.client().refused(413, "POST", write, huge, headers={"Idempotency-Key": "long"})
    open_server.client().refused(404, "GET", "/no/such/path")
    client.refused(405, "DELETE", "branches")
    assert client.call("DELETE", "branches").headers["allow"] == "GET, HEAD, OPTIONS, POST"
    options = client.call("OPTIONS", "branch-locks/locks/any")
    assert (options.status, options.headers["allow"]) == (204, "DELETE, GET, HEAD, OPTIONS")
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


def test_a_client_cannot_make_the_server_import_a_module(tmp_path: Path) -> None:
    body = {"branch_name": "main", "index_type": "SEARCH_INDEX", "resource_types": ["object_type"]}
    mine = "shadowswitch.storage.backends.fts5.backend:Fts5Backend"
    with serving(tmp_path / "data", "--backend", mine) as server:
        client = server.client()
        client.post("branches", {"name": "main"})
        for name in ("os:system", "antigravity:x", f"{mine}.x"):
            problem = client.refused(403, "POST", "shadow-index/start", {**body, "build_config": {"backend": name}})
            assert "--backend" in problem["hint"]
        client.post("shadow-index/start", {**body, "build_config": {"backend": mine}})


def test_long_calls_leave_threads_for_other_calls(open_server: Server) -> None:
    lock = {"branch_name": "long", "lock_type": "BACKUP", "owner": "a"}
    client = open_server.client()
    client.post("branches", {"name": "long"})
    held = client.post("branch-locks/acquire", lock)["lock_id"]
    answers: list[int] = []

    def wait() -> None:
        asked = {**lock, "lock_scope": "RESOURCE", "resource_type": "a", "owner": "b", "wait_s": 60}
        own = {**asked, "resource_id": str(threading.get_ident())}
        answers.append(open_server.client().call("POST", "branch-locks/acquire", own).status)

    most = Options().long_calls_max
    threads = [threading.Thread(target=wait, daemon=True) for _ in range(most + 5)]
    for thread in threads:
        thread.start()
    wait_until(lambda: answers.count(503) == 5, what="the refusal of the calls above the limit")
    waiters = "branch-locks/waiters?branch_name=long"
    wait_until(lambda: len(client.get(waiters)) == most, what="the waiters up to the limit")
    assert client.call("GET", "/health").body["ready"] is True
    client.post("branches/main/write", CHANGE)
    client.ok("DELETE", f"branch-locks/locks/{held}")
    for thread in threads:
        thread.join(60)
    assert sorted(answers) == [200] * most + [503] * 5
    client.post("branch-locks/force-unlock/long", {"reason": "the end of the test"})


def test_a_repeated_idempotency_key_gets_the_first_answer(open_server: Server) -> None:
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
    for _ in range(2):  # what may be possible later is not kept
        refused = client.call("POST", "branches", {"name": "main"}, headers={"Idempotency-Key": "k-2"})
        assert (refused.status, refused.headers.get("idempotency-replayed")) == (409, None)


def test_concurrent_requests_with_one_key_are_done_once(open_server: Server) -> None:
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


def test_a_stream_goes_on_after_the_last_event_id(open_server: Server) -> None:
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


def test_a_cloud_event_is_received_in_structured_and_binary_mode(open_server: Server) -> None:
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
    for name in ("specversion", "id", "source", "type"):  # the SDK would make some of them up
        lacking = json.dumps({key: value for key, value in event.items() if key != name}).encode()
        assert name in client.refused(400, "POST", "events", raw=lacking, headers=structured)["detail"]
        headers = {key: value for key, value in binary.items() if key != f"ce-{name}"}
        client.refused(400, "POST", "events", data, headers={**headers, "Content-Type": "application/json"})
    client.refused(400, "POST", "events", data)
    client.refused(422, "POST", "events", raw=json.dumps({**event, "type": "other"}).encode(), headers=structured)


def test_requests_above_the_rate_are_answered_with_429_and_retry_after(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--rate", "5") as server:
        client = server.client()
        answers = [client.call("GET", "branches") for _ in range(30)]
        assert {answer.status for answer in answers} == {200, 429}
        refused = next(answer for answer in answers if answer.status == 429)
        assert refused.headers["retry-after"] == "1"
        assert client.call("GET", "/health/live").status == 200


def test_a_request_that_is_not_http_ends_only_its_own_connection(open_server: Server) -> None:
    parts = urlsplit(open_server.url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    connection.connect()
    connection.sock.sendall(b"\x16\x03\x01nonsense\r\n\r\n")
    assert b"400" in connection.sock.recv(1000)
    connection.close()
    assert open_server.client().get("branches")
