"""Locks through a real engine: refusals and their reasons, expiry, fencing, restarts, states."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shadowswitch import (
    Engine,
    InvalidConfig,
    InvalidTransition,
    LockConflict,
    LockLost,
    ProgressReport,
    Put,
    ShadowSwitchError,
    WriteBlocked,
)
from shadowswitch.model.locks.targets import BRANCH
from shadowswitch.storage import failpoints
from shadowswitch.storage.catalog.locks import find_locks
from shadowswitch.storage.catalog.rows import encode_row
from shadowswitch.storage.catalog.transaction import Commit
from tests.support import inside
from tests.support.engine_lock_helpers import (
    Eventually,
    OpenEngine,
    blocked_write,
    expect_fenced_out,
    put,
    refused_lock,
)

# -- conflicts and writes ------------------------------------------------------------------------------------------


def test_a_conflict_names_holder_reason_progress_and_alternatives(engine: Engine) -> None:
    engine.write("main", [put("a"), put("a", "link_type")])
    lock = engine.acquire_lock("main", "MIGRATION", "alice", "RESOURCE_TYPE", "object_type", reason="new schema")
    engine.heartbeat(lock.lock_id, lock.token, ProgressReport(40, eta_s=1200))
    for blocked in (refused_lock(engine, "bob"), blocked_write(engine, put("a"), owner="bob")):
        assert (blocked.branch, blocked.holder, blocked.reason) == ("main", "alice", "new schema")
        assert (blocked.scope, blocked.lock_type, blocked.since) == ("RESOURCE_TYPE", "MIGRATION", lock.granted_at)
        assert blocked.progress_percent == 40
        assert blocked.eta_s is not None
        assert 0 < blocked.eta_s <= 1200
        assert blocked.retry_after_s is not None
        assert "link_type" in blocked.free_resource_types
        assert blocked.alternatives
    assert [held.progress_percent for held in engine.locks()] == [40]


@pytest.mark.parametrize(
    ("scope", "refused", "allowed"),
    [
        ({"scope": "BRANCH"}, [put("a"), put("z", "link_type")], []),
        ({"scope": "RESOURCE_TYPE", "resource_type": "object_type"}, [put("a"), put("b")], [put("a", "link_type")]),
        (
            {"scope": "RESOURCE", "resource_type": "object_type", "resource_id": "a"},
            [put("a")],
            [put("b"), put("a", "link_type")],
        ),
    ],
)
def test_a_lock_blocks_writes_in_its_scope_and_nowhere_else(
    engine: Engine, scope: dict[str, Any], refused: list[Put], allowed: list[Put]
) -> None:
    engine.create_branch("other")
    lock = engine.acquire_lock("main", "MANUAL", "alice", **scope)
    for change in refused:
        assert blocked_write(engine, change).lock_id == lock.lock_id
        assert blocked_write(engine, change, owner="alice").holder == "alice", (
            "without its token the write is like that of another owner"
        )
        assert not engine.check_write("main", "update", change.resource_type, change.id).allowed
        engine.write("main", [change], owner="alice", tokens=[lock.token])
        engine.write("other", [change])
    for change in allowed:
        engine.write("main", [change])
        assert engine.check_write("main", "update", change.resource_type, change.id).allowed
    with pytest.raises(WriteBlocked):
        engine.write("main", [*allowed, *refused])
    engine.release_lock(lock.lock_id, lock.token)
    engine.write("main", [*allowed, *refused])


def test_a_token_admits_only_its_owner(engine: Engine) -> None:
    lock = engine.acquire_lock("main", "MANUAL", "alice")
    with pytest.raises(LockLost):
        engine.write("main", [put("a")], owner="bob", tokens=[lock.token])
    inner = engine.acquire_lock("main", "MANUAL", "alice", "RESOURCE", "object_type", "a", tokens=[lock.token])
    assert inner.token > lock.token
    refused_lock(engine, "alice", "RESOURCE", "object_type", "b")


def test_invalid_lock_requests_are_refused(engine: Engine) -> None:
    for args, more in (
        (("MANUAL", ""), {}),
        (("NO_SUCH_TYPE", "alice"), {}),
        (("MANUAL", "alice", "INDEX"), {}),
        (("MANUAL", "alice", "RESOURCE_TYPE"), {}),
        (("MANUAL", "alice"), {"ttl_s": -1}),
        (("MANUAL", "alice"), {"ttl_s": float("nan")}),
        (("MANUAL", "alice"), {"wait_s": float("inf")}),
        (("MANUAL", "alice"), {"reason": "\ud800"}),
        (("MANUAL", "alice"), {"tokens": ["1"]}),
    ):
        with pytest.raises(InvalidConfig):
            engine.acquire_lock("main", *args, **more)
    for lock_id in ("", "1-x", "99-x", "x", "²-x"):
        with pytest.raises(LockLost):
            engine.release_lock(lock_id, 1)
    assert engine.locks() == []


def test_after_a_lock_is_granted_no_write_that_came_before_it_shows_up(engine: Engine) -> None:
    stop: list[bool] = []

    def write_on() -> None:
        while not stop:
            try:
                engine.write("main", [put("a")])
            except WriteBlocked:
                continue

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write_on) for _ in range(4)]
        try:
            for _ in range(20):
                lock = engine.acquire_lock("main", "MANUAL", "alice")
                head = engine.head("main")
                mine = engine.write("main", [put("b")], owner="alice", tokens=[lock.token])
                assert mine.lsn == head + 1
                engine.release_lock(lock.lock_id, lock.token)
        finally:
            stop.append(True)
        for writer in writers:
            writer.result()


# -- expiry and fencing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("life", [{"ttl_s": 0.05}, {"heartbeat_s": 0.02}])
def test_an_expired_lock_blocks_no_write_and_admits_none(
    engine: Engine, eventually: Eventually, life: dict[str, float]
) -> None:
    lock = engine.acquire_lock("main", "INDEXING", "alice", **life)  # type: ignore[arg-type]
    eventually(lambda: engine.locks("main") == [])
    assert engine.branch("main").state == "ACTIVE"
    engine.write("main", [put("a")])
    expect_fenced_out(engine, lock)
    assert engine.acquire_lock("main", "MANUAL", "bob").token > lock.token
    expect_fenced_out(engine, lock)
    kinds = [event.type for event in engine.events() if event.subject == lock.lock_id]
    assert kinds == ["com.shadowswitch.lock.granted", "com.shadowswitch.lock.expired"]


def test_expired_locks_are_swept_without_a_call(open_engine: OpenEngine, eventually: Eventually) -> None:
    engine = open_engine(branch_idle_s=0.01)
    engine.create_branch("main")
    engine.acquire_lock("main", "MANUAL", "alice", ttl_s=0.3)
    eventually(lambda: engine.events()[-1].type == "com.shadowswitch.lock.expired")


def test_extension_and_heartbeats_keep_a_lock(engine: Engine) -> None:
    lock = engine.acquire_lock("main", "MANUAL", "alice", ttl_s=600)
    longer = engine.extend_lock(lock.lock_id, lock.token, 60)
    assert lock.expires_at is not None
    assert longer.expires_at is not None
    assert longer.expires_at > lock.expires_at
    with pytest.raises(InvalidConfig):
        engine.extend_lock(lock.lock_id, lock.token, -5)
    with pytest.raises(InvalidConfig):
        engine.heartbeat(lock.lock_id, lock.token, 101)
    assert engine.locks("main")[0].token == lock.token


def test_force_unlock_fences_out_and_is_audited(engine: Engine) -> None:
    lock = engine.acquire_lock("main", "MANUAL", "alice", "RESOURCE", "object_type", "a")
    with pytest.raises(InvalidConfig):
        engine.force_unlock("main", "root", " ")
    assert [taken.lock_id for taken in engine.force_unlock("main", "root", "alice is away")] == [lock.lock_id]
    expect_fenced_out(engine, lock)
    entry = engine.audit()[-1]
    assert (entry.type, entry.subject) == ("lock.forced", "main")
    assert (entry.data["by"], entry.data["reason"]) == ("root", "alice is away")
    assert entry.data["locks"][0]["lock_id"] == lock.lock_id


# -- restarts and kills ---------------------------------------------------------------------------------------------


def test_a_lock_survives_closing_and_opening(open_engine: OpenEngine) -> None:
    engine = open_engine()
    engine.create_branch("main")
    lock = engine.acquire_lock("main", "INDEXING", "alice", heartbeat_s=1000, reason="rebuild")
    engine.close()
    engine = open_engine()
    assert [held.lock_id for held in engine.locks()] == [lock.lock_id]
    assert engine.branch("main").state == "LOCKED_FOR_WRITE"
    assert blocked_write(engine, put("a")).reason == "rebuild"
    engine.write("main", [put("a")], owner="alice", tokens=[lock.token])
    engine.release_lock(lock.lock_id, lock.token)
    assert engine.acquire_lock("main", "MANUAL", "bob").token > lock.token, "LK-2: tokens grow over restarts"


def test_a_lock_without_a_claim_ends_after_the_grace_interval(open_engine: OpenEngine, eventually: Eventually) -> None:
    engine = open_engine()
    engine.create_branch("main")
    lock = engine.acquire_lock("main", "INDEXING", "alice", heartbeat_s=0.01)
    engine.close()
    engine = open_engine(lock_grace_s=0.05)
    eventually(lambda: engine.locks() == [])
    expect_fenced_out(engine, lock)


KILLED = """
import os, signal, sys
from shadowswitch import Engine, Put
engine = Engine.open(sys.argv[1])
engine.create_branch("main")
gone = engine.acquire_lock("main", "MANUAL", "alice", "RESOURCE", "object_type", "a")
engine.release_lock(gone.lock_id, gone.token)
lock = engine.acquire_lock("main", "MANUAL", "alice", "RESOURCE_TYPE", "object_type")
print(lock.lock_id, lock.token, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_lock_survives_a_killed_process(open_engine: OpenEngine, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    lock_id, token = done.stdout.split()
    engine = open_engine()
    assert [(lock.lock_id, lock.token) for lock in engine.locks("main")] == [(lock_id, int(token))]
    assert blocked_write(engine, put("a")).holder == "alice"
    engine.write("main", [put("a", "link_type")])
    engine.release_lock(lock_id, int(token))
    assert engine.locks("main") == []


@pytest.mark.parametrize("where", ["journal.before_commit", "journal.committed"])
def test_a_step_of_unknown_outcome_is_settled_by_the_stored_state(
    engine: Engine, eventually: Eventually, where: str
) -> None:
    lock = engine.acquire_lock("main", "MANUAL", "alice", "RESOURCE_TYPE", "object_type")
    failpoints.plan_points(f"{where}=raise:ENOSPC@1")
    with pytest.raises(ShadowSwitchError):
        engine.release_lock(lock.lock_id, lock.token)
    failpoints.plan_points("")
    if where == "journal.committed":
        assert engine.locks("main") == []
    else:
        assert [held.token for held in engine.locks("main")] == [lock.token]
        engine.release_lock(lock.lock_id, lock.token)
    failpoints.plan_points(f"{where}=raise:ENOSPC@1")
    with pytest.raises(ShadowSwitchError):
        engine.acquire_lock("main", "MANUAL", "bob")
    failpoints.plan_points("")
    eventually(lambda: engine.locks("main") == [])
    engine.write("main", [put("a")])


def test_fsck_finds_locks_that_exclude_each_other_and_rows_that_do_not_decode(open_engine: OpenEngine) -> None:
    engine = open_engine(sound=False)
    engine.create_branch("main")
    engine.acquire_lock("main", "MANUAL", "alice", "RESOURCE", "object_type", "a")
    assert engine.check() == []
    stored = find_locks(inside.catalog(engine), 1)
    assert stored is not None
    (lock,) = stored.table.locks
    wide = msgspec.structs.replace(lock, lock_id="1-other", owner="bob", target=BRANCH)
    damaged = msgspec.structs.replace(stored, table=msgspec.structs.replace(stored.table, locks=(lock, wide)))
    for value, found in ((encode_row(damaged), ["LK-1", "LK-2"]), (b"damage", ["ST-4"])):
        _overwrite(engine, value)
        assert [finding.invariant for finding in engine.check()] == found


def _overwrite(engine: Engine, value: bytes) -> None:
    def work(commit: Commit) -> None:
        commit.txn.put((1).to_bytes(4, "big"), value, db=commit.db["locks"])

    inside.transact(engine, work, "damage")


# -- builds, switches, states --------------------------------------------------------------------------------------


def test_a_build_blocks_no_writer_and_a_switch_works_under_a_lock(engine: Engine) -> None:
    engine.write("main", [put(str(number)) for number in range(200)])
    shadow = engine.start_build("main", "SEARCH_INDEX", ["object_type"])
    assert engine.locks() == []
    engine.write("main", [put("during")])
    lock = engine.acquire_lock("main", "BACKUP", "alice")
    engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=60)
    assert engine.switch(shadow.shadow_index_id).success
    assert engine.index("main", "SEARCH_INDEX").record_count == 201
    blocked_write(engine, put("after"))
    engine.release_lock(lock.lock_id, lock.token)


def test_an_archived_branch_admits_no_write_and_stays_readable(open_engine: OpenEngine) -> None:
    engine = open_engine()
    engine.create_branch("main")
    engine.write("main", [put("a")])
    lock = engine.acquire_lock("main", "INDEXING", "alice")
    assert engine.branch("main").state == "LOCKED_FOR_WRITE"
    with pytest.raises(InvalidTransition):
        engine.archive_branch("main", by="alice")
    engine.release_lock(lock.lock_id, lock.token)
    assert engine.archive_branch("main", by="alice", reason="done").state == "ARCHIVED"
    engine.close()
    engine = open_engine()
    assert blocked_write(engine, put("b")).state == "ARCHIVED"
    assert engine.get("main", "object_type", "a") is not None
    assert [info.state for info in engine.branches()] == ["ARCHIVED"]
    with pytest.raises(InvalidTransition):
        engine.reopen_branch("main")
    assert engine.audit()[-1].data["reason"] == "done"


def test_indexing_in_parts_makes_a_branch_ready_when_the_last_is_done(engine: Engine) -> None:
    locks = engine.start_indexing("main", "indexer", ["object_type", "link_type"], reason="rebuild")
    assert [lock.resource_type for lock in locks] == ["object_type", "link_type"]
    assert engine.branch("main").state == "ACTIVE", "drafts stay editable"
    engine.write("main", [put("a", "draft")])
    assert blocked_write(engine, put("a")).lock_type == "INDEXING"
    with pytest.raises(LockConflict):
        engine.start_indexing("main", "other")
    part = engine.complete_indexing("main", "indexer", ["link_type"])
    assert (part.completed, part.remaining) == (("link_type",), ("object_type",))
    engine.write("main", [put("a", "link_type")])
    engine.complete_indexing("main", "indexer")
    assert (engine.branch("main").state, engine.locks()) == ("READY", [])
    with pytest.raises(InvalidTransition):
        engine.complete_indexing("main")
    assert engine.merge_branch("main").state == "MERGED"
    assert engine.reopen_branch("main").state == "ACTIVE"


def test_indexing_that_fails_or_loses_its_lock_does_not_make_a_branch_ready(
    engine: Engine, eventually: Eventually
) -> None:
    engine.start_indexing("main", "indexer")
    assert engine.branch("main").state == "LOCKED_FOR_WRITE"
    assert engine.complete_indexing("main", failed=True, reason="disk").status.state == "ERROR"
    assert blocked_write(engine, put("a")).state == "ERROR"
    assert engine.recover_branch("main").state == "ACTIVE"
    engine.start_indexing("main", "indexer", ttl_s=0.05)
    eventually(lambda: engine.branch("main").state == "ACTIVE")
    with pytest.raises(InvalidTransition):
        engine.complete_indexing("main", "indexer")
    assert engine.start_indexing("main", "indexer", ["object_type"], shadow=True) == []
    engine.write("main", [put("a")])
    engine.complete_indexing("main", "indexer")
    assert engine.branch("main").state == "ACTIVE", "the indexing of the whole branch failed, and was not done again"
    engine.start_indexing("main", "indexer", shadow=True)
    engine.complete_indexing("main", "indexer")
    assert engine.branch("main").state == "READY"


def test_a_write_whose_lock_expires_before_its_commit_is_refused_in_the_transaction(engine: Engine) -> None:
    lock = engine.acquire_lock("main", "MANUAL", "alice", ttl_s=0.2)
    failpoints.plan_points("write.admitted=sleep:0.5@1")
    with pytest.raises(LockLost):
        engine.write("main", [put("late")], owner="alice", tokens=[lock.token])
    assert engine.get("main", "object_type", "late") is None
