"""What readers of the host may see of an index. A `LiveIndex` for each branch and index type decides, by these rules:

    SW-1   A reader sees one complete generation: it pins the live one, looks at the pointer again, reads from no other.
    SW-2   `read_floor_lsn` never falls. A reader is given a generation that shows at least that much. A generation
           that readers may still hold (an exposed one) is not brought ahead of the live one.
    SW-4   The live pointer moves by the epoch of a committed switch, and never back.
    IX-1   The pointer agrees with the catalog: it moves in the turn of the JournalWriter in which the catalog's moved.

The proof of SW-2 for a switch: in the JournalWriter's turn the head of the branch does not move. The target has applied
everything up to the head, Z, before the commit. No generation can have applied more than Z. So a reader that comes
after the pointer moved sees at least as much as any reader before it, and `read_floor_lsn` becomes Z.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Collection, Iterator

from shadowswitch.actors.kit.changes import StateChanges
from shadowswitch.actors.switch.open_generations import OpenGenerations
from shadowswitch.model.errors import EngineClosed, Timeout
from shadowswitch.storage.catalog.environment import Catalog
from shadowswitch.storage.catalog.rows import IndexRow
from shadowswitch.storage.clock import Clock
from shadowswitch.storage.generations.generation import Generation

logger = logging.getLogger("shadowswitch")

POLL_S = 0.5
"""How soon a thread that waits for the switch lock learns that the engine closes."""
LIVE_S = 1.0
"""How long a switch or a validation waits, in all, for a live generation that does not come on: it may be left because
it is slow or broken."""


class LiveIndex:
    """The live pointer of one index, and what bounds its readers and followers. Any thread."""

    def __init__(self, branch: int, index_type: str, clock: Clock, changes: StateChanges) -> None:
        self.branch = branch
        self.index_type = index_type
        self.live: Generation | None = None
        """THE IN-MEMORY POINTER: the generation that new readers get. Reading it needs no lock."""
        self.epoch = 0
        self.read_floor_lsn = 0
        """No reader is given less: the head of the branch at the start of the engine, or the commit LSN of a switch."""
        self._clock = clock
        self._changes = changes
        self._exposed: set[int] = set()
        self._pointer_lock = threading.Lock()
        self._switch_lock = threading.Lock()

    # -- the pointer -----------------------------------------------------------------------------------------------

    def agree(self, catalog: Catalog, generations: OpenGenerations, row: IndexRow | None) -> bool:
        """Move the pointer if the catalog's has moved; True if so. On the JournalWriter's thread, behind a commit.

        `row` is what the commit stored; None: unknown, the catalog is read.
        """
        row = row or catalog.index(self.branch, self.index_type)
        if row is None or row.epoch <= self.epoch:
            return False
        self.set_live(generations.get(row.live), row.epoch, row.sealed_lsn)
        return True

    def set_live(self, generation: Generation | None, epoch: int, floor_lsn: int) -> None:
        """Move the pointer as the switch of that epoch moved the catalog's (None: the index has no generation now).

        On the JournalWriter's thread; at the start of an engine before any actor reads.
        """
        with self._pointer_lock:
            assert epoch >= self.epoch, f"SW-4 epoch {epoch} of {self.index_type} comes after {self.epoch}"
            left, self.live, self.epoch = self.live, generation, epoch
            if generation is not None:
                self._exposed.add(generation.row.number)
                self.read_floor_lsn = max(self.read_floor_lsn, floor_lsn)
        for moved in (left, generation):
            if moved is not None:
                moved.advanced()

    def expose(self, number: int) -> None:
        """Readers of any process may hold this generation: it is live or soaking by the catalog."""
        with self._pointer_lock:
            self._exposed.add(number)

    def is_exposed(self, generation: Generation) -> bool:
        """May a reader hold the generation, of this process or of another?"""
        return generation.row.number in self._exposed

    # -- readers ---------------------------------------------------------------------------------------------------

    def pin(self, min_lsn: int, timeout_s: float) -> Generation | None:
        """The live generation, pinned, once it shows `min_lsn` and the read floor; None if the index has none.

        A reader that waits goes along when the pointer moves. Raises Timeout, or EngineClosed.
        """
        deadline = self._clock.monotonic() + timeout_s
        while True:
            live = self.live
            if live is None:
                return None
            if not live.pin():
                if self._changes.closing or self.live is live:
                    raise EngineClosed("the engine is closed", operation="read", hint="open it again")
                continue
            try:
                if self.live is live and self._wait_for(live, min_lsn, deadline):
                    return live
            except BaseException:
                live.unpin()
                raise
            live.unpin()

    def _wait_for(self, live: Generation, min_lsn: int, deadline: float) -> bool:
        """True once it shows enough; False when the pointer moved meanwhile."""
        least = max(min_lsn, self._floor_of(live))
        return live.applied_lsn >= least or live.wait_applied(least, deadline, lambda: self.live is not live)

    def shows(self, min_lsn: int) -> bool:
        """Can a reader with this bound be served at once?"""
        live = self.live
        return live is not None and live.applied_lsn >= max(min_lsn, self._floor_of(live))

    def _floor_of(self, live: Generation) -> int:
        """An index in an unknown format does not follow the journal: it shows what its builder delivered."""
        return 0 if live.row.opaque else self.read_floor_lsn

    # -- followers -------------------------------------------------------------------------------------------------

    def follow_limit(self, generation: Generation, head: int) -> int:
        """How far a follower may bring a generation on (SW-2). Asked under the generation's lock."""
        live = self.live
        if live is None or live is generation or not self.is_exposed(generation):
            return head
        return min(head, live.applied_lsn)

    def catch_up(self, generation: Generation, upto: int, deadline: float, live_until: float) -> int:
        """Apply up to an LSN, under the switch lock; an exposed generation brings the live one on first (SW-2).

        Returns the number of changes; raises as `GenerationWriter.apply_until`. A live generation that is left because
        it is broken is not waited for beyond `live_until` (monotonic). A reader that has kept `generation` open since
        an earlier switch may then see more in it than new readers do.
        """
        live = self.live
        if live is not None and self.is_exposed(generation) and self._comes_first(live, generation, live_until):
            try:
                live.writer.apply_until(upto, live_until)
                live.advanced()
            except Exception as error:  # whatever it is, it may be the reason for the switch
                logger.warning("generation %d stands still: %s", live.row.number, error)
        return generation.writer.apply_until(upto, deadline)

    def _comes_first(self, live: Generation, generation: Generation, live_until: float) -> bool:
        """Past `live_until` a live generation that was left behind is not tried again: one slice may take long."""
        if live is generation or live.row.opaque:
            return False
        return live.applied_lsn >= generation.applied_lsn or self._clock.monotonic() <= live_until

    # -- one switch at a time --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def switch_lock(self, timeout_s: float) -> Iterator[None]:
        """Meanwhile no other switch of the index is attempted. Raises Timeout or EngineClosed."""
        until = self._clock.monotonic() + timeout_s
        while not self._switch_lock.acquire(timeout=max(0.0, min(POLL_S, until - self._clock.monotonic()))):
            if self._changes.closing:
                raise EngineClosed("the engine is closed", operation="switch", hint="open it again")
            if self._clock.monotonic() >= until:
                raise Timeout(
                    f"another switch of {self.index_type} took longer than {timeout_s:g} s",
                    operation="switch",
                    hint="try again",
                )
        try:
            yield
        finally:
            self._switch_lock.release()


class LiveIndexes:
    """Every LiveIndex of an engine, made when it is first asked for. Any thread."""

    def __init__(self, clock: Clock, changes: StateChanges) -> None:
        self._clock = clock
        self._changes = changes
        self._indexes: dict[tuple[int, str], LiveIndex] = {}
        self._lock = threading.Lock()
        self.together = threading.Lock()
        """Held while the pointers of a group move, and while several are looked at: none is seen half moved."""

    def of(self, branch: int, index_type: str) -> LiveIndex:
        """The LiveIndex of a branch and an index type."""
        found = self._indexes.get((branch, index_type))
        if found is None:
            with self._lock:
                made = LiveIndex(branch, index_type, self._clock, self._changes)
                found = self._indexes.setdefault((branch, index_type), made)
        return found

    def of_generation(self, generation: Generation) -> LiveIndex:
        """The LiveIndex that a generation belongs to."""
        return self.of(generation.row.branch, generation.row.index_type)

    def of_branch(self, branch: int) -> list[LiveIndex]:
        """The LiveIndexes of a branch that there are."""
        return [index for (number, _), index in list(self._indexes.items()) if number == branch]

    def forget(self, branch: int) -> None:
        """The branch was dropped, and nothing of it is left."""
        with self._lock:
            for key in [key for key in self._indexes if key[0] == branch]:
                del self._indexes[key]

    def served(self) -> list[tuple[int, str]]:
        """Branch and type of each index that has a live generation. Reads no row."""
        return [key for key, index in list(self._indexes.items()) if index.live is not None]

    def without(self, unsound: Collection[int]) -> list[tuple[int, str]]:
        """Branch and type of each index that has no live generation, or one of the `unsound`. Reads no row."""
        return [
            key
            for key, index in list(self._indexes.items())
            if (live := index.live) is None or live.row.number in unsound
        ]

    def live(self, branch: int, index_type: str) -> Generation | None:
        """The generation that new readers of an index get. A dict lookup; makes nothing."""
        found = self._indexes.get((branch, index_type))
        return found.live if found is not None else None
