"""Waiting for locks through a real engine: order, deadlines, sleeping actors, many threads."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shadowswitch import Engine, InvalidConfig, LockLost, ShadowSwitchError
from tests.support import inside
from tests.support.engine_lock_helpers import Eventually, OpenEngine, refused_lock, waiting


def test_waiters_are_served_in_order(engine: Engine, eventually: Eventually) -> None:
    served: list[str] = []

    def take(owner: str) -> None:
        lock = engine.acquire_lock("main", "MANUAL", owner, wait_s=60)
        served.append(owner)
        engine.release_lock(lock.lock_id, lock.token)

    first = engine.acquire_lock("main", "MANUAL", "first")
    with ThreadPoolExecutor(5) as pool:
        tasks = []
        for number in range(5):
            tasks.append(pool.submit(take, str(number)))
            eventually(lambda: waiting(engine) == len(tasks))
        engine.release_lock(first.lock_id, first.token)
        for task in tasks:
            task.result(60)
    assert served == ["0", "1", "2", "3", "4"]
    assert engine.locks() == []


def test_a_wait_ends_at_its_deadline_and_names_the_holder(engine: Engine) -> None:
    lock = engine.acquire_lock("main", "MANUAL", "alice")
    assert refused_lock(engine, "bob", wait_s=0.05).holder == "alice"
    assert waiting(engine) == 0
    engine.release_lock(lock.lock_id, lock.token)
    engine.acquire_lock("main", "MANUAL", "carl")


def test_a_lock_that_expires_goes_to_the_waiter(engine: Engine) -> None:
    engine.acquire_lock("main", "MANUAL", "alice", ttl_s=0.05)
    assert engine.acquire_lock("main", "MANUAL", "bob", wait_s=60).owner == "bob"


def test_a_branch_with_a_waiter_is_not_idle_and_one_with_a_lock_may_sleep(
    open_engine: OpenEngine, eventually: Eventually
) -> None:
    engine = open_engine(branch_idle_s=0.01)
    engine.create_branch("main")
    first = engine.acquire_lock("main", "MANUAL", "alice", heartbeat_s=1000)
    eventually(lambda: engine.stats()["branch_actors"] == 0)
    engine.heartbeat(first.lock_id, first.token, 10)
    eventually(lambda: engine.stats()["branch_actors"] == 0)
    assert [lock.progress_percent for lock in engine.locks("main")] == [10], (
        "the heartbeat is kept while the actor sleeps"
    )
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(engine.acquire_lock, "main", "MANUAL", "bob", wait_s=60)
        eventually(lambda: waiting(engine) == 1)
        engine.clean_up()
        engine.clean_up()
        assert engine.stats()["branch_actors"] == 1
        engine.release_lock(first.lock_id, first.token)
        assert task.result(60).token > first.token


def test_closing_answers_the_waiters(engine: Engine, eventually: Eventually) -> None:
    engine.acquire_lock("main", "MANUAL", "alice")
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(engine.acquire_lock, "main", "MANUAL", "bob", wait_s=600)
        eventually(lambda: waiting(engine) == 1)
        engine.close()
        with pytest.raises(ShadowSwitchError, match="closed"):
            task.result(60)


def test_two_hundred_threads_take_and_give_back_without_deadlock(engine: Engine) -> None:
    holding: list[int] = []

    def work(number: int) -> int:
        narrow = number % 4 != 0
        one = {"scope": "RESOURCE", "resource_type": "object_type", "resource_id": str(number % 3)}
        more: dict[str, Any] = one if narrow else {}
        lock = engine.acquire_lock("main", "MANUAL", f"thread {number}", wait_s=100, **more)
        if not narrow:
            holding.append(number)
            assert holding == [number], "LK-1: no other lock is beside a lock of the branch"
            holding.remove(number)
        engine.release_lock(lock.lock_id, lock.token)
        return lock.token

    with ThreadPoolExecutor(200) as pool:
        tokens = list(pool.map(work, range(200)))
    assert sorted(tokens) == list(range(1, 201)), "LK-2"
    assert engine.locks() == []


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_jump_of_the_wall_clock_changes_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, eventually: Eventually, hours: int
) -> None:
    short = engine.acquire_lock("main", "MANUAL", "alice", "RESOURCE", "object_type", "a", ttl_s=0.5)
    long = engine.acquire_lock("main", "MANUAL", "bob", "RESOURCE", "object_type", "b", ttl_s=600, heartbeat_s=300)
    inside.replace(monkeypatch, inside.Step.WALL_CLOCK, lambda clock: time.time() + 3600 * hours)
    assert engine.confirm_lock(long.lock_id, long.token).owner == "bob"
    eventually(lambda: len(engine.locks()) == 1)
    with pytest.raises(LockLost, match="expired"):
        engine.confirm_lock(short.lock_id, short.token)
    assert engine.acquire_lock("main", "MANUAL", "carl", "RESOURCE", "object_type", "a", wait_s=5).owner == "carl"
    assert engine.extend_lock(long.lock_id, long.token, 5).owner == "bob"


def test_a_branch_has_a_bounded_number_of_locks(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    inside.patch_limit(monkeypatch, inside.Limit.LOCKS_MAX, 3)
    for id in "abc":
        engine.acquire_lock("main", "MANUAL", "alice", "RESOURCE", "object_type", id)
    with pytest.raises(InvalidConfig, match="3 locks"):
        engine.acquire_lock("main", "MANUAL", "alice", "RESOURCE", "object_type", "d")
