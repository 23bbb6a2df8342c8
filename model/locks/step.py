"""The result of an operation on a lock table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from shadowswitch.model.locks.records import DURABLE, LockEvent, Waiter
from shadowswitch.model.locks.refusal import Blocked

Table_co = TypeVar("Table_co", covariant=True)
Value_co = TypeVar("Value_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Step(Generic[Table_co, Value_co]):
    """The next table, the answer, and the events in order."""

    table: Table_co
    value: Value_co
    events: tuple[LockEvent, ...] = ()

    @property
    def must_persist(self) -> bool:
        """True if a lock was granted, extended or ended. Heartbeats and waiters need not survive a restart."""
        return any(event.kind in DURABLE for event in self.events)


@dataclass(frozen=True, slots=True)
class Queued:
    """The request waits: `ahead` earlier waiters overlap it, `blocked` has the present obstacle."""

    waiter: Waiter
    ahead: int
    blocked: Blocked
