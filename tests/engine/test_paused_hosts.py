"""A host that was stopped did not listen: silence in that time ends no lock and no external build."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shadowswitch.actors.kit.attention import PAUSE_S, Attention
from shadowswitch.model.locks.table import LockTable
from shadowswitch.storage.clock import Clock
from tests.support.engine_helpers import ROOT, outside_environment, wait_until
from tests.support.lock_helpers import USER, ask, take

HOST = """
import json, sys
from shadowswitch import *
engine = Engine.open(sys.argv[1], Config(lock_grace_s=2.0, external_timeout_s=4.0, janitor_interval_s=0.1))
engine.create_branch("main")
build = engine.start_build("main", "SEARCH_INDEX", ["t"], external=True).shadow_index_id
lock = engine.acquire_lock("main", "MANUAL", "alice", heartbeat_s=1.0, ttl_s=600)
print("ready", flush=True)
for line in sys.stdin:
    try:
        found = eval(line)
    except ShadowSwitchError as error:
        found = type(error).__name__
    print(json.dumps(found, default=str), flush=True)
"""


class Host:
    """An engine in another process, with a lock of 3 seconds without a heartbeat, and an external build of 4."""

    def __init__(self, data: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOST, str(data)],
            cwd=ROOT,
            env=outside_environment(PYTHONPATH=str(ROOT)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._read() == "ready\n"

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def ask(self, code: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(code + "\n")
        self.process.stdin.flush()
        return json.loads(self._read())

    def pause(self, seconds: float) -> None:
        self.process.send_signal(signal.SIGSTOP)
        until = time.monotonic() + seconds
        wait_until(lambda: time.monotonic() > until)
        self.process.send_signal(signal.SIGCONT)


@pytest.fixture
def host(data_dir: Path) -> Iterator[Host]:
    host = Host(data_dir)
    yield host
    host.process.kill()
    host.process.communicate()


def events(host: Host) -> list[str]:
    found: list[str] = host.ask("[event.type for event in engine.events(limit=1000)]")
    return [kind.removeprefix("com.shadowswitch.") for kind in found]


def test_a_pause_ends_no_lock_and_no_external_build_and_silence_after_it_does(host: Host) -> None:
    host.pause(PAUSE_S + 2)
    assert host.ask("[lock.owner for lock in engine.locks()]") == ["alice"]
    assert host.ask("engine.heartbeat(lock.lock_id, lock.token) and 'held'") == "held"
    assert host.ask("engine.write('main', [Put('t', 'a', {'x': 'y'})])") == "WriteBlocked"
    assert host.ask("engine.report_progress(build, 10) and 'heard'") in ("heard", None)
    assert host.ask("engine.shadow(build).state") == "BUILDING"
    assert not {"lock.expired", "build.failed"} & set(events(host))
    wait_until(lambda: {"lock.expired", "build.failed"} <= set(events(host)))


class Hand(Clock):
    now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_attention_counts_the_pauses_and_their_time() -> None:
    clock = Hand()
    attention = Attention(clock)
    for _ in range(10):
        clock.now += 1.0
        assert attention.look() == 0
    clock.now += 3600.0
    assert (attention.look(), attention.look(), attention.away_s()) == (1, 1, 3600.0)
    clock.now += PAUSE_S - 0.1
    assert attention.look() == 1
    clock.now += PAUSE_S
    assert attention.away_s() == 3600.0 + PAUSE_S


def test_a_forgiven_lock_has_one_grace_interval_and_the_time_to_live_that_it_had() -> None:
    table, lock = take(LockTable("main"), 100, ask("a", USER, ttl_s=1000, heartbeat_s=10, reason="edit"))
    late = table.forgiven(500, 30)
    kept = late.require(529.9, "a", lock.token)
    assert (kept.heartbeat_by, kept.expires_at) == (530, 1100)
    assert late.next_due() == 530
    early = table.forgiven(101, 5).locks["a"]
    assert early.heartbeat_by == 130, "it has more time than that already"
    assert table.forgiven(2000, 30).live(2000) == ()
