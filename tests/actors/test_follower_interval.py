"""`refresh_interval_ms` is latency: a Follower that has more to apply than fits into one turn goes on at once."""

from __future__ import annotations

import threading
from itertools import count
from typing import Any

import pytest

from tests.support import inside
from tests.support.engine_helpers import found, live, put

HOUR_MS = 3_600_000.0


def test_a_backlog_of_many_turns_is_applied_within_one_interval(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn applies one slice here, and the only tick is an hour away: the wait of a reader begins the first turn."""
    inside.patch_limit(monkeypatch, inside.Limit.FOLLOWER_TURN_S, 0.001)
    engine = open_engine(refresh_interval_ms=HOUR_MS)
    engine.create_branch("main")
    live(engine)
    for number in range(30):
        receipt = engine.write("main", [put(f"{number}-{n}", f"text{number}") for n in range(400)])
    assert len(found(engine, "text29", min_lsn=receipt.lsn, timeout_s=60)) == 400


def test_a_follower_without_a_change_to_apply_takes_no_turn(open_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A soaking generation that may go no further than the live one is no reason to go on."""
    engine = open_engine(refresh_interval_ms=HOUR_MS)
    engine.create_branch("main")
    live(engine)
    live(engine)
    engine.write("main", [put("a", "one")])
    assert found(engine, "one", min_lsn=engine.head("main")) == {"a"}
    turns = count()
    inside.before(monkeypatch, inside.Step.FOLLOWER_TURN, lambda: next(turns))
    threading.Event().wait(0.3)
    assert next(turns) < 5
