"""Indexing in place over HTTP: the locks of an indexer that died end, those of one that is alive stay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine_helpers import wait_until
from tests.support.http_helpers import Client, serving

START = "branch-locks/indexing/main/start"
CHANGE = {"changes": [{"resource_type": "object_type", "id": "1", "fields": {"text": "hello"}}]}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with serving(tmp_path / "data") as server:
        made = server.client()
        made.post("branches", {"name": "main"})
        made.post("branches/main/write", CHANGE)
        yield made


def is_free(client: Client) -> bool:
    return client.call("POST", "branches/main/write", CHANGE).status == 200


@pytest.mark.parametrize("limit", [{"heartbeat_s": 0.2}, {"ttl_s": 0.5, "heartbeat_s": None}])
def test_an_indexer_that_died_blocks_its_branch_no_longer_than_its_limit(client: Client, limit: dict[str, Any]) -> None:
    client.post(START, limit)
    wait_until(lambda: is_free(client), what="the end of the lock")
    assert client.get("branch-locks/locks") == []
    assert client.get("branches/main")["state"] != "READY"


def test_a_heartbeat_of_120_s_is_expected_unless_the_indexer_says_otherwise(client: Client) -> None:
    for body, heartbeat_s in (({}, 120.0), ({"heartbeat_s": 30}, 30.0), ({"heartbeat_s": None}, None)):
        started = client.post(START, body)
        (lock,) = client.get("branch-locks/locks")
        assert (started["heartbeat_s"], lock["heartbeat_interval"]) == (heartbeat_s, heartbeat_s or 0)
        assert started["expires_at"] is not None
        assert not is_free(client)
        heard = client.post(f"branch-locks/locks/{lock['id']}/heartbeat", {"token": started["tokens"][0]})
        assert heard["success"]
        client.post("branch-locks/indexing/main/complete", {})
        client.post("branches/main/reopen", {})


def test_a_limit_that_cannot_be_is_refused(client: Client) -> None:
    for limit in ({"heartbeat_s": 0}, {"ttl_s": -1}, {"heartbeat_s": "often"}):
        client.refused(400, "POST", START, limit)
    assert is_free(client)
