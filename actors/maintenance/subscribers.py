"""Who wants to hear of events. Kept apart from the Dispatcher, so that one that is replaced finds them again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from shadowswitch.model.views import Event

PAUSE_FIRST_S = 0.1
PAUSE_MAX_S = 30.0


class Subscriber:
    """One subscription: whom to call, and the last event that was taken. `left` may be set by any thread."""

    def __init__(self, callback: Callable[[Event], None], after: int) -> None:
        self.callback = callback
        self.after = after
        self.left = False
        self.pause_s = PAUSE_FIRST_S
        self.not_before = 0.0

    def took(self, sequence: int) -> None:
        """An event was taken."""
        self.after, self.pause_s = sequence, PAUSE_FIRST_S

    def failed(self, now: float) -> None:
        """An event was not taken; it comes again after a pause that grows."""
        self.not_before = now + self.pause_s
        self.pause_s = min(2 * self.pause_s, PAUSE_MAX_S)


class Subscribers:
    """All subscriptions of an engine. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._present: list[Subscriber] = []

    def add(self, subscriber: Subscriber) -> None:
        """From now on it is called."""
        with self._lock:
            self._present.append(subscriber)

    def remove(self, subscriber: Subscriber) -> None:
        """It is called no more. Idempotent."""
        subscriber.left = True
        with self._lock, contextlib.suppress(ValueError):
            self._present.remove(subscriber)

    def present(self) -> list[Subscriber]:
        """Those of this moment, in the order in which they came."""
        with self._lock:
            return list(self._present)
