"""Bodies: read only for a caller that is admitted, within bounds of time and size, and only JSON in UTF-8."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from shadowswitch.service.http.access import Scope
from shadowswitch.service.http.limits.body import is_json
from tests.support.bounded_server import BoundedServer, answer_of, bounded
from tests.support.engine_helpers import wait_until
from tests.support.http_helpers import API, Server, serving, token_entry

CHANGE = {"changes": [{"resource_type": "object_type", "id": "1", "fields": {"text": "hello"}}]}
WRITE = "branches/main/write"
HEADER = f"POST {API}/{WRITE} HTTP/1.1\nHost: 127.0.0.1\nContent-Type: application/json\n"
MIB = 1 << 20


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("open") / "data", "--max-body-mb", "1") as server:
        server.client().post("branches", {"name": "main"})
        yield server


def unfinished(server: BoundedServer, size: int, token: str = "", sent: int = 0, key: str = "") -> socket.socket:
    """A request that announces a body and sends a part of it."""
    more = f"Authorization: Bearer {token}\n" if token else ""
    more += f"Idempotency-Key: {key}\n" if key else ""
    return server.send(f"{HEADER}{more}Content-Length: {size}\n\n", b" " * sent)


# -- before the body ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "k"])
def test_a_caller_without_the_scope_is_refused_before_its_body_is_read(tmp_path: Path, key: str) -> None:
    reader, entry = token_entry("reader", [Scope.READ])
    with bounded(tmp_path / "data", entry) as server:
        for token, status in (("", 401), ("wrong", 401), (reader, 403)):
            found, text = answer_of(unfinished(server, 15 * MIB, token, key=key))
            assert (found, "connection: close" in text.lower()) == (status, True)
        for line, status in (("POST /no/such/path", 404), ("DELETE /api/v1/branches", 405)):
            head = f"{line} HTTP/1.1\nHost: 127.0.0.1\nIdempotency-Key: k\nContent-Length: 1000000\n\n"
            assert answer_of(server.send(head))[0] == status


def test_a_body_that_announces_too_much_or_another_type_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with bounded(tmp_path / "data", body_max_bytes=MIB) as server:
        assert answer_of(unfinished(server, MIB + 1))[0] == 413
        form = HEADER.replace("application/json", "text/plain")
        assert answer_of(server.send(f"{form}Content-Length: 100\n\n"))[0] == 415


# -- time and size -----------------------------------------------------------------------------------------------------


def test_a_body_that_does_not_come_in_time_is_408_and_its_connection_is_closed(tmp_path: Path) -> None:
    with bounded(tmp_path / "data", body_s=0.5) as server:
        server.client().post("branches", {"name": "main"})
        for connection in (unfinished(server, 100), unfinished(server, 100, sent=50, key="k")):
            status, text = answer_of(connection)
            assert (status, "retry-after: 1" in text.lower()) == (408, True)
        chunked = server.send(f"{HEADER}Transfer-Encoding: chunked\n\n", b"5\r\n     \r\n")
        assert answer_of(chunked)[0] == 408
        assert server.client().post(WRITE, CHANGE)["lsn"]


def test_unfinished_bodies_of_one_token_take_a_bounded_part_of_the_memory(tmp_path: Path) -> None:
    writer, first = token_entry("writer", [Scope.WRITE])
    other, second = token_entry("other", [Scope.READ, Scope.WRITE])
    with bounded(tmp_path / "data", f"{first}\n{second}", body_max_bytes=4 * MIB) as server:
        server.client(other).post("branches", {"name": "main"})
        before = server.resident_bytes()
        held = [unfinished(server, 4 * MIB, writer, sent=3 * MIB, key=f"k{n}") for n in range(20)]
        refused = [connection for connection in held if _is_answered(connection)]
        assert len(refused) >= 14
        assert {answer_of(connection)[0] for connection in refused} <= {408, 429}
        assert server.resident_bytes() - before < 48 * MIB
        assert server.client(other).post(WRITE, CHANGE)["lsn"]
        for connection in held:
            connection.close()
        wait_until(lambda: server.client(writer).call("POST", WRITE, CHANGE).status == 200, what="room for its bodies")


def _is_answered(connection: socket.socket) -> bool:
    connection.settimeout(3)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    finally:
        connection.settimeout(60)


@pytest.mark.parametrize("token_is_known", [False, True])
def test_requests_that_never_send_their_body_lock_no_client_out(tmp_path: Path, token_is_known: bool) -> None:
    writer, entry = token_entry("writer", [Scope.READ, Scope.WRITE])
    with bounded(tmp_path / "data", entry, descriptors=512) as server:
        server.client(writer).post("branches", {"name": "main"})
        silent = []
        for n in range(400):
            silent.append(unfinished(server, 1000, writer if token_is_known else "", key=f"k{n}"))
            if n % 100 == 99:
                assert server.client(writer).post(WRITE, CHANGE)["lsn"]
                assert server.client().call("GET", "/health").status == 200
        for connection in silent:
            connection.close()


# -- type and text -----------------------------------------------------------------------------------------------------


def test_a_body_that_is_not_json_is_415(open_server: Server) -> None:
    client = open_server.client()
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "application/octet-stream", "json", "",
                       "application/json; charset=latin-1", "multipart/form-data; boundary=x"):  # fmt: skip
        for path in (WRITE, "shadow-index/x/switch", "branches", "events"):
            problem = client.refused(415, "POST", path, CHANGE, headers={"Content-Type": media_type})
            assert "application/json" in problem["hint"]
    for media_type in ("application/json", "Application/JSON ; Charset=UTF-8", "application/vnd.api+json",
                       'application/merge-patch+json;charset="utf-8"'):  # fmt: skip
        client.post(WRITE, CHANGE, headers={"Content-Type": media_type})
    assert client.call("POST", "branches/main/reopen").status in (200, 409)


def test_the_types_of_json() -> None:
    assert all(map(is_json, ("application/json", "APPLICATION/a.b-c+JSON", "application/json;x=y")))
    assert not any(map(is_json, ("", ";", "application/+json", "application/jsonx", "application/json+x", "a/b+json")))


def test_a_body_that_is_not_utf_8_is_400(open_server: Server) -> None:
    client = open_server.client()
    start = b'{"changes": [{"resource_type": "a", "id": "5", "fields": {"x": "'
    for text in (b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xc0\x80", b"\xea\xb6"):
        raw = start + text + b'"}}]}'
        for path in (WRITE, "branches", "events", "shadow-index/x/switch"):
            problem = client.refused(400, "POST", path, raw=raw, headers={"Content-Type": "application/json"})
            assert "not UTF-8" in problem["detail"]
    for text in ("사용자".encode("utf-16"), "é".encode("latin-1")):
        client.refused(400, "POST", WRITE, raw=text, headers={"Content-Type": "application/json"})


def test_an_event_in_binary_mode_may_have_any_type_of_json(open_server: Server) -> None:
    client = open_server.client()
    event = {"ce-specversion": "1.0", "ce-id": "b1", "ce-source": "f", "ce-type": "com.oms.indexing.completed"}
    for n, media_type in enumerate(("application/vnd.funnel+json", "application/JSON; charset=utf-8")):
        headers = {**event, "ce-id": f"b{n}", "Content-Type": media_type}
        assert client.post("events", {"branch_name": "main"}, headers=headers)["id"] == f"b{n}"
