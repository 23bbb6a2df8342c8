"""Write leases for hosts with their own storage, and several locks at once, through a real engine."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shadowswitch import (
    Engine,
    InvalidConfig,
    LockConflict,
    LockLost,
    LockSpec,
    LockType,
    UnknownShadow,
    WritePermission,
)
from shadowswitch.storage.catalog.locks import find_locks
from tests.support import inside
from tests.support.engine_lock_helpers import Eventually, OpenEngine, put, refused_lock

ONE = {"scope": "RESOURCE", "resource_type": "object_type", "resource_id": "a"}


def lease(engine: Engine, owner: str = "host", id: str | None = "a", **more: Any) -> WritePermission:
    return engine.check_write("main", "update", "object_type", id, owner, **{"lease_s": 60, **more})


# -- leases --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["a", None])
@pytest.mark.parametrize(
    "scope", [{}, {"scope": "RESOURCE_TYPE", "resource_type": "object_type"}, ONE], ids=["branch", "type", "resource"]
)
def test_no_lock_is_granted_beside_a_lease_that_it_overlaps(
    engine: Engine, eventually: Eventually, id: str | None, scope: dict[str, Any]
) -> None:
    permission = lease(engine, id=id)
    assert permission.allowed
    assert permission.expires_at is not None
    assert refused_lock(engine, "alice", **scope).holder == "host"
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(engine.acquire_lock, "main", "MANUAL", "alice", wait_s=60, **scope)
        eventually(lambda: len(engine.lock_waiters("main")) == 1)
        assert engine.confirm_lock(permission.lock_id, permission.token).owner == "host"
        assert not task.done()
        engine.release_lock(permission.lock_id, permission.token)
        assert task.result(60).token > permission.token
    assert not lease(engine, id=id).allowed


def test_leases_do_not_exclude_each_other_or_writes_or_other_records(engine: Engine) -> None:
    one, other = lease(engine), lease(engine, "other host")
    assert other.token > one.token > 0
    engine.write("main", [put("a")])
    engine.acquire_lock("main", "MANUAL", "alice", "RESOURCE", "object_type", "b")
    engine.acquire_lock("main", "MANUAL", "alice", "RESOURCE_TYPE", "link_type")


def test_a_lease_ends_by_itself_and_calls_with_its_token_are_refused(engine: Engine) -> None:
    permission = lease(engine, lease_s=0.05)
    lock = engine.acquire_lock("main", "MANUAL", "alice", wait_s=60)
    for late in (engine.confirm_lock, engine.release_lock):
        with pytest.raises(LockLost, match="expired"):
            late(permission.lock_id, permission.token)
    assert engine.confirm_lock(lock.lock_id, lock.token).owner == "alice"


def test_a_stream_of_leases_does_not_starve_a_lock(engine: Engine, eventually: Eventually) -> None:
    first = lease(engine)
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(engine.acquire_lock, "main", "MANUAL", "alice", wait_s=60)
        eventually(lambda: len(engine.lock_waiters("main")) == 1)
        refused = lease(engine, "next host")
        assert not refused.allowed
        assert refused.blocked is not None
        assert refused.token == 0
        assert engine.check_write("main", "update", "object_type", "a").allowed, "a waiter blocks no write"
        engine.release_lock(first.lock_id, first.token)
        assert task.result(60).owner == "alice"


def test_a_lease_under_an_own_lock_outlives_it_and_keeps_the_next_lock_away(engine: Engine) -> None:
    lock = engine.acquire_lock("main", "MANUAL", "host")
    assert not lease(engine).allowed
    permission = lease(engine, tokens=[lock.token])
    engine.release_lock(lock.lock_id, lock.token)
    assert refused_lock(engine, "alice").lock_id == permission.lock_id


def test_a_branch_is_not_closed_under_a_lease_or_a_lock(engine: Engine) -> None:
    for held in (lease(engine), engine.acquire_lock("main", "MANUAL", "alice", "RESOURCE", "object_type", "b")):
        with pytest.raises(LockConflict) as caught:
            engine.archive_branch("main")
        assert caught.value.blocked.lock_id == held.lock_id
        engine.release_lock(held.lock_id, held.token)
    assert engine.archive_branch("main").state == "ARCHIVED"
    assert not lease(engine).allowed


def test_leases_are_bounded_and_are_in_no_event(engine: Engine) -> None:
    for senseless in (0, -1, 61, float("nan"), float("inf"), "1"):
        with pytest.raises(InvalidConfig):
            lease(engine, lease_s=senseless)
    with pytest.raises(InvalidConfig):
        lease(engine, owner="")
    permission = lease(engine, lease_s=50)
    with pytest.raises(InvalidConfig):
        engine.extend_lock(permission.lock_id, permission.token, 11)
    engine.extend_lock(permission.lock_id, permission.token, 9)
    engine.force_unlock("main", "root", "test")
    with pytest.raises(LockLost, match="taken away by root"):
        engine.confirm_lock(permission.lock_id, permission.token)
    assert [event.type for event in engine.events() if "lock" in event.type] == []
    assert engine.check_write("main", "read", "object_type", lease_s=5) == WritePermission(
        True, "nothing is in the way"
    )


def test_a_lease_survives_the_host_of_the_engine(open_engine: OpenEngine) -> None:
    engine = open_engine()
    engine.create_branch("main")
    permission = lease(engine)
    engine.close()
    engine = open_engine()
    assert engine.confirm_lock(permission.lock_id, permission.token).shared
    assert refused_lock(engine, "alice").holder == "host"


# -- the fence in the transaction ----------------------------------------------------------------------------------


def test_a_write_that_was_admitted_and_held_up_does_not_land_after_the_lock_was_lost(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write is held up between admission and commit; meanwhile the lock goes to another owner."""
    old = engine.acquire_lock("main", "MANUAL", "alice")
    engine.write("main", [put("a")], owner="alice", tokens=[old.token])
    held_up = inside.HeldWrite(monkeypatch, engine)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(engine.write, "main", [put("late")], "alice", 60, [old.token])
        while not held_up.is_held:
            engine.head("main")
        engine.force_unlock("main", "root", "gone")
        new = engine.acquire_lock("main", "MANUAL", "bob")
        engine.write("main", [put("b")], owner="bob", tokens=[new.token])
        held_up.let_go()
        with pytest.raises(LockLost, match="taken away by root"):
            late.result(60)
    assert engine.get("main", "object_type", "late") is None


# -- several at once -----------------------------------------------------------------------------------------------


def spec(id: str) -> LockSpec:
    return LockSpec(LockType.MANUAL, "RESOURCE", "object_type", id)


def test_several_locks_are_taken_all_or_none(engine: Engine) -> None:
    one, other = engine.acquire_locks("main", [spec("a"), LockSpec("BACKUP", "RESOURCE_TYPE", "link_type")], "alice")
    assert (one.resource_id, other.resource_type, other.token) == ("a", "link_type", one.token + 1)
    with pytest.raises(LockConflict) as caught:
        engine.acquire_locks("main", [spec("b"), spec("a")], "bob")
    assert caught.value.blocked.holder == "alice"
    assert [lock.owner for lock in engine.locks()] == ["alice", "alice"], "LK-5"
    engine.release_lock(one.lock_id, one.token)
    assert len(engine.acquire_locks("main", [spec("b"), spec("a")], "bob")) == 2
    engine.write("main", [put("a"), put("b")], owner="bob", tokens=[lock.token for lock in engine.locks()[1:]])


def test_a_caller_that_waits_for_several_locks_holds_none_of_them(engine: Engine, eventually: Eventually) -> None:
    first = engine.acquire_lock("main", "MANUAL", "alice", "RESOURCE", "object_type", "a")
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(engine.acquire_locks, "main", [spec("b"), spec("a")], "bob", 60)
        eventually(lambda: len(engine.lock_waiters()) == 1)
        assert [waiter.wants for waiter in engine.lock_waiters()] == [
            ("MANUAL on object_type b", "MANUAL on object_type a")
        ]
        engine.write("main", [put("b")])
        assert refused_lock(engine, "carl", "RESOURCE", "object_type", "b").cause == "QUEUE", (
            "waiters are served in their order"
        )
        engine.release_lock(first.lock_id, first.token)
        assert [lock.resource_id for lock in task.result(60)] == ["b", "a"]
    assert engine.lock_waiters() == []


def test_callers_that_want_the_same_locks_in_other_orders_never_deadlock(engine: Engine) -> None:
    held: set[str] = set()

    def work(number: int) -> int:
        chance = random.Random(number)
        ids = chance.sample("abcd", chance.randint(2, 4))
        locks = engine.acquire_locks("main", [spec(id) for id in ids], f"thread {number}", 100)
        assert not held & set(ids), "LK-1"
        held.update(ids)
        held.difference_update(ids)
        for lock in locks:
            engine.release_lock(lock.lock_id, lock.token)
        return len(locks)

    with ThreadPoolExecutor(30) as pool:
        assert sum(pool.map(work, range(90))) > 180
    assert (engine.locks(), engine.lock_waiters()) == ([], [])


def test_invalid_sets_of_locks_are_refused(engine: Engine) -> None:
    for requests in (
        [],
        spec("a"),
        [("MANUAL",)],
        [LockSpec("NONE")],
        [spec("a")] * 1001,
        [LockSpec("MANUAL", ttl_s=-1)],
    ):
        with pytest.raises(InvalidConfig):
            engine.acquire_locks("main", requests, "alice")  # type: ignore[arg-type]
    with pytest.raises(UnknownShadow):
        engine.acquire_lock("main", "MANUAL", "alice", shadow_index_id="no such")
    assert engine.locks() == []


def test_waiters_and_heartbeats_are_stored_for_processes_that_only_read(engine: Engine, eventually: Eventually) -> None:
    lock = engine.acquire_lock("main", "MANUAL", "alice", heartbeat_s=100)

    def stored() -> Any:
        row = find_locks(inside.catalog(engine), 1)
        return row and row.table

    engine.heartbeat(lock.lock_id, lock.token, 30)
    eventually(lambda: stored().locks[0].progress is not None)
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(engine.acquire_lock, "main", "MANUAL", "bob", wait_s=60)
        eventually(lambda: len(stored().waiters) == 1)
        engine.release_lock(lock.lock_id, lock.token)
        assert task.result(60).owner == "bob"
    assert stored().waiters == ()
