"""A limited number of places, of which one caller cannot take all."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator

from shadowswitch.model.errors import ShadowSwitchError


class Overloaded(ShadowSwitchError):
    """The server has no room for the request; nothing was done."""

    recoverable = True


class Shares:
    """Places for one kind of work: `total` of them, `each` for one caller. Any thread; never waits."""

    def __init__(self, what: str, total: int, each: int) -> None:
        self._what = what
        self._total = total
        self._each = each
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        """The places that are taken."""
        return self._taken.total()

    @contextlib.contextmanager
    def place(self, caller: str) -> Iterator[None]:
        """A place, for the time of the block. "" is a caller without a share of its own. Raises Overloaded at once."""
        with self._lock:
            if self._taken.total() >= self._total:
                raise Overloaded(f"too many {self._what} are open", hint="try again when one of them has ended")
            if caller and self._taken[caller] >= self._each:
                raise Overloaded(
                    f"{caller} has {self._each} {self._what} open, and others need the rest",
                    hint="try again when one of them has ended",
                )
            self._taken[caller] += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken[caller] -= 1
                self._taken += Counter()  # forgets callers without a place
