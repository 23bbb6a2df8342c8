"""A caller that is gone while it waits gets no lock: neither by a call of the engine nor over HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shadowswitch import Engine, Timeout
from tests.support.engine_helpers import outside_environment, wait_until
from tests.support.engine_lock_helpers import Eventually
from tests.support.http_helpers import API, serving

WAITER = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], timeout=300)
connection.request("POST", sys.argv[2], sys.argv[3], {"Content-Type": "application/json"})
print(connection.getresponse().status)
"""


def test_a_wait_of_a_caller_that_is_gone_is_given_up(engine: Engine, eventually: Eventually) -> None:
    lock = engine.acquire_lock("main", "MANUAL", "alice")
    gone = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(engine.acquire_lock, "main", "MANUAL", "bob", wait_s=600, present=lambda: not gone.is_set())
        eventually(lambda: len(engine.lock_waiters("main")) == 1)
        gone.set()
        with pytest.raises(Timeout, match="is gone"):
            task.result(60)
    eventually(lambda: engine.lock_waiters("main") == [])
    engine.release_lock(lock.lock_id, lock.token)
    assert engine.locks("main") == []
    here = engine.acquire_lock("main", "MANUAL", "carl", wait_s=600, present=lambda: True)
    found = engine.find_lock(here.lock_id)
    assert found is not None
    assert found.token == here.token
    assert engine.find_lock("1-none") is None


def test_a_lock_that_was_granted_while_its_caller_went_away_is_given_back(engine: Engine) -> None:
    asked: list[bool] = []

    def present() -> bool:
        asked.append(True)
        return len(asked) < 2

    with pytest.raises(Timeout):
        engine.acquire_lock("main", "MANUAL", "alice", wait_s=10, present=present)
    wait_until(lambda: engine.locks("main") == [])


@pytest.mark.slow
def test_a_client_whose_process_dies_leaves_the_line_and_one_that_stays_is_served(tmp_path: Path) -> None:
    lock = {"branch_name": "main", "lock_type": "BACKUP", "owner": "first", "reason": "test"}
    with serving(tmp_path / "data") as server:
        client = server.client()
        client.post("branches", {"name": "main"})
        held = client.post("branch-locks/acquire", lock)
        processes = []
        for owner in ("dies", "stays"):
            body = json.dumps({**lock, "owner": owner, "wait_s": 200})
            place = server.url.removeprefix("http://").rstrip("/")
            command = [sys.executable, "-c", WAITER, place, f"{API}/branch-locks/acquire", body]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=outside_environment())
            processes.append(process)
            wait_until(lambda: len(client.get("branch-locks/waiters")) == len(processes), what="the waiter")
        os.kill(processes[0].pid, signal.SIGKILL)
        wait_until(
            lambda: [w["owner"] for w in client.get("branch-locks/waiters")] == ["stays"], what="one waiter less"
        )
        client.ok("DELETE", f"branch-locks/locks/{held['lock_id']}")
        out, _ = processes[1].communicate(timeout=60)
        assert out.strip() == "200"
        processes[0].communicate(timeout=60)
        assert [found["locked_by"] for found in client.get("branch-locks/locks")] == ["stays"]
        client.close()
