"""What transactions have changed since somebody last looked, so that nobody has to walk everything to find it."""

from __future__ import annotations

import threading
from typing import NamedTuple


class Changed(NamedTuple):
    """Shadow ids, generation numbers, and numbers of branches that were written to."""

    shadows: set[str]
    generations: set[int]
    branches: set[int]


class DirtySet:
    """The JournalWriter's thread adds after each commit; one other thread takes. Lost with the process: whoever begins
    to take looks at everything once."""

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
