"""`shadowswitch locks`, and the locks in `status`: beside a running host, without a host, and with --watch."""

from __future__ import annotations

import json
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shadowswitch import Engine, ProgressReport
from tests.support.cli_helpers import Cli, spawn
from tests.support.engine_helpers import KIND, TYPES, wait_until
from tests.support.engine_lock_helpers import Eventually, put


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def ran(engine: Engine, *arguments: object) -> Any:
    """A command in a process of its own, beside the engine of this one."""
    process = spawn(*arguments, "--data", engine.path)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, ""), out
    return json.loads(out) if "--json" in arguments else out


def test_locks_waiters_and_builds_are_shown_beside_a_running_host(engine: Engine, eventually: Eventually) -> None:
    engine.write("main", [put("a"), put("a", "link_type")])
    shadow = engine.start_build("main", KIND, TYPES, {"backend": "fts5"}, external=True, service_name="funnel")
    engine.report_progress(shadow.shadow_index_id, 30, 500)
    lock = engine.acquire_lock(
        "main", "MIGRATION", "alice", "RESOURCE_TYPE", "object_type", heartbeat_s=1000, reason="new schema"
    )
    engine.heartbeat(lock.lock_id, lock.token, ProgressReport(40, eta_s=1200, message="half of the tables"))
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(engine.acquire_lock, "main", "MANUAL", "bob", wait_s=100, reason="my turn")
        wait_until(lambda: ran(engine, "locks", "main", "--json")["waiters"])
        found = ran(engine, "locks", "main", "--json")
        printed, shown = ran(engine, "locks", "main"), ran(engine, "status")
        status = ran(engine, "status", "--json")
        engine.release_lock(lock.lock_id, lock.token)
        task.result(60)
    (held,), (waiter,), (build,) = found["locks"], found["waiters"], found["builds"]
    assert (held["owner"], held["progress_percent"], held["reason"]) == ("alice", 40, "new schema")
    assert 1000 < held["eta_s"] <= 1200
    assert (waiter["owner"], waiter["wants"]) == ("bob", ["MANUAL on the whole branch"])
    assert (build["index_type"], build["build_progress_percent"]) == (KIND, 30)
    assert (found["state"], found["free_resource_types"]) == ("ACTIVE", ["link_type"])
    for word in ("alice", "new schema", "40 % half of the tables", "bob", "my turn", "free: link_type", "30 %"):
        assert word in printed
    assert "alice" in shown
    assert "waiting for locks" in shown
    assert [(branch["locks"], branch["waiting"]) for branch in status["branches"]] == [(1, 1)]
    assert [(lock["owner"], lock["branch"]) for lock in status["locks"]] == [("alice", "main")]
    assert [(waiter["owner"], waiter["branch"]) for waiter in status["waiters"]] == [("bob", "main")]


def test_without_a_host_locks_shows_the_state_that_an_engine_would_restore(
    engine: Engine, cli: Cli, eventually: Eventually
) -> None:
    engine.acquire_lock("main", "BACKUP", "alice", "RESOURCE_TYPE", "link_type", ttl_s=0.2)
    engine.acquire_lock("main", "MANUAL", "bob", "RESOURCE", "object_type", "a")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(engine.acquire_lock, "main", "MANUAL", "carl", wait_s=100)
        eventually(lambda: len(engine.lock_waiters("main")) == 1)
        engine.close()
    wait_until(lambda: [lock["owner"] for lock in cli.json("locks", "main", "--data", engine.path)["locks"]] == ["bob"])
    found = cli.json("locks", "main", "--data", engine.path)
    assert (found["host"], found["waiters"]) == (None, [])
    assert "bob" in cli("locks", "main", "--data", engine.path)


def test_a_branch_without_locks_is_free(engine: Engine, cli: Cli) -> None:
    engine.close()
    assert "the branch is free" in cli("locks", "main", "--data", engine.path)
    assert "no branch" in cli.error("locks", "nowhere", "--data", engine.path, status=1)


def test_a_state_that_refuses_every_write_comes_with_advice(engine: Engine, cli: Cli) -> None:
    engine.start_indexing("main", "funnel")
    engine.complete_indexing("main", failed=True)
    engine.create_branch("old")
    engine.archive_branch("old")
    engine.acquire_lock("main", "BACKUP", "alice", "RESOURCE_TYPE", "link_type")
    engine.close()
    broken, closed = cli("locks", "main", "--data", engine.path), cli("locks", "old", "--data", engine.path)
    for word in ("ERROR", "no write is possible", "recover the branch", "shadowswitch branch recover main", "alice"):
        assert word in broken
    assert "no write is possible" in closed
    assert "branch reopen" not in closed
    assert not any(word in text for word in ("the branch is free", "free:") for text in (broken, closed))
    assert cli.json("locks", "old", "--data", engine.path)["advice"][0] == "create another branch and work there"


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_watch_shows_every_change_until_an_interrupt(engine: Engine, form: list[str]) -> None:
    process = spawn("locks", "main", "--data", engine.path, "--watch", *form)
    assert process.stdout is not None
    first = process.stdout.readline()
    assert "ACTIVE" in first
    lock = engine.acquire_lock("main", "INDEXING", "alice", reason="all anew")
    _read_until(process, "LOCKED_FOR_WRITE")
    engine.release_lock(lock.lock_id, lock.token)
    _read_until(process, "ACTIVE")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


def _read_until(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if word in line:
            return
    raise AssertionError(f"{word} was never shown")
