"""The Janitor: expiry and clean-up. Deletes only what the catalog marked first, and only when nobody holds it (SW-5).

Order of every removal: mark durable, then check pins, then delete, then forget. A crash in between leaves a mark that
the next round finds.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from functools import partial

from shadowswitch.actors.branch.lifecycle import outcome_of
from shadowswitch.actors.branch.router import BranchRouter
from shadowswitch.actors.house import House
from shadowswitch.actors.kit.actor import EngineActor
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.maintenance.cleanup_queue import CleanupQueue
from shadowswitch.actors.messages import SettleBuild, Sweep, Tick, Unfollow
from shadowswitch.model.errors import ShadowSwitchError
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.storage import data_directory
from shadowswitch.storage.catalog import durability, retention, transitions
from shadowswitch.storage.catalog.inbox import count_received, trim_received
from shadowswitch.storage.catalog.journal import journal_begin
from shadowswitch.storage.catalog.outbox import trim_events
from shadowswitch.storage.catalog.rows import GenerationRow
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.failpoints import failpoint
from shadowswitch.storage.generations.generation import remove_directory

logger = logging.getLogger("shadowswitch")

TRIM_SLICE = 200
"""Journal entries removed in one transaction: a few milliseconds of the JournalWriter's time."""
TRIM_SLICES_A_ROUND = 100
READER_CHECK_S = 60.0
PUBLISH_AGAIN_S = 5.0


class Janitor(EngineActor):
    """One for each engine."""

    def __init__(self, house: House, branches: BranchRouter) -> None:
        super().__init__("shadowswitch-janitor", house.crashed)
        self._house = house
        self._branches = branches
        self._readers_checked = time.monotonic()
        self._publish_not_before = 0.0
        self._chores: CleanupQueue | None = None
        self.handles(Tick, self._tick)
        self.handles(Sweep, self._sweep)

    def _sweep(self, message: Sweep) -> None:
        if not message.reply.set_running_or_notify_cancel():
            return
        self._round()
        message.reply.set_result(None)

    def _tick(self, _: Tick) -> None:
        self._round()

    def _round(self) -> None:
        if self._house.changes.closing:
            return
        steps: list[Callable[[], None]] = [
            self._look,
            self._end_soaks,
            self._end_failed,
            self._end_silent,
            self._end_orphaned_switches,
            self._settle_tracked,
            self._publish_again,
            self._remove_retired,
            self._trim,
            self._trim_events,
            self._idle,
        ]
        for step in steps:
            if self._chores is None and step != self._look:
                return  # what there is to do could not be read
            try:
                step()
            except (ShadowSwitchError, OSError) as error:
                if not self._house.changes.closing:
                    logger.warning("clean-up did not finish: %s", error)
                    self._house.metrics.count("cleanup_errors")

    def _look(self) -> None:
        config = self._house.config
        if self._chores is None:
            self._chores = CleanupQueue(self._house.catalog, config.journal_keep_changes, TRIM_SLICE)
        self._chores.look()

    @property
    def chores(self) -> CleanupQueue:
        """What there is to do, as of the beginning of the round."""
        assert self._chores is not None, "a round begins by looking"
        return self._chores

    def _end_soaks(self) -> None:
        now = time.time()
        for number in [number for number, until in self.chores.soaking.items() if until <= now]:
            self._house.transact(partial(transitions.retire_previous, generation_number=number), "end soak")

    def _end_silent(self) -> None:
        self._house.external.fail_silent(list(self.chores.external))

    def _end_orphaned_switches(self) -> None:
        """A switch that was given up while the catalog had no room for that: the shadow is BUILT again now."""
        for shadow_id in list(self.chores.switching):
            if not self._house.switches.has(shadow_id):
                self._house.transact(partial(self._end_switch, shadow_id), "end orphaned switch")

    def _settle_tracked(self) -> None:
        """Builds whose branch becomes READY with them: tell it how those ended, also after a crash in between."""
        for number, shadows in list(self._house.locks.tracked.items()):
            for shadow_id in shadows:
                keeper = self._house.locks.find(number)
                if keeper is not None and outcome_of(self._house, shadow_id) is not None:
                    self._branches.tell(keeper.row, SettleBuild(shadow_id, Reply()))

    def _end_switch(self, shadow_id: str, commit: Commit) -> None:
        running = self._house.switches.has(shadow_id)
        if not running and commit.shadow(shadow_id).state == ShadowState.SWITCHING:
            transitions.give_up_switching(commit, shadow_id, "the switch ended, which could not be recorded before")

    def _end_failed(self) -> None:
        before = time.time() - self._house.config.failed_keep_s
        for shadow_id in [shadow_id for shadow_id, at in self.chores.failed.items() if at <= before]:
            row = self._house.catalog.shadow(shadow_id)
            generation = self._house.catalog.generation(row.generation)
            if row.state == ShadowState.FAILED and generation is not None and generation.role == "building":
                self._house.transact(partial(transitions.retire_failed, shadow_id=shadow_id), "end failed build")
            self.chores.failed.pop(shadow_id, None)

    def _remove_retired(self) -> None:
        self.chores.look()
        for number in sorted(self.chores.retiring):
            row = self._house.catalog.generation(number)
            if row is not None and row.role == "retiring":
                failpoint("retire.marked")
                self._remove(row)

    def _remove(self, row: GenerationRow) -> None:
        house = self._house
        path = data_directory.inside(house.root, os.path.dirname(row.path)) / os.path.basename(row.path)
        opened = house.generations.get(row.number)
        if house.publisher.leads_into(row, path):
            return
        if opened is not None:
            if opened.pins or not self._let_go(row.number) or not opened.close_if_unpinned():
                return
            house.generations.forget(row.number)
        if data_directory.pinned_elsewhere(path):
            return
        remove_directory(path)
        failpoint("retire.removed")
        house.transact(lambda commit: transitions.forget_generation(commit, row.number), "retire")
        failpoint("retire.forgotten")
        house.metrics.count("generations_removed")

    def _publish_again(self) -> None:
        """What could not be published when it was switched to: outsiders are led to it as soon as that is possible."""
        house = self._house
        switched = {self._key_of(shadow_id) for shadow_id in house.switches.shadows()}
        for key in list(house.publisher.pending - switched):  # who switches publishes, once it is verified
            if time.monotonic() < self._publish_not_before or house.publisher.is_busy:
                return
            row, generation = house.catalog.index(*key), house.indexes.live(*key)
            if row is None or generation is None:
                house.publisher.pending.discard(key)
                continue
            self._publish_not_before = time.monotonic() + PUBLISH_AGAIN_S
            branch = house.catalog.shadow(generation.row.shadow_id).branch_name
            if house.publisher.publish(branch, generation, row.strategy):
                logger.info("generation %d is published at last", generation.row.number)

    def _key_of(self, shadow_id: str) -> tuple[int, str] | None:
        row = self._house.catalog.find_shadow(shadow_id)
        return (row.branch, row.index_type) if row is not None else None

    def _let_go(self, number: int) -> bool:
        reply: Reply[None] = Reply()
        self._house.followers.of(number).tell(Unfollow(number, reply))
        try:
            reply.result(10)
        except TimeoutError:
            return False
        return True

    def _trim(self) -> None:
        """Remove journal entries that no generation needs, but keep the newest of each branch for `changes()`
        (ST-6)."""
        house = self._house
        self._give_up_holds()
        slices = TRIM_SLICES_A_ROUND
        for branch in sorted(self.chores.long):
            durable, needed = self._needed(branch)
            head = house.catalog.head(branch)[0]
            below = min(needed, head - house.config.journal_keep_changes) + 1
            if not self._trimmable(branch, below):
                continue
            house.transact(partial(durability.note_durable, durable=durable), "note durable")
            failpoint("trim.noted")
            removed = 1
            while removed and slices > 0 and not house.pause.is_on and self._trimmable(branch, below):
                removed = house.transact(partial(_trim_slice, branch, below), "trim")
                failpoint("trim.slice")
                slices -= 1
                house.metrics.count("journal_trimmed", removed)
            self.chores.trimmed(branch)
            if slices <= 0:
                return

    def _trimmable(self, branch: int, below: int) -> bool:
        """Are there enough changes under that LSN to be worth a transaction?"""
        with self._house.catalog.read() as txn:
            begin = journal_begin(self._house.catalog, txn, branch)
        return begin is not None and below - begin >= TRIM_SLICE

    def _needed(self, branch: int) -> tuple[dict[int, int], int]:
        """How far the generations of a branch are on disk, and up to which LSN nobody needs its journal any more."""
        durable: dict[int, int] = {}
        needed = self._house.catalog.head(branch)[0]
        self.chores.look()  # after the head was read: a build that was claimed since needs nothing below that
        for row in self.chores.following(branch):
            generation = self._house.generations.get(row.number)
            if generation is not None and not generation.closed:
                durable[row.number] = generation.writer.durable_lsn
            if row.needs_journal:
                needed = min(needed, max(row.durable_lsn, durable.get(row.number, 0)))
        for hold in retention.holds(self._house.catalog, branch):
            if not hold.given_up:
                needed = min(needed, hold.after_lsn)
        return durable, needed

    def _give_up_holds(self) -> None:
        """A subscriber that nobody runs any more must not keep the journal for ever."""
        house, most = self._house, self._house.config.hold_changes_max
        late = {
            row.branch
            for row in retention.holds(house.catalog)
            if not row.given_up and house.heads.of(row.branch) - row.after_lsn > most
        }
        for branch in house.catalog.branches() if late else ():
            if branch.number in late:
                given_up = house.transact(partial(retention.give_up_holds, branch=branch, most=most), "give up holds")
                house.metrics.count("holds_given_up", len(given_up))
                for row in given_up:
                    logger.warning("the hold %r of branch %r was given up: %s", row.name, branch.name, row.given_up)

    def _trim_events(self) -> None:
        """Bound the outbox and the audit history (EV-1: only the oldest go)."""
        house = self._house
        for database, keep in (("outbox", house.config.events_keep), ("audit", house.config.audit_keep)):
            oldest, newest = house.catalog.span(database)
            for _ in range(TRIM_SLICES_A_ROUND):
                if newest - oldest < keep or house.pause.is_on:
                    break
                oldest += house.transact(partial(_trim_events, database, keep), "trim events")
                failpoint("trim.events")

        if count_received(house.catalog) > house.config.received_keep:
            house.transact(partial(_trim_received, house.config.received_keep), "forget events")

    def _idle(self) -> None:
        self._branches.stop_idle(self._house.config.branch_idle_s)
        if time.monotonic() - self._readers_checked > READER_CHECK_S:
            self._readers_checked = time.monotonic()
            self._house.catalog.env.reader_check()


def _trim_events(database: str, keep: int, commit: Commit) -> int:
    return trim_events(commit, database, keep, TRIM_SLICE)


def _trim_received(keep: int, commit: Commit) -> int:
    return trim_received(commit, keep, TRIM_SLICE)


def _trim_slice(branch: int, below: int, commit: Commit) -> int:
    held = retention.held_from(commit, branch)  # looked at again in this transaction: one may have come since
    if held is not None:
        below = min(below, held + 1)
    return commit.trim_journal(branch, below, TRIM_SLICE)
