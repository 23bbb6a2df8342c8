"""Rollback: a switch in the other direction, at any time of the soak, with nothing lost."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from shadowswitch import Delete, Engine, StorageFull, SwitchRequest, SwitchResult, UnknownIndex
from shadowswitch.storage import failpoints
from tests.support import inside
from tests.support.engine_helpers import KIND, built, crew, fill, found, live, put, wait_until


def everything(engine: Engine) -> dict[str, int]:
    """The LSN of each record in the live index, at the head."""
    with engine.reader("main", KIND, min_lsn=engine.head("main"), timeout_s=30) as reader:
        return {record.id: record.lsn for record in reader.scan()}


def source(engine: Engine) -> dict[str, int]:
    return {record.id: record.lsn for record in engine.scan("main", "object_type")}


def test_back_and_forth_under_writers_loses_nothing(filled: Engine) -> None:
    generations = [live(filled, shards=2), live(filled, tokenizer="porter")]
    written = iter(range(1_000_000))

    def write() -> None:
        n = next(written)
        filled.write("main", [put(str(n % 97), f"edit{n}"), Delete("object_type", str((n + 50) % 97))])

    with crew() as hands:
        hands.start(write, 2)
        for n in range(6):
            result = filled.rollback("main", KIND)
            assert result.success, result.message
            assert result.generation == generations[n % 2]
    assert next(written) > 20
    assert everything(filled) == source(filled)


def test_a_rollback_is_a_switch_with_a_result_an_event_and_an_audit_row(filled: Engine) -> None:
    first, second = live(filled), live(filled)
    result = filled.rollback("main", KIND, SwitchRequest(performed_by="me", reason="slow"))
    assert (result.success, result.generation) == (True, first)
    assert result.sealed_lsn == filled.head("main")
    assert result.backup_path == result.old_index_path
    info = filled.index("main", KIND)
    assert (info.generation, info.previous_generation) == (first, second)
    row = [event for event in filled.audit() if event.type == "switch.committed"][-1]
    assert (row.data["rollback"], row.data["by"], row.data["reason"]) == (True, "me", "slow")
    committed, finished = filled.events()[-2:]
    assert committed.type == "com.shadowswitch.rollback.committed"
    assert (finished.data["rollback"], finished.data["generation"]) == (True, first)
    assert os.readlink(filled.path / "published" / "main" / KIND).endswith(f"{first:08d}")


def test_a_rollback_without_backup_is_final(filled: Engine) -> None:
    live(filled)
    bad = filled.index("main", KIND).path
    live(filled)
    gone = filled.index("main", KIND).path
    assert filled.rollback("main", KIND, SwitchRequest(backup_current=False)).success
    with pytest.raises(UnknownIndex, match="no previous generation"):
        filled.rollback("main", KIND)
    wait_until(lambda: not os.path.exists(gone))
    assert os.path.exists(bad)


def test_a_rollback_after_a_restart_loses_nothing(open_engine: Any) -> None:
    first = open_engine()
    first.create_branch("main")
    fill(first, 200)
    back = live(first)
    live(first, tokenizer="porter")
    first.write("main", [put("0", "since"), Delete("object_type", "1")])
    first.close()
    second = open_engine()
    second.write("main", [put("2", "since")])
    assert second.rollback("main", KIND).generation == back
    assert found(second, "since") == {"0", "2"}
    assert everything(second) == source(second)


def test_a_rollback_that_finds_no_place_in_the_line_of_writes_can_be_tried_again(filled: Engine) -> None:
    first, second = live(filled), live(filled)
    failpoints.plan_points("switch.sealed=raise:EIO@1")
    assert not filled.rollback("main", KIND).success
    failpoints.plan_points("")
    assert filled.index("main", KIND).generation == second
    assert filled.rollback("main", KIND).generation == first


def test_a_rollback_that_does_not_verify_goes_forward_again(filled: Engine) -> None:
    live(filled)
    second = live(filled)
    failpoints.plan_points("switch.verify=raise:EIO@1")
    result = filled.rollback("main", KIND)
    failpoints.plan_points("")
    assert (result.success, result.rolled_back) == (False, True)
    assert filled.index("main", KIND).generation == second
    with pytest.raises(UnknownIndex):
        filled.rollback("main", KIND)  # a generation that did not verify is no target of a rollback
    assert everything(filled) == source(filled)


def test_a_rollback_does_not_disturb_a_build_that_is_under_way(filled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = live(filled), live(filled)
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "copy.slice=sleep:0.2")
    shadow = filled.start_build("main", KIND, ["object_type"], {"parallel_workers": 1})
    assert filled.rollback("main", KIND).generation == first
    filled.write("main", [put("a", "since")])
    filled.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=60)
    assert filled.switch(shadow.shadow_index_id).success
    assert found(filled, "since") == {"a"}
    assert filled.rollback("main", KIND).generation == first
    assert found(filled, "since") == {"a"}


def test_a_new_switch_ends_the_soak_of_the_one_before_the_last(filled: Engine) -> None:
    first, second, third = live(filled), live(filled), live(filled)
    assert filled.rollback("main", KIND).generation == second
    assert filled.rollback("main", KIND).generation == third
    wait_until(lambda: inside.catalog(filled).generation(first) is None)
    assert filled.index("main", KIND).previous_generation == second


def test_the_soak_ends_by_itself(open_engine: Any) -> None:
    engine = open_engine(soak_s=0.3, janitor_interval_s=0.05)
    engine.create_branch("main")
    fill(engine, 10)
    first = live(engine)
    live(engine)
    wait_until(lambda: inside.catalog(engine).generation(first) is None)
    assert engine.index("main", KIND).previous_generation is None
    with pytest.raises(UnknownIndex, match="no previous generation"):
        engine.rollback("main", KIND)
    assert engine.shadow(built(engine).shadow_index_id).state == "BUILT"


def test_an_automatic_rollback_leaves_only_the_generation_at_fault(filled: Engine) -> None:
    """A late complaint, after a rollback by another caller, must not bring the bad generation back."""
    first, second = live(filled), live(filled)
    bad = filled.index("main", KIND)
    assert (bad.generation, filled.rollback("main", KIND).generation) == (second, first)
    inside.go_back(filled, bad, "a late complaint")
    assert filled.index("main", KIND).generation == first
    assert filled.rollback("main", KIND).generation == second  # it was not marked unsound


def test_an_automatic_rollback_retires_the_unsound_generation_in_the_same_commit(filled: Engine) -> None:
    first, second = live(filled), live(filled)
    inside.go_back(filled, filled.index("main", KIND), "health check: slow")
    assert filled.index("main", KIND).generation == first
    rows = [(row.type, row.data) for row in filled.audit()][-2:]
    assert [kind for kind, _ in rows] == ["switch.committed", "generation.condemned"]
    assert (rows[0][1]["by"], rows[0][1]["reason"]) == ("shadowswitch", "health check: slow")
    assert (rows[1][1]["generation"], rows[1][1]["reason"]) == (second, "health check: slow")
    with pytest.raises(UnknownIndex):
        filled.rollback("main", KIND)


def test_a_switch_whose_commit_came_before_an_error_says_that_it_switched(filled: Engine, monkeypatch: Any) -> None:
    live(filled)
    shadow = built(filled)

    def no_room(*_: object) -> None:
        raise StorageFull("the disk is full")

    inside.replace(monkeypatch, inside.Step.RETIRE_PREVIOUS, no_room)
    result = filled.switch(shadow.shadow_index_id)
    assert result.success
    assert result.message.startswith("switched, but not all that follows was done: the disk is full")
    assert filled.index("main", KIND).generation == result.generation == shadow.generation


def test_of_two_rollbacks_at_once_the_second_leaves_the_live_index_alone(filled: Engine) -> None:
    first = live(filled)
    live(filled)
    results: list[SwitchResult] = []
    threads = [threading.Thread(target=lambda: results.append(filled.rollback("main", KIND))) for _ in range(2)]
    with inside.maintenance_lock(filled, first, 30):  # both requests come before either is served
        for thread in threads:
            thread.start()
        wait_until(lambda: inside.switches_under_way(filled) == 2)
    for thread in threads:
        thread.join(60)
    assert sorted(result.success for result in results) == [False, True]
    assert ["live already" in result.message for result in results if not result.success] == [True]
    assert filled.index("main", KIND).generation == first
