"""Webhooks: every event in order, at least once, signed, and only to a checked address."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Engine, InvalidConfig
from shadowswitch.service.daemon.delivery import DeliveryFailed, Endpoint, addresses_of, send, signature
from shadowswitch.service.daemon.webhooks import Webhook
from tests.support import inside
from tests.support.engine_helpers import wait_until

OpenEngine = Callable[..., Engine]
SECRET = "whsec_" + base64.b64encode(b"a secret of the tests").decode()


class Receiver(ThreadingHTTPServer):
    """An endpoint. It gives the `answers` in order, then always 204."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?key=hidden"

    def sequences(self) -> list[int]:
        return [int(json.loads(body)["sequence"]) for _, _, body in list(self.requests)]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        status, headers = self.server.answers.pop(0) if self.server.answers else (204, {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def hook(engine: Engine, receiver: Receiver) -> Iterator[Callable[..., Webhook]]:
    """Starts webhooks to the receiver."""
    started: list[Webhook] = []

    def start(engine_: Engine = engine, **how: Any) -> Webhook:
        made = Webhook(engine_, Endpoint(**{"url": receiver.url, "allow_private": True, **how}), retry_s=0.02)
        made.start()
        started.append(made)
        return made

    yield start
    for made in started:
        made.stop()


def branches(engine: Engine, count: int, prefix: str = "b") -> None:
    """Create branches: each is one event."""
    for n in range(count):
        engine.create_branch(f"{prefix}{n}")


def test_an_endpoint_receives_every_new_event_once_in_order_and_signed(
    engine: Engine, receiver: Receiver, hook: Callable[..., Webhook]
) -> None:
    hook(secret=SECRET)
    branches(engine, 5)
    wait_until(lambda: len(receiver.requests) == 5)
    assert receiver.sequences() == [2, 3, 4, 5, 6]
    path, headers, body = receiver.requests[0]
    event = engine.events(after=1)[0]
    assert path == "/hook?key=hidden"
    assert json.loads(body)["data"] == event.data
    assert (headers["webhook-id"], headers["content-type"].partition(";")[0]) == (
        event.id,
        "application/cloudevents+json",
    )
    signed = f"{event.id}.{headers['webhook-timestamp']}.".encode() + body
    expected = hmac.new(b"a secret of the tests", signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(expected).decode()}"


def test_a_refused_event_is_sent_again_before_any_later_event(
    engine: Engine, receiver: Receiver, hook: Callable[..., Webhook]
) -> None:
    receiver.answers = [(500, {}), (404, {}), (302, {"Location": receiver.url}), (429, {"Retry-After": "0"})]
    made = hook()
    branches(engine, 3)
    wait_until(lambda: len(receiver.requests) == 7)
    assert receiver.sequences() == [2, 2, 2, 2, 2, 3, 4]
    assert len({headers["webhook-id"] for _, headers, _ in receiver.requests[:5]}) == 1
    wait_until(lambda: made.status().position == 4)
    status = made.status()
    assert (status.delivered, status.failures, status.error, status.behind) == (3, 4, None, 0)


def test_a_restart_continues_after_the_noted_position(
    engine: Engine, open_engine: OpenEngine, receiver: Receiver, hook: Callable[..., Webhook]
) -> None:
    made = hook(engine)
    branches(engine, 3)
    wait_until(lambda: len(receiver.requests) == 3)
    wait_until(lambda: engine.event_position(made.endpoint.key) == engine.event_span()[1])
    made.stop()
    branches(engine, 2, "later")
    engine.close()
    second = open_engine()
    hook(second)
    wait_until(lambda: len(receiver.requests) == 5)
    assert [json.loads(body)["data"]["branch_name"] for _, _, body in receiver.requests][3:] == ["later0", "later1"]


def test_two_endpoints_have_their_own_positions(
    engine: Engine, receiver: Receiver, hook: Callable[..., Webhook]
) -> None:
    hook(name="one")
    stuck = hook(name="two", url="http://127.0.0.1:9/")
    branches(engine, 3)
    wait_until(lambda: len(receiver.requests) == 3)
    wait_until(lambda: stuck.status().failures > 0)
    assert (stuck.status().delivered, stuck.status().behind) == (0, 3)


def test_only_the_chosen_types_are_sent(engine: Engine, receiver: Receiver, hook: Callable[..., Webhook]) -> None:
    made = hook(types=("com.shadowswitch.lock.*",))
    branches(engine, 3)
    lock = engine.acquire_lock("main", "MANUAL", "me")
    engine.release_lock(lock.lock_id, lock.token)
    wait_until(lambda: made.status().behind == 0 and len(receiver.requests) == 2)
    kinds = [json.loads(body)["type"].rpartition(".")[2] for _, _, body in receiver.requests]
    assert kinds == ["granted", "released"]
    wait_until(lambda: engine.event_position(made.endpoint.key) == engine.event_span()[1])


def test_410_gone_ends_a_webhook(engine: Engine, receiver: Receiver, hook: Callable[..., Webhook]) -> None:
    receiver.answers = [(410, {})]
    made = hook()
    branches(engine, 2)
    wait_until(lambda: made.status().gone)
    assert len(receiver.requests) == 1
    assert engine.event_position(made.endpoint.key) == 1


def test_removed_events_are_counted_as_missed(open_engine: OpenEngine, receiver: Receiver) -> None:
    engine = open_engine(events_keep=2)
    made = Webhook(engine, Endpoint(receiver.url, allow_private=True))
    engine.note_event_position(made.endpoint.key, 0)
    branches(engine, 10)
    engine.clean_up()
    made.start()
    wait_until(lambda: len(receiver.requests) == 2)
    assert (made.status().missed, receiver.sequences()) == (8, [9, 10])
    made.stop()


def test_no_log_and_no_status_has_a_secret(
    engine: Engine, receiver: Receiver, hook: Callable[..., Webhook], caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = [(500, {})]
    made = hook(secret="topsecret")
    branches(engine, 1)
    wait_until(lambda: made.status().delivered == 1)
    public = f"{caplog.text} {made.status()} {made.endpoint!r}"
    assert "topsecret" not in public
    assert "key=hidden" not in public


def test_an_invalid_secret_is_refused_at_the_start(engine: Engine) -> None:
    with pytest.raises(InvalidConfig, match="base64"):
        Webhook(engine, Endpoint("https://example.org", secret="whsec_!")).start()
    assert signature("plain", "a", 1, b"x").startswith("v1,")


# -- addresses ----------------------------------------------------------------------------------------------------

PRIVATE = [
    "127.0.0.1", ".".join(["10", "0", "0", "1"]), "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
    "::1", "fe80::1", "fc00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::",
    "fec0::1", "feff::1", "::7f00:1", "::ffff:0:7f00:1", "5f00::1", "3fff::1", "192.88.99.1", "ff0e::1", "4000::1",
]  # fmt: skip


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
    """Resolve every name to these answers in order, and then always to the last one."""
    left = list(answers)

    def resolve(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        found = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    resolving(monkeypatch, ["93.184.215.14", address])
    with pytest.raises(DeliveryFailed, match="which is not public"):
        addresses_of("example.org", 443, allow_private=False)
    assert addresses_of("example.org", 443, allow_private=True) == ["93.184.215.14", address]


def test_plain_http_needs_allow_private(engine: Engine, receiver: Receiver) -> None:
    with pytest.raises(DeliveryFailed, match="https only"):
        send(Endpoint(receiver.url), engine.events()[0])
    assert receiver.requests == []


def test_the_connection_uses_the_checked_address(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ["93.184.215.14"], ["127.0.0.1"])  # the second answer is another address
    asked: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], *_: Any, **__: Any) -> socket.socket:
        asked.append(address)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(DeliveryFailed, match="no network in tests"):
        send(Endpoint("https://rebinding.example/hook"), engine.events()[0])
    assert asked == [("93.184.215.14", 443)]


def test_a_redirect_is_not_followed(engine: Engine, receiver: Receiver) -> None:
    receiver.answers = [(307, {"Location": receiver.url})]
    with pytest.raises(DeliveryFailed, match="redirects are not followed"):
        send(Endpoint(receiver.url, allow_private=True), engine.events()[0])
    assert len(receiver.requests) == 1


def test_an_endpoint_that_answers_byte_by_byte_is_cut_off(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    inside.patch_limit(monkeypatch, inside.Limit.WEBHOOK_ATTEMPT_TIMEOUT_S, 1.0)
    release = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            taken, _ = listening.accept()
            with taken:
                while not release.wait(0.02):
                    try:
                        taken.send(b"H")
                    except OSError:
                        return

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        with pytest.raises(DeliveryFailed):
            send(Endpoint(f"http://127.0.0.1:{listening.getsockname()[1]}/", allow_private=True), engine.events()[0])
        release.set()
        thread.join(30)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_the_certificate_must_match_the_host_name(
    engine: Engine, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
         "-subj", "/CN=hook.example", "-addext", "subjectAltName=DNS:hook.example"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate, key)
    receiver.socket = serving.wrap_socket(receiver.socket, server_side=True)
    trusting = ssl.create_default_context(cafile=certificate)
    resolving(monkeypatch, ["127.0.0.1"])
    port = receiver.server_port
    send(Endpoint(f"https://hook.example:{port}/", allow_private=True), engine.events()[0], trusting)
    assert receiver.requests[0][1]["host"] == f"hook.example:{port}"
    with pytest.raises(DeliveryFailed, match="certificate"):
        send(Endpoint(f"https://other.example:{port}/", allow_private=True), engine.events()[0], trusting)
    with pytest.raises(DeliveryFailed, match="certificate"):
        send(Endpoint(f"https://hook.example:{port}/", allow_private=True), engine.events()[0])


def test_an_undelivered_event_is_sent_after_the_next_start(
    engine: Engine, receiver: Receiver, hook: Callable[..., Webhook]
) -> None:
    receiver.answers = [(503, {})] * 1000
    stuck = hook()
    branches(engine, 2)
    wait_until(lambda: stuck.status().failures > 1)
    stuck.stop()
    assert engine.event_position(stuck.endpoint.key) == 1
    receiver.requests.clear()
    receiver.answers.clear()
    hook()
    wait_until(lambda: receiver.sequences() == [2, 3])
