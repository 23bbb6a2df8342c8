"""The service in tests: a server process of its own, and a client that uses only HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from shadowswitch import Engine
from shadowswitch.service.http.access import Scope, new_token
from tests.support.engine_helpers import outside_environment, wait_until

API = "/api/v1"
START_S = 60.0


class Answer(NamedTuple):
    """The response to a request; `body` is the decoded JSON, or the text."""

    status: int
    body: Any
    headers: dict[str, str]


def segment(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


class Client:
    """Calls a server; one connection, kept open, so one client belongs to one thread."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url
        self.token = token
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
    ) -> Answer:
        """Send one request; a path that does not begin with a slash is a path of the API."""
        sent = {"Content-Type": "application/json"} if body is not None else {}
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        sent |= headers or {}
        content = raw if raw is not None else None if body is None else json.dumps(body).encode()
        try:
            self._connection.request(method, path if path.startswith("/") else f"{API}/{path}", content, sent)
            response = self._connection.getresponse()
            text = response.read()
        except BaseException:
            self._connection.close()
            raise
        found = {name.lower(): value for name, value in response.getheaders()}
        is_json = "json" in found.get("content-type", "")
        return Answer(response.status, json.loads(text) if is_json and text else text.decode(), found)

    def ok(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """Send a request that must succeed; returns the body."""
        answer = self.call(method, path, body, **more)
        assert answer.status in (200, 201), f"{method} {path}: {answer.status} {answer.body}"
        return answer.body

    def get(self, path: str) -> Any:
        """GET that must succeed."""
        return self.ok("GET", path)

    def post(self, path: str, body: Any = None, **more: Any) -> Any:
        """POST that must succeed."""
        return self.ok("POST", path, body, **more)

    def refused(self, status: int, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """Send a request that must be refused; returns the problem."""
        answer = self.call(method, path, body, **more)
        assert answer.status == status, f"{method} {path}: {answer.status} {answer.body}"
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.body["status"] == status
        assert answer.body["detail"]
        return answer.body

    def wait_for(self, shadow_id: str, *states: str) -> dict[str, Any]:
        """Wait until a shadow is in one of these states; returns its status."""
        found: dict[str, Any] = {}

        def arrived() -> bool:
            found.update(self.get(f"shadow-index/{shadow_id}/status"))
            assert found["state"] in states or found["state"] != "FAILED", found["error"]
            return found["state"] in states

        wait_until(arrived, 60, f"{' or '.join(states)} of {shadow_id}")
        return found

    def built(self, branch: str = "main", **config: Any) -> str:
        """The id of a shadow that waits for its switch."""
        body: dict[str, Any] = {"branch_name": branch, "index_type": "SEARCH_INDEX"}
        body["resource_types"] = ["object_type"]
        body["build_config"] = {"parallel_workers": 1, **config}
        shadow_id = self.post("shadow-index/start", body)["shadow_index_id"]
        self.wait_for(shadow_id, "BUILT")
        return str(shadow_id)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def token_entry(name: str, scopes: Iterable[Scope], branches: Sequence[str] = ("*",)) -> tuple[str, str]:
    """A secret, and its entry in a token file."""
    secret, token = new_token(name, scopes, branches)
    rights = f"scopes = {json.dumps(sorted(scopes))}\nbranches = {json.dumps(list(branches))}"
    return secret, f'[[token]]\nname = "{name}"\nsha256 = "{token.sha256}"\n{rights}\n'


class Server:
    """A server process of the command line, over a data directory."""

    def __init__(self, data: Path, *arguments: str, port: int = 0, **environment: str) -> None:
        self.data = data
        place = ["--data", str(data), "--port", str(port)]
        command = [sys.executable, "-m", "shadowswitch", "serve", *place, *arguments]
        self.log_file = data.parent / f"{data.name}.log"
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=outside_environment(**environment)
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert " at http://" in line, f"{line}\n{self.log}"
        self.url = line.rsplit(" at ", 1)[1].strip()

    @property
    def log(self) -> str:
        """The log of the server so far."""
        return self.log_file.read_text()

    def client(self, token: str = "") -> Client:
        """A client with a connection of its own."""
        return Client(self.url, token)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        self.process.send_signal(number)
        try:
            return self.process.wait(30)
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()

    def _buckets_repaired(self) -> list[str]:
        """The metric, if it is there and not 0; no line if the server wants a token, or does not answer."""
        try:
            answer = self.client().call("GET", "/metrics")
        except (OSError, http.client.HTTPException):
            return []
        lines = str(answer.body).splitlines() if answer.status == 200 else []
        return [line for line in lines if line.startswith("shadowswitch_buckets_repaired") and line[-4:] != " 0.0"]

    def close(self) -> None:
        """Stop the server if it runs; demand a sound directory, and no repaired bucket in any index."""
        if self.process.poll() is None:
            repaired = self._buckets_repaired()
            assert self.stop() == 0, self.log
            assert not repaired, "a build or a copy differed from its source"
        assert "unforeseen" not in self.log, self.log
        with Engine.open(self.data) as engine:
            assert engine.check() == []


@contextlib.contextmanager
def serving(data: Path, *arguments: str, port: int = 0, **environment: str) -> Iterator[Server]:
    """A server; at the end it is stopped, and its directory must be sound."""
    server = Server(data, *arguments, port=port, **environment)
    try:
        yield server
        server.close()
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()
        if server.process.stdout is not None:
            server.process.stdout.close()


class Events:
    """The event stream as a client without an EventSource reads it, on a thread of its own."""

    def __init__(self, client: Client, last_id: int | None = None, path: str = f"{API}/events/stream") -> None:
        self.events: list[tuple[int, str, dict[str, Any]]] = []
        self.ended = threading.Event()
        parts = urlsplit(client.url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        headers = {"Last-Event-ID": str(last_id)} if last_id is not None else {}
        if client.token:
            headers["Authorization"] = f"Bearer {client.token}"
        self._connection.request("GET", path, headers=headers)
        self._response = self._connection.getresponse()
        assert self._response.status == 200, self._response.read()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        fields: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException, AttributeError):
            while line := self._response.readline():
                text = line.decode().rstrip("\n")
                if text:
                    name, _, value = text.partition(": ")
                    fields[name] = value
                elif "data" in fields:
                    self.events.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
                    fields = {}
        self.ended.set()

    def wait_for(self, kind: str, deadline_s: float = 30.0) -> dict[str, Any]:
        """Wait for the first event of a type."""
        wait_until(lambda: any(one[1].endswith(kind) for one in list(self.events)), deadline_s, f"event {kind}")
        return next(one[2] for one in list(self.events) if one[1].endswith(kind))

    def close(self) -> None:
        """Close the connection."""
        if self._connection.sock is not None:
            with contextlib.suppress(OSError):
                self._connection.sock.shutdown(2)
        self._connection.close()
