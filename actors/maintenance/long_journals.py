"""The LongJournals: which branches have more journal than is kept, and whose turn it is to be trimmed.

    written to ---> to look at ---> surplus ---> in line ---> a slice is trimmed ---> in line again, at its end
    (at the start: all)                             ^                 |
                                                    '--- waiting <----'  nothing may go: a generation or a hold needs it

A branch at rest is in none of them, so a round costs as much as there is work. A branch that waits is looked at again
when it is written to, or its holds or generations change; and after a pause, which grows: that a generation became
durable is in no row.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from itertools import islice

from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.retention import Tail

SURPLUS_LSNS = 200
SURPLUS_BYTES = 1 << 20
"""So much surplus, by one or the other, is worth a transaction."""
LOOK_CHUNKS = 500
"""In one read transaction, of one branch: half a millisecond."""
LOOK_COST = 10
"""What a look costs besides its chunks, in chunks."""
LOOKS_A_ROUND = 40_000
"""In chunks: more is left for the next round."""
TAILS_MAX = 50_000
WAIT_S, WAIT_MAX_S = 1.0, 60.0


class LongJournals:
    """On the thread of the Janitor."""

    def __init__(self, catalog: Catalog, keep_changes: int, keep_bytes: int) -> None:
        self._catalog = catalog
        self._keep_changes = keep_changes
        self._keep_bytes = keep_bytes
        self._tails: dict[int, Tail] = {}
        self._to_look: dict[int, None] = {}
        self._line: dict[int, None] = {}
        self._pauses: dict[int, float] = {}
        """The pauses of the branches that wait."""
        self._due: list[tuple[float, int]] = []

    def written(self, branches: Iterable[int]) -> None:
        """These branches may have more journal than before, or may be trimmed further."""
        for branch in branches:
            self._to_look[branch] = None
            self._pauses.pop(branch, None)

    def forget(self, branch: int) -> None:
        """The branch is gone."""
        for kept in (self._tails, self._to_look, self._line, self._pauses):
            kept.pop(branch, None)

    def wake_all(self) -> None:
        """No pause counts any more."""
        self._to_look.update(dict.fromkeys(self._pauses))
        self._pauses.clear()
        self._due.clear()

    def look(self) -> None:
        """Count what was written; and end the pauses that are over."""
        now = self._catalog.clock.monotonic()
        while self._due and self._due[0][0] <= now:
            branch = heapq.heappop(self._due)[1]
            if branch in self._pauses:
                self._line[branch] = None
        left = LOOKS_A_ROUND
        while self._to_look and left > 0:
            left -= LOOK_COST + self._count(next(iter(self._to_look)))

    def _count(self, branch: int) -> int:
        del self._to_look[branch]
        tail = self._tails.pop(branch, None) or Tail()
        with self._catalog.read() as txn:
            counted = tail.follow(txn, self._catalog, branch, self._keep_changes, self._keep_bytes, LOOK_CHUNKS)
        if counted == LOOK_CHUNKS:
            self._to_look[branch] = None
        self._tails[branch] = tail  # at the end: the map is in the order of use
        if self.has_surplus(branch):
            if branch not in self._pauses:
                self._line[branch] = None
        else:
            self._pauses.pop(branch, None)
        longest_ago = next(iter(self._tails))
        if len(self._tails) > TAILS_MAX and not self.has_surplus(longest_ago):
            del self._tails[longest_ago]
        return counted

    def has_surplus(self, branch: int) -> bool:
        """Has a branch so much more than is kept that it is worth a transaction?"""
        tail = self._tails.get(branch)
        if tail is None or tail.begin <= tail.oldest:
            return False
        return tail.begin - tail.oldest >= SURPLUS_LSNS or tail.surplus_bytes >= SURPLUS_BYTES

    def begin(self, branch: int) -> int:
        """The LSN of the oldest change that stays for `changes()`; 0 for a branch that was dropped meanwhile."""
        tail = self._tails.get(branch)
        return tail.begin if tail is not None else 0

    def is_worth(self, branch: int, below: int) -> bool:
        """Is what lies below that LSN worth a transaction?"""
        tail = self._tails.get(branch)
        if tail is None:
            return False
        gap = below - tail.oldest
        return gap >= SURPLUS_LSNS or (gap > 0 and tail.surplus_bytes >= SURPLUS_BYTES)

    def next(self, most: int) -> list[int]:
        """The branches whose turn it is, up to so many; they leave the line."""
        taken = list(islice(self._line, most))
        for branch in taken:
            del self._line[branch]
        return taken

    def trimmed(self, branch: int, oldest: int) -> None:
        """A slice of its journal was removed: it goes to the end of the line, if there is more."""
        self._pauses.pop(branch, None)
        if branch in self._tails:
            self._tails[branch].trimmed(oldest)
        if self.has_surplus(branch):
            self._line[branch] = None

    def wait(self, branch: int) -> None:
        """Nothing, or too little, may go: look again after a pause, each time a longer one."""
        pause_s = min(WAIT_MAX_S, 2 * self._pauses.get(branch, WAIT_S / 2))
        self._pauses[branch] = pause_s
        heapq.heappush(self._due, (self._catalog.clock.monotonic() + pause_s, branch))
