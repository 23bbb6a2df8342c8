"""StateChanges: a thread waits here for a state of the catalog. One object for each engine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from shadowswitch.model.errors import EngineClosed, Timeout
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.clock import Clock

T = TypeVar("T")
LOOK_AGAIN_S = 1.0
"""A waiter looks again that often without a notification: the progress of a build is not in the catalog."""


class StateChanges:
    """Wakes the waiting threads after every metadata transaction. Any thread."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self._catalog = catalog
        self._clock = clock
        self._changed = threading.Condition()
        self.closing = False
        """The engine closes: no new work begins, and every waiter raises EngineClosed."""

    def close(self) -> None:
        """The engine closes. Every waiter wakes."""
        self.closing = True
        self.notify()

    def notify(self) -> None:
        """Wake every waiter."""
        with self._changed:
            self._changed.notify_all()

    def wait(self, is_so: Callable[[], T | None], deadline: float | None, what: str) -> T:
        """Wait until `is_so` returns a value other than None. It is called again after every metadata transaction.

        Raises Timeout at the (monotonic) deadline, EngineClosed when the engine closes, and the error of the disk when
        the catalog accepts no more writes.
        """
        while True:
            with self._changed:
                found = is_so()
                if found is not None:
                    return found
                if self.closing:
                    raise EngineClosed("the engine is closed", operation=what, hint="open it again")
                if self._catalog.failed is not None:
                    raise self._catalog.failed
                left = LOOK_AGAIN_S if deadline is None else deadline - self._clock.monotonic()
                if left <= 0:
                    raise Timeout(
                        f"{what}: the deadline passed", operation=what, hint="wait longer, or look at the status"
                    )
                self._changed.wait(min(left, LOOK_AGAIN_S))
