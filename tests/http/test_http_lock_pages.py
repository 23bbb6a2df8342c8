"""The locks over HTTP by page, for a caller that reaches some of the branches."""

from __future__ import annotations

import urllib.parse
from pathlib import Path

from shadowswitch import Engine
from shadowswitch.service.http.access import Scope
from tests.support.http_helpers import serving, token_entry

PLACE = "branch-locks/locks"


def test_a_caller_pages_through_the_locks_that_it_reaches(tmp_path: Path) -> None:
    with Engine.open(tmp_path / "data") as engine:
        for branch in ("team/a", "other", "team/b"):
            engine.create_branch(branch)
            for number in range(3):
                engine.acquire_lock(branch, "MANUAL", "me", "RESOURCE", "t", f"r{number}")
    secret, entry = token_entry("team", [Scope.READ], ["team/*"])
    with serving(tmp_path / "data", SHADOWSWITCH_TOKENS=entry) as server:
        client = server.client(secret)
        found, after = list[tuple[str, str]](), ""
        while page := client.get(f"{PLACE}?limit=2&after={urllib.parse.quote(after)}"):
            assert len(page) <= 2
            assert not any("token" in lock for lock in page)
            found += [(lock["branch_name"], lock["resource_id"]) for lock in page]
            after = page[-1]["place"]
        assert found == [(branch, f"r{number}") for branch in ("team/a", "team/b") for number in range(3)]
        assert len(client.get(PLACE)) == 6
        assert "place" in client.refused(422, "GET", f"{PLACE}?after=nowhere")["hint"]
        client.refused(400, "GET", f"{PLACE}?limit=0")
