"""Replaces the module `threading` for the library in a world: tasks wait for its locks and conditions."""

from __future__ import annotations

import threading as real_threading
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

from tests.simulation.waiting import VirtualReply
from tests.simulation.world import present


class VirtualLock:
    """A lock that a task may hold over its pauses."""

    def __init__(self) -> None:
        self._held = False
        self._waiting: list[VirtualReply] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        world = present()
        until = world.now + timeout if timeout >= 0 else None
        while self._held:
            if not blocking or (until is not None and world.now >= until):
                return False
            notice = VirtualReply()
            self._waiting.append(notice)
            world.wait(notice, None if until is None else until - world.now)
        self._held = True
        return True

    def release(self) -> None:
        self._held = False
        waiting, self._waiting = self._waiting, []
        for notice in waiting:
            notice.set_result(None)

    def locked(self) -> bool:
        return self._held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class VirtualCondition(VirtualLock):
    """A condition with a lock of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._notified: list[VirtualReply] = []

    def wait(self, timeout: float | None = None) -> bool:
        notice = VirtualReply()
        self._notified.append(notice)
        self.release()
        present().wait(notice, timeout)
        self.acquire()
        return notice.done()

    def notify(self, n: int = 1) -> None:
        now, self._notified = self._notified[:n], self._notified[n:]
        for notice in now:
            notice.set_result(None)

    def notify_all(self) -> None:
        self.notify(len(self._notified))


class VirtualEvent:
    """An event."""

    def __init__(self) -> None:
        self._is_set = VirtualReply()

    def is_set(self) -> bool:
        return self._is_set.done()

    def set(self) -> None:
        if not self._is_set.done():
            self._is_set.set_result(None)

    def clear(self) -> None:
        self._is_set = VirtualReply()

    def wait(self, timeout: float | None = None) -> bool:
        present().wait(self._is_set, timeout)
        return self.is_set()


class VirtualThread:
    """A thread is a task."""

    def __init__(
        self, target: Callable[..., object], name: str = "thread", args: tuple[Any, ...] = (), daemon: bool = False
    ) -> None:
        self.name = name
        self._run = partial(target, *args)
        self._over = VirtualReply()

    def start(self) -> None:
        present().spawn(self.name, self._work)

    def _work(self) -> None:
        try:
            self._run()
        finally:
            self._over.set_result(None)

    def join(self, timeout: float | None = None) -> None:
        present().wait(self._over, timeout)

    def is_alive(self) -> bool:
        return not self._over.done()


class VirtualSemaphore:
    """As `threading.BoundedSemaphore`."""

    def __init__(self, value: int = 1) -> None:
        self._condition = VirtualCondition()
        self._free = self._most = value

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        with self._condition:
            while not self._free:
                if not blocking or not self._condition.wait(timeout):
                    return False
            self._free -= 1
            return True

    def release(self) -> None:
        with self._condition:
            if self._free == self._most:
                raise ValueError("Semaphore released too many times")
            self._free += 1
            self._condition.notify()


class VirtualThreading:
    """The part of `threading` that the library uses."""

    Lock, Condition, Event, Thread = VirtualLock, VirtualCondition, VirtualEvent, VirtualThread
    BoundedSemaphore = VirtualSemaphore
    get_ident = staticmethod(real_threading.get_ident)
    local = real_threading.local

    def __init__(self) -> None:
        self._current = SimpleNamespace(name="", ident=0)

    def current_thread(self) -> Any:
        return self._current
