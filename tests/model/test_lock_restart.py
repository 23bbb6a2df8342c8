"""A stored lock table, loaded again by a successor, after a restart and after a reboot."""

from __future__ import annotations

import msgspec

from shadowswitch.model.locks.records import Lock, LockTableState, ProgressReport
from shadowswitch.model.locks.table import LockTable
from tests.support.lock_helpers import (
    SEARCH,
    USER,
    WALL,
    ask,
    take,
    wait,
)


def stored(state: LockTableState) -> LockTableState:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=LockTableState)


def busy() -> tuple[LockTable, Lock]:
    table, lock = take(
        LockTable("main", clock_id="boot-1"), 100, ask("a", USER, ttl_s=1000, heartbeat_s=10, reason="edit")
    )
    table = table.heartbeat(105, WALL, "a", lock.token, ProgressReport(40, message="half way")).table
    return wait(table, 106, 60, ask("b"), owner="bob", waiter_id="b"), lock


def test_a_successor_in_the_same_process_resumes_with_the_same_locks_and_waiters() -> None:
    table, _ = busy()
    again = LockTable.resume(stored(table.dump(110)))
    assert again.dump(110) == table.dump(110)
    assert again.next_due() == table.next_due()


def test_after_a_restart_a_holder_has_one_grace_interval_for_a_heartbeat_and_waiters_are_dropped() -> None:
    table, lock = busy()
    again = LockTable.load(stored(table.dump(106)), 500, 30, clock_id="boot-1")
    assert again.waiters == ()
    kept = again.require(529.9, "a", lock.token)
    assert (kept.heartbeat_by, kept.expires_at) == (530, 1100)
    assert again.live(530) == ()
    assert again.heartbeat(529, WALL, "a", lock.token).value.heartbeat_by == 559


def test_on_the_same_clock_a_lock_expires_during_the_restart() -> None:
    table, _ = busy()
    assert LockTable.load(table.dump(106), 1100, 30, clock_id="boot-1").live(1100) == ()


def test_on_another_clock_a_lock_keeps_the_rest_of_its_time_as_of_the_save() -> None:
    table, lock = busy()
    again = LockTable.load(table.dump(106), 3, 30, clock_id="boot-2")
    kept = again.require(4, "a", lock.token)
    assert (kept.granted_at, kept.expires_at, kept.heartbeat_by) == (-3, 997, 33)
    assert kept.progress is not None
    assert kept.progress.at == 2
    late = LockTable.load(table.dump(1099), 3, 30, clock_id="boot-2").locks["a"]
    assert late.expires_at == 33


def test_tokens_grow_over_restarts() -> None:
    table, lock = busy()
    state = table.release(107, WALL, ("a", lock.token)).table.dump(107)
    again = LockTable.load(stored(state), 0, 0, clock_id="boot-2")
    assert again.next_token == state.next_token > lock.token
    assert take(again, 0, ask("z", SEARCH), owner="zoe")[1].token == state.next_token
