"""Actors, timers, the Supervisor and service threads, on a clock that the test moves. Pacing: test_rounds.py."""

from __future__ import annotations

import logging
import threading
from typing import Any

import msgspec
import pytest

from shadowswitch.actors.kit.actor import EngineActor
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.kit.service_thread import ServiceThread
from shadowswitch.actors.kit.supervisor import PAUSE_MAX_S, RESTARTS_MAX, Supervisor
from shadowswitch.actors.kit.timers import Timers
from shadowswitch.model.errors import InvalidTransition
from shadowswitch.storage.clock import Clock


class HandClock(Clock):
    """A clock that stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_000_000 + self.now


class Mortal:
    """An address of an actor, as the Supervisor sees it. The actor is dead again after each restart."""

    def __init__(self) -> None:
        self.ref: Any = self
        self.restarted = 0

    def is_alive(self) -> bool:
        return False

    def restart_if_dead(self) -> bool:
        self.restarted += 1
        return True


def test_an_actor_that_dies_again_and_again_is_restarted_with_growing_pauses_and_then_left_dead() -> None:
    clock = HandClock()
    supervisor, actor = Supervisor(clock), Mortal()
    core: dict[str, Any] = {"janitor": actor}
    pauses, last = [], None
    for _ in range(2000):
        before = actor.restarted
        supervisor.mend(core, list)
        if actor.restarted > before:
            if last is not None:
                pauses.append(clock.now - last)
            last = clock.now
        clock.now += 1
    assert pauses == [min(PAUSE_MAX_S, 2.0**count) for count in range(RESTARTS_MAX - 1)]
    assert actor.restarted == RESTARTS_MAX


def test_a_crash_is_stamped_by_the_wall_clock_of_the_engine() -> None:
    supervisor = Supervisor(HandClock())
    supervisor.crashed("janitor", ValueError("boom"))
    assert supervisor.crashes == [{"actor": "janitor", "error": "ValueError('boom')", "at": 1_000_000}]


def test_timers_call_by_the_clock_that_they_are_given_in_the_order_of_time() -> None:
    clock, called, done = HandClock(), list[str](), threading.Event()

    def second() -> None:
        called.append("second")
        done.set()

    timers = Timers(clock)
    try:
        timers.after(500, second)
        timers.after(100, lambda: called.append("first"))
        timers.after(900, lambda: called.append("never"))
        clock.now = 600
        timers.after(-600, lambda: called.append("at once"))  # the earliest of all, so the thread looks at the clock
        assert done.wait(30)
    finally:
        timers.close()
    assert called == ["at once", "first", "second"]


def test_a_call_that_raises_does_not_end_the_timers(caplog: pytest.LogCaptureFixture) -> None:
    clock, done = HandClock(), threading.Event()
    timers = Timers(clock)
    try:
        timers.after(0, lambda: [][0])
        timers.after(0, done.set)
        assert done.wait(30)
    finally:
        timers.close()
    assert "a timer failed" in caplog.text


def test_a_service_thread_whose_run_raises_ends_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(ServiceThread):
        joined_itself = True

        def run(self) -> None:
            self.joined_itself = self.join(30)
            raise ValueError("boom")

    thread = Failing("failing")
    with caplog.at_level(logging.ERROR, "shadowswitch"):
        thread.start()
        assert thread.join(30)
    assert not thread.joined_itself, "a thread cannot wait for its own end"
    assert "shadowswitch-failing ended with an error" in caplog.text
    assert "boom" in caplog.text


class Ask(msgspec.Struct, frozen=True):
    """To `Refusing`: always refused."""

    reply: Reply[None]


class Tell(msgspec.Struct, frozen=True):
    """As `Ask`; no caller waits for an answer."""


class Refusing(EngineActor):
    """Refuses every message."""

    def __init__(self) -> None:
        super().__init__("refusing", lambda *_: None)
        self.handles(Ask, self._refuse)
        self.handles(Tell, self._refuse)

    def _refuse(self, _: Any) -> None:
        raise InvalidTransition("refused")


def test_a_refusal_for_which_no_caller_waits_any_more_is_no_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    actor = Refusing.start()
    try:
        with caplog.at_level(logging.DEBUG, "shadowswitch"):
            given_up: Reply[None] = Reply()
            assert given_up.cancel()
            actor.tell(Ask(given_up))
            waiting: Reply[None] = Reply()
            actor.tell(Ask(waiting))
            with pytest.raises(InvalidTransition):
                waiting.result(30)
            assert caplog.text == ""
            actor.tell(Tell())
    finally:
        actor.stop()
    assert "refusing could not do Tell: refused" in caplog.text
