"""The event log over HTTP: a sequence number beyond its end is refused, not waited for."""

from __future__ import annotations

from pathlib import Path

from tests.support.http_helpers import API, Events, serving


def test_a_number_beyond_the_newest_event_is_410_and_the_hint_says_where_to_begin(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        client = server.client()
        for name in ("a", "b", "c"):
            client.post("branches", {"name": name})
        newest = client.get("events")["newest"]
        stream = f"{API}/events/stream"
        for how in (
            {"path": f"events?after={newest + 1}"},
            {"path": f"{stream}?after={newest + 1}"},
            {"path": stream, "headers": {"Last-Event-ID": str(newest + 1)}},
        ):
            problem = client.refused(410, "GET", **how)
            assert f"no event {newest + 1}" in problem["detail"]
            assert "after=0" in problem["hint"]
        assert client.get(f"events?after={newest}")["events"] == []
        following = Events(client, newest)
        client.post("branches", {"name": "d"})
        assert following.wait_for("branch.created")["subject"] == "d"
        following.close()
