"""What an operation on a lock table gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from shadowswitch.model.locks.records import DURABLE, Grant, LockEvent, LockEventKind, Waiter
from shadowswitch.model.locks.refusal import Blocked

Table_co = TypeVar("Table_co", covariant=True)
Value_co = TypeVar("Value_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Step(Generic[Table_co, Value_co]):
    """The next table, the answer, the events in order, and the waiters whose turn came."""

    table: Table_co
    value: Value_co
    events: tuple[LockEvent, ...] = ()
    grants: tuple[Grant, ...] = ()

    @property
    def must_persist(self) -> bool:
        """Whether a lock was granted, extended or ended. Heartbeats and waiters need not survive a restart."""
        return any(event.kind in DURABLE for event in self.events)

    @property
    def gave_up(self) -> tuple[Waiter, ...]:
        """The waiters that left the queue without their locks."""
        gone = (LockEventKind.WAIT_TIMED_OUT, LockEventKind.WAIT_DROPPED)
        return tuple(e.waiter for e in self.events if e.waiter is not None and e.kind in gone)


@dataclass(frozen=True, slots=True)
class Queued:
    """The request waits: `ahead` earlier requests overlap it, `blocked` tells what is in the way now."""

    waiter: Waiter
    ahead: int
    blocked: Blocked
