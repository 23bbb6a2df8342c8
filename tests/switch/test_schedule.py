"""Scheduled switches: at the first quiet moment, at the latest after a while; over restarts, kills and clocks."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Engine, InvalidConfig, InvalidTransition, SwitchRequest
from shadowswitch.storage import failpoints
from tests.conftest import FAST
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, built, crew, fill, found, put, wait_until

YEAR_S = 365 * 86_400.0
LONG: dict[str, Any] = {"quiet_for_s": 3600.0, "within_s": 7200.0}


@pytest.fixture
def engine(open_engine: Callable[..., Engine]) -> Engine:
    engine: Engine = open_engine()
    engine.create_branch("main")
    fill(engine, 20)
    return engine


def look(engine: Engine) -> None:
    """Let the Schedule look at its plans twice."""
    for _ in range(2):
        inside.look_at_plans(engine)


def test_the_switch_waits_for_a_quiet_moment(engine: Engine) -> None:
    id = built(engine).shadow_index_id
    pause = threading.Event()
    written: list[int] = []

    def write() -> None:
        written.append(engine.write("main", [put("x", f"text{len(written)}")]).lsn)
        pause.wait(0.1)

    with crew() as hands:
        hands.start(write)
        plan = engine.schedule_switch(
            id, quiet_for_s=1.5, within_s=3600, request=SwitchRequest(performed_by="alice", reason="at night")
        ).scheduled_switch
        assert plan is not None
        assert (plan.by, plan.reason, plan.quiet_for_s, plan.within_s) == ("alice", "at night", 1.5, 3600)
        wait_until(lambda: len(written) > 30, what="writes")
        look(engine)
        assert engine.shadow(id).state == "BUILT", "people write"
    engine.wait_for(id, "ACTIVE", timeout_s=60)
    assert engine.shadow(id).scheduled_switch is None
    assert found(engine, f"text{len(written) - 1}") == {"x"}
    (entry,) = [one for one in engine.audit() if one.type == "switch.committed"]
    assert (entry.data["by"], entry.data["reason"]) == ("alice", "at night")


def test_it_comes_at_the_latest_moment_although_people_write(engine: Engine) -> None:
    id = built(engine).shadow_index_id
    pause = threading.Event()

    def write() -> None:
        engine.write("main", [put("x")])
        pause.wait(0.05)

    with crew() as hands:
        hands.start(write)
        engine.schedule_switch(id, quiet_for_s=2, within_s=2)
        engine.wait_for(id, "ACTIVE", timeout_s=60)


def test_a_build_is_switched_to_once_it_is_built(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "copy.loaded=sleep:1")
    id = engine.start_build("main", KIND, TYPES, {"parallel_workers": 1}).shadow_index_id
    assert engine.schedule_switch(id, 0).scheduled_switch is not None
    engine.wait_for(id, "ACTIVE", timeout_s=60)


def test_the_quiet_of_another_branch_is_no_quiet_of_this_one(engine: Engine) -> None:
    engine.create_branch("other")
    id = built(engine).shadow_index_id
    pause = threading.Event()

    def write() -> None:
        engine.write("other", [put("x")])
        pause.wait(0.05)

    with crew() as hands:
        hands.start(write)
        engine.schedule_switch(id, quiet_for_s=1, within_s=3600)
        engine.wait_for(id, "ACTIVE", timeout_s=60)


@pytest.mark.parametrize("ahead_s", [-YEAR_S, YEAR_S])
def test_a_wall_clock_that_is_set_moves_no_switch(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    id = built(engine).shadow_index_id
    engine.schedule_switch(id, **LONG)
    inside.replace(monkeypatch, inside.Step.WALL_CLOCK, lambda clock: time.time() + ahead_s)
    look(engine)
    assert engine.shadow(id).state == "BUILT"
    engine.schedule_switch(id, quiet_for_s=0, within_s=3600)
    engine.wait_for(id, "ACTIVE", timeout_s=60)


HOST = f"""
import sys
from shadowswitch import Config, Engine, Put, SwitchRequest
engine = Engine.open(sys.argv[1], Config(**{FAST!r}))
engine.create_branch("main")
engine.write("main", [Put("object_type", str(n), {{"text": f"word{{n}}"}}) for n in range(20)])
id = engine.start_build("main", "SEARCH_INDEX", ["object_type"], {{"parallel_workers": 1}}).shadow_index_id
engine.wait_for(id, "BUILT", timeout_s=60)
request = SwitchRequest(performed_by="alice", reason="at night", allow_empty=True)
plan = engine.schedule_switch(id, float(sys.argv[2]), 7200, request).scheduled_switch
print(id, plan.latest_at.isoformat(), flush=True)
engine.wait_for(id, "ACTIVE")
"""


def planned(data_dir: Path, quiet_for_s: float) -> tuple[str, datetime]:
    """A host that schedules a switch, and is killed (by itself, if it comes to that)."""
    command = [sys.executable, "-c", HOST, str(data_dir), str(quiet_for_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        id, latest = host.stdout.readline().split()
        if quiet_for_s:
            host.send_signal(signal.SIGKILL)
        assert host.wait(60) == -signal.SIGKILL
    return id, datetime.fromisoformat(latest)


def test_a_plan_outlives_a_kill(data_dir: Path, open_engine: Callable[..., Engine]) -> None:
    id, latest = planned(data_dir, 3600)
    engine = open_engine()
    plan = engine.shadow(id).scheduled_switch
    assert plan is not None
    assert (plan.by, plan.reason, plan.quiet_for_s) == ("alice", "at night", 3600)
    assert plan.latest_at is not None
    assert abs((plan.latest_at - latest).total_seconds()) < 5, "the time goes on, it does not begin again"
    look(engine)
    assert engine.shadow(id).state == "BUILT"
    engine.close()
    again = open_engine()
    again.schedule_switch(id, quiet_for_s=1, within_s=3600)
    again.wait_for(id, "ACTIVE", timeout_s=60)


@pytest.mark.parametrize("point", ["switch.begun", "switch.proven", "switch.committed"])
def test_a_kill_in_a_scheduled_switch_loses_neither_the_plan_nor_the_switch(
    data_dir: Path, open_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    monkeypatch.setenv("SHADOWSWITCH_POINTS", f"{point}=kill")
    id, _ = planned(data_dir, 0)
    monkeypatch.delenv("SHADOWSWITCH_POINTS")
    engine = open_engine()
    engine.wait_for(id, "ACTIVE", timeout_s=60)
    assert engine.shadow(id).scheduled_switch is None
    (entry,) = [one for one in engine.audit() if one.type == "switch.committed"]
    assert entry.data["by"] == "alice"


def test_after_a_reboot_the_time_begins_again(
    open_engine: Callable[..., Engine], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = built(engine).shadow_index_id
    engine.schedule_switch(id, **LONG)
    engine.close()
    inside.replace(monkeypatch, inside.Step.BOOT_ID, lambda: "another boot")
    again = open_engine()
    plan = again.shadow(id).scheduled_switch
    assert plan is not None
    assert plan.latest_at is not None


def test_a_refused_switch_is_reported_and_tried_again_later(engine: Engine) -> None:
    engine.add_validator("NEVER", lambda reader: "not today")
    id = built(engine).shadow_index_id
    engine.schedule_switch(id, 0, request=SwitchRequest(validation_checks=("NEVER",), performed_by="alice"))
    wait_until(lambda: (plan := engine.shadow(id).scheduled_switch) is not None and plan.refusals, what="the refusal")
    plan = engine.shadow(id).scheduled_switch
    assert plan is not None
    assert "not today" in (plan.error or "")
    look(engine)
    (event,) = [one for one in engine.events() if one.type.endswith("switch.postponed")]
    assert (event.data["refusals"], event.data["retry_s"]) == (1, 60)
    assert "switch.postponed" in {entry.type for entry in engine.audit()}
    assert engine.switch(id).success, "a switch by hand"
    assert engine.shadow(id).scheduled_switch is None


def test_a_plan_ends_with_its_shadow_or_is_taken_back(engine: Engine) -> None:
    id = built(engine).shadow_index_id
    engine.schedule_switch(id, **LONG)
    assert engine.unschedule_switch(id, by="bob", reason="not now").scheduled_switch is None
    with pytest.raises(InvalidTransition, match="no switch of shadow"):
        engine.unschedule_switch(id)
    engine.schedule_switch(id, **LONG)
    assert engine.cancel_build(id).scheduled_switch is None
    with pytest.raises(InvalidTransition, match="CANCELLED"):
        engine.schedule_switch(id)
    (entry,) = [one for one in engine.audit() if one.type == "switch.unscheduled"]
    assert (entry.data["by"], entry.data["reason"]) == ("bob", "not now")


@pytest.mark.parametrize(
    "wrong",
    [
        {"quiet_for_s": -1},
        {"quiet_for_s": "long"},
        {"within_s": True},
        {"quiet_for_s": 10, "within_s": 5},
        {"request": 1},
    ],
)
def test_a_wrong_plan_is_refused(engine: Engine, wrong: dict[str, Any]) -> None:
    id = built(engine).shadow_index_id
    with pytest.raises(InvalidConfig):
        engine.schedule_switch(id, **wrong)


def test_a_scheduled_switch_that_is_under_way_is_not_taken_back(engine: Engine) -> None:
    id = built(engine).shadow_index_id
    failpoints.plan_points("switch.near=sleep:1.5")
    engine.schedule_switch(id, 0, 0)
    wait_until(lambda: engine.shadow(id).state == "SWITCHING", what="the switch")
    with pytest.raises(InvalidTransition, match="is under way"):
        engine.unschedule_switch(id)
    failpoints.plan_points("")
    assert engine.wait_for(id, "ACTIVE", timeout_s=60).state == "ACTIVE"
    assert "switch.unscheduled" not in [one.type for one in engine.audit()]
