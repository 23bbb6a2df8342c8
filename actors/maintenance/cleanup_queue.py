"""The CleanupQueue: the rows of the catalog that need the Janitor, by the time at which they are due.

At the start it reads every row of a generation, and of a shadow that is not at rest; from then on only the rows that
transactions have touched. A row at rest leaves the queue. So a round costs as much as there is work, whatever the
number of branches.
"""

from __future__ import annotations

from shadowswitch.actors.maintenance.long_journals import LongJournals
from shadowswitch.model.shadow_state import ENDED, ShadowState
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.rows import DROPPING, GenerationRow, ShadowRow
from shadowswitch.storage.catalog.source.fork_table import parents_of_forks
from shadowswitch.storage.catalog.source.shadow_table import ShadowTable
from shadowswitch.storage.clock import Moment

S = ShadowState


class CleanupQueue:
    """On the thread of the Janitor."""

    def __init__(self, catalog: Catalog, shadows: ShadowTable, journals: LongJournals) -> None:
        """`journals` is informed of the branches that were written to; at the start, of all."""
        self._catalog = catalog
        self.journals = journals
        self.soak_ends: dict[int, Moment] = {}
        """Soaking generations, with the end of the soak."""
        self.retired: set[int] = set()
        """Generations that are marked for removal."""
        self.failed_at: dict[str, Moment] = {}
        """Failed shadows with kept files, with the moment of the failure."""
        self.switches: set[str] = set()
        """Shadows that are SWITCHING."""
        self.external: set[str] = set()
        """Builds under way in another process."""
        self.grown: set[int] = set()
        """Branches that were written to since `take_grown`; at the start, all."""
        self.ended: dict[str, Moment | None] = {}
        """Ended shadows whose files are gone, with the moment of that (None: not known), the oldest first."""
        self.dropped: set[int] = set()
        """Branches that were dropped and are not removed yet."""
        self.written: set[int] = set()
        """Branches that were written to since the Janitor looked; trimmed ones are among them."""
        self.parents: dict[int, bytes] = {}
        """Branches that may have old images which no fork shows, each with the place up to which these were looked at.

        At the start, every branch that keeps old images."""
        self._generations: dict[int, set[int]] = {}
        catalog.dirty.take()
        self.ended |= shadows.at_rest()
        for shadow in shadows.standing():
            self._shadow(shadow)
        self.ended = dict(sorted(self.ended.items(), key=lambda item: item[1].at if item[1] is not None else 0.0))
        for row in catalog.generations():
            self._generation(row)
        stored = catalog.stored_branches()
        self.dropped |= {row.number for row in stored if row.state == DROPPING}
        self._branches({row.number for row in stored})
        self.parents |= dict.fromkeys(parents_of_forks(catalog), b"")

    def look(self) -> None:
        """Read the rows that were touched since the last call."""
        changed = self._catalog.dirty.take()
        self.dropped |= changed.dropped
        self.parents |= dict.fromkeys(changed.parents, b"")
        for shadow_id in changed.shadows:
            shadow = self._catalog.find_shadow(shadow_id)
            if shadow is not None:
                self._shadow(shadow)
            else:
                self._forget(shadow_id)
        for number in changed.generations:
            self.soak_ends.pop(number, None)
            self.retired.discard(number)
            row = self._catalog.generation(number)
            if row is not None:
                self._generation(row)
        self._branches(changed.branches)
        self.written |= changed.branches - self.dropped

    def _shadow(self, row: ShadowRow) -> None:
        for ids, is_so in (
            (self.switches, row.state == S.SWITCHING),
            (self.external, row.external and row.state in (S.PREPARING, S.BUILDING)),
        ):
            if is_so:
                ids.add(row.id)
            else:
                ids.discard(row.id)
        self.ended.pop(row.id, None)
        if row.state in ENDED and (row.ended_at is not None or self._catalog.generation(row.generation) is None):
            self.ended[row.id] = row.ended_at
        self.failed_at.pop(row.id, None)
        if row.state == S.FAILED and row.failed_at is not None:
            self.failed_at[row.id] = row.failed_at

    def _forget(self, shadow_id: str) -> None:
        self.switches.discard(shadow_id)
        self.external.discard(shadow_id)
        self.failed_at.pop(shadow_id, None)
        self.ended.pop(shadow_id, None)

    def _generation(self, row: GenerationRow) -> None:
        if row.role == "retiring":
            self.retired.add(row.number)
        elif row.role == "soaking" and row.soak_ends is not None:
            self.soak_ends[row.number] = row.soak_ends
        self._generations.setdefault(row.branch, set()).add(row.number)
        self.journals.written([row.branch])

    def _branches(self, numbers: set[int]) -> None:
        numbers = numbers - self.dropped
        self.journals.written(numbers)
        self.grown |= numbers
        for number in self.dropped:
            self.journals.forget(number)

    def take_grown(self) -> set[int]:
        """The branches that were written to since the last call."""
        taken, self.grown = self.grown, set()
        return taken

    def generations_of(self, branch: int) -> list[GenerationRow]:
        """The generations of a branch at this moment."""
        found = {number: self._catalog.generation(number) for number in self._generations.get(branch, ())}
        self._generations[branch] = {number for number, row in found.items() if row is not None}
        return [row for row in found.values() if row is not None]

    def removed(self, branch: int) -> None:
        """The last row of a dropped branch was removed."""
        self.dropped.discard(branch)
        self._generations.pop(branch, None)
