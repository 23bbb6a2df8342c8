"""A rebuild that does not switch leaves nothing in the way of the next one."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shadowswitch import BuildFailed, DuplicateBuild, Engine, InvalidConfig, SwitchRequest, Timeout
from shadowswitch.model.shadow_state import ShadowState
from shadowswitch.storage import failpoints
from shadowswitch.storage.catalog.transitions.builds import duplicate
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, fill, outside_environment, wait_until

NEVER = SwitchRequest(validation_checks=("NEVER",))


@pytest.fixture
def some(engine: Engine) -> Engine:
    fill(engine, 50)
    engine.add_validator("NEVER", lambda reader: ["not today"])
    return engine


def under_way(engine: Engine) -> list[str]:
    return [shadow.state for shadow in engine.shadows() if shadow.state not in ("ACTIVE", "CANCELLED", "FAILED")]


@pytest.mark.parametrize("track_ready", [False, True])
def test_after_a_validation_that_said_no_the_next_rebuild_begins(some: Engine, track_ready: bool) -> None:
    refused = some.rebuild("main", KIND, TYPES, request=NEVER, track_ready=track_ready)
    assert not refused.success
    assert refused.message == "validation failed: NEVER: not today; the shadow was discarded"
    shadow = some.shadow(refused.shadow_index_id)
    assert (shadow.state, shadow.error) == ("CANCELLED", "validation failed: NEVER: not today")
    assert not some.rebuild("main", KIND, TYPES, request=NEVER, track_ready=track_ready).success
    assert some.rebuild("main", KIND, TYPES, track_ready=track_ready).success


def test_a_refused_switch_of_a_build_keeps_the_shadow_for_another_switch(some: Engine) -> None:
    id = some.start_build("main", KIND, TYPES).shadow_index_id
    some.wait_for(id, timeout_s=30)
    assert not some.switch(id, NEVER).success
    assert some.shadow(id).state == "BUILT"
    assert some.switch(id).success


@pytest.mark.parametrize("track_ready", [False, True])
def test_after_a_rebuild_that_raised_the_next_one_begins(
    some: Engine, monkeypatch: pytest.MonkeyPatch, track_ready: bool
) -> None:
    with monkeypatch.context() as patch:
        inside.fail_build_validation(patch, "it is not what its source is")
        with pytest.raises(BuildFailed):
            some.rebuild("main", KIND, TYPES, track_ready=track_ready)
    assert under_way(some) == []
    assert some.rebuild("main", KIND, TYPES, track_ready=track_ready).success


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, Timeout])
def test_an_interrupted_rebuild_is_cancelled(
    some: Engine, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]
) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise interruption("while it waits")

    with monkeypatch.context() as patch:
        inside.replace(patch, inside.Step.WAIT_FOR_STATE, interrupted)
        with pytest.raises(interruption):
            some.rebuild("main", KIND, TYPES)
    assert under_way(some) == []
    assert some.rebuild("main", KIND, TYPES).success


def test_a_rebuild_that_was_reverted_is_not_called_discarded(some: Engine) -> None:
    assert some.rebuild("main", KIND, TYPES).success
    failpoints.plan_points("switch.verify=raise:EIO@1")
    result = some.rebuild("main", KIND, TYPES)
    failpoints.plan_points("")
    assert result.rolled_back
    assert "discarded" not in result.message
    assert some.rebuild("main", KIND, TYPES).success


def test_a_rebuild_joins_the_equal_build_that_a_stop_of_its_host_cut_off(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(copy_slice_rows=50)
    engine.create_branch("main")
    fill(engine, 1000)
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "copy.slice=sleep:0.2")
    options = {"parallel_workers": 1, "shards": 1}
    cut_off = engine.start_build("main", KIND, TYPES, options).shadow_index_id
    wait_until(lambda: engine.stats()["worker_pids"])
    engine.close()
    again = open_engine()
    monkeypatch.delenv("SHADOWSWITCH_POINTS")
    with pytest.raises(DuplicateBuild, match="begun with other options"):
        again.rebuild("main", KIND, TYPES, {**options, "shards": 2}, timeout_s=60)
    assert again.rebuild("main", KIND, TYPES, options, timeout_s=60).success
    assert again.index("main", KIND).shadow_index_id == cut_off
    waits = again.start_build("main", KIND, TYPES, options).shadow_index_id
    with pytest.raises(DuplicateBuild) as caught:
        again.rebuild("main", KIND, TYPES, options, timeout_s=60)
    assert caught.value.shadow_index_id == waits, "a build of another caller is not taken over"


KILLED = """
import os, sys
from shadowswitch import Engine, Put
from shadowswitch.storage import failpoints
engine = Engine.open(sys.argv[1])
engine.create_branch("main")
engine.write("main", [Put("object_type", str(n), {"text": "hello"}) for n in range(50)])
failpoints.plan_points(f"{sys.argv[2]}=kill")
engine.rebuild("main", "SEARCH_INDEX", ["object_type"], {"parallel_workers": 1}, timeout_s=60)
"""


@pytest.mark.parametrize("point", ["build.begun", "build.built", "switch.near"])
@pytest.mark.parametrize("equal", [True, False], ids=["equal options", "other options"])
def test_a_killed_rebuild_is_not_in_the_way_of_the_next(
    open_engine: Any, data_dir: Path, point: str, equal: bool
) -> None:
    command = [sys.executable, "-c", KILLED, str(data_dir), point]
    assert subprocess.run(command, timeout=120, env=outside_environment()).returncode == -signal.SIGKILL
    engine = open_engine()
    (cut_off,) = [one.shadow_index_id for one in engine.shadows()]
    options = {"parallel_workers": 1} if equal else {"parallel_workers": 1, "tokenizer": "porter"}
    result = engine.rebuild("main", KIND, TYPES, options, timeout_s=60)
    assert result.success, result.message
    assert (result.shadow_index_id == cut_off) is equal
    assert engine.shadow(cut_off).state == ("ACTIVE" if equal else "CANCELLED")
    waits = engine.start_build("main", KIND, TYPES, options).shadow_index_id
    engine.wait_for(waits, "BUILT", timeout_s=60)
    engine.close()
    again = open_engine()
    with pytest.raises(DuplicateBuild):
        again.rebuild("main", KIND, TYPES, options, timeout_s=60)
    assert again.shadow(waits).state == "BUILT", "a build that waits for its own switch is not taken over"


def test_a_retry_makes_the_rest_of_a_rebuild_a_build_of_its_own(some: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "build.shard_opened=raise:EIO@1")
    id = some.start_build("main", KIND, TYPES, of_rebuild=True).shadow_index_id
    some.wait_for(id, "FAILED", timeout_s=60)
    assert inside.catalog(some).shadow(id).of_rebuild
    monkeypatch.delenv("SHADOWSWITCH_POINTS")
    some.retry_build(id)
    assert not inside.catalog(some).shadow(id).of_rebuild
    some.wait_for(id, "BUILT", timeout_s=60)


def test_a_refused_build_says_what_the_shadow_in_its_way_does(some: Engine) -> None:
    waits = some.start_build("main", KIND, TYPES).shadow_index_id
    some.wait_for(waits, "BUILT", timeout_s=60)
    with pytest.raises(DuplicateBuild, match="which is BUILT and waits for its switch") as caught:
        some.rebuild("main", KIND, TYPES)
    assert caught.value.hint == "switch to it, or discard it with cancel_build"
    row = inside.catalog(some).shadow(waits)
    states = {"BUILDING": f"being built by shadow {waits}", "SWITCHING": "a switch to it is under way"}
    for state, text in states.items():
        other = msgspec.structs.replace(row, state=ShadowState(state), of_rebuild=True)
        error = duplicate(other, "start_build")
        assert text in error.message
        assert error.hint.startswith("if a kill cut its rebuild off, the same rebuild again ends it; or wait until")
    paused = duplicate(msgspec.structs.replace(row, state=ShadowState.BUILDING, paused_by="ann"), "start_build")
    assert "which ann paused" in paused.message
    assert paused.hint == "let it go on with resume_build, or end it with cancel_build"


def test_an_external_build_is_no_part_of_a_rebuild(some: Engine) -> None:
    with pytest.raises(InvalidConfig, match="no part of a rebuild"):
        some.start_build("main", KIND, TYPES, external=True, of_rebuild=True)


def test_a_rebuild_without_time_begins_nothing(engine: Engine) -> None:
    fill(engine, 3)
    for timeout_s in (-1, 0):
        with pytest.raises(InvalidConfig, match="a rebuild takes more than"):
            engine.rebuild("main", KIND, TYPES, timeout_s=timeout_s)
    assert engine.shadows() == []
