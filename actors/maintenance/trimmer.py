"""The Trimmer: bounds the journal, the outbox, the audit history and the memory of received events.

Each transaction removes one slice, so a write waits behind few milliseconds of removal. While a switch is about to
commit, the Trimmer stops.
"""

from __future__ import annotations

import logging
from functools import partial

from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.kit.heads import Heads
from shadowswitch.actors.maintenance.cleanup_queue import CleanupQueue
from shadowswitch.actors.maintenance.follower_pool import FollowerPause
from shadowswitch.actors.switch.open_generations import OpenGenerations
from shadowswitch.storage.catalog import retention, transitions
from shadowswitch.storage.catalog.inbox import ReceivedNumbers, count_received, forget_received
from shadowswitch.storage.catalog.journal import journal_begin
from shadowswitch.storage.catalog.outbox import kept_events, trim_events
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.failpoints import failpoint

logger = logging.getLogger("shadowswitch")

TRIM_SLICE = 200
"""Journal entries that one transaction removes: a few milliseconds of the JournalWriter."""
TRIM_SLICE_MAX = 20_000
"""Beside writers of large batches: their transactions take longer than the removal of so many."""
TRIM_BRANCHES, TRIM_LEAST = 20, 10
"""Branches that share a transaction, and the chunks that each of them may lose in it at least."""
UNDO_SLICE_S = 0.002
"""A slice of old images ends after so long: the writers wait behind it."""
TRIM_SLICES_A_ROUND = 100
TRIM_ROUND_S = 1.0


class Trimmer:
    """On the thread of the Janitor."""

    def __init__(
        self, context: EngineContext, heads: Heads, generations: OpenGenerations, pause: FollowerPause
    ) -> None:
        self._config = context.config
        self._catalog = context.catalog
        self._metrics = context.metrics
        self._transact = context.transact
        self._heads = heads
        self._generations = generations
        self._pause = pause
        self._clock = context.clock
        self._last_lsn = context.catalog.last_lsn()
        self._received = ReceivedNumbers(context.catalog)

    @property
    def is_paused(self) -> bool:
        """Is a switch about to commit? Then nothing is removed."""
        return self._pause.is_on

    def trim_journals(self, queue: CleanupQueue) -> None:
        """Remove journal entries that no generation needs. The newest of each branch stay for `changes()` (ST-6).

        One slice of one branch after the other. A round ends after its time, so that the others have theirs.
        """
        journals = queue.journals
        journals.look()
        ends = self._clock.monotonic() + TRIM_ROUND_S
        bounds: dict[int, int] = {}
        for _ in range(TRIM_SLICES_A_ROUND):
            if self._pause.is_on or self._clock.monotonic() > ends:
                return
            taken = journals.next(TRIM_BRANCHES)
            if not taken:
                return
            try:
                self._trim(taken, queue, bounds)
            except BaseException:
                for branch in taken:
                    journals.wait(branch)
                raise

    def _trim(self, branches: list[int], queue: CleanupQueue, bounds: dict[int, int]) -> None:
        """One transaction. `bounds` has the first LSN that stays of each branch that was looked at in this round."""
        for branch in branches:
            if branch not in bounds:
                bounds[branch] = self._bound(branch, queue)
        chosen = [(branch, bounds[branch]) for branch in branches if queue.journals.is_worth(branch, bounds[branch])]
        if chosen:
            removed = self._transact(partial(_trim_slice, chosen, self._slice()), "trim")
            failpoint("trim.slice")
            self._metrics.count("journal_trimmed", removed)
        for branch, below in chosen:
            queue.journals.trimmed(branch, self._begin(branch) or below)
        for branch in set(branches) - dict(chosen).keys():
            queue.journals.wait(branch)

    def _bound(self, branch: int, queue: CleanupQueue) -> int:
        """The first LSN of a branch that stays; what was durable until then is noted."""
        durable, needed = self._needed(branch, queue)
        below = min(needed + 1, queue.journals.begin(branch))
        if durable and queue.journals.is_worth(branch, below):
            self._transact(partial(retention.note_durable, durable=durable), "note durable")
            failpoint("trim.noted")
        return below

    def _slice(self) -> int:
        """How many chunks the next transaction may remove: in proportion to what was written since the last one.

        So the journal shrinks beside any writers, and a single write waits for little.
        """
        last, self._last_lsn = self._last_lsn, self._catalog.last_lsn()
        return max(TRIM_SLICE, min(TRIM_SLICE_MAX, 2 * (self._last_lsn - last)))

    def _begin(self, branch: int) -> int | None:
        with self._catalog.read() as txn:
            return journal_begin(self._catalog, txn, branch)

    def _needed(self, branch: int, queue: CleanupQueue) -> tuple[dict[int, int], int]:
        """The durable LSN of each open generation of a branch, and the LSN up to which no generation or hold needs its
        journal."""
        durable: dict[int, int] = {}
        needed = self._catalog.head(branch)[0]
        queue.look()  # after the head was read: a build that was claimed since needs no change below the head
        for row in queue.generations_of(branch):
            generation = self._generations.get(row.number)
            if generation is not None and not generation.closed:
                durable[row.number] = generation.writer.durable_lsn
            if retention.keeps_journal(self._catalog, row):
                needed = min(needed, max(row.durable_lsn, durable.get(row.number, 0)))
        for hold in retention.holds(self._catalog, branch):
            if not hold.given_up:
                needed = min(needed, hold.after_lsn)
        return durable, needed

    def trim_undo(self, queue: CleanupQueue) -> None:
        """Remove old images that no fork shows any more, after a fork was dropped or moved on (BR-2, BR-3)."""
        for _ in range(TRIM_SLICES_A_ROUND):
            if self._pause.is_on or not queue.parents:
                return
            branch, after = next(iter(queue.parents.items()))
            if branch in queue.dropped:
                del queue.parents[branch]
                continue
            until = self._clock.monotonic() + UNDO_SLICE_S
            trim = partial(transitions.trim_undo, branch=branch, after=after, limit=TRIM_SLICE, until=until)
            reached: bytes | None = self._transact(trim, "trim old images")
            failpoint("trim.undo")
            if reached is None:
                del queue.parents[branch]
            else:
                queue.parents[branch] = reached

    def give_up_holds(self, queue: CleanupQueue) -> None:
        """Bound the journal that a hold keeps: its subscriber may never come back."""
        most = self._config.hold_changes_max
        late = {
            row.branch
            for row in retention.holds_of(self._catalog, queue.take_grown())
            if not row.given_up and self._heads.of(row.branch) - row.after_lsn > most
        }
        for branch in self._catalog.branches() if late else ():
            if branch.number in late:
                given_up = self._transact(partial(retention.give_up_holds, branch=branch, most=most), "give up holds")
                self._metrics.count("holds_given_up", len(given_up))

    def trim_events(self) -> None:
        """Bound the outbox and the audit history (EV-1: only the oldest go)."""
        for database, keep in (
            ("outbox", self._config.events_keep),
            ("audit", self._config.audit_keep),
        ):
            with self._catalog.read() as txn:
                excess = kept_events(self._catalog, txn, database) - keep
            for _ in range(TRIM_SLICES_A_ROUND):
                if excess <= 0 or self._pause.is_on:
                    break
                excess -= self._transact(partial(_trim_events, database, keep), "trim events")
                failpoint("trim.events")
        if count_received(self._catalog) > self._config.received_keep:
            surplus = self._received.surplus(self._config.received_keep, TRIM_SLICE)
            if surplus:
                self._transact(partial(forget_received, numbers=surplus), "forget events")
                self._received.forget(surplus)


def _trim_events(database: str, keep: int, commit: Commit) -> int:
    return trim_events(commit, database, keep, TRIM_SLICE)


def _trim_slice(bounds: list[tuple[int, int]], limit: int, commit: Commit) -> int:
    """Remove about `limit` chunks below the bounds of these branches; returns how many changes they had."""
    removed = 0
    for branch, below in bounds:
        held = retention.held_from(commit, branch)  # read again in this transaction: a hold may have come since
        if held is not None:
            below = min(below, held + 1)
        removed += retention.trim_journal(commit, branch, below, max(TRIM_LEAST, limit // len(bounds)))
    return removed
