"""URLs of webhooks: Hangul is encoded, a URL to which nothing can be sent is refused, and no error ends a thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from shadowswitch import Engine, InvalidConfig
from shadowswitch.service.daemon.delivery import Endpoint
from shadowswitch.service.daemon.webhooks import Webhook
from tests.support.engine_helpers import wait_until


class Receiver(ThreadingHTTPServer):
    """Takes every event, and keeps the targets and hosts of the requests."""

    daemon_threads = True
    asked: list[tuple[str, str]]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers["Host"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver(("127.0.0.1", 0), _Handler) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


IDNA = "사용자".encode("idna").decode()


def resolved(monkeypatch: pytest.MonkeyPatch, name: str, wrong: list[Exception] | None = None) -> None:
    """Resolve a host name to the loopback address, or raise the error in `wrong`."""
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *how: Any, **more: Any) -> Any:
        if host == name and wrong:
            raise wrong[0]
        return resolve("127.0.0.1" if host == name else host, *how, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_a_url_with_hangul_is_sent_encoded(engine: Engine, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved(monkeypatch, f"{IDNA}.example")
    url = f"http://사용자.example:{receiver.server_port}/사용자/a%20b?질의=값&x=%26"
    hook = Webhook(engine, Endpoint(url, allow_private=True), retry_s=0.02)
    hook.start()
    try:
        engine.create_branch("seen")
        wait_until(lambda: receiver.asked)
    finally:
        hook.stop()
    target, host = receiver.asked[0]
    assert target == "/%EC%82%AC%EC%9A%A9%EC%9E%90/a%20b?%EC%A7%88%EC%9D%98=%EA%B0%92&x=%26"
    assert host == f"{IDNA}.example:{receiver.server_port}"


@pytest.mark.parametrize("url", ["https://example.org:99999/", "https://[::1/", "ftp://example.org/", "https://a..b/"])
def test_a_url_to_which_nothing_can_be_sent_is_refused_at_the_start(engine: Engine, url: str) -> None:
    with pytest.raises(InvalidConfig):
        Webhook(engine, Endpoint(url)).start()


def test_an_unforeseen_error_is_counted_and_reported_and_the_webhook_goes_on(
    engine: Engine, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:

    wrong: list[Exception] = [LookupError()]
    resolved(monkeypatch, "wrong.example", wrong)
    hook = Webhook(engine, Endpoint(f"http://wrong.example:{receiver.server_port}/", allow_private=True), retry_s=0.02)
    hook.start()
    try:
        engine.create_branch("seen")
        wait_until(lambda: hook.status().failures > 1)
        assert hook.status().error == "LookupError"
        assert hook.status().behind == 1
        wrong.clear()
        wait_until(lambda: hook.status().behind == 0)
        assert (hook.status().error, hook.status().delivered) == (None, 1)
    finally:
        hook.stop()
