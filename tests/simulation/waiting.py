"""Replaces the futures, mailboxes and timers of the library: tasks wait for these."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import pykka

from shadowswitch.actors.kit.reply import Reply
from tests.simulation.world import Task, World, present

LATENCY_S = 1e-6
"""A timer is never early, not even by a rounding error."""


class VirtualReply(Reply[Any]):
    """A reply for which a task waits without blocking the thread."""

    answered_at = 0.0

    def __init__(self) -> None:
        super().__init__()
        self._wakes: list[Callable[[], None]] = []

    def when_done(self, wake: Callable[[], None]) -> None:
        """Call `wake` once, when the reply is answered or cancelled."""
        self._wakes.append(wake)

    def wait(self, timeout_s: float) -> bool:
        present().wait(self, timeout_s)
        return self.done()

    def cancel(self, error: BaseException | None = None) -> bool:
        cancelled = super().cancel(error)
        if cancelled:
            self._wake()
        return cancelled

    def set_result(self, value: Any) -> None:
        super().set_result(value)
        self._wake()

    def set_exception(self, error: BaseException) -> None:
        super().set_exception(error)
        self._wake()

    def _wake(self) -> None:
        self.answered_at = present().now
        while self._wakes:
            self._wakes.pop()()


class VirtualPykkaFuture(pykka.ThreadingFuture[Any]):
    """The same for futures of Pykka, which stop an actor."""

    def __init__(self) -> None:
        super().__init__()
        self._done: VirtualReply = VirtualReply()

    def get(self, *, timeout: float | None = None) -> Any:
        if self._get_hook is not None:  # it is the proxy of another future
            return super().get(timeout=timeout)
        present().wait(self._done, timeout)
        return super().get(timeout=0.0)

    def set(self, value: Any = None) -> None:
        super().set(value)
        self._done.set_result(None)

    def set_exception(self, exc_info: Any = None) -> None:
        super().set_exception(exc_info)
        self._done.set_result(None)


class VirtualInbox:
    """A mailbox: first in, first out; taking a message out is a step of its own."""

    def __init__(self) -> None:
        self._letters: deque[Any] = deque()
        self._owner: Task | None = None

    def put(self, letter: Any, /) -> None:
        self._letters.append(letter)
        if self._owner is not None:
            present().wake(self._owner)

    def get(self) -> Any:
        world = present()
        task = self._owner = world.current()
        task.resting = True
        if self._letters:
            world.pause()
        while not self._letters:
            world.yield_()
        task.resting = False
        return self._letters.popleft()

    def empty(self) -> bool:
        return not self._letters

    @property
    def queue(self) -> deque[Any]:
        return self._letters


class VirtualTimers:
    """Replaces `actors.kit.timers.Timers` in the library."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._closed = False

    def is_alive(self) -> bool:
        return True

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        self._world.at(self._world.now + max(0.0, delay_s) + LATENCY_S, partial(self._call, call))

    def every(self, period_s: float, call: Callable[[], None]) -> None:
        period_s = max(period_s, self._world.period_s)

        def again() -> None:
            self.after(period_s, again)
            call()

        self.after(period_s, again)

    def _call(self, call: Callable[[], None]) -> None:
        if not self._closed:
            call()

    def close(self) -> None:
        self._closed = True
