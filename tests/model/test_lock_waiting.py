"""Waiting for locks: first come, first served, with a deadline and without starvation."""

from __future__ import annotations

import msgspec
import pytest

from shadowswitch.model.errors import LockConflict
from shadowswitch.model.locks.step import Queued
from shadowswitch.model.locks.table import WAITERS_MAX, LockTable
from shadowswitch.model.locks.targets import BRANCH, DEFAULT_TTL_S, LockType
from tests.support.lock_helpers import (
    LINKS,
    OBJECTS,
    TEAM,
    USER,
    WALL,
    ask,
    granted,
    kinds,
    may_write,
    new,
    take,
    wait,
)


def test_waiters_are_granted_first_come_first_served() -> None:
    table, lock = take(new(), 0, ask("a"))
    for name in "bcd":
        table = wait(table, 1, 60, ask(name, OBJECTS), owner=name, waiter_id=name)
    step = table.release(2, WALL, ("a", lock.token))
    assert granted(step) == ["b"]
    assert step.table.locks["b"].expires_at == 2 + DEFAULT_TTL_S[LockType.MANUAL]
    step = step.table.release(3, WALL, ("b", step.table.locks["b"].token))
    assert granted(step) == ["c"]


def test_a_wide_lock_is_not_starved_by_narrow_ones_that_come_later() -> None:
    table, user = take(new(), 0, ask("a", USER))
    table = wait(table, 1, 60, ask("wide", BRANCH), owner="bob", waiter_id="wide")
    with pytest.raises(LockConflict) as refused:
        table.acquire(2, WALL, [ask("c", TEAM)], owner="carol")
    assert (refused.value.blocked.cause, refused.value.blocked.holder) == ("QUEUE", "bob")
    assert may_write(table, 2, ("object_type", "Team")), "a waiter for a lock blocks no write"
    table = wait(table, 2, 60, ask("c", TEAM), owner="carol", waiter_id="narrow")
    step = table.release(3, WALL, ("a", user.token))
    assert granted(step) == ["wide"]


def test_a_waiter_is_not_granted_before_an_earlier_one_that_it_overlaps() -> None:
    table, _ = take(new(), 0, ask("a", USER))
    table, links = take(table, 0, ask("x", LINKS))
    table = wait(table, 1, 60, ask("wide", BRANCH), owner="bob", waiter_id="wide")
    table = wait(table, 2, 60, ask("c", TEAM), owner="carol", waiter_id="narrow")
    assert granted(table.release(3, WALL, ("x", links.token))) == []


def test_a_request_passes_waiters_that_it_does_not_overlap() -> None:
    table, _ = take(new(), 0, ask("a", USER))
    table = wait(table, 1, 60, ask("b", OBJECTS), owner="bob", waiter_id="b")
    assert take(table, 2, ask("c", LINKS), owner="carol")[1].owner == "carol"


def test_a_request_under_a_lock_passes_the_waiters_for_that_lock() -> None:
    table, outer = take(new(), 0, ask("a", OBJECTS))
    table = wait(table, 1, 60, ask("b", BRANCH), owner="bob", waiter_id="b")
    table, inner = take(table, 2, ask("c", USER), under=(outer.token,))
    step = table.release(3, WALL, ("a", outer.token))
    assert granted(step) == []
    assert granted(step.table.release(4, WALL, ("c", inner.token))) == ["b"]


def test_a_waiter_past_its_deadline_is_dropped_and_the_next_is_granted() -> None:
    table, _ = take(new(), 0, ask("a", USER))
    table = wait(table, 1, 9, ask("b", OBJECTS), owner="bob", waiter_id="b")
    table = wait(table, 2, 60, ask("c", TEAM), owner="carol", waiter_id="c")
    assert table.next_due() == 10
    step = table.expire_due(10, WALL)
    assert kinds(step) == ["wait_timed_out", "granted"]
    assert granted(step) == ["c"]


def test_a_waiter_of_a_dead_process_is_dropped_and_the_next_is_granted() -> None:
    table, _ = take(new(), 0, ask("a", USER))
    table = wait(table, 1, 60, ask("b", OBJECTS), owner="bob", waiter_id="b")
    table = wait(table, 2, 60, ask("c", TEAM), owner="carol", waiter_id="c")
    step = table.drop_waiter(3, WALL, "b", reason="process 77 died")
    assert step.value
    assert kinds(step) == ["wait_dropped", "granted"]
    assert not step.table.drop_waiter(4, WALL, "b").value


def test_the_answer_to_a_waiter_has_its_place_in_the_queue() -> None:
    table, _ = take(new(), 0, ask("a"))
    table = wait(table, 1, 60, ask("b"), owner="bob", waiter_id="b")
    queued = table.acquire(2, WALL, [ask("c", USER)], owner="carol", wait_s=5, waiter_id="c").value
    assert isinstance(queued, Queued)
    assert (queued.ahead, queued.waiter.deadline, queued.blocked.holder, queued.blocked.waiting) == (1, 7, "alice", 1)


def test_a_queue_that_is_full_refuses_the_next() -> None:
    table, _ = take(new(), 0, ask("a"))
    waiter = table.acquire(1, WALL, [ask("b")], owner="bob", wait_s=9, waiter_id="b").table.waiters[0]
    crowd = [msgspec.structs.replace(waiter, waiter_id=f"w{n}") for n in range(WAITERS_MAX)]
    full = LockTable("main", next_token=2, locks=table.locks.values(), waiters=crowd)
    with pytest.raises(LockConflict):
        full.acquire(2, WALL, [ask("c")], owner="carol", wait_s=9, waiter_id="c")
