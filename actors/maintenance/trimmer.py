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
from shadowswitch.storage.catalog import retention
from shadowswitch.storage.catalog.inbox import ReceivedNumbers, count_received, forget_received
from shadowswitch.storage.catalog.journal import journal_begin
from shadowswitch.storage.catalog.outbox import trim_events
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.failpoints import failpoint

logger = logging.getLogger("shadowswitch")

TRIM_SLICE = 200
"""Journal entries that one transaction removes: a few milliseconds of the JournalWriter."""
TRIM_SLICES_A_ROUND = 100


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
        self._received = ReceivedNumbers(context.catalog)

    @property
    def is_paused(self) -> bool:
        """Is a switch about to commit? Then nothing is removed."""
        return self._pause.is_on

    def trim_journals(self, queue: CleanupQueue) -> None:
        """Remove journal entries that no generation needs. The newest of each branch stay for `changes()` (ST-6)."""
        slices = TRIM_SLICES_A_ROUND
        for branch in sorted(queue.long_journals):
            durable, needed = self._needed(branch, queue)
            head = self._catalog.head(branch)[0]
            below = min(needed, head - self._config.journal_keep_changes) + 1
            if not self._trimmable(branch, below):
                continue
            self._transact(partial(retention.note_durable, durable=durable), "note durable")
            failpoint("trim.noted")
            removed = 1
            while removed and slices > 0 and not self._pause.is_on and self._trimmable(branch, below):
                removed = self._transact(partial(_trim_slice, branch, below), "trim")
                failpoint("trim.slice")
                slices -= 1
                self._metrics.count("journal_trimmed", removed)
            queue.trimmed(branch)
            if slices <= 0:
                return

    def _trimmable(self, branch: int, below: int) -> bool:
        """Is the number of changes below that LSN worth a transaction?"""
        with self._catalog.read() as txn:
            begin = journal_begin(self._catalog, txn, branch)
        return begin is not None and below - begin >= TRIM_SLICE

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

    def give_up_holds(self) -> None:
        """Bound the journal that a hold keeps: its subscriber may never come back."""
        most = self._config.hold_changes_max
        late = {
            row.branch
            for row in retention.holds(self._catalog)
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
            oldest, newest = self._catalog.span(database)
            for _ in range(TRIM_SLICES_A_ROUND):
                if newest - oldest < keep or self._pause.is_on:
                    break
                oldest += self._transact(partial(_trim_events, database, keep), "trim events")
                failpoint("trim.events")
        if count_received(self._catalog) > self._config.received_keep:
            surplus = self._received.surplus(self._config.received_keep, TRIM_SLICE)
            if surplus:
                self._transact(partial(forget_received, numbers=surplus), "forget events")
                self._received.forget(surplus)


def _trim_events(database: str, keep: int, commit: Commit) -> int:
    return trim_events(commit, database, keep, TRIM_SLICE)


def _trim_slice(branch: int, below: int, commit: Commit) -> int:
    held = retention.held_from(commit, branch)  # read again in this transaction: a hold may have come since
    if held is not None:
        below = min(below, held + 1)
    return retention.trim_journal(commit, branch, below, TRIM_SLICE)
