"""The generations that are open in this process, and which of them readers get."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from shadowswitch.model.errors import EngineClosed, Timeout
from shadowswitch.storage.generations.generation import Generation

POLL_S = 0.5
"""How soon somebody who waits for a turn learns that the engine closes."""


class Shelf:
    """The generations that are open in this process, and which of them are live. THE IN-MEMORY POINTER.

    Reading `live` is a dict lookup, safe on any thread; changes are made under a lock, by whoever made them durable.
    """

    def __init__(self) -> None:
        self.live: dict[tuple[int, str], Generation] = {}
        self.open: dict[int, Generation] = {}
        self._epochs: dict[tuple[int, str], int] = {}
        self._turns: dict[tuple[int, str], threading.Lock] = {}
        self._lock = threading.Lock()
        self.closing = False
        """The engine closes: nobody waits for a turn any more."""

    def add(self, generation: Generation) -> None:
        """A generation was opened."""
        with self._lock:
            self.open[generation.row.number] = generation

    def point(self, branch: int, index_type: str, generation: Generation | None, epoch: int) -> bool:
        """Make a generation the one that readers get (None: the index has none), as the switch of that epoch made it
        live. False, and nothing is done, when readers were led on by a later one (SW-4)."""
        key = (branch, index_type)
        with self._lock:
            if epoch < self._epochs.get(key, 0):
                return False
            self._epochs[key] = epoch
            left = self.live.get(key)
            if generation is None:
                self.live.pop(key, None)
            else:
                generation.served = True
                self.live[key] = generation
        if left is not None:
            left.advanced()
        return True

    @contextlib.contextmanager
    def turn(self, branch: int, index_type: str, timeout_s: float) -> Iterator[None]:
        """Meanwhile nobody else leads the readers of an index anywhere, or is about to. Raises Timeout or
        EngineClosed."""
        with self._lock:
            turn = self._turns.setdefault((branch, index_type), threading.Lock())
        until = time.monotonic() + timeout_s
        while not turn.acquire(timeout=max(0.0, min(POLL_S, until - time.monotonic()))):
            if self.closing:
                raise EngineClosed("the engine is closed", operation="switch", hint="open it again")
            if time.monotonic() >= until:
                raise Timeout(
                    f"another switch of {index_type} took longer than {timeout_s:g} s",
                    operation="switch",
                    hint="try again",
                )
        try:
            yield
        finally:
            turn.release()

    def remove(self, number: int) -> None:
        """A generation was closed."""
        with self._lock:
            self.open.pop(number, None)
