"""Rare orders of events, found by reading the code: each test delays one thread or process at the narrow place."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import lmdb
import pytest

from shadowswitch import (
    BuildFailed,
    CorruptData,
    Engine,
    EngineClosed,
    InvalidTransition,
    StorageFull,
    SwitchRequest,
    Timeout,
)
from shadowswitch.actors.kit import actor as base
from shadowswitch.actors.kit.reply import Reply
from shadowswitch.actors.maintenance.janitor import Sweep
from shadowswitch.model.digest import Digest
from shadowswitch.model.errors import InternalFailure, ShadowSwitchError
from shadowswitch.storage.catalog import transitions
from shadowswitch.storage.disk import disk_errors
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, attempt, built, fill, live, outside_environment, put, wait_until

OpenEngine = Callable[..., Engine]
HELD_S = 30.0
OUTSIDE_READER = """
import sys
from pathlib import Path
from shadowswitch.engine.reader import outside_reader
from shadowswitch.storage.catalog.environment import Catalog

folder = Path(sys.argv[1])
catalog = Catalog(folder / "catalog", readonly=True)
seen = []
for _ in range(2):
    with outside_reader(folder, catalog, "main", "SEARCH_INDEX") as reader:
        print(reader.generation, flush=True)
        sys.stdin.readline()
        print(reader.get("object_type", "0").lsn, flush=True)
"""


def start(open_engine: OpenEngine, **settings: Any) -> Engine:
    engine = open_engine(**settings)
    engine.create_branch("main")
    fill(engine, 50)
    return engine


def published(engine: Engine) -> Path:
    return engine.path / "published" / "main" / KIND


# -- builds ----------------------------------------------------------------------------------------------------------


def test_a_build_looks_for_its_cancellation_while_it_is_validated(
    filled: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.patch_limit(monkeypatch, inside.Limit.VALIDATION_POLL_S, 0.0001)
    assert built(filled).state == "BUILT"


def test_a_failed_build_whose_files_are_being_removed_is_not_retried(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    removing, go_on = threading.Event(), threading.Event()

    def held(_: Path) -> None:
        removing.set()
        assert go_on.wait(HELD_S)

    inside.fail_build_validation(monkeypatch, "made to fail")
    inside.before_removal(monkeypatch, held)
    engine = start(open_engine, failed_keep_s=0.0)
    shadow = engine.start_build("main", KIND, TYPES).shadow_index_id
    with pytest.raises(BuildFailed):
        engine.wait_for(shadow, "BUILT", timeout_s=60)
    assert removing.wait(HELD_S)
    try:
        with pytest.raises(InvalidTransition, match="removed"):
            engine.retry_build(shadow)
    finally:
        go_on.set()


def test_a_change_of_pace_that_was_given_up_is_not_made_and_does_not_end_the_build(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    noting, go_on = threading.Event(), threading.Event()

    def held(phase: str) -> None:
        if phase == "catching_up":
            noting.set()
            assert go_on.wait(HELD_S)

    inside.patch_limit(monkeypatch, inside.Limit.BUILD_STOP_S, 0.05)
    inside.before_build_phase(monkeypatch, held)
    engine = start(open_engine)
    shadow = engine.start_build("main", KIND, TYPES).shadow_index_id
    assert noting.wait(HELD_S)
    try:
        with pytest.raises(Timeout, match="nothing was done"):
            engine.pause_build(shadow)
    finally:
        go_on.set()
    assert engine.wait_for(shadow, "BUILT", timeout_s=60).state == "BUILT"


def test_a_worker_that_dies_in_the_moment_in_which_it_is_given_a_task_is_noticed(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start(open_engine, idle_workers=1)
    live(engine)
    wait_until(lambda: inside.idle_workers(engine))
    killed: list[int] = []

    def kill_first(pid: int, noticed: Callable[[], bool]) -> None:
        if not killed:
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)
            wait_until(noticed)

    inside.before_worker_task(monkeypatch, engine, kill_first)
    assert built(engine).state == "BUILT"
    assert killed


# -- switches --------------------------------------------------------------------------------------------------------


def test_a_switch_whose_reversal_fails_is_no_success(open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = start(open_engine)
    first, shadow = live(engine), built(engine)
    before = os.readlink(published(engine))
    commits: list[int] = []

    def full_at_the_second() -> None:
        commits.append(1)
        if len(commits) == 2:
            raise StorageFull("the disk is full", operation="commit")

    inside.fail_verification(monkeypatch, "made to fail")
    inside.before(monkeypatch, inside.Step.COMMIT_SWITCH, full_at_the_second)
    result = engine.switch(shadow.shadow_index_id)
    assert (result.success, result.rolled_back) == (False, False)
    assert result.verification_errors == ["made to fail"]
    assert "going back failed as well: the disk is full" in result.message
    assert os.readlink(published(engine)) == before
    monkeypatch.undo()
    again = engine.rollback("main", KIND)
    assert (again.success, again.generation) == (True, first)


def test_a_validation_that_could_not_be_done_did_not_pass(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise InternalFailure("the worker died", hint="try again")

    shadow = built(engine)
    inside.replace(monkeypatch, inside.Step.VALIDATE_SHADOW, broken)
    result = engine.switch(shadow.shadow_index_id)
    assert (result.success, result.validation_passed) == (False, False)
    assert "the worker died" in result.validation_errors[0]


def test_the_published_path_never_leads_to_a_removed_generation(open_engine: OpenEngine) -> None:
    engine = start(open_engine)
    live(engine)
    shadow, publishing = built(engine), inside.publish_lock(engine)
    with publishing, ThreadPoolExecutor(1) as pool:  # as a long copy of another index would hold it
        request = SwitchRequest(backup_current=False)
        switching = pool.submit(engine.switch, shadow.shadow_index_id, request)
        wait_until(lambda: engine.index("main", KIND).generation == 2)
        inside.sweep(engine, HELD_S)
        assert published(engine).resolve(strict=True).name == "00000001"
        publishing.release()
        assert switching.result(HELD_S).success
        publishing.acquire()
    assert published(engine).resolve(strict=True).name == "00000002"
    wait_until(lambda: not (engine.path / "generations" / "main" / KIND / "00000001").exists())


def test_a_reader_in_another_process_never_meets_an_older_state_in_the_new_generation(open_engine: OpenEngine) -> None:
    engine = start(open_engine, followers=2)
    live(engine)
    shadow = built(engine)
    command = [sys.executable, "-c", OUTSIDE_READER, str(engine.path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=outside_environment()
    ) as outside:
        assert outside.stdin is not None
        assert outside.stdout is not None
        assert outside.stdout.readline() == "1\n"
        assert engine.switch(shadow.shadow_index_id).success
        with inside.live(engine).writer.lock:  # as a flush that waits for the disk would hold it
            for n in range(20):
                engine.write("main", [put("0", f"edit{n}")])
            inside.follow(engine, 1)
            wait_until(lambda: inside.is_follower_idle(engine, 1))
            outside.stdin.write("\n\n")
            outside.stdin.flush()
            before, number, after = (int(outside.stdout.readline()) for _ in range(3))
    assert number == 2
    assert before <= after


def test_a_reader_gets_the_live_generation_when_the_outcome_of_a_switch_came_late(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start(open_engine, soak_s=3600.0, seal_budget_ms=2000.0)
    live(engine)
    shadow, given_up = built(engine), threading.Event()

    def stalled() -> None:
        assert given_up.wait(HELD_S)

    def waited_in_vain(ordinary: Callable[..., Any], *given: Any) -> Any:
        try:
            return ordinary(*given)
        finally:
            given_up.set()

    inside.patch_limit(monkeypatch, inside.Limit.COMMIT_TIMEOUT_S, 0.05)
    inside.patch_limit(monkeypatch, inside.Limit.COMMIT_GRACE_S, 0.05)
    inside.wrap(monkeypatch, inside.Step.TAKE_TURN, waited_in_vain)
    inside.before(monkeypatch, inside.Step.COMMIT_SWITCH, stalled)
    inside.one_attempt(monkeypatch)
    engine.switch(shadow.shadow_index_id)
    monkeypatch.undo()
    wait_until(lambda: engine.index("main", KIND).generation == 2)
    inside.transact(engine, lambda commit: transitions.retire_previous(commit, 1), "retire")
    wait_until(lambda: inside.catalog(engine).generation(1) is None)
    with engine.reader("main", KIND) as reader:
        assert reader.generation == 2


def test_a_switch_does_not_outlive_the_engine(open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = start(open_engine)
    shadow = built(engine)
    asked = threading.Event()

    def never_answered(ordinary: Callable[..., int], *given: Any) -> int:
        asked.set()
        return ordinary(*given) if inside.is_closing(engine) else 0

    inside.wrap(monkeypatch, inside.Step.WORKER_SUBMIT, never_answered)
    with ThreadPoolExecutor(1) as pool:
        switching = pool.submit(attempt, lambda: engine.switch(shadow.shadow_index_id))
        assert asked.wait(HELD_S)
        engine.close()
        outcome = switching.result(HELD_S)
    assert isinstance(outcome, ShadowSwitchError) or not outcome.success  # type: ignore[attr-defined]


def test_calls_of_a_closed_generation_say_that_it_is_closed(engine: Engine) -> None:
    fill(engine, 10)
    shadow = built(engine)
    writer = inside.generation(engine, shadow.generation).writer
    engine.cancel_build(shadow.shadow_index_id)
    wait_until(lambda: writer.closed)
    for call in (writer.digest, lambda: writer.differing(Digest()), lambda: writer.repair(0, 0, []), writer.adopt):
        with pytest.raises(EngineClosed, match="is closed"):
            call()


# -- writes ----------------------------------------------------------------------------------------------------------


def test_nothing_is_kept_of_writes_that_were_refused(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise StorageFull("full", operation="commit")

    def replies() -> int:
        gc.collect()
        return sum(isinstance(thing, Reply) for thing in gc.get_objects())

    inside.before(monkeypatch, inside.Step.TRANSACTION_WRITE, full)
    before = replies()
    for n in range(100):
        assert isinstance(attempt(partial(engine.write, "main", [put(str(n))])), StorageFull)
    assert replies() < before + 20


def test_after_an_error_of_the_disk_no_write_of_the_group_is_tried_again(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(sound=False)
    for name in ("main", "second", "third"):
        engine.create_branch(name)
    holding, go_on, groups = threading.Event(), threading.Event(), []

    def run(ordinary: Callable[..., None], *given: Any) -> None:
        groups.append(given)
        if len(groups) == 1:
            holding.set()
            assert go_on.wait(HELD_S)
            ordinary(*given)
            return
        with disk_errors("commit"):
            raise lmdb.Error("mdb_txn_commit: Input/output error", 5)

    inside.wrap(monkeypatch, inside.Step.TRANSACTION, run)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(attempt, lambda: engine.write("main", [put("a")]))
        assert holding.wait(HELD_S)
        rest = [pool.submit(attempt, partial(engine.write, name, [put("a")])) for name in ("second", "third")]
        wait_until(lambda: inside.queued_changes(engine) == 3)
        wait_until(lambda: inside.are_branches_idle(engine))
        go_on.set()
        outcomes = [future.result(HELD_S) for future in (first, *rest)]
    assert [isinstance(outcome, CorruptData) for outcome in outcomes] == [False, True, True]
    assert len(groups) == 2
    assert inside.catalog(engine).failed is not None


def test_a_message_that_an_actor_has_claimed_is_not_failed_by_the_end_of_the_actor() -> None:
    claimed, waiting = Sweep(Reply()), Sweep(Reply())

    class Dying:
        def tell(self, message: Sweep) -> None:
            if message is claimed:
                assert message.reply.set_running_or_notify_cancel()  # the actor claims the message, and dies during it

        def is_alive(self) -> bool:
            return False

    address = base.Address(Dying)  # type: ignore[arg-type]
    address.tell(claimed)
    address.tell(waiting)
    assert not claimed.reply.done()
    claimed.reply.set_result(None)
    assert claimed.reply.result(0.0) is None
    with pytest.raises(InternalFailure, match="mending itself"):
        waiting.reply.result(0.0)
    assert not waiting.reply.set_running_or_notify_cancel()
