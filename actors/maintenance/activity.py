"""The ActivityLog: notes in which slots of time branches were written to. On the thread of the Janitor.

A round learns of the branches that transactions have touched; a head that moved is a write. A slot is stored once it is
over, so a branch costs at most one small put in five minutes, however often it is written to.
"""

from __future__ import annotations

from functools import partial

from shadowswitch.actors.context import EngineContext
from shadowswitch.storage.activity import note_activity, slot_of

BRANCHES_A_TRANSACTION = 300


class ActivityLog:
    """The slots that are not stored yet."""

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._heads: dict[int, int] = {}
        self._active: dict[int, set[int]] = {}
        self._slot = slot_of(context.clock.wall())

    def look(self, written: set[int]) -> None:
        """These branches were touched since the last round; store the slots that are over."""
        for branch in written:
            head = self._context.catalog.head(branch)[0]
            if head != self._heads.get(branch, 0):
                self._heads[branch] = head
                self._active.setdefault(branch, set()).add(self._slot)
        slot = slot_of(self._context.clock.wall())
        if slot == self._slot:
            return
        self._slot = slot
        while self._active:
            part = {branch: self._active[branch] for branch in list(self._active)[:BRANCHES_A_TRANSACTION]}
            self._context.transact(partial(note_activity, active=part), "note activity")
            for branch in part:
                del self._active[branch]
