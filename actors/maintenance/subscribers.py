"""Subscribers: the subscriptions to events. They outlive the Dispatcher, so its successor finds them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from shadowswitch.model.views import Event

PAUSE_FIRST_S = 0.1
PAUSE_MAX_S = 30.0


class Subscriber:
    """One subscription: its callback, and the last event that it took. Any thread may set `left`."""

    def __init__(self, callback: Callable[[Event], None], after: int) -> None:
        self.callback = callback
        self.after = after
        self.left = False
        self.pause_s = PAUSE_FIRST_S
        self.not_before = 0.0

    def took(self, sequence: int) -> None:
        """The callback took this event."""
        self.after, self.pause_s = sequence, PAUSE_FIRST_S

    def failed(self, now: float) -> None:
        """The callback raised; the event comes again after a pause, which grows."""
        self.not_before = now + self.pause_s
        self.pause_s = min(2 * self.pause_s, PAUSE_MAX_S)


class Subscribers:
    """All subscriptions of an engine. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._present: list[Subscriber] = []

    def add(self, subscriber: Subscriber) -> None:
        """From now on the subscriber gets events."""
        with self._lock:
            self._present.append(subscriber)

    def remove(self, subscriber: Subscriber) -> None:
        """The subscriber gets no more events. Idempotent."""
        subscriber.left = True
        with self._lock, contextlib.suppress(ValueError):
            self._present.remove(subscriber)

    def present(self) -> list[Subscriber]:
        """The subscribers at this moment, in the order of their subscription."""
        with self._lock:
            return list(self._present)
