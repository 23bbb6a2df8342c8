"""After a restart a reader gets the live generation, and nothing older than the head at the start (SW-2, IX-1).

The followers stand still in these tests, so that no test passes because a follower is quick.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from shadowswitch import Engine, Timeout
from tests.support import inside
from tests.support.engine_helpers import KIND, fill, found, live, put

GIVEN_UP_S = 0.2


@contextmanager
def live_index_held_still(engine: Engine) -> Iterator[None]:
    with inside.live(engine, 1, KIND).writer.pause_apply():
        yield


@contextmanager
def followers_stand_still() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        inside.replace(patch, inside.Step.FOLLOWER_TURN, lambda *_: False)
        yield


@pytest.mark.parametrize("backend", ["fts5", "kv"])
def test_a_reader_after_a_restart_waits_for_the_head_at_the_start(open_engine: Any, backend: str) -> None:
    first = open_engine()
    first.create_branch("main")
    behind = fill(first, 50)
    live(first, backend=backend)
    with live_index_held_still(first):
        for n in range(20):
            first.write("main", [put(f"late{n}", "late")])
        head = first.head("main")
        first.close()
    with followers_stand_still():
        second = open_engine()
        assert inside.live(second, 1, KIND).applied_lsn == behind, "no change is missing, so the test proves nothing"
        with pytest.raises(Timeout, match=f"shows LSN {behind}, LSN {head}"):
            second.reader("main", KIND, timeout_s=GIVEN_UP_S)
    with second.reader("main", KIND, timeout_s=30) as reader:
        assert reader.lsn >= head
        assert len(reader.search("late", limit=100)) == 20


def test_a_restart_gives_readers_the_live_generation_and_not_the_previous_one(open_engine: Any) -> None:
    engine = open_engine()
    engine.create_branch("main")
    fill(engine, 50)
    first, second = live(engine), live(engine)
    for expected in (second, first, second):
        engine.close()
        engine = open_engine()
        assert engine.index("main", KIND).generation == expected
        with engine.reader("main", KIND) as reader:
            assert reader.generation == expected
        assert os.readlink(engine.path / "published" / "main" / KIND).endswith(f"{expected:08d}")
        engine.write("main", [put("since", f"since{expected}")])
        assert found(engine, f"since{expected}", min_lsn=engine.head("main")) == {"since"}
        assert engine.rollback("main", KIND).success
