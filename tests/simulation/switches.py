"""What must be so of builds and switches, judged from outside: see `oracle` for how."""

from __future__ import annotations

from typing import Any

from shadowswitch.storage.catalog.rows import GenerationRow, IndexRow, ShadowRow
from tests.simulation.ops import Op
from tests.simulation.oracle import Oracle

SHADOW_MOVES = {
    ("PREPARING", "BUILDING"), ("PREPARING", "FAILED"), ("PREPARING", "CANCELLED"), ("BUILDING", "BUILT"),
    ("BUILDING", "FAILED"), ("BUILDING", "CANCELLED"), ("BUILT", "SWITCHING"), ("BUILT", "FAILED"),
    ("BUILT", "CANCELLED"), ("SWITCHING", "ACTIVE"), ("SWITCHING", "BUILT"), ("SWITCHING", "FAILED"),
    ("ACTIVE", "CLEANUP"), ("FAILED", "PREPARING"), ("FAILED", "CANCELLED"),
}  # fmt: skip
UNDER_WAY = {"PREPARING", "BUILDING", "BUILT", "SWITCHING"}
ROLES = {
    "PREPARING": {"building"}, "BUILDING": {"building"}, "FAILED": {"building", "retiring"}, "BUILT": {"standby"},
    "SWITCHING": {"standby"}, "ACTIVE": {"live", "soaking"}, "CLEANUP": {"retiring"}, "CANCELLED": {"retiring"},
}  # fmt: skip


class Switches(Oracle):
    """An oracle that also knows builds and switches."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.shadows: dict[str, ShadowRow] = {}
        self.generations: dict[int, GenerationRow] = {}
        self.indexes: dict[tuple[int, str], IndexRow] = {}
        self.unclaimed: list[int] = []
        """Generations that a commit made live, and that no caller was told of yet."""
        self._rows: list[Any] = []
        self._heads: dict[tuple[int, str, int], int] = {}
        """The head of a branch at the place in a transaction where a switch made its row."""

    def begun(self) -> None:
        super().begun()
        self._rows.clear()

    def put(self, row: Any) -> None:
        """A row of a shadow, generation or index (or the number of a generation that is forgotten) is stored."""
        self._rows.append(row)
        if isinstance(row, IndexRow):
            self._heads[row.branch, row.index_type, row.epoch] = self._head_inside(row.branch)

    def pointed(self, branch: int, index_type: str, before: Any, after: Any) -> None:
        index = self.indexes.get((branch, index_type))
        if after is None or after is before or index is None or index.live != after.row.number:
            return
        self.world.note("readers are led to generation %d", after.row.number)
        self.counts["readers led over"] += 1
        shown = max(after.applied_lsn, after.ready_lsn)
        if shown < index.sealed_lsn:
            self.fail("SW-2", f"readers are led to LSN {shown}, the switch was sealed at {index.sealed_lsn}")
        if before is not None and shown < before.applied_lsn:
            self.fail("SW-2", f"readers are led back in time, from LSN {before.applied_lsn} to {shown}")

    def _head_inside(self, number: int) -> int:
        """The head of a branch as of this place in the present transaction."""
        written = [more for _, branch, (what, more) in self._inside if branch == number and isinstance(more, int)]
        return written[-1] if written else self.branches[number].last_lsn

    def committed(self) -> None:
        super().committed()
        stored, self._rows = self._rows, []
        for row in stored:
            if isinstance(row, ShadowRow):
                self._shadow(row)
            elif isinstance(row, GenerationRow):
                self.generations[row.number] = row
            elif isinstance(row, IndexRow):
                self._index(row)
            else:
                del self.generations[row]
        if stored:
            self._check_all()

    def _shadow(self, row: ShadowRow) -> None:
        before = self.shadows.get(row.id)
        self.shadows[row.id] = row
        if before is None or before.state == row.state:
            return
        self.world.note("commit: shadow %s is %s", row.id[-4:], row.state)
        self.counts[f"shadow {row.state}"] += 1
        if (str(before.state), str(row.state)) not in SHADOW_MOVES:
            self.fail("IX-6", f"shadow {row.id} went from {before.state} to {row.state}")
        if row.token < before.token:
            self.fail("SW-4", f"the token of shadow {row.id} went from {before.token} to {row.token}")

    def _index(self, row: IndexRow) -> None:
        key = (row.branch, row.index_type)
        before = self.indexes.get(key)
        self.indexes[key] = row
        epoch, live = (before.epoch, before.live) if before is not None else (0, 0)
        if row.live == live:
            return
        self.world.note("commit: generation %d is live at LSN %d, epoch %d", row.live, row.sealed_lsn, row.epoch)
        self.counts["switches"] += 1
        if row.epoch != epoch + 1:
            self.fail("SW-4", f"epoch {row.epoch} follows {epoch}")
        if row.live:
            self.unclaimed.append(row.live)
            head = self._heads[row.branch, row.index_type, row.epoch]
            if row.sealed_lsn != head:
                self.fail("SW-3", f"the switch was sealed at LSN {row.sealed_lsn}, the branch is at {head}")

    def _check_all(self) -> None:
        for key, index in self.indexes.items():
            mine = [row for row in self.generations.values() if (row.branch, row.index_type) == key]
            live = [row.number for row in mine if row.role == "live"]
            soaking = [row.number for row in mine if row.role == "soaking"]
            if live != [index.live] * bool(index.live) or soaking not in ([], [index.previous]):
                self.fail("IX-1", f"live {live}, soaking {soaking}; the index says {index.live} and {index.previous}")
        claims = [(row.branch, row.index_type) for row in self.shadows.values() if row.state in UNDER_WAY]
        if len(set(claims)) < len(claims):
            self.fail("IX-6", f"two builds of one index are under way: {claims}")
        for shadow in self.shadows.values():
            generation = self.generations.get(shadow.generation)
            if generation is not None and generation.role not in ROLES[shadow.state]:
                self.fail("IX-6", f"shadow {shadow.id} is {shadow.state}, its generation {generation.role}")

    def answer(self, op: Op) -> None:
        super().answer(op)
        result = op.result
        if op.kind in ("switch", "rollback") and op.error is None and result is not None:
            self.counts[f"{op.kind}: success {result.success}"] += 1
            self.world.note("%s: %s", op.client, result.message)
            if result.success and result.generation not in self.unclaimed:
                self.fail("SW-4", f"{op} says that it made generation {result.generation} live, and it did not")
            elif result.success:
                self.unclaimed.remove(result.generation)

    def died(self) -> None:
        self._rows.clear()
        super().died()
