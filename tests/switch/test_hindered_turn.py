"""Hindrances in or after the turn of a switch: a large batch, an unreadable catalog, a soak that ends."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from shadowswitch import Engine, Put
from shadowswitch.actors.maintenance.follower_pool import FollowerPause
from shadowswitch.storage.clock import SYSTEM, Clock
from tests.support import inside
from tests.support.engine_helpers import KIND, built, fill, live, put, reads

OpenEngine = Callable[..., Engine]


def test_a_large_batch_just_ahead_of_the_turn_is_caught_up_with_beside_the_writers(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(engine, 10)
    live(engine)
    shadow = built(engine)
    batches = [[Put("object_type", f"large{n}", {"text": "x"}) for n in range(2_000)]]
    inside.after(monkeypatch, inside.Step.COME_NEAR, lambda: batches and engine.write("main", batches.pop()))
    result = engine.switch(shadow.shadow_index_id)
    assert result.success, result.message
    assert (result.attempts, result.drained_changes) == (2, 0)
    assert reads(engine) == shadow.generation
    assert engine.index("main", KIND).record_count == 2_010


def test_a_pointer_that_could_not_be_settled_is_settled_behind_the_next_message(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(engine, 10)
    live(engine)
    shadow = built(engine)
    failures = [OSError("no reader slot"), OSError("no reader slot")]

    def agree(ordinary: Callable[..., bool], *given: object) -> bool:
        if failures:
            raise failures.pop()
        return ordinary(*given)

    inside.wrap(monkeypatch, inside.Step.AGREE, agree)
    result = engine.switch(shadow.shadow_index_id)
    assert not failures
    assert result.success, result.message
    engine.write("main", [put("later", "later")])
    assert reads(engine) == engine.index("main", KIND).generation == shadow.generation
    engine.clean_up()
    assert engine.check() == []


def test_the_previous_generation_does_not_retire_while_its_successor_is_verified(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(soak_s=0.0, janitor_interval_s=3600.0)
    engine.create_branch("main")
    fill(engine, 10)
    first = live(engine)
    shadow = built(engine)

    def verify(*_: object) -> list[str]:
        inside.sweep(engine)
        return ["made to fail"]

    with monkeypatch.context() as patch:
        inside.replace(patch, inside.Step.VERIFY, verify)
        result = engine.switch(shadow.shadow_index_id)
    assert (result.success, result.rolled_back) == (False, True), result.message
    assert reads(engine) == first


def test_attempts_of_two_engines_that_overlap_leave_the_switch_interval_as_it_was() -> None:
    ordinary = sys.getswitchinterval()
    one, other = FollowerPause(SYSTEM, 1).paused(), FollowerPause(SYSTEM, 1).paused()
    one.__enter__()
    other.__enter__()
    assert sys.getswitchinterval() < ordinary
    one.__exit__(None, None, None)
    assert sys.getswitchinterval() < ordinary
    other.__exit__(None, None, None)
    assert sys.getswitchinterval() == ordinary


def test_followers_rest_no_longer_when_attempts_overlap() -> None:
    class Moved(Clock):
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    clock = Moved()
    pause = FollowerPause(clock, 1)
    with pause.paused():
        clock.now = 0.4
        with pause.paused():
            assert pause.rests
            clock.now = 0.6
            assert pause.is_on
            assert not pause.rests
