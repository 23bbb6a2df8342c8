"""Connections: bounds of the header and of the number of connections, which hold before a token is known."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from shadowswitch.service.http.limits.connections import client_of
from tests.support.bounded_server import answer_of, bounded
from tests.support.engine_helpers import wait_until

REQUEST = "GET /health HTTP/1.1\nHost: 127.0.0.1\nConnection: close\n"
KEPT = "GET /health HTTP/1.1\nHost: 127.0.0.1\n"


def test_a_header_beyond_the_bound_is_431(tmp_path: Path) -> None:
    with bounded(tmp_path / "data") as server:
        long = {
            "at once": f"{REQUEST}X-Long: {'x' * 66_000}\n\n",
            "many": f"{REQUEST}{''.join(f'X-{n}: y{chr(10)}' for n in range(9000))}\n",
            "never ending": f"{REQUEST}X-Long: {'x' * 300_000}",
            "the query": f"GET /health?q={'x' * 66_000} HTTP/1.1\nHost: 127.0.0.1\nConnection: close\n\n",
        }
        for text in long.values():
            status, answer = answer_of(server.send(text))
            assert status == 431
            assert "application/problem+json" in answer
        client = server.client()
        client.refused(431, "GET", "branches", headers={"X-Long": "x" * 66_000})
        assert client.call("GET", "branches", headers={"X-Long": "x" * 60_000}).status == 200


def test_a_header_that_does_not_come_in_time_ends_its_connection(tmp_path: Path) -> None:
    with bounded(tmp_path / "data", header_s=0.5) as server:
        silent, slow, second = server.connect(), server.send(REQUEST), server.send(f"{KEPT}\n")
        assert answer_of(silent)[0] == 0
        assert answer_of(slow)[0] == 0
        wait_until(lambda: b"ready" in second.recv(65536, socket.MSG_PEEK), what="the answer")
        second.sendall(KEPT.replace("\n", "\r\n").encode())
        assert answer_of(second)[1].count("HTTP/1.1 ") == 1
        used = server.client()
        wait_until(lambda: used.call("GET", "/health").status == 200)


def test_an_address_of_ipv6_is_counted_by_its_network() -> None:
    assert client_of("2001:db8:1:2::3") == client_of("2001:db8:1:2:ffff::9") != client_of("2001:db8:1:3::3")
    assert client_of("::ffff:192.0.2.1") == client_of("192.0.2.1") != client_of("::ffff:192.0.2.2")
    assert client_of("fe80::1%eth0") == client_of("fe80::2%eth1")
    assert client_of("") == ""


def test_connections_that_send_nothing_lock_no_client_out(tmp_path: Path) -> None:
    with bounded(tmp_path / "data", descriptors=512) as server:
        busy = server.client()
        busy.post("branches", {"name": "main"})
        silent = []
        for n in range(600):
            with contextlib.suppress(OSError):
                silent.append(server.connect())
            if n % 100 == 99:
                assert server.client().get("branches")["total_count"] == 1
        for connection in silent:
            connection.close()
