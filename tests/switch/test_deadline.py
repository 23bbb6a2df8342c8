"""`switch_timeout_seconds` bounds a switch: one that comes to no commit by then is given up, and never goes live."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from shadowswitch import Engine, ShadowState, SwitchRequest, SwitchResult, Timeout
from shadowswitch.storage.backends.protocol import IndexReader
from tests.support import inside
from tests.support.engine_helpers import KIND, built, fill, live, reads, wait_until

WAIT_S = 60.0
TIME_S = 3.0
"""Enough for all that comes before the step that is too slow, also on a busy machine."""
TINY_S = 1e-6


class Move(NamedTuple):
    """A switch or a rollback from the generation `old` to `new`."""

    engine: Engine
    old: int
    new: int
    shadow_id: str

    def run(self, timeout_s: float = WAIT_S, *checks: str) -> SwitchResult:
        asked = SwitchRequest(switch_timeout_seconds=timeout_s, validation_checks=checks)
        if self.shadow_id:
            return self.engine.switch(self.shadow_id, asked)
        return self.engine.rollback("main", KIND, asked)

    def is_at_rest(self) -> bool:
        """Is everything as before, with nothing under way?"""
        index = self.engine.index("main", KIND)
        if self.shadow_id and self.engine.shadow(self.shadow_id).state != ShadowState.BUILT:
            return False
        return index.generation == self.old == reads(self.engine) and not self.switchers()

    def switchers(self) -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "shadowswitch-switch"]

    def committed(self) -> int:
        return sum(entry.type == "switch.committed" for entry in self.engine.audit())


@pytest.fixture(params=["switch", "rollback"])
def move(request: pytest.FixtureRequest, engine: Engine) -> Move:
    fill(engine, 20)
    old = live(engine)
    if request.param == "switch":
        shadow = built(engine)
        return Move(engine, old, shadow.generation, shadow.shadow_index_id)
    return Move(engine, live(engine), old, "")


class Slow:
    """A validator that does not return before `go_on`."""

    def __init__(self, engine: Engine) -> None:
        self.go_on, self.counts = threading.Event(), list[int]()
        engine.add_validator("SLOW", self)

    def __call__(self, reader: IndexReader) -> None:
        assert self.go_on.wait(WAIT_S)
        self.counts.append(reader.count())

    def returns(self) -> None:
        """Let every call return, and wait for its thread."""
        self.go_on.set()
        wait_until(lambda: not any(thread.name.endswith("check-SLOW") for thread in threading.enumerate()), WAIT_S)


@pytest.fixture
def slow(engine: Engine) -> Iterator[Slow]:
    found = Slow(engine)
    yield found
    found.returns()


def test_a_switch_whose_validator_returns_too_late_never_takes_effect(move: Move, slow: Slow) -> None:
    before = move.committed()
    result = move.run(TIME_S, "SLOW")
    assert not result.success
    assert "3 s passed before its commit (the validator SLOW has not returned); nothing was changed" in result.message
    assert "try again with more time (switch_timeout_seconds)" in result.message
    assert result.attempts == 0
    wait_until(move.is_at_rest)
    slow.returns()
    assert slow.counts == [20], "it could read to its end"
    assert move.is_at_rest()
    assert move.committed() == before
    assert move.run(WAIT_S, "SLOW").success
    assert reads(move.engine) == move.new


def test_a_validator_that_never_returns_hinders_no_other_switch(move: Move, slow: Slow) -> None:
    assert not move.run(TIME_S, "SLOW").success
    assert move.run().success
    assert reads(move.engine) == move.new
    assert slow.counts == []


def test_a_cancelled_shadow_stays_on_disk_until_its_validator_returns(engine: Engine, slow: Slow) -> None:
    fill(engine, 20)
    shadow = built(engine)
    path = inside.generation(engine, shadow.generation).path
    move = Move(engine, 0, shadow.generation, shadow.shadow_index_id)
    assert not move.run(TIME_S, "SLOW").success
    engine.cancel_build(shadow.shadow_index_id)
    inside.tick_janitor(engine)
    assert path.exists()
    slow.returns()
    assert slow.counts == [20]
    inside.tick_janitor(engine)
    wait_until(lambda: not path.exists())


def test_a_scheduled_switch_whose_validator_returns_too_late_is_postponed(engine: Engine, slow: Slow) -> None:
    fill(engine, 20)
    first, id = live(engine), built(engine).shadow_index_id
    engine.schedule_switch(id, 0, request=SwitchRequest(validation_checks=("SLOW",), switch_timeout_seconds=TIME_S))
    wait_until(lambda: (plan := engine.shadow(id).scheduled_switch) is not None and plan.refusals, WAIT_S)
    plan = engine.shadow(id).scheduled_switch
    assert plan is not None
    assert "SLOW has not returned" in (plan.error or "")
    slow.returns()
    assert engine.shadow(id).state == ShadowState.BUILT
    assert reads(engine) == first


def test_a_rebuild_whose_validator_returns_too_late_leaves_nothing(engine: Engine, slow: Slow) -> None:
    fill(engine, 20)
    first = live(engine)
    request = SwitchRequest(validation_checks=("SLOW",), switch_timeout_seconds=TIME_S)
    result = engine.rebuild("main", KIND, ["object_type"], request=request)
    assert not result.success
    assert "the shadow was discarded" in result.message
    slow.returns()
    assert reads(engine) == first
    assert engine.rebuild("main", KIND, ["object_type"]).success


def test_a_time_that_is_too_short_for_anything_changes_nothing(move: Move) -> None:
    before = move.committed()
    for _ in range(3):
        result = move.run(TINY_S)
        assert (result.success, result.rolled_back, result.attempts) == (False, False, 0)
        assert "more time" in result.message or "try again" in result.message
        wait_until(move.is_at_rest)
    assert move.committed() == before
    assert move.run().success


def test_a_caller_whose_switch_stands_still_gets_its_answer_and_the_switch_never_takes_effect(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the Switcher is so late that its own time is not over: it counts from when it begins."""
    inside.patch_limit(monkeypatch, inside.Limit.SWITCH_GIVE_UP_S, 0.2)
    before, go_on = move.committed(), threading.Event()
    with monkeypatch.context() as patched:
        inside.before(patched, inside.Step.SWITCH, lambda: go_on.wait(WAIT_S))
        with pytest.raises(Timeout, match="it was given up, and nothing was changed; try again with more time"):
            move.run(TIME_S)
        assert move.switchers()
        go_on.set()
        wait_until(move.is_at_rest, WAIT_S)
    assert move.committed() == before
    assert move.run().success


@pytest.mark.parametrize("step", [inside.Step.WARM, inside.Step.COME_NEAR])
def test_no_turn_begins_past_the_deadline(move: Move, monkeypatch: pytest.MonkeyPatch, step: inside.Step) -> None:
    inside.patch_limit(monkeypatch, inside.Limit.SWITCH_GIVE_UP_S, WAIT_S)
    before = move.committed()
    with monkeypatch.context() as patched:
        inside.before(patched, step, lambda: threading.Event().wait(TIME_S))
        result = move.run(TIME_S)
    assert not result.success
    assert "3 s passed before its commit; nothing was changed, try again with more time" in result.message
    wait_until(move.is_at_rest)
    assert move.committed() == before
    assert move.run().success


def test_a_commit_is_verified_and_taken_back_past_the_deadline(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        inside.wrap(patched, inside.Step.VERIFY_READ, too_late)
        result = move.run(TIME_S)
    assert (result.success, result.rolled_back) == (False, True), result.message
    assert "no record can be read" in result.message
    assert reads(move.engine) == move.old


def too_late(ordinary: object, *given: object) -> list[str]:
    threading.Event().wait(TIME_S)
    return ["no record can be read"]
