"""The wall clock moves by hours, forth and back: locks expire by the monotonic clock, also over a restart.

The host is a process of its own. It replaces `time.time` and the date of actors before it imports the library, so that
a default argument or an imported name has the moved clock, too.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.engine_helpers import outside_environment

HOST = """
import datetime, sys, threading, time

moved_s = [0.0]
real = time.time
time.time = lambda: real() + moved_s[0]
time.time_ns = lambda: int(time.time() * 1e9)

class MovedDate:
    fromtimestamp = datetime.datetime.fromtimestamp

    @staticmethod
    def now(tz=None):
        return datetime.datetime.now(tz) + datetime.timedelta(seconds=moved_s[0])

from shadowswitch import Config, Engine, Put, WriteBlocked

for name, module in list(sys.modules.items()):
    if name.startswith("shadowswitch.actors") and getattr(module, "datetime", None) is datetime.datetime:
        module.datetime = MovedDate

HOUR_S = 3600.0

def opened():
    return Engine.open(sys.argv[1], Config(lock_grace_s=0.05))

def take(engine, owner, ttl_s):
    return engine.acquire_lock("main", "MAINTENANCE", owner, "RESOURCE", "object_type", "a", ttl_s=ttl_s)

def held(engine):
    return [lock.owner for lock in engine.locks("main")]

def blocked(engine):
    try:
        engine.write("main", [Put("object_type", "a", {})])
    except WriteBlocked:
        return True
    return False

def ends(engine):
    for _ in range(3000):
        if not held(engine):
            return True
        threading.Event().wait(0.01)
    return False

def forward_keeps(engine):
    lock = take(engine, "forward", 60)
    for hours in (2, 48):
        moved_s[0] = hours * HOUR_S
        assert blocked(engine), "a lock ended with the wall clock"
        assert held(engine) == ["forward"]
    engine.heartbeat(lock.lock_id, lock.token)
    engine.release_lock(lock.lock_id, lock.token)

def back_ends(engine):
    take(engine, "back", 0.3)
    moved_s[0] = -2 * HOUR_S
    assert ends(engine), "a lock lives on because the wall clock went back"
    assert not blocked(engine)

def forward_over_a_restart_keeps(engine):
    lock = take(engine, "forward", 60)
    engine.close()
    moved_s[0] = 2 * HOUR_S
    engine = opened()
    assert held(engine) == ["forward"] and blocked(engine), "a lock ended over a restart, with the wall clock"
    engine.release_lock(lock.lock_id, lock.token)

def back_over_a_restart_ends(engine):
    take(engine, "back", 0.3)
    engine.close()
    moved_s[0] = -2 * HOUR_S
    engine = opened()
    assert ends(engine), "a lock lives on over a restart because the wall clock went back"
    engine.close()

engine = opened()
engine.create_branch("main")
globals()[sys.argv[2]](engine)
"""


@pytest.mark.parametrize(
    "story", ["forward_keeps", "back_ends", "forward_over_a_restart_keeps", "back_over_a_restart_ends"]
)
def test_a_lock_does_not_see_the_wall_clock_move(tmp_path: Path, story: str) -> None:
    command = [sys.executable, "-c", HOST, str(tmp_path / "data"), story]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=outside_environment())
    assert done.returncode == 0, done.stdout + done.stderr
