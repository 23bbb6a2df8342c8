"""The lock table by example: conflicts, fencing, expiry, extension, force."""

from __future__ import annotations

import math
from datetime import timedelta
from itertools import product

import pytest

from shadowswitch.model.errors import InvalidConfig, LockConflict, LockLost
from shadowswitch.model.locks.draft import ENDINGS_KEPT
from shadowswitch.model.locks.records import Grant, ProgressReport
from shadowswitch.model.locks.targets import (
    BRANCH,
    DEFAULT_TTL_S,
    DURATION_MAX_S,
    LEASE_TTL_S,
    LockType,
    Target,
    resource_target,
    target,
)
from tests.support.lock_helpers import (
    GRAPH,
    LINKS,
    OBJECTS,
    SEARCH,
    STATUS,
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

TARGETS = [BRANCH, OBJECTS, LINKS, USER, TEAM, resource_target("link_type", "User"), SEARCH, GRAPH]
CONFLICTS = {
    frozenset(pair)
    for pair in [(BRANCH, t) for t in TARGETS[:6]]
    + [(OBJECTS, OBJECTS), (OBJECTS, USER), (OBJECTS, TEAM), (LINKS, LINKS), (LINKS, TARGETS[5])]
    + [(t, t) for t in TARGETS[3:]]
}


@pytest.mark.parametrize(("held", "asked"), list(product(TARGETS, TARGETS)), ids=str)
def test_locks_conflict_exactly_as_in_the_table_of_the_docs(held: Target, asked: Target) -> None:
    table, _ = take(new(), 0, ask("a", held))
    if frozenset((held, asked)) in CONFLICTS:
        with pytest.raises(LockConflict) as refused:
            table.acquire(1, WALL, [ask("b", asked)], owner="bob")
        assert refused.value.blocked.holder == "alice"
    else:
        assert take(table, 1, ask("b", asked), owner="bob")[1].token == 2


def test_a_lock_conflicts_with_a_lock_of_the_same_owner_unless_its_token_is_given() -> None:
    table, wide = take(new(), 0, ask("a", OBJECTS))
    with pytest.raises(LockConflict):
        table.acquire(1, WALL, [ask("b", USER)], owner="alice")
    with pytest.raises(LockLost, match="belongs to alice"):
        table.acquire(1, WALL, [ask("b", USER)], owner="mallory", under=[wide.token])
    with pytest.raises(LockLost, match="is not held"):
        table.acquire(1, WALL, [ask("b", USER)], owner="alice", under=[77])
    table, narrow = take(table, 1, ask("b", USER), under=(wide.token,))
    assert narrow.token > wide.token
    table = table.release(2, WALL, ("a", wide.token)).table
    assert not may_write(table, 3, ("object_type", "User"))
    assert may_write(table, 3, ("object_type", "Team"))


def test_several_locks_are_taken_all_or_none() -> None:
    table, _ = take(new(), 0, ask("a", LINKS))
    with pytest.raises(LockConflict):
        table.acquire(1, WALL, [ask("b", OBJECTS), ask("c", LINKS)], owner="bob")
    assert list(table.locks) == ["a"]
    step = table.acquire(1, WALL, [ask("b", OBJECTS), ask("c", USER)], owner="bob")
    assert list(step.table.locks) == ["a", "b", "c"]
    assert kinds(step) == ["granted", "granted"]


def test_every_type_has_its_default_time_to_live() -> None:
    for lock_type in LockType:
        table, lock = take(new(), 10, ask("a", lock_type=lock_type))
        assert lock.expires_at == 10 + DEFAULT_TTL_S[lock_type]
        assert lock.expires_wall == WALL + timedelta(seconds=DEFAULT_TTL_S[lock_type])
        assert table.next_due() == lock.expires_at


def test_an_expired_lock_blocks_neither_a_write_nor_a_lock_before_it_is_removed() -> None:
    table, _ = take(new(), 0, ask("a", BRANCH, ttl_s=10))
    assert not may_write(table, 9.99, ("object_type", "User"))
    step = table.check_write(10, WALL, [("object_type", "User")], status=STATUS)
    assert step.value.allowed
    assert step.must_persist
    assert kinds(step) == ["expired"]
    assert kinds(table.acquire(10, WALL, [ask("b", BRANCH)], owner="bob")) == ["expired", "granted"]


def test_three_missed_heartbeats_expire_a_lock_and_a_heartbeat_keeps_it() -> None:
    table, lock = take(new(), 0, ask("a", heartbeat_s=10))
    beaten = table.heartbeat(29, WALL, "a", lock.token)
    assert not beaten.must_persist
    assert table.live(30) == ()
    assert [live.lock_id for live in beaten.table.live(58.9)] == ["a"]
    swept = beaten.table.expire_due(59, WALL)
    assert [gone.lock_id for gone in swept.value] == ["a"]
    assert swept.events[0].reason == "no heartbeat for 3 intervals of 10 s"


def test_a_heartbeat_does_not_prolong_the_time_to_live() -> None:
    table, lock = take(new(), 0, ask("a", ttl_s=15, heartbeat_s=10))
    table = table.heartbeat(14, WALL, "a", lock.token).table
    with pytest.raises(LockLost, match="expired"):
        table.heartbeat(15, WALL, "a", lock.token)


def test_a_holder_that_was_stopped_beyond_its_time_is_refused() -> None:
    table, lock = take(new(), 0, ask("a", ttl_s=10))
    table, taken = take(table, 11, ask("b"), owner="bob")
    assert taken.token > lock.token
    stale = ("a", lock.token)
    with pytest.raises(LockLost, match="expired 2 s ago: its time to live is over"):
        table.release(12, WALL, stale)
    with pytest.raises(LockLost):
        table.heartbeat(12, WALL, *stale)
    with pytest.raises(LockLost):
        table.extend(12, WALL, *stale, 60)
    with pytest.raises(LockLost):
        table.require(12, *stale)
    with pytest.raises(LockLost, match="token 1 expired"):
        table.check_write(12, WALL, [("t", "1")], status=STATUS, owner="alice", tokens=[lock.token])


def test_another_token_or_another_owner_is_not_valid_for_a_lock() -> None:
    table, lock = take(new(), 0, ask("a"))
    with pytest.raises(LockLost, match="is held under another token"):
        table.release(1, WALL, ("a", lock.token + 1))
    with pytest.raises(LockLost, match="belongs to alice"):
        table.require(1, "a", lock.token, owner="bob")


def test_the_holder_writes_under_its_lock_with_owner_and_token_only() -> None:
    table, lock = take(new(), 0, ask("a", USER))
    key = ("object_type", "User")
    assert not may_write(table, 1, key)
    assert not may_write(table, 1, key, owner="alice")
    assert may_write(table, 1, key, owner="alice", tokens=[lock.token])
    with pytest.raises(LockLost):
        may_write(table, 1, key, owner="bob", tokens=[lock.token])
    assert may_write(table, 1, ("object_type", "Team"))
    assert not may_write(table, 1, ("object_type", "Team"), key)


def test_a_question_about_a_type_at_large_is_not_refused_for_one_locked_record() -> None:
    table, _ = take(new(), 0, ask("a", USER))
    assert may_write(table, 1, ("object_type", None))
    assert not may_write(take(table, 1, ask("b", LINKS))[0], 1, ("link_type", None))


def test_reading_is_always_allowed_and_an_unknown_action_is_refused() -> None:
    table, _ = take(new(), 0, ask("a"))
    assert may_write(table, 1, ("t", "1"), action="read")
    with pytest.raises(InvalidConfig, match="unknown action"):
        may_write(table, 1, ("t", "1"), action="peek")


def test_a_build_claim_blocks_no_writer_and_no_lock_but_a_second_build_of_the_index() -> None:
    table, claim = take(new(), 0, ask("claim", SEARCH, LockType.INDEXING), owner="builder")
    assert claim.expires_at is None
    assert may_write(table, 10**9, ("object_type", "User"))
    table, _ = take(table, 1, ask("b", BRANCH), owner="bob")
    with pytest.raises(LockConflict) as refused:
        table.acquire(2, WALL, [ask("c", SEARCH)], owner="other")
    assert refused.value.blocked.alternatives == ("follow or cancel the build of SEARCH_INDEX that is under way",)
    step = table.force_unlock(3, WALL, by="root", reason="stuck")
    assert list(step.table.locks) == ["claim"]
    assert step.table.force_unlock(4, WALL, by="root", reason="really", claims=True).table.locks == {}


def test_write_leases_exclude_locks_but_neither_each_other_nor_writes() -> None:
    table, lease = take(new(), 0, ask("a", USER, shared=True))
    assert lease.expires_at == LEASE_TTL_S
    table, _ = take(table, 0, ask("b", USER, shared=True), owner="bob")
    assert may_write(table, 1, ("object_type", "User"))
    with pytest.raises(LockConflict):
        table.acquire(1, WALL, [ask("c", OBJECTS)], owner="carol")
    table = wait(table, 1, 60, ask("c", OBJECTS), owner="carol", waiter_id="w")
    with pytest.raises(LockConflict, match="carol has been waiting longer"):
        table.acquire(2, WALL, [ask("d", USER, shared=True)], owner="dave")
    assert granted(table.expire_due(LEASE_TTL_S, WALL)) == ["c"]


def test_extending_adds_to_the_time_to_live_up_to_the_longest_life() -> None:
    table, lock = take(new(), 0, ask("a", ttl_s=100))
    step = table.extend(50, WALL, "a", lock.token, 100)
    assert step.value.expires_at == 200
    assert step.value.expires_wall == WALL + timedelta(seconds=200)
    assert step.must_persist
    longest = step.table.extend(51, WALL, "a", lock.token, DURATION_MAX_S - 200).table
    with pytest.raises(InvalidConfig, match="may be extended by 0 s more"):
        longest.extend(52, WALL, "a", lock.token, 1)


@pytest.mark.parametrize("absurd", [0, -1, math.nan, math.inf, DURATION_MAX_S + 1, "60", True])
def test_durations_out_of_range_are_refused(absurd: float) -> None:
    table, lock = take(new(), 0, ask("a", LINKS, ttl_s=100))
    for request in (ask("b", OBJECTS, ttl_s=absurd), ask("b", OBJECTS, heartbeat_s=absurd)):
        with pytest.raises(InvalidConfig):
            table.acquire(1, WALL, [request], owner="bob")
    with pytest.raises(InvalidConfig):
        table.extend(1, WALL, "a", lock.token, absurd)
    if absurd != 0 or absurd is True:
        with pytest.raises(InvalidConfig):
            table.acquire(1, WALL, [ask("b", OBJECTS)], owner="bob", wait_s=absurd, waiter_id="w")


def test_invalid_requests_are_refused() -> None:
    table = new()
    for requests, owner in [((), "a"), ((ask("x"),), ""), ((ask(""),), "a"), ((ask("x", USER), ask("x", TEAM)), "a")]:
        with pytest.raises(InvalidConfig):
            table.acquire(0, WALL, requests, owner=owner)
    held, _ = take(table, 0, ask("x"))
    with pytest.raises(InvalidConfig, match="in use"):
        held.acquire(1, WALL, [ask("x", SEARCH)], owner="a")
    with pytest.raises(InvalidConfig, match="waiter id"):
        held.acquire(1, WALL, [ask("y")], owner="a", wait_s=5)
    for scope, names in [("RESOURCE", ("t",)), ("RESOURCE_TYPE", ()), ("BRANCH", ("t",)), ("INDEX", ()), ("ROW", ())]:
        with pytest.raises(InvalidConfig):
            target(scope, *names)


def test_force_unlock_records_admin_and_reason_ends_the_tokens_and_grants_the_next() -> None:
    table, lock = take(new(), 0, ask("a"))
    table = wait(table, 1, 60, ask("b"), owner="bob", waiter_id="b")
    for by, reason in [("", "stuck"), ("root", " ")]:
        with pytest.raises(InvalidConfig):
            table.force_unlock(2, WALL, by=by, reason=reason)
    step = table.force_unlock(2, WALL, by="root", reason="stuck since noon")
    assert kinds(step) == ["forced", "granted"]
    assert (step.events[0].by, step.events[0].reason) == ("root", "stuck since noon")
    with pytest.raises(LockLost, match="taken away by root 1 s ago: stuck since noon"):
        step.table.heartbeat(3, WALL, "a", lock.token)


def test_a_refused_operation_and_a_discarded_step_change_nothing() -> None:
    table, lock = take(new(), 0, ask("a", ttl_s=10))
    before = table.dump(1)
    table.release(1, WALL, ("a", lock.token))
    table.heartbeat(1, WALL, "a", lock.token, ProgressReport(50))
    table.expire_due(99, WALL)
    with pytest.raises(LockConflict):
        table.acquire(1, WALL, [ask("b")], owner="bob")
    assert table.dump(1) == before


def test_releasing_several_is_all_or_none() -> None:
    table, one = take(new(), 0, ask("a", USER))
    table, two = take(table, 0, ask("b", TEAM))
    with pytest.raises(LockLost):
        table.release(1, WALL, ("a", one.token), ("b", 99))
    assert table.release(1, WALL, ("a", one.token), ("b", two.token), reason="done").table.locks == {}


def test_endings_are_remembered_but_not_for_ever() -> None:
    table = new()
    for n in range(ENDINGS_KEPT + 1):
        table, lock = take(table, n, ask(f"l{n}"))
        table = table.release(n, WALL, (lock.lock_id, lock.token)).table
    assert len(table.endings) == ENDINGS_KEPT
    with pytest.raises(LockLost, match="lock l0 is not held"):
        table.require(99, "l0", 1)
    with pytest.raises(LockLost, match="was released"):
        table.require(99, "l1", 2)


def test_the_wall_clock_decides_nothing() -> None:
    table, lock = take(new(), 0, ask("a", ttl_s=100))
    for jump in (timedelta(hours=-1), timedelta(hours=1)):
        assert table.expire_due(99, WALL + jump).value == ()
        assert isinstance(table.acquire(100, WALL + jump, [ask("b")], owner="bob").value, Grant)
    assert table.require(99, "a", lock.token) == lock
