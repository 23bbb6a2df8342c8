"""The rows that transactions have changed since the last look, so that cleanup need not walk the whole catalog."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import NamedTuple


class Changed(NamedTuple):
    """What is to be looked at: shadow ids, generation numbers, and numbers of branches.

    Of these: those that were written to, those that were dropped, and those that have a fork less, or a younger one.
    """

    shadows: set[str]
    generations: set[int]
    branches: set[int]
    dropped: set[int]
    parents: set[int]


SHADOWS_MAX = 10_000
"""More changed shadows are not listed: all of them are read again."""


class DirtySet:
    """The JournalWriter adds on its thread after each commit; one other thread takes.

    A DirtySet is lost with its process. Its reader walks the whole catalog once before the first `take`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = Changed(set(), set(), set(), set(), set())
        self._watches: tuple[set[tuple[int, int]], ...] = ()
        self._shadows: set[str] | None = None
        """The ids that `take_shadows` returns next."""

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
            taken, self._changed = self._changed, Changed(set(), set(), set(), set(), set())
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

    def note_shadows(self, changed: set[str]) -> None:
        """A transaction that may have changed these has ended. On the JournalWriter's thread."""
        if not changed:
            return
        with self._lock:
            if self._shadows is not None:
                self._shadows |= changed
                if len(self._shadows) > SHADOWS_MAX:
                    self._shadows = None

    def take_shadows(self) -> set[str] | None:
        """The ids that were noted since the last call; None: every shadow may have changed. For one ShadowTable."""
        with self._lock:
            taken, self._shadows = self._shadows, set()
        return taken

    def forget_shadows(self) -> None:
        """The next `take_shadows` returns None."""
        with self._lock:
            self._shadows = None
