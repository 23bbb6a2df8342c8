"""Tokens: one that is revoked or has expired stops working at once, and one alone cannot take every place."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shadowswitch import InvalidConfig
from shadowswitch.service.http.access import Scope
from shadowswitch.service.http.token_source import TokenSource
from tests.support.bounded_server import bounded
from tests.support.engine_helpers import wait_until
from tests.support.http_helpers import API, Answer, Events, serving, token_entry


def put(file: Path, entries: Sequence[str]) -> None:
    """Replace the token file, as an editor does."""
    made = file.with_suffix(".new")
    made.write_text("\n".join(entries))
    made.chmod(0o600)
    os.replace(made, file)


def test_a_revoked_token_stops_working_at_once_and_so_do_its_streams_and_waits(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    gone, entry = token_entry("gone", [Scope.READ, Scope.LOCK])
    kept, other = token_entry("kept", list(Scope))
    put(file, [entry, other])
    with serving(tmp_path / "data", "--token-file", str(file)) as server:
        client, admin = server.client(gone), server.client(kept)
        admin.post("branches", {"name": "main"})
        lock = {"branch_name": "main", "lock_type": "BACKUP"}
        held = admin.post("branch-locks/acquire", lock)["lock_id"]
        answers: list[Answer] = []
        wait = ("POST", "branch-locks/acquire", {**lock, "wait_s": 60})
        waiter = threading.Thread(target=lambda: answers.append(server.client(gone).call(*wait)))
        waiter.start()
        wait_until(lambda: admin.get("branch-locks/waiters"), what="the waiter")
        stream, other_stream = Events(client), Events(admin)
        client.get("branches")
        put(file, [other])
        client.refused(401, "GET", "branches")
        admin.post("branches", {"name": "after"})
        other_stream.wait_for("branch.created")
        assert stream.ended.wait(30)
        assert stream.events == [one for one in stream.events if one[2]["subject"] != "after"]
        assert not other_stream.ended.is_set()
        admin.ok("DELETE", f"branch-locks/locks/{held}")
        waiter.join(30)
        assert answers[0].status != 200
        assert admin.get("branch-locks/locks") == []
        other_stream.close()
        put(file, [entry, other])
        assert client.get("branches")["total_count"] == 2


def test_a_wrong_or_removed_token_file_leaves_the_tokens_as_they_were(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    secret, entry = token_entry("a", [Scope.READ])
    put(file, [entry])
    with serving(tmp_path / "data", "--token-file", str(file)) as server:
        client = server.client(secret)
        put(file, [entry, "[["])
        client.get("branches")
        assert "the tokens stay as they were" in server.log
        file.unlink()
        client.get("branches")
        put(file, [])
        client.refused(401, "GET", "branches")
        server.client().refused(401, "GET", "branches")
    with pytest.raises(InvalidConfig, match="no token"):
        TokenSource(file)


def test_an_expired_token_stops_working_and_its_stream_ends(tmp_path: Path) -> None:
    secret, entry = token_entry("a", [Scope.READ])
    end = datetime.now(UTC) + timedelta(seconds=8)
    entry += f"expires = {end:%Y-%m-%dT%H:%M:%SZ}\n"
    with serving(tmp_path / "data", SHADOWSWITCH_TOKENS=entry) as server:
        stream = Events(server.client(secret))
        assert stream.ended.wait(30)
        assert datetime.now(UTC) >= end.replace(microsecond=0)
        server.client(secret).refused(401, "GET", "branches")


def test_one_reading_token_cannot_take_every_event_stream(tmp_path: Path) -> None:
    greedy, first = token_entry("greedy", [Scope.READ])
    other, second = token_entry("other", [Scope.READ])
    with bounded(tmp_path / "data", f"{first}\n{second}", streams_max=8) as server:
        open_ones = [Events(server.client(greedy)) for _ in range(2)]
        problem = server.client(greedy).refused(503, "GET", f"{API}/events/stream")
        assert "greedy has 2" in problem["detail"]
        open_ones.append(Events(server.client(other)))
        open_ones[0].close()
        wait_until(lambda: server.client(greedy).call("HEAD", "events/stream").status == 200, what="a free place")
        for stream in open_ones:
            stream.close()


def test_streams_that_are_asked_for_at_once_are_counted_at_once(tmp_path: Path) -> None:
    secret, entry = token_entry("a", [Scope.READ])
    with bounded(tmp_path / "data", entry, streams_max=40) as server:
        made: list[Events] = []
        refused: list[str] = []

        def ask() -> None:
            try:
                made.append(Events(server.client(secret)))
            except AssertionError as error:
                refused.append(str(error))

        threads = [threading.Thread(target=ask) for _ in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert (len(made), len(refused)) == (10, 20)
        for stream in made:
            stream.close()
