"""Media types of answers: a standard client accepts the event stream, and a media type names its charset once."""

from __future__ import annotations

import contextlib
import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.http_helpers import API, Server, serving

STREAM = f"{API}/events/stream?after=0"
LINES_MAX = 12
"""An event has four lines; a silent stream sends one line in each `HEARTBEAT_S`."""


@contextlib.contextmanager
def answer_to(server: Server, method: str, path: str) -> Any:
    """The answer to a request of its own connection, before its body is read."""
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    connection.request(method, path)
    try:
        yield connection.getresponse()
    finally:
        connection.close()


def media_type_of(answer: Any) -> tuple[str, list[str]]:
    """The essence of a media type, and its parameters."""
    essence, *parameters = str(answer.getheader("content-type")).split(";")
    return essence.strip().lower(), [one.strip().lower() for one in parameters]


def next_event(answer: Any) -> dict[str, str]:
    """The next event of a stream, by the rules of the HTML standard (9.2.6, Interpreting an event stream)."""
    fields: dict[str, str] = {}
    data: list[str] = []
    for _ in range(LINES_MAX):
        line = answer.readline().decode("utf-8", "strict").rstrip("\n")
        if not line and data:
            return {**fields, "data": "\n".join(data)}
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name in ("event", "id"):
            fields[name] = value
    raise AssertionError(f"no event came within {LINES_MAX} lines, but {fields} and {data}")


def test_the_event_stream_is_one_that_a_standard_client_accepts(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        for name in ("main", "other"):
            server.client().post("branches", {"name": name})
        with answer_to(server, "GET", STREAM) as answer:
            assert (answer.status, media_type_of(answer)[0]) == (200, "text/event-stream")
            first, second = next_event(answer), next_event(answer)
            assert (first["id"], second["id"]) == ("1", "2")
            assert second["event"] == json.loads(second["data"])["type"] == "com.shadowswitch.branch.created"
        with answer_to(server, "HEAD", STREAM) as answer:
            assert media_type_of(answer)[0] == "text/event-stream"


@pytest.mark.parametrize("path", ["/metrics", "/", "/dashboard.js", "/dashboard.css", STREAM])
def test_a_media_type_names_its_charset_once(tmp_path: Path, path: str) -> None:
    with serving(tmp_path / "data") as server, answer_to(server, "HEAD", path) as answer:
        essence, parameters = media_type_of(answer)
        assert essence.startswith("text/")
        assert [one for one in parameters if one.startswith("charset=")] == ["charset=utf-8"]
