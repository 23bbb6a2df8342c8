"""Soaks and kept files last by the monotonic clock: setting the wall clock shortens and lengthens nothing."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from shadowswitch import Engine, UnknownIndex
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, fill, found, live, put, wait_until

DAY_S = 86_400.0


def set_wall_clock(patch: pytest.MonkeyPatch, ahead_s: float) -> None:
    inside.replace(patch, inside.Step.WALL_CLOCK, lambda clock: time.time() + ahead_s)


@pytest.mark.parametrize("days", [-400, 400])
def test_a_way_back_outlives_a_wall_clock_that_jumps(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    engine = open_engine(soak_s=3600.0)
    engine.create_branch("main")
    fill(engine, 10)
    first, _ = live(engine), live(engine)
    set_wall_clock(monkeypatch, days * DAY_S)
    inside.sweep(engine)
    engine.write("main", [put("x", "later")])
    assert engine.rollback("main", KIND).generation == first
    assert found(engine, "later", min_lsn=engine.head("main")) == {"x"}


def test_a_soak_that_began_in_a_wrong_year_ends_in_time(open_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(soak_s=0.2)
    engine.create_branch("main")
    fill(engine, 10)
    set_wall_clock(monkeypatch, 400 * DAY_S)
    live(engine)
    live(engine)
    monkeypatch.undo()
    wait_until(lambda: engine.index("main", KIND).previous_generation is None)
    with pytest.raises(UnknownIndex):
        engine.rollback("main", KIND)


def soaking(open_engine: Any, soak_s: float) -> tuple[Engine, int]:
    """An engine with a previous generation, and its number."""
    engine = open_engine(soak_s=soak_s)
    engine.create_branch("main")
    fill(engine, 10)
    first, _ = live(engine), live(engine)
    return engine, first


@pytest.mark.parametrize("boot", ["", "the next boot"])
def test_a_soak_is_carried_over_a_restart_by_a_wall_clock_that_is_wrong(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch, boot: str
) -> None:
    """In the same boot what is left of it, after a reboot all of it."""
    engine, first = soaking(open_engine, 3600.0)
    engine.close()
    set_wall_clock(monkeypatch, 400 * DAY_S)
    if boot:
        inside.replace(monkeypatch, inside.Step.BOOT_ID, lambda: boot)
    engine = open_engine(soak_s=3600.0)
    inside.sweep(engine)
    index = engine.index("main", KIND)
    assert index.previous_generation == first
    assert index.soak_until is not None
    assert 0 < index.soak_until.timestamp() - (time.time() + 400 * DAY_S) <= 3600
    assert engine.rollback("main", KIND).generation == first


def test_a_soak_that_has_ended_while_no_host_ran_is_over(open_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = soaking(open_engine, 1.0)
    engine.close()
    set_wall_clock(monkeypatch, -400 * DAY_S)
    engine = open_engine(soak_s=3600.0)
    wait_until(lambda: engine.index("main", KIND).previous_generation is None)


def test_after_a_reboot_a_soak_begins_again_and_ends(open_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, first = soaking(open_engine, 3600.0)
    engine.close()
    inside.replace(monkeypatch, inside.Step.BOOT_ID, lambda: "the next boot")
    engine = open_engine(soak_s=0.2)
    wait_until(lambda: engine.index("main", KIND).previous_generation is None)
    wait_until(lambda: inside.catalog(engine).generation(first) is None)


def test_where_the_system_names_no_boot_a_soak_ends_in_time(open_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inside.replace(monkeypatch, inside.Step.BOOT_ID, lambda: "")
    engine, _ = soaking(open_engine, 0.2)
    wait_until(lambda: engine.index("main", KIND).previous_generation is None)


@pytest.mark.parametrize(("keep_s", "stays"), [(3600.0, True), (0.2, False)])
def test_the_files_of_a_failed_build_stay_as_long_as_is_said(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch, keep_s: float, stays: bool
) -> None:
    engine = open_engine(failed_keep_s=keep_s)
    engine.create_branch("main")
    fill(engine, 10)
    set_wall_clock(monkeypatch, 0.0 if stays else 400 * DAY_S)
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "build.shard_opened=raise:EIO@1")
    shadow = engine.start_build("main", KIND, TYPES, {"parallel_workers": 1})
    engine.wait_for(shadow.shadow_index_id, "FAILED", timeout_s=30)
    monkeypatch.delenv("SHADOWSWITCH_POINTS")
    set_wall_clock(monkeypatch, 400 * DAY_S if stays else 0.0)
    if not stays:
        wait_until(lambda: not os.path.exists(shadow.shadow_index_path))
        return
    inside.sweep(engine)
    assert os.path.exists(shadow.shadow_index_path)
    assert engine.retry_build(shadow.shadow_index_id).shadow_index_id == shadow.shadow_index_id
    engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=60)
