"""BranchLocks: the lock table and the status of one branch in this process. It serves a BranchActor and survives it.

A step of the lock table is computed, stored with its events in one transaction, and only then adopted and answered. The
transaction stands in the mailbox of the JournalWriter behind every write that this branch has admitted. So an answer
about a lock comes only after those writes are committed: no write that was admitted before a lock appears under it.

Before any other step the table is brought up to now, and the result is stored. So no answer relies on an expiry that a
restart could undo (LK-3). After a transaction of unknown outcome the revision of the stored row decides whether its
step happened; until then no write is admitted.

All methods run on the thread of the BranchActor, except `fence` and `state_now`. `held` is replaced and never changed
in place, so any thread may read it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgspec

from shadowswitch.actors.branch.lock_progress import BuildProgress, known_types, with_build_progress
from shadowswitch.actors.branch.lock_timer import LocksDue, LockTimer, NoteLocks
from shadowswitch.actors.branch.lock_waiters import LockWaiters
from shadowswitch.actors.context import EngineContext
from shadowswitch.actors.journal_writer import Barrier
from shadowswitch.actors.kit.actor import result_of
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.kit.story import note
from shadowswitch.actors.kit.timers import Timers
from shadowswitch.model.errors import ShadowSwitchError, WriteBlocked
from shadowswitch.model.events import ENGINE
from shadowswitch.model.locks.branch_state import BranchState, BranchStatus, after_locks
from shadowswitch.model.locks.records import Lock, LockEvent
from shadowswitch.model.locks.refusal import Blocked, WritePermission
from shadowswitch.model.locks.step import Step
from shadowswitch.model.locks.table import LockTable
from shadowswitch.model.records import Receipt
from shadowswitch.storage.catalog import rows
from shadowswitch.storage.catalog.journal_format import Batch
from shadowswitch.storage.catalog.locks import LocksRow, check_fence, find_locks, save_locks
from shadowswitch.storage.catalog.rows import BranchRow
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.failpoints import failpoint

U = TypeVar("U")
V = TypeVar("V")
Audit = tuple[str, dict[str, Any]]
SendSoon = Callable[[BranchRow, Any], None]
"""Sends a message without a reply to a BranchActor, later if too many branch actors run; any thread."""

BARRIER_TIMEOUT_S = 10.0
REFUSED_MAX = 1000


class Write(msgspec.Struct, frozen=True):
    """To a BranchActor: admit a batch and pass it on. Reply: Receipt, or WriteBlocked, or what `check` raised.

    `check` is called in the transaction, before the batch is added to it; on the JournalWriter's thread.
    """

    batch: Batch
    owner: str
    reply: Reply[Receipt]
    tokens: tuple[int, ...] = ()
    check: Callable[[Commit], object] | None = None


class Held(NamedTuple):
    """The lock table and the status of a branch at one moment; `revision` is that of the stored row, 0 for none."""

    revision: int
    table: LockTable
    status: BranchStatus


class BranchLocks:
    """The locks of one branch; see above."""

    def __init__(
        self,
        context: EngineContext,
        timers: Timers,
        send_soon: SendSoon,
        progress: BuildProgress,
        tracked: dict[int, tuple[str, ...]],
        row: BranchRow,
        held: Held,
    ) -> None:
        """`tracked` is that of the LockRegistry: each BranchLocks keeps the entry of its branch."""
        self.row = row
        self.held = held
        self._context = context
        self._clock = context.clock
        self._attention = context.attention
        self._pauses = self._attention.look()
        """As many are forgiven in `held`."""
        self._progress = progress
        self._tracked = tracked
        self._doubt: Held | None = None
        self._refused: set[tuple[str, str, str]] = set()
        """The refusals that the log has."""
        self.waiters = LockWaiters(context.metrics, self.known_types, self.with_build_progress)
        self._alarm = LockTimer(timers, context.clock, partial(send_soon, row))
        self._noted = held.table
        self.quiet = _is_quiet(held)
        """A write needs no look at the table: no lock is held, no waiter is in line, the branch is ACTIVE."""
        self._alarm.arm(self.held.table.next_due())
        self._track()

    @property
    def forgettable(self) -> bool:
        """True while it holds no more than a new BranchLocks of the branch would."""
        return self.quiet and self.held.revision == 0

    def handlers(self) -> dict[type, Callable[[Any], None]]:
        """The handlers by message type, for the BranchActor."""
        return {LocksDue: self._due, NoteLocks: self._note}

    # -- writes ----------------------------------------------------------------------------------------------------

    def admit(self, message: Write) -> None:
        """Return if the write is allowed now, in the order of the mailbox. Raises WriteBlocked or LockLost."""
        if self.quiet and not message.tokens:
            return
        now, wall = self.moment()
        keys = ((change.resource_type, str(change.id, "utf-8")) for change in message.batch.changes)
        blocked = self.permission(now, wall, keys, message.owner, message.tokens).blocked
        if blocked is not None:
            self._context.metrics.count("writes_blocked")
            self.note_refusal("write", message.owner, blocked)
            hint = blocked.alternatives[0] if blocked.alternatives else ""
            raise WriteBlocked(blocked.message, blocked=blocked, operation="write", object=self.row.name, hint=hint)

    def note_refusal(self, what: str, owner: str, blocked: Blocked) -> None:
        """Write to the log that a lock, or the state of the branch, refused a caller: once for each lock and caller."""
        key = (what, owner, blocked.lock_id or "")
        if key in self._refused:
            return
        if len(self._refused) >= REFUSED_MAX:
            self._refused.clear()
        self._refused.add(key)
        fields = {"branch": self.row.name, "state": blocked.state, "lock_id": blocked.lock_id, "owner": owner or None}
        fields |= {"holder": blocked.holder or None, "by": ENGINE, "reason": blocked.message}
        note(f"{what} refused", fields, f"{what}.refused")

    def fence(self, owner: str, tokens: tuple[int, ...], commit: Commit) -> None:
        """In the transaction of a write that was admitted under these tokens: raise LockLost unless they still hold.

        On the thread of the JournalWriter. The stored row says whether another owner was granted a lock in between; the
        clock says whether the time of the tokens is over. Heartbeats are known only in memory.
        """
        check_fence(commit, self.row.number, owner, tokens)
        self._table_now().opened_by(owner, tokens, self._clock.monotonic())

    def permission(
        self,
        now: float,
        wall: datetime,
        keys: Iterable[tuple[str, str | None]],
        owner: str,
        tokens: tuple[int, ...],
        action: str = "write",
    ) -> WritePermission:
        """Is this write allowed now? For a table that was brought up to now. Raises LockLost."""
        step = self.held.table.check_write(
            now,
            wall,
            keys,
            status=self.held.status,
            owner=owner,
            tokens=tokens,
            known_types=self.known_types(),
            action=action,
        )
        answer = step.value
        if answer.blocked is None:
            return answer
        blocked = self.with_build_progress(answer.blocked)
        return WritePermission(False, blocked.message, blocked)

    def known_types(self) -> Iterator[str]:
        """The resource types of the branch. A generator: only a refusal reads the catalog."""
        return known_types(self._context.catalog, self.row.number)

    def with_progress(self, lock: Lock) -> Lock:
        """The lock with the progress of the build that it names, if it names one."""
        return self._progress.with_progress(lock, self._clock.monotonic())

    def with_build_progress(self, blocked: Blocked) -> Blocked:
        """The refusal with the progress and the ETA of the build that the lock names, if it names one."""
        lock = self.held.table.locks.get(blocked.lock_id or "")
        if lock is None or not lock.build:
            return blocked
        held, types = self.held.table.locks.values(), self.known_types()
        return with_build_progress(blocked, self.with_progress(lock), self._clock.monotonic(), held=held, types=types)

    # -- steps -----------------------------------------------------------------------------------------------------

    def moment(self) -> tuple[float, datetime]:
        """Now, with the table brought up to now: expired locks are stored as such, and the next waiters are granted."""
        self._resolve()
        self._forgive()
        now, wall = self._now()
        self.take(self.held.table.expire_due(now, wall), now, wall, "expire locks")
        return now, wall

    def _table_now(self) -> LockTable:
        """The table, in which a pause of this process forgives missed heartbeats. Any thread."""
        table = self.held.table
        if self._attention.look() == self._pauses:
            return table
        return table.forgiven(self._attention.resumed_at, self._context.config.lock_grace_s)

    def _forgive(self) -> None:
        pauses, table = self._attention.look(), self._table_now()
        if table is not self.held.table:
            self._adopt(Held(self.held.revision, table, self.held.status))
            self._alarm.plan_note()
        self._pauses = pauses  # behind the table: `fence` may forgive twice, but not too early

    def _now(self) -> tuple[float, datetime]:
        return self._clock.monotonic(), datetime.fromtimestamp(self._clock.wall(), UTC)

    def take(self, step: Step[LockTable, V], now: float, wall: datetime, what: str, audit: Audit | None = None) -> V:
        """Adopt a step, stored first if it grants or ends a lock."""
        held = self.held
        status = after_locks(held.status, step.events, wall, held=step.table.locks.values())
        if step.must_persist or status is not held.status or audit is not None:
            self.store(step.table, status, step.events, now, what, audit)
        elif step.table is not held.table:
            self._adopt(Held(held.revision, step.table, status))
            self._alarm.plan_note()
        return step.value

    def store(
        self,
        table: LockTable,
        status: BranchStatus,
        events: tuple[LockEvent, ...],
        now: float,
        what: str,
        audit: Audit | None,
        also: Callable[[Commit], U] | None = None,
    ) -> U | None:
        """Make a table and a status durable with their events; then adopt them and answer the waiters.

        `also` runs in the same transaction, and its value is returned. If `also` raises, nothing has happened.
        """
        wanted = Held(self.held.revision + 1, table, status)
        row = LocksRow(rows.FORMAT, self.row.number, wanted.revision, table.dump(now), status)
        self._doubt, self.quiet = wanted, False

        def save(commit: Commit) -> U | None:
            found = also(commit) if also is not None else None
            save_locks(commit, row, events, audit)
            return found

        try:
            failpoint("lock.before_store")
            found = self._context.transact(save, what)
            failpoint("lock.stored")
        except BaseException:
            self._alarm.again()
            raise
        self._doubt = None
        self._noted = table
        self._adopt(wanted)
        return found

    def _resolve(self) -> None:
        """After a transaction of unknown outcome: behind a barrier, the stored row decides."""
        if self._doubt is None:
            return
        reply: Reply[int] = Reply()
        self._context.journal.tell(Barrier(self.row.number, reply))
        result_of(reply, BARRIER_TIMEOUT_S, "the barrier of the locks")
        stored = find_locks(self._context.catalog, self.row.number)
        happened = stored is not None and stored.revision == self._doubt.revision
        held, self._doubt = self._doubt if happened else self.held, None
        self._adopt(held)

    def _adopt(self, held: Held) -> None:
        self.held = held
        self.quiet = _is_quiet(held)
        self._alarm.arm(self.held.table.next_due())
        self._track()
        if self.waiters:
            self.waiters.answer(held.table, *self._now())

    def _track(self) -> None:
        """Note for the Janitor the builds that make the branch READY."""
        shadows = tuple(dict.fromkeys(work.shadow_id for work in self.held.status.indexing if work.shadow_id))
        if shadows:
            self._tracked[self.row.number] = shadows
        else:
            self._tracked.pop(self.row.number, None)

    # -- time ------------------------------------------------------------------------------------------------------

    def _due(self, _: LocksDue) -> None:
        self._alarm.rang()
        try:
            self.moment()
        except ShadowSwitchError:
            self._alarm.again()
            raise
        self._alarm.arm(self.held.table.next_due())

    def _note(self, _: NoteLocks) -> None:
        self._alarm.noted()
        now = self.moment()[0]
        if self.held.table is not self._noted:
            self.store(self.held.table, self.held.status, (), now, "note the waiters", None)

    def state_now(self) -> BranchState:
        """The state of the branch, as if every expired lock were swept already. Any thread."""
        held = self.held
        now, wall = self._now()
        step = self._table_now().expire_due(now, wall)
        return after_locks(held.status, step.events, wall, held=step.table.locks.values()).state


def _is_quiet(held: Held) -> bool:
    return not held.table.locks and not held.table.waiters and held.status.state is BranchState.ACTIVE


def answer(handler: Callable[[Any], Any], message: Any) -> None:
    """Answer a message with the value of its handler, unless the sender has cancelled."""
    if message.reply.set_running_or_notify_cancel():
        message.reply.set_result(handler(message))
