"""Builds: cancelled in every phase, resumed from their checkpoint, concurrent, and measured."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import (
    BuildCancelled,
    BuildFailed,
    Delete,
    DuplicateBuild,
    Engine,
    InvalidTransition,
    Put,
    ShadowIndex,
    ShadowState,
    SwitchRequest,
)
from shadowswitch.storage import failpoints
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, built, crew, fill, found, live, put, wait_until, worker_processes

PLANS = {
    "claimed": ("host", "build.claimed=sleep:0.3"),
    "prepared": ("host", "build.prepared=sleep:0.3"),
    "opening a shard": ("worker", "build.shard_opened=sleep:30"),
    "copying": ("worker", "copy.slice=sleep:30"),
    "copied": ("worker", "copy.loaded=sleep:30"),
    "caught up by a worker": ("worker", "catchup.slice=sleep:30"),
    "caught up by the host": ("host", "follow.applied=sleep:0.05"),
    "validated": ("host", "build.validated=sleep:0.3"),
}


def start(engine: Engine, **config: Any) -> ShadowIndex:
    return engine.start_build("main", KIND, TYPES, {"parallel_workers": 1, **config})


def plan(monkeypatch: pytest.MonkeyPatch, where: str, what: str) -> None:
    """Plan a failpoint in this process, or in workers that start later."""
    if where == "host":
        failpoints.plan_points(what)
    else:
        monkeypatch.setenv("SHADOWSWITCH_POINTS", what)


def in_time(call: Callable[[], Any], deadline_s: float = 20.0) -> Any:
    """The result of a call, which must return before the deadline."""
    outcome: list[Any] = []
    thread = threading.Thread(target=lambda: outcome.append(call()), daemon=True)
    thread.start()
    thread.join(deadline_s)
    assert outcome, "the call did not return in time, or raised"
    return outcome[0]


def rows_stored(shadow: ShadowIndex) -> int:
    """How many rows the first shard of a shadow has stored, read from its file."""
    path = Path(shadow.shadow_index_path) / "shard-000" / "shard.sqlite"
    if not path.exists():
        return 0
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    try:
        return int(connection.execute("SELECT count(*) FROM docs").fetchone()[0])
    except sqlite3.OperationalError:  # the worker has not created the tables yet
        return 0
    finally:
        connection.close()


# -- cancellation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", PLANS)
def test_a_build_is_cancelled_in_every_phase(filled: Engine, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    plan(monkeypatch, *PLANS[phase])
    shadow = start(filled)
    filled.write("main", [put(str(n), "changed") for n in range(600)])  # changes to catch up with
    if PLANS[phase][0] == "worker":
        wait_until(lambda: filled.stats()["worker_pids"])
    cancelled = in_time(lambda: filled.cancel_build(shadow.shadow_index_id, f"while it is {phase}"))
    assert cancelled.state == ShadowState.CANCELLED
    failpoints.plan_points("")
    monkeypatch.delenv("SHADOWSWITCH_POINTS", raising=False)
    assert filled.stats()["worker_pids"] == []
    with pytest.raises(BuildCancelled, match=phase):
        filled.wait_for(shadow.shadow_index_id)
    wait_until(lambda: not os.path.exists(shadow.shadow_index_path))
    live(filled)
    assert found(filled, "changed", min_lsn=filled.head("main")) == {str(n) for n in range(600)}


def test_a_long_validation_is_cancelled_before_its_end(open_engine: Any) -> None:
    engine = open_engine(validation_samples=50_000_000)
    engine.create_branch("main")
    fill(engine, 1000)
    shadow = start(engine)
    wait_until(lambda: engine.shadow(shadow.shadow_index_id).phase == "validating")
    assert in_time(lambda: engine.cancel_build(shadow.shadow_index_id)).state == ShadowState.CANCELLED
    wait_until(lambda: not engine.stats()["worker_pids"])


def test_a_failed_build_can_be_cancelled_and_never_retried_again(
    filled: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "copy.slice=raise:EIO")
    shadow = start(filled)
    with pytest.raises(BuildFailed, match=r"copy\.slice"):
        filled.wait_for(shadow.shadow_index_id, timeout_s=30)
    assert filled.cancel_build(shadow.shadow_index_id).state == ShadowState.CANCELLED
    with pytest.raises(InvalidTransition):
        filled.retry_build(shadow.shadow_index_id)
    wait_until(lambda: not os.path.exists(shadow.shadow_index_path))


def test_two_cancellations_at_once_both_return(filled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "copy.slice=sleep:5")
    shadow = start(filled)
    wait_until(lambda: filled.stats()["worker_pids"])
    outcomes: list[object] = []

    def cancel() -> None:
        try:
            outcomes.append(filled.cancel_build(shadow.shadow_index_id).state)
        except InvalidTransition as error:
            outcomes.append(error)

    threads = [threading.Thread(target=cancel) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(outcomes) == 3
    assert ShadowState.CANCELLED in outcomes
    assert filled.shadow(shadow.shadow_index_id).state == ShadowState.CANCELLED


# -- killed workers --------------------------------------------------------------------------------------------------


def test_a_retry_goes_on_from_the_rows_that_are_stored(open_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(copy_slice_rows=100, copy_flush_rows=100, worker_retries=0)
    engine.create_branch("main")
    fill(engine, 3000)
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "copy.slice=kill@20")
    shadow = start(engine)
    with pytest.raises(BuildFailed, match="died 1 times"):
        engine.wait_for(shadow.shadow_index_id, timeout_s=30)
    assert rows_stored(shadow) == 2000
    engine.write("main", [put("0", "changed"), Delete("object_type", "1"), put("new", "fresh")])
    engine.retry_build(shadow.shadow_index_id)  # 10 slices are left: a copy from the beginning would die at its 20th
    assert engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=30).record_count == 3000
    assert engine.switch(shadow.shadow_index_id).success
    assert (found(engine, "changed"), found(engine, "word1"), found(engine, "fresh")) == ({"0"}, set(), {"new"})


def test_a_killed_worker_is_replaced_and_the_new_one_begins_where_it_ended(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(copy_slice_rows=50)
    engine.create_branch("main")
    fill(engine, 3000)
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "copy.slice=sleep:0.03")
    shadow = start(engine)
    wait_until(lambda: rows_stored(shadow) >= 500)
    (pid,) = engine.stats()["worker_pids"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: engine.stats()["worker_pids"] not in ([], [pid]))
    assert rows_stored(shadow) >= 500, "the new worker began at the first row"
    engine.write("main", [Delete("object_type", str(n)) for n in range(0, 3000, 3)])
    done = engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=60)
    assert done.record_count == 2000
    assert engine.switch(shadow.shadow_index_id).success
    assert engine.stats()["counters"]["worker_deaths"] == 1


def test_a_worker_killed_while_it_catches_up_is_replaced(open_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(copy_slice_rows=100, catchup_residual_changes=0)
    engine.create_branch("main")
    fill(engine, 500)
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "catchup.slice=kill@3")
    written = threading.Event()
    inside.replace(
        monkeypatch, inside.Step.BUILD_FAILPOINT, lambda name: name == "build.begun" and not written.wait(60)
    )
    shadow = start(engine)
    wait_until(lambda: engine.shadow(shadow.shadow_index_id).state == ShadowState.BUILDING)
    for n in range(8):  # eight slices to catch up with, written before the first worker starts
        engine.write("main", [put(str(m), f"round{n}") for m in range(100)])
    written.set()
    engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=60)
    assert engine.stats()["counters"]["worker_deaths"] >= 1
    assert engine.switch(shadow.shadow_index_id).success
    assert len(found(engine, "round7")) == 100


def test_a_worker_killed_while_it_validates_is_replaced(open_engine: Any) -> None:
    engine = open_engine(validation_samples=50_000)
    engine.create_branch("main")
    fill(engine, 1000)
    shadow = start(engine)
    wait_until(lambda: engine.shadow(shadow.shadow_index_id).phase == "validating")
    wait_until(lambda: engine.stats()["worker_pids"])
    os.kill(engine.stats()["worker_pids"][0], signal.SIGKILL)
    engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=60)
    assert engine.stats()["counters"]["worker_deaths"] == 1
    assert engine.switch(shadow.shadow_index_id).success


def test_a_validation_whose_workers_die_again_and_again_fails_the_build(open_engine: Any) -> None:
    engine = open_engine(validation_samples=50_000_000, worker_retries=0)
    engine.create_branch("main")
    fill(engine, 1000)
    shadow = start(engine)
    wait_until(lambda: engine.shadow(shadow.shadow_index_id).phase == "validating")
    wait_until(lambda: engine.stats()["worker_pids"])
    os.kill(engine.stats()["worker_pids"][0], signal.SIGKILL)
    with pytest.raises(BuildFailed, match="validation died 1 times"):
        engine.wait_for(shadow.shadow_index_id, timeout_s=30)
    engine.close()
    again = open_engine()
    again.retry_build(shadow.shadow_index_id)
    again.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=30)
    assert again.switch(shadow.shadow_index_id).success


def test_too_many_deaths_fail_the_build_with_the_count_and_free_the_index_for_another(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(worker_retries=2)
    engine.create_branch("main")
    fill(engine, 10)
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "build.shard_opened=kill")
    shadow = start(engine)
    with pytest.raises(BuildFailed, match="died 3 times"):
        engine.wait_for(shadow.shadow_index_id, timeout_s=30)
    monkeypatch.delenv("SHADOWSWITCH_POINTS")
    live(engine)
    with pytest.raises(InvalidTransition):
        engine.switch(shadow.shadow_index_id)


def test_a_retry_while_another_build_is_under_way_is_a_duplicate(
    filled: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "build.shard_opened=raise:EIO@1")
    failed = start(filled)
    filled.wait_for(failed.shadow_index_id, "FAILED", timeout_s=30)
    other = built(filled)
    with pytest.raises(DuplicateBuild) as caught:
        filled.retry_build(failed.shadow_index_id)
    assert caught.value.shadow_index_id == other.shadow_index_id
    assert filled.shadow(failed.shadow_index_id).state == ShadowState.FAILED


def test_the_files_of_a_failed_build_go_after_a_while_and_then_no_retry_is_possible(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(failed_keep_s=0)
    engine.create_branch("main")
    fill(engine, 10)
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "build.shard_opened=raise:EIO@1")
    shadow = start(engine)
    engine.wait_for(shadow.shadow_index_id, "FAILED", timeout_s=30)
    wait_until(lambda: not os.path.exists(shadow.shadow_index_path))
    wait_until(lambda: inside.catalog(engine).generation(shadow.generation) is None)
    with pytest.raises(InvalidTransition, match="removed"):
        engine.retry_build(shadow.shadow_index_id)
    assert engine.cancel_build(shadow.shadow_index_id).state == "CANCELLED", "no file is left to remove"


# -- several at once, under load -------------------------------------------------------------------------------------


def test_builds_of_several_branches_and_types_run_at_once(open_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(builds_max=4)
    engine.create_branch("main")
    engine.create_branch("other")
    for branch in ("main", "other"):
        fill(engine, 2000, branch, text=branch)
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "copy.slice=sleep:0.3")
    shadows = [
        engine.start_build(branch, kind, TYPES, {"parallel_workers": 1})
        for branch in ("main", "other")
        for kind in (KIND, "GRAPH_INDEX")
    ]
    wait_until(lambda: len(engine.stats()["worker_pids"]) == 4)
    assert engine.stats()["builds_running"] == 4
    for shadow in shadows:
        assert engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=60).record_count == 2000
        assert engine.switch(shadow.shadow_index_id).success
    assert found(engine, "word7", "other") == {"7"}
    assert len(engine.indexes()) == 4


def test_progress_never_goes_back_while_writers_write(filled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "copy.slice=sleep:0.05")
    seen: list[tuple[str, float, float | None, str]] = []

    def write() -> None:
        fill(filled, 40, text="again")

    with crew() as hands:
        hands.start(write)
        shadow = start(filled, shards=3)

        def look() -> bool:
            now = filled.shadow(shadow.shadow_index_id)
            seen.append((now.phase, now.build_progress_percent, now.estimated_completion_seconds, now.state))
            return now.state == ShadowState.BUILT

        wait_until(look, 60)
    percents = [percent for _, percent, _, _ in seen]
    etas = [eta for _, _, eta, state in seen if eta is not None and state == ShadowState.BUILDING]
    assert percents == sorted(percents)
    assert all(eta > 0 for eta in etas)
    assert percents[-1] == 100
    assert len({percent for percent in percents if 0 < percent < 100}) > 3, "the progress has steps between 0 and 100"
    assert etas
    phases = [phase for phase, *_ in seen]
    order = [phase for phase in ("copying", "catching_up", "validating", "waiting") if phase in phases]
    assert sorted(order, key=phases.index) == order
    assert {"copying", "waiting"} <= set(order)


def test_a_build_of_an_empty_branch_and_of_types_without_records_follows_their_first_ones(engine: Engine) -> None:
    meant = SwitchRequest(allow_empty=True)
    result = engine.rebuild("main", KIND, ["object_type", "never_written"], {"shards": 4}, meant)
    assert result.success, result.message
    receipt = engine.write(
        "main", [put("a"), Put("never_written", "b", {"text": "hello"}), Put("third", "c", {"t": "hello"})]
    )
    assert found(engine, "hello", min_lsn=receipt.lsn) == {"a", "b"}


def test_large_batches_written_during_the_copy_arrive_whole(filled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "copy.slice=sleep:0.2")
    shadow = start(filled, shards=2)
    filled.write("main", [put(str(n), "second") for n in range(5000)])
    filled.write("main", [Delete("object_type", str(n)) for n in range(1000, 5000)])
    filled.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=60)
    assert filled.switch(shadow.shadow_index_id).success
    with filled.reader("main", KIND) as reader:
        assert reader.count() == 1000
        assert {record.lsn for record in reader.scan()} == set(range(3001, 4001))


def test_no_worker_process_is_left_when_the_engine_closes_during_a_build(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine()
    engine.create_branch("main")
    fill(engine, 100)
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "copy.slice=sleep:30")
    start(engine)
    wait_until(worker_processes)
    engine.close()
    assert worker_processes() == []
    monkeypatch.delenv("SHADOWSWITCH_POINTS")
    again = open_engine()
    (shadow,) = again.shadows()
    again.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=30)
