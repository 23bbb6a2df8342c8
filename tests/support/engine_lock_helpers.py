"""Helpers of the tests of locks through an engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shadowswitch import Blocked, Engine, Lock, LockConflict, LockLost, Put, WriteBlocked

Eventually = Callable[[Callable[[], bool]], None]
OpenEngine = Callable[..., Engine]


def put(id: str, resource_type: str = "object_type") -> Put:
    return Put(resource_type, id, {"text": id})


def blocked_write(engine: Engine, change: Put, **more: Any) -> Blocked:
    with pytest.raises(WriteBlocked) as caught:
        engine.write("main", [change], **more)
    blocked = caught.value.blocked
    assert isinstance(blocked, Blocked)
    return blocked


def refused_lock(engine: Engine, *args: Any, **more: Any) -> Blocked:
    with pytest.raises(LockConflict) as caught:
        engine.acquire_lock("main", "MANUAL", *args, **more)
    blocked = caught.value.blocked
    assert isinstance(blocked, Blocked)
    return blocked


def waiting(engine: Engine) -> int:
    blocked = engine.check_write("main", "write", "object_type").blocked
    return blocked.waiting if blocked is not None else 0


def expect_fenced_out(engine: Engine, lock: Lock) -> None:
    for stale in (
        lambda: engine.heartbeat(lock.lock_id, lock.token),
        lambda: engine.extend_lock(lock.lock_id, lock.token, 5),
        lambda: engine.release_lock(lock.lock_id, lock.token),
        lambda: engine.write("main", [put("late")], owner=lock.owner, tokens=[lock.token]),
        lambda: engine.check_write("main", "write", "object_type", owner=lock.owner, tokens=[lock.token]),
    ):
        with pytest.raises(LockLost):
            stale()
    assert engine.get("main", "object_type", "late") is None
