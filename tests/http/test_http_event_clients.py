"""The event stream read by a client library of others, httpx-sse, which knows nothing of this server.

Needs httpx-sse (extra `test`); without it the tests are skipped, with the reason. The EventSource of a browser is in
tests/browser.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.support.http_helpers import API, Server, serving

httpx_sse = pytest.importorskip("httpx_sse", reason="pip install httpx-sse")
httpx = pytest.importorskip("httpx", reason="pip install httpx")

BRANCHES = 40
WAIT_S = 60.0
CREATED = "com.shadowswitch.branch.created"


@contextmanager
def following(server: Server, **headers: str) -> Iterator[Iterator[Any]]:
    """The events behind an id, or from now on, as they come; no end."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    with (
        httpx.Client(timeout=WAIT_S) as client,
        httpx_sse.connect_sse(client, "GET", f"{server.url}{API}/events/stream", headers=sent) as source,
    ):
        yield source.iter_sse()


@contextmanager
def making(server: Server, prefix: str) -> Iterator[None]:
    """Meanwhile another client makes branches."""

    def make() -> None:
        client = server.client()
        for number in range(BRANCHES):
            client.post("branches", {"name": f"{prefix}-{number}"})
        client.close()

    thread = threading.Thread(target=make)
    thread.start()
    yield
    thread.join(WAIT_S)


def test_a_client_of_others_that_loses_its_connection_again_and_again_misses_no_event(tmp_path: Path) -> None:
    found: list[Any] = []

    def read(server: Server, count: int) -> None:
        """Connect again behind the last event, read some, and leave."""
        with following(server, Last_Event_ID=found[-1].id if found else "0") as events:
            found.extend(islice(events, count))

    first = Server(tmp_path / "data")
    with making(first, "a"):
        for count in (1, 2, 5, 20, BRANCHES - 28):
            read(first, count)
    first.stop(signal.SIGKILL)
    with serving(tmp_path / "data", port=int(first.url.rsplit(":", 1)[1])) as second:
        with making(second, "b"):
            read(second, BRANCHES // 2)
            read(second, BRANCHES // 2)
        kept = second.client().get(f"events?after=0&limit={len(found)}")["events"]
    assert [one.id for one in found] == [str(number) for number in range(1, len(found) + 1)]
    assert [json.loads(one.data) for one in found] == kept
    created = [json.loads(one.data)["subject"] for one in found if one.event == CREATED]
    assert created[:BRANCHES] == [f"a-{number}" for number in range(BRANCHES)]


def test_the_first_thing_that_such_a_client_sees_on_a_silent_stream_is_an_event(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server, following(server) as events:
        server.client().post("branches", {"name": "main"})
        first = next(events)
        assert (first.event, json.loads(first.data)["subject"], first.retry) == (CREATED, "main", 1000)
