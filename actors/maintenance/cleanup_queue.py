"""What the Janitor has to look at: rows that are not at rest, by when they are due. Never a walk over everything.

Everything is looked at once, at the start; from then on only what transactions have touched. A chore is forgotten when
its row is at rest again, so a round costs what there is to do, whatever the number of branches.
"""

from __future__ import annotations

from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.journal import journal_begin
from shadowswitch.storage.catalog.rows import GenerationRow, ShadowRow

S = ShadowState


class CleanupQueue:
    """The Janitor's list. On its thread."""

    def __init__(self, catalog: Catalog, keep_changes: int, slice_changes: int) -> None:
        self._catalog = catalog
        self._keep = keep_changes
        self._slice = slice_changes
        self.soaking: dict[int, float] = {}
        """Generations, with the (wall) time at which their soak ends."""
        self.retiring: set[int] = set()
        self.failed: dict[str, float] = {}
        """Failed shadows whose files are kept, with the (wall) time of their failure."""
        self.switching: set[str] = set()
        self.external: set[str] = set()
        """Builds that somebody else is at work on."""
        self.long: set[int] = set()
        """Branches with more journal than is kept for `changes()`."""
        self._following: dict[int, set[int]] = {}
        catalog.touched.take()
        for shadow in catalog.shadows():
            self._shadow(shadow)
        for row in catalog.generations():
            self._generation(row)
        self._branches({row.number for row in catalog.branches()})

    def look(self) -> None:
        """Take in what was touched since the last call."""
        changed = self._catalog.touched.take()
        for shadow_id in changed.shadows:
            shadow = self._catalog.find_shadow(shadow_id)
            if shadow is not None:
                self._shadow(shadow)
        for number in changed.generations:
            self.soaking.pop(number, None)
            self.retiring.discard(number)
            row = self._catalog.generation(number)
            if row is not None:
                self._generation(row)
        self._branches(changed.branches)

    def _shadow(self, row: ShadowRow) -> None:
        for ids, is_so in (
            (self.switching, row.state == S.SWITCHING),
            (self.external, row.external and row.state in (S.PREPARING, S.BUILDING)),
        ):
            if is_so:
                ids.add(row.id)
            else:
                ids.discard(row.id)
        self.failed.pop(row.id, None)
        if row.state == S.FAILED:
            self.failed[row.id] = row.completed_at or 0.0

    def _generation(self, row: GenerationRow) -> None:
        if row.role == "retiring":
            self.retiring.add(row.number)
        elif row.role == "soaking" and row.soak_until is not None:
            self.soaking[row.number] = row.soak_until
        self._following.setdefault(row.branch, set()).add(row.number)

    def _branches(self, numbers: set[int]) -> None:
        """Remember those whose journal is long enough to be worth a transaction, if nobody holds it back."""
        if not numbers:
            return
        with self._catalog.read() as txn:
            for number in numbers:
                head, _ = self._catalog.head_in(txn, number)
                begin = journal_begin(self._catalog, txn, number)
                if begin is not None and head - self._keep + 1 - begin >= self._slice:
                    self.long.add(number)
                else:
                    self.long.discard(number)

    def following(self, branch: int) -> list[GenerationRow]:
        """The generations of a branch, as of now."""
        found = {number: self._catalog.generation(number) for number in self._following.get(branch, ())}
        self._following[branch] = {number for number, row in found.items() if row is not None}
        return [row for row in found.values() if row is not None]

    def trimmed(self, branch: int) -> None:
        """Some of a branch's journal was removed."""
        self._branches({branch})
