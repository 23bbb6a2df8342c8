"""The rows that transactions have changed since the last look, so that cleanup need not walk the whole catalog."""

from __future__ import annotations

import threading
from typing import NamedTuple


class Changed(NamedTuple):
    """Shadow ids, generation numbers, and numbers of branches that were written to."""

    shadows: set[str]
    generations: set[int]
    branches: set[int]


class DirtySet:
    """The JournalWriter adds on its thread after each commit; one other thread takes.

    A DirtySet is lost with its process. Its reader walks the whole catalog once before the first `take`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = Changed(set(), set(), set())

    def add(self, changed: Changed) -> None:
        """A transaction that changed these has committed."""
        if not any(changed):
            return
        with self._lock:
            for mine, more in zip(self._changed, changed, strict=True):
                mine |= more  # type: ignore[operator]

    def take(self) -> Changed:
        """All that was added since the last call."""
        with self._lock:
            taken, self._changed = self._changed, Changed(set(), set(), set())
        return taken
