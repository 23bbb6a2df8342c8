"""The rows that transactions have changed since the last look, so that cleanup need not walk the whole catalog."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import NamedTuple


class Changed(NamedTuple):
    """Shadow ids, generation numbers, numbers of branches that were written to, and of those that were dropped."""

    shadows: set[str]
    generations: set[int]
    branches: set[int]
    dropped: set[int]


class DirtySet:
    """The JournalWriter adds on its thread after each commit; one other thread takes.

    A DirtySet is lost with its process. Its reader walks the whole catalog once before the first `take`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = Changed(set(), set(), set(), set())
        self._watches: tuple[set[tuple[int, int]], ...] = ()

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
            taken, self._changed = self._changed, Changed(set(), set(), set(), set())
        return taken

    def watch_digests(self) -> set[tuple[int, int]]:
        """A set in which each transaction notes the digests that it may have changed: (branch, type). Any thread."""
        made: set[tuple[int, int]] = set()
        with self._lock:
            self._watches = (*self._watches, made)
        return made

    def forget_watch(self, watch: set[tuple[int, int]]) -> None:
        """Note nothing more in this set. Any thread."""
        with self._lock:
            self._watches = tuple(other for other in self._watches if other is not watch)

    def note_digests(self, changed: Iterable[tuple[int, int]]) -> None:
        """A transaction that may have changed these has ended. On the JournalWriter's thread."""
        for watch in self._watches:
            watch.update(changed)
