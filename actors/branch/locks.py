"""The locks and the status of one branch in this process: used by its BranchActor, kept while that sleeps.

Every step of the lock table is computed, stored with its events in one transaction, and only then adopted and answered.
The transaction goes through the JournalWriter's mailbox behind every write that this branch has admitted, so a lock is
answered only after those are committed: no write that was admitted before a lock shows up under it.

Before anything else the table is brought up to now and that is stored, so no answer relies on an expiry that a restart
could undo (LK-3). After a transaction of unknown outcome the revision of the stored row decides whether its step
happened; until then nothing is admitted. A waiter's reply lives here, not in the actor (LK-4): a successor serves it.

Only the BranchActor's thread calls methods, but for `fence`; `held` never changes in place, so any thread may read it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from shadowswitch.actors.branch.lock_progress import known_types, measured, retold, with_progress
from shadowswitch.actors.branch.lock_timer import LockTimer
from shadowswitch.actors.kit.actor import result_of
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.messages import (
    AbandonLocks,
    AcquireLock,
    Barrier,
    ExtendLock,
    ForceUnlock,
    HeartbeatLock,
    LocksDue,
    NoteLocks,
    ReleaseLock,
    Write,
)
from shadowswitch.model.errors import EngineClosed, LockConflict, ShadowSwitchError, Timeout, WriteBlocked
from shadowswitch.model.locks.branch_state import BranchState, BranchStatus, after_locks
from shadowswitch.model.locks.info import lock_info
from shadowswitch.model.locks.records import Lock, LockEvent
from shadowswitch.model.locks.refusal import Blocked, WritePermission
from shadowswitch.model.locks.step import Queued, Step
from shadowswitch.model.locks.table import LockTable
from shadowswitch.storage.catalog import rows
from shadowswitch.storage.catalog.locks import LocksRow, check_fence, find_locks, save_locks
from shadowswitch.storage.catalog.rows import BranchRow
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.failpoints import failpoint

if TYPE_CHECKING:
    from shadowswitch.actors.house import House

U = TypeVar("U")
V = TypeVar("V")
Audit = tuple[str, dict[str, Any]]

BARRIER_TIMEOUT_S = 10.0


class Held(NamedTuple):
    """The lock table and the status of a branch at one moment; `revision` is that of the stored row, 0 for none."""

    revision: int
    table: LockTable
    status: BranchStatus


class BranchLocks:
    """Keeps one branch's lock table; see above."""

    def __init__(self, house: House, row: BranchRow, held: Held, clock: Callable[[], float] = time.monotonic) -> None:
        self.row = row
        self.held = held
        self._house = house
        self._clock = clock
        self._doubt: Held | None = None
        self._waiting: dict[str, AcquireLock] = {}
        self._alarm = LockTimer(house, row, clock)
        self._noted = held.table
        self.quiet = _is_quiet(held)
        """Whether a write needs no look at the table: nothing is held, nobody waits, the branch is ACTIVE."""
        self._alarm.arm(self.held.table.next_due())
        self._track()

    @property
    def waiting(self) -> bool:
        """Whether somebody waits for a lock: the actor must not be stopped as idle."""
        return bool(self._waiting)

    @property
    def forgettable(self) -> bool:
        """Whether it knows nothing but what any new keeper of the branch would."""
        return self.quiet and self.held.revision == 0

    def handlers(self) -> dict[type, Callable[[Any], None]]:
        """What the BranchActor leaves to its keeper, by message type."""
        answered: dict[type, Callable[[Any], Any]] = {
            HeartbeatLock: self._heartbeat,
            ExtendLock: self._extend,
            ReleaseLock: self._release,
            ForceUnlock: self._force,
        }
        return {
            AcquireLock: self._acquire,
            AbandonLocks: self._abandon,
            LocksDue: self._due,
            NoteLocks: self._note,
            **{kind: partial(answer, handler) for kind, handler in answered.items()},
        }

    # -- writes ----------------------------------------------------------------------------------------------------

    def admit(self, message: Write) -> None:
        """Return if a write may go on at this moment, in the order of the mailbox; raise WriteBlocked or LockLost."""
        if self.quiet and not message.tokens:
            return
        now, wall = self.moment()
        keys = ((change.resource_type, str(change.id, "utf-8")) for change in message.batch.changes)
        blocked = self.permission(now, wall, keys, message.owner, message.tokens).blocked
        if blocked is not None:
            self._house.metrics.count("writes_blocked")
            hint = blocked.alternatives[0] if blocked.alternatives else ""
            raise WriteBlocked(blocked.message, blocked=blocked, operation="write", object=self.row.name, hint=hint)

    def fence(self, owner: str, tokens: tuple[int, ...], commit: Commit) -> None:
        """In the transaction of a write that was admitted under these tokens: raise LockLost unless they still hold.

        On the JournalWriter's thread. That nobody else was granted anything in between is what is stored; that their
        time is not over is what the clock says, and heartbeats are known only here.
        """
        check_fence(commit, self.row.number, owner, tokens)
        self.held.table.opened_by(owner, tokens, self._clock())

    def permission(
        self,
        now: float,
        wall: datetime,
        keys: Iterable[tuple[str, str | None]],
        owner: str,
        tokens: tuple[int, ...],
        action: str = "write",
    ) -> WritePermission:
        """May this be written at this moment? For a table that was brought up to now. Raises LockLost."""
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
        blocked = self.retold(answer.blocked)
        return WritePermission(False, blocked.message, blocked)

    def known_types(self) -> Iterator[str]:
        """The resource types of the branch; read only when somebody is refused."""
        return known_types(self._house, self.row.number)

    def measured(self, lock: Lock) -> Lock:
        """The lock, with the progress of the build that is the work under it, if it named one."""
        return measured(self._house, lock, self._clock())

    def retold(self, blocked: Blocked) -> Blocked:
        """A refusal with progress and ETA measured from the build that is the work under the lock, if there is one."""
        lock = self.held.table.locks.get(blocked.lock_id or "")
        if lock is None or not lock.build:
            return blocked
        held, types = self.held.table.locks.values(), self.known_types()
        return retold(blocked, self.measured(lock), self._clock(), held=held, types=types)

    # -- locks -----------------------------------------------------------------------------------------------------

    def _acquire(self, message: AcquireLock) -> None:
        if not message.reply.set_running_or_notify_cancel():
            return
        now, wall = self.moment()
        waiter_id = message.requests[0].lock_id
        try:
            step = self.held.table.acquire(
                now,
                wall,
                message.requests,
                owner=message.owner,
                wait_s=message.wait_s,
                waiter_id=waiter_id,
                under=message.under,
                known_types=self.known_types(),
            )
        except LockConflict as error:
            raise with_progress(error, self.retold) from None
        if isinstance(step.value, Queued):
            self._waiting[waiter_id] = message
            self.take(step, now, wall, "wait for a lock")
            return
        self.take(step, now, wall, "acquire a lock")
        self._house.metrics.count("locks_granted")
        message.reply.set_result(tuple(lock_info(lock, now, wall) for lock in step.value.locks))

    def _abandon(self, message: AbandonLocks) -> None:
        now, wall = self.moment()
        requests = message.request.requests
        gone = self._waiting.pop(requests[0].lock_id, None)
        if gone is not None:
            self.take(
                self.held.table.drop_waiter(now, wall, requests[0].lock_id, reason="the caller left"),
                now,
                wall,
                "leave",
            )
        held = [self.held.table.locks[r.lock_id] for r in requests if r.lock_id in self.held.table.locks]
        if held:
            pairs = [(lock.lock_id, lock.token) for lock in held]
            self.take(self.held.table.release(now, wall, *pairs, reason="the caller left"), now, wall, "leave")

    def _heartbeat(self, message: HeartbeatLock) -> Any:
        now, wall = self.moment()
        step = self.held.table.heartbeat(now, wall, message.lock_id, message.token, message.progress)
        return lock_info(self.take(step, now, wall, "heartbeat"), now, wall)

    def _extend(self, message: ExtendLock) -> Any:
        now, wall = self.moment()
        step = self.held.table.extend(now, wall, message.lock_id, message.token, message.extra_s)
        return lock_info(self.take(step, now, wall, "extend a lock"), now, wall)

    def _release(self, message: ReleaseLock) -> Any:
        now, wall = self.moment()
        step = self.held.table.release(now, wall, (message.lock_id, message.token))
        (lock,) = self.take(step, now, wall, "release a lock")
        return lock_info(lock, now, wall)

    def _force(self, message: ForceUnlock) -> Any:
        now, wall = self.moment()
        step = self.held.table.force_unlock(now, wall, by=message.by, reason=message.reason)
        taken = [{"lock_id": lock.lock_id, "owner": lock.owner, "target": str(lock.target)} for lock in step.value]
        audit = ("lock.forced", {"by": message.by, "reason": message.reason, "locks": taken})
        return tuple(lock_info(lock, now, wall) for lock in self.take(step, now, wall, "force unlock", audit))

    def _due(self, _: LocksDue) -> None:
        self._alarm.rang()
        try:
            self.moment()
        except ShadowSwitchError:
            self._alarm.again()
            raise
        self._alarm.arm(self.held.table.next_due())

    # -- steps -----------------------------------------------------------------------------------------------------

    def moment(self) -> tuple[float, datetime]:
        """Now, with the table brought up to it: what expired is stored and adopted, and so is whose turn it is."""
        self._resolve()
        now, wall = self._clock(), datetime.now(UTC)
        self.take(self.held.table.expire_due(now, wall), now, wall, "expire locks")
        return now, wall

    def take(self, step: Step[LockTable, V], now: float, wall: datetime, what: str, audit: Audit | None = None) -> V:
        """Make a step happen, durably if it grants or ends anything."""
        held = self.held
        status = after_locks(held.status, step.events, wall, held=step.table.locks.values())
        if step.must_persist or status is not held.status or audit is not None:
            self.store(step.table, status, step.events, now, what, audit)
        elif step.table is not held.table:
            self._adopt(Held(held.revision, step.table, status))
            self._alarm.plan_note()
        return step.value

    def _note(self, _: NoteLocks) -> None:
        self._alarm.noted()
        now = self.moment()[0]
        if self.held.table is not self._noted:
            self.store(self.held.table, self.held.status, (), now, "note who waits", None)

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
        """Make a table and a status durable, with the events that led there, then adopt them and answer who waited.

        `also` is done in the same transaction, and its value returned; if it raises nothing has happened.
        """
        wanted = Held(self.held.revision + 1, table, status)
        row = LocksRow(rows.FORMAT, self.row.number, wanted.revision, table.dump(now), status)
        self._doubt, self.quiet = wanted, False

        def save(commit: Commit) -> U | None:
            found = also(commit) if also is not None else None
            save_locks(commit, self.row, row, events, audit)
            return found

        try:
            failpoint("lock.before_store")
            found = self._house.transact(save, what)
            failpoint("lock.stored")
        except BaseException:
            self._alarm.again()
            raise
        self._doubt = None
        self._noted = table
        self._adopt(wanted)
        return found

    def _resolve(self) -> None:
        """After a transaction of unknown outcome: behind a barrier, what is stored decides."""
        if self._doubt is None:
            return
        reply: Reply[int] = Reply()
        self._house.journal.tell(Barrier(self.row.number, reply))
        result_of(reply, BARRIER_TIMEOUT_S, "the barrier of the locks")
        stored = find_locks(self._house.catalog, self.row.number)
        happened = stored is not None and stored.revision == self._doubt.revision
        held, self._doubt = self._doubt if happened else self.held, None
        self._adopt(held)

    def _adopt(self, held: Held) -> None:
        self.held = held
        self.quiet = _is_quiet(held)
        self._alarm.arm(self.held.table.next_due())
        self._track()
        if self._waiting:
            self._answer_waiters(held.table)

    def _track(self) -> None:
        """Let the Janitor know whether a build is under way here whose end the branch waits for."""
        shadows = tuple(dict.fromkeys(work.shadow_id for work in self.held.status.indexing if work.shadow_id))
        if shadows:
            self._house.locks.tracked[self.row.number] = shadows
        else:
            self._house.locks.tracked.pop(self.row.number, None)

    def _answer_waiters(self, table: LockTable) -> None:
        queued = {waiter.waiter_id for waiter in table.waiters}
        now, wall = self._clock(), datetime.now(UTC)
        for waiter_id in [i for i in self._waiting if i not in queued]:
            message = self._waiting.pop(waiter_id)
            locks = [table.locks[r.lock_id] for r in message.requests if r.lock_id in table.locks]
            if len(locks) == len(message.requests):
                self._house.metrics.count("locks_granted")
                message.reply.set_result(tuple(lock_info(lock, now, wall) for lock in locks))
            else:
                message.reply.set_exception(self._gave_up(message, table, now, wall))

    def _gave_up(self, message: AcquireLock, table: LockTable, now: float, wall: datetime) -> ShadowSwitchError:
        """What a waiter is told whose deadline passed: who is in the way now."""
        try:
            table.acquire(
                now,
                wall,
                message.requests,
                owner=message.owner,
                under=message.under,
                known_types=self.known_types(),
            )
        except LockConflict as error:
            return with_progress(error, self.retold)
        except ShadowSwitchError as error:
            return error
        return Timeout(
            f"the lock did not become free within {message.wait_s:g} s",
            operation="lock",
            hint="it is free now: try again",
        )

    # -- time ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Answer whoever still waits; the engine closes."""
        waiting, self._waiting = list(self._waiting.values()), {}
        for message in waiting:
            message.reply.set_exception(EngineClosed("the engine was closed while you waited", hint="open it again"))

    def state_now(self) -> BranchState:
        """The state of the branch, with what has expired and was not swept yet. Any thread."""
        held, now, wall = self.held, self._clock(), datetime.now(UTC)
        step = held.table.expire_due(now, wall)
        return after_locks(held.status, step.events, wall, held=step.table.locks.values()).state


def _is_quiet(held: Held) -> bool:
    return not held.table.locks and not held.table.waiters and held.status.state is BranchState.ACTIVE


def answer(handler: Callable[[Any], Any], message: Any) -> None:
    """Let a handler answer a message, unless nobody waits for it any more."""
    if message.reply.set_running_or_notify_cancel():
        message.reply.set_result(handler(message))
