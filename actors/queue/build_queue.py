"""The BuildQueue: which builds work, and which wait for a place. Pure, but for the lock of its owner.

A build needs a place until it is BUILT: its copy and its validation take whole cores, and the writers' commits wait for
the disk behind what it forces out (decision 0015). A build that writers outrun gives its place away. The highest
priority goes first, then the oldest claim. A build that works keeps its place: a higher priority does not stop it.

Nothing of the queue is stored but what the rows of the shadows have: after a restart the order is the same. A build
that held a place then is ahead of all that waited. An external build takes no place.
"""

from __future__ import annotations

import os

from shadowswitch.model.shadow_state import Phase, ShadowState
from shadowswitch.storage.catalog.rows import ShadowRow

Rank = tuple[bool, int, int]
CORES_EACH = 2
"""The parallel workers of a build by default: more builds at once are no faster, and writers wait longer for them."""


class BuildQueue:
    """Its owner changes it under a lock; `position` may be asked on any thread."""

    def __init__(self, places: int) -> None:
        """`places` builds work at once; 0: one for each `CORES_EACH` cores that this process may use, at least one."""
        self.places = places or max(1, len(os.sched_getaffinity(0)) // CORES_EACH)
        self._working: set[str] = set()
        self._waiting: dict[str, Rank] = {}

    def join(self, row: ShadowRow, held_place: bool = False) -> None:
        """Ask for a place; with `held_place` the build had one before a restart. Again: no change."""
        if row.id not in self._working:
            self._waiting.setdefault(row.id, (not held_place, -row.priority, row.generation))

    def leave(self, shadow_id: str) -> None:
        """Give the place back, or stop waiting for one."""
        self._working.discard(shadow_id)
        self._waiting.pop(shadow_id, None)

    def set_priority(self, shadow_id: str, priority: int) -> None:
        """Move a build that waits."""
        rank = self._waiting.get(shadow_id)
        if rank is not None:
            self._waiting[shadow_id] = (rank[0], -priority, rank[2])

    def next(self) -> str | None:
        """Give the first of those that wait a place; None when no place is free, or no build waits."""
        if not self._waiting or len(self._working) >= self.places:
            return None
        first = min(self._waiting, key=self._waiting.__getitem__)
        del self._waiting[first]
        self._working.add(first)
        return first

    def waiting(self) -> list[str]:
        """The builds that wait, in the order in which they get a place."""
        return [shadow_id for _, shadow_id in sorted((rank, one) for one, rank in list(self._waiting.items()))]

    def position(self, shadow_id: str) -> int | None:
        """1 for the next build that gets a place; None for one that does not wait."""
        waiting = self.waiting() if shadow_id in self._waiting else []
        return waiting.index(shadow_id) + 1 if shadow_id in waiting else None


def held_place(row: ShadowRow) -> bool:
    """Did the build work when the engine stopped?"""
    return row.state == ShadowState.BUILDING and row.phase not in (Phase.QUEUED, Phase.PAUSED)
