"""Short ways to build locks in tests: a stopped wall clock, requests with consecutive ids."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from shadowswitch.model.locks.branch_state import BranchStatus
from shadowswitch.model.locks.records import Grant, Lock, LockEventKind, LockRequest
from shadowswitch.model.locks.step import Step
from shadowswitch.model.locks.table import LockTable
from shadowswitch.model.locks.targets import BRANCH, LockType, Target, index_target, resource_target, type_target

WALL = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
STATUS = BranchStatus("main", WALL)
OBJECTS, LINKS = type_target("object_type"), type_target("link_type")
USER, TEAM = resource_target("object_type", "User"), resource_target("object_type", "Team")
SEARCH, GRAPH = index_target("SEARCH_INDEX"), index_target("GRAPH_INDEX")


def ask(lock_id: str, target: Target = BRANCH, lock_type: LockType = LockType.MANUAL, **more: Any) -> LockRequest:
    return LockRequest(lock_id, lock_type, target, **more)


def take(
    table: LockTable, now: float, *requests: LockRequest, owner: str = "alice", under: tuple[int, ...] = ()
) -> tuple[LockTable, Lock]:
    """Acquire at once; returns the table after it and the first of the locks."""
    step = table.acquire(now, WALL, requests, owner=owner, under=under)
    assert isinstance(step.value, Grant)
    return step.table, step.value.locks[0]


def wait(table: LockTable, now: float, wait_s: float, *requests: LockRequest, owner: str, waiter_id: str) -> LockTable:
    """Acquire with a deadline; returns the table after it."""
    return table.acquire(now, WALL, requests, owner=owner, wait_s=wait_s, waiter_id=waiter_id).table


def kinds(step: Step[LockTable, Any]) -> list[str]:
    """The kinds of the events of a step, without their prefix."""
    return [event.kind.removeprefix("lock.") for event in step.events]


def granted(step: Step[LockTable, Any]) -> list[str]:
    """The ids of the locks that a step granted, in order."""
    return [event.lock.lock_id for event in step.events if event.kind is LockEventKind.GRANTED and event.lock]


def new() -> LockTable:
    """A table without a lock."""
    return LockTable("main")


def may_write(table: LockTable, now: float, *keys: tuple[str, str | None], **more: object) -> bool:
    """Whether a write of these records would be admitted."""
    return table.check_write(now, WALL, keys, status=STATUS, **more).value.allowed  # type: ignore[arg-type]
