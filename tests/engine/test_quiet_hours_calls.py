"""Quiet hours of a branch: its activity is stored off the write path, and the advice comes with its backtest."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import Engine, InvalidConfig, UnknownBranch
from shadowswitch.storage.activity import KEEP_WEEKS, SLOT_S, SLOTS, activity, note_activity, slot_of
from tests.support import inside
from tests.support.cli_helpers import Cli
from tests.support.engine_helpers import put, wait_until
from tests.support.http_helpers import serving

Open = Callable[..., Engine]
NOW = 1_795_000_000.0


def plant(engine: Engine, slots: set[int], branch: int = 1) -> None:
    inside.transact(engine, lambda commit: note_activity(commit, {branch: slots}))


def noon_off(weeks: int) -> set[int]:
    """A commit about every hour without memory, and none from 12 to 15 UTC; the last weeks until NOW."""
    chance = random.Random(5)
    last = slot_of(NOW)
    slots = {last - int(chance.random() * weeks * SLOTS) for _ in range(weeks * 168)}
    return {slot for slot in slots if slot * SLOT_S // 3600 % 24 not in range(12, 15)}


def test_slots_are_kept_as_they_are_over_a_restart_and_old_weeks_go(open_engine: Open) -> None:
    engine = open_engine()
    engine.create_branch("main")
    engine.create_branch("other")
    slots = {0, 1, 7, SLOTS - 1, SLOTS, 3 * SLOTS + 5}
    plant(engine, slots)
    plant(engine, {3}, 2)
    engine.close()
    again = open_engine()
    assert activity(inside.catalog(again), 1) == sorted(slots)
    plant(again, {KEEP_WEEKS * SLOTS + 2 * SLOTS})
    assert activity(inside.catalog(again), 1) == [3 * SLOTS + 5, (KEEP_WEEKS + 2) * SLOTS]
    assert activity(inside.catalog(again), 2) == [3]


def test_a_write_is_noted_once_its_slot_is_over_and_a_rest_is_not(
    open_engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [NOW]
    inside.replace(monkeypatch, inside.Step.WALL_CLOCK, lambda clock: now[0])
    engine = open_engine()
    engine.create_branch("main")
    engine.create_branch("rests")
    first = slot_of(NOW)
    for number in range(3):
        now[0] = NOW + number * SLOT_S
        engine.clean_up()
        engine.write("main", [put(str(number))])
        engine.clean_up()
    now[0] = NOW + 100 * SLOT_S
    engine.clean_up()
    assert activity(inside.catalog(engine), 1) == [first, first + 1, first + 2]
    assert activity(inside.catalog(engine), 2) == []


def test_a_branch_without_a_past_gets_no_advice(engine: Engine) -> None:
    found = engine.quiet_hours("main")
    assert (found.advised, found.switch_at, found.moments) == (False, None, 0)
    assert found.message.startswith("no advice: the past has 0 moments")
    with pytest.raises(UnknownBranch):
        engine.quiet_hours("unknown")
    for wrong in ({"within_s": -1}, {"calm_s": "an hour"}, {"within_s": float("nan")}):
        with pytest.raises(InvalidConfig):
            engine.quiet_hours("main", **wrong)


def test_library_http_and_command_advise_the_hour_that_beats_the_rule(
    open_engine: Open, data_dir: Path, capsys: Any
) -> None:
    engine = open_engine()
    engine.create_branch("main")
    plant(engine, noon_off(24))
    found = engine.quiet_hours("main", calm_s=7200)
    assert found.advised, found.message
    assert found.switch_at is not None
    assert found.switch_at.hour in (12, 13, 14)
    assert found.adviser_hits > found.rule_hits + 0.3
    assert len(found.hours) == 168
    assert sum(found.hours) == pytest.approx(1, abs=0.01)
    engine.close()
    cli = Cli(capsys)
    assert "beats the quiet rule" in cli("quiet", "main", "--data", data_dir, "--calm", 7200)
    with serving(data_dir) as server:
        answer = server.client().get("branches/main/quiet-hours?calm_s=7200")
        assert (answer["advised"], answer["moments"]) == (True, found.moments)
        beside = cli.json("quiet", "main", "--data", data_dir, "--calm", 7200)
        assert beside["adviser_hits"] == answer["adviser_hits"]
        server.client().refused(404, "GET", "branches/unknown/quiet-hours")
        server.client().refused(400, "GET", "branches/main/quiet-hours?calm_s=-1")


def test_a_branch_that_is_dropped_leaves_no_activity(engine: Engine) -> None:
    engine.create_branch("gone")
    plant(engine, {1, 2}, 2)
    engine.drop_branch("gone")
    engine.clean_up()
    wait_until(lambda: activity(inside.catalog(engine), 2) == [], what="the removal")
