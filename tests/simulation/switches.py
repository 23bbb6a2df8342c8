"""The invariants of builds and switches, judged from outside as in `oracle`."""

from __future__ import annotations

from typing import Any

from shadowswitch import Engine
from shadowswitch.actors.switch.live_index import LiveIndex
from shadowswitch.storage.catalog.rows import GenerationRow, IndexRow, ShadowRow
from tests.simulation.ops import Op
from tests.simulation.oracle import Oracle
from tests.support import inside

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
        self.unclaimed: list[tuple[int, float]] = []
        """Generations that a commit made live and that no answer has named yet, with the time of the commit."""
        self._unpointed: set[tuple[int, str]] = set()
        """Indexes whose live generation a commit changed, before the live pointer moved."""
        self._floors: dict[tuple[int, str], int] = {}
        self._exposed: set[int] = set()
        """Generations that were live once: a reader may hold them."""
        self._ahead: set[int] = set()
        """Generations that may show more than the live one, because the live one did not catch up in time."""
        self._lagged: set[int] = set()
        """Generations that did not catch up in time at the last try."""
        self._seen_lsn = 0
        """The newest LSN of any answered read."""
        self.engine: Engine | None = None
        """The open engine."""
        self._rows: list[Any] = []
        self._heads: dict[tuple[int, str, int], int] = {}
        """The head of a branch at the place in a transaction where a switch made its row."""

    def begun(self) -> None:
        super().begun()
        self._check_pointers("at the next transaction")
        self._rows.clear()

    def put(self, row: Any) -> None:
        """A row of a shadow, generation or index is stored (or a generation is deleted: its number)."""
        self._rows.append(row)
        if isinstance(row, IndexRow):
            self._heads[row.branch, row.index_type, row.epoch] = self._head_inside(row.branch)

    def pointed(self, index: LiveIndex, before: Any) -> None:
        key, live = (index.branch, index.index_type), index.live
        number = live.row.number if live is not None else 0
        self.world.note("the pointer of epoch %d leads to generation %d", index.epoch, number)
        self.counts["pointer moved"] += 1
        row = self.indexes.get(key)
        if row is None or (row.live, row.epoch) != (number, index.epoch):
            self.fail(
                "IX-1", f"the pointer leads to generation {number} of epoch {index.epoch}; the catalog says {row}"
            )
            return
        in_turn = key in self._unpointed
        self._unpointed.discard(key)
        head = self.branches[index.branch].last_lsn
        if live is None:
            return
        if index.read_floor_lsn < head:
            self.fail("SW-2", f"the read floor is LSN {index.read_floor_lsn}, the head {head}, when the pointer moves")
        if in_turn and live.applied_lsn < head:
            self.fail("SW-2", f"the pointer leads to LSN {live.applied_lsn}, the switch was committed at {head}")
        if in_turn and before is not None and live.applied_lsn < before.applied_lsn:
            self.fail("SW-2", f"the pointer leads back in time, from LSN {before.applied_lsn} to {live.applied_lsn}")

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
        self._unpointed.add(key)
        self._exposed.add(row.live)
        if row.live:
            self.unclaimed.append((row.live, self.world.now))
            head = self._heads[row.branch, row.index_type, row.epoch]
            if row.sealed_lsn != head:
                self.fail("SW-3", f"the commit LSN of the switch is {row.sealed_lsn}, the branch is at {head}")
            self._prove(row)

    def _prove(self, row: IndexRow) -> None:
        """The generation that a commit made live equals its source, as of that commit."""
        assert self.engine is not None
        writer = inside.generation(self.engine, row.live).writer
        head, source = inside.catalog(self.engine).source_digest(row.branch, set(writer.types))
        if writer.applied_lsn < head:
            self.fail(
                "SW-3", f"generation {row.live} is live, has applied LSN {writer.applied_lsn}, the head is {head}"
            )
        elif writer.differing(source):
            self.fail("SW-3", f"generation {row.live} is live and differs from its source")

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

    def call(self, op: Op) -> None:
        super().call(op)
        if op.kind == "read":
            op.min_lsn = max(op.min_lsn, self._seen_lsn)

    def answer(self, op: Op) -> None:
        super().answer(op)
        result = op.result
        if op.kind == "read" and result is not None:
            self.counts["reads"] += 1
            if result.lsn < op.min_lsn:
                self.fail("SW-2", f"{op} shows LSN {result.lsn} of generation {result.generation}, not {op.min_lsn}")
            if result.later_lsn < result.lsn:
                self.fail("SW-1", f"{op} showed LSN {result.lsn}, and {result.later_lsn} later")
            if result.unlike:
                self.fail(
                    "IX-3", f"{op} found other records than the rows of generation {result.generation}: {result.unlike}"
                )
            self._seen_lsn = max(self._seen_lsn, result.lsn)
        if op.kind in ("switch", "rollback") and op.error is None and result is not None:
            self.counts[f"{op.kind}: success {result.success}"] += 1
            self.world.note("%s: %s", op.client, result.message)
            self.counts["switched back"] += result.rolled_back
            self._claim(op, result)

    def _check_pointers(self, when: str) -> None:
        for key in self._unpointed:
            self.fail("IX-1", f"the pointer of {key} was not moved in the turn of the commit; found {when}")

    def applied(self, number: int, in_time: bool) -> None:
        if in_time:
            self._lagged.discard(number)
        else:
            self._lagged.add(number)

    def look(self, engine: Engine) -> None:
        super().look(engine)
        if self._unpointed:
            if self.world.rests("shadowswitch-journal"):
                self._check_pointers("when the JournalWriter rests")
            return
        opened = inside.open_generations(engine)
        for key in self.indexes:
            index = inside.live_index(engine, *key)
            if index.read_floor_lsn < self._floors.get(key, 0):
                self.fail("SW-2", f"the read floor fell from {self._floors[key]} to {index.read_floor_lsn}")
            self._floors[key] = index.read_floor_lsn
            live = index.live
            for number in self._exposed & opened.keys():
                other = opened[number]
                if live is None or other is live or (other.row.branch, other.row.index_type) != key:
                    continue
                if other.applied_lsn <= live.applied_lsn:
                    self._ahead.discard(number)
                elif live.row.number in self._lagged:
                    self._ahead.add(number)
                elif number not in self._ahead:
                    self.fail(
                        "SW-2",
                        f"generation {number}, which readers may hold, is at LSN {other.applied_lsn}; the live one is "
                        f"at {live.applied_lsn}",
                    )

    def _claim(self, op: Op, result: Any) -> None:
        """The answer agrees with the commits: the named generation was made live, or was not."""
        since = op.called if not result.success else 0.0
        made = [one for one in self.unclaimed if one[0] == result.generation and one[1] >= since]
        if result.success and not made:
            self.fail("SW-4", f"{op} says that it made generation {result.generation} live, and it did not")
        elif result.success:
            self.unclaimed.remove(made[-1])
        elif made and result.verification_passed and not self._others(op):
            self.fail("SW-4", f"{op} says that nothing was switched, and generation {result.generation} was made live")

    def _others(self, op: Op) -> list[Op]:
        """Other switches and rollbacks that were under way during this one."""
        kinds = ("switch", "rollback")
        return [o for o in self.ops if o is not op and o.kind in kinds and not (o.over and o.ended < op.called)]

    def died(self) -> None:
        self._unpointed.clear()
        self._floors.clear()
        self._lagged.clear()
        self._rows.clear()
        super().died()
