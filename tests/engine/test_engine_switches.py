"""Switches, rollbacks and readers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shadowswitch import (
    CorruptData,
    Engine,
    EngineClosed,
    InvalidConfig,
    InvalidTransition,
    Put,
    ShadowState,
    SwitchRequest,
    UnknownIndex,
)
from shadowswitch.storage import failpoints
from tests.support.engine_helpers import KIND, fill, found, put

Eventually = Callable[[Callable[[], bool]], None]


@pytest.fixture
def filled(engine: Engine) -> Engine:
    fill(engine, 3000)
    return engine


@pytest.fixture(autouse=True)
def _no_points_left() -> Iterator[None]:
    yield
    failpoints.plan_points("")


# -- switches --------------------------------------------------------------------------------------------------------


def test_the_result_of_a_switch_says_what_it_did(filled: Engine) -> None:
    first = filled.rebuild("main", KIND, ["object_type"])
    second = filled.rebuild("main", KIND, ["object_type"], {"tokenizer": "porter"})
    assert first.success
    assert second.success
    assert second.sealed_lsn == filled.head("main")
    assert 0 < second.sealed_ms <= second.switch_duration_ms
    assert (second.old_index_path, second.backup_path) == (first.new_index_path, first.new_index_path)
    assert second.validation_passed
    assert second.verification_passed
    info = filled.index("main", KIND)
    assert (info.generation, info.previous_generation) == (second.generation, first.generation)
    assert os.readlink(filled.path / "published" / "main" / KIND).endswith(f"{second.generation:08d}")


def test_only_one_of_two_switches_of_a_shadow_takes_place(filled: Engine) -> None:
    shadow = filled.start_build("main", KIND, ["object_type"])
    filled.wait_for(shadow.shadow_index_id, timeout_s=30)
    results: list[object] = []

    def switch() -> None:
        try:
            results.append(filled.switch(shadow.shadow_index_id).success)
        except InvalidTransition as error:
            results.append(type(error))

    threads = [threading.Thread(target=switch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count(True) == 1
    assert results.count(InvalidTransition) == 3


def test_a_switch_that_does_not_verify_goes_back_by_itself(filled: Engine) -> None:
    first = filled.rebuild("main", KIND, ["object_type"])
    shadow = filled.start_build("main", KIND, ["object_type"])
    filled.wait_for(shadow.shadow_index_id, timeout_s=30)
    failpoints.plan_points("switch.verify=raise:EIO@1")
    result = filled.switch(shadow.shadow_index_id)
    assert (result.success, result.rolled_back, result.verification_passed) == (False, True, False)
    assert filled.index("main", KIND).generation == first.generation
    assert filled.shadow(shadow.shadow_index_id).state == ShadowState.CLEANUP
    assert found(filled, "word7") == {"7"}


def test_a_first_switch_that_does_not_verify_leaves_no_index(filled: Engine) -> None:
    shadow = filled.start_build("main", KIND, ["object_type"])
    filled.wait_for(shadow.shadow_index_id, timeout_s=30)
    failpoints.plan_points("switch.verify=raise:EIO@1")
    assert filled.switch(shadow.shadow_index_id).rolled_back
    failpoints.plan_points("")
    with pytest.raises(UnknownIndex):
        filled.index("main", KIND)
    assert filled.rebuild("main", KIND, ["object_type"]).success


def test_a_validator_of_the_host_can_refuse_and_force_overrides_it(filled: Engine) -> None:
    filled.add_validator("ENOUGH", lambda reader: [] if reader.count() > 5000 else ["too few records"])
    shadow = filled.start_build("main", KIND, ["object_type"])
    filled.wait_for(shadow.shadow_index_id, timeout_s=30)
    refused = filled.switch(shadow.shadow_index_id, SwitchRequest(validation_checks=("ENOUGH",)))
    assert (refused.success, refused.validation_errors) == (False, ["ENOUGH: too few records"])
    assert filled.shadow(shadow.shadow_index_id).state == ShadowState.BUILT
    forced = SwitchRequest(validation_checks=("ENOUGH",), force_switch=True, performed_by="me", reason="tests")
    assert filled.switch(shadow.shadow_index_id, forced).success
    committed = [event for event in filled.audit() if event.type == "switch.committed"][-1]
    assert (committed.data["by"], committed.data["forced"]) == ("me", True)
    with pytest.raises(InvalidConfig, match="NO_SUCH_CHECK"):
        filled.switch(shadow.shadow_index_id, SwitchRequest(validation_checks=("NO_SUCH_CHECK",)))


def test_query_comparison_refuses_a_shadow_that_answers_otherwise(engine: Engine) -> None:
    engine.write("main", [Put("object_type", str(n), {"text": f"running w{n}", "title": "none"}) for n in range(200)])
    engine.rebuild("main", KIND, ["object_type"])
    request = SwitchRequest(validation_checks=("QUERY_COMPARISON",), queries=("running", "w7"))
    shadow = engine.start_build("main", KIND, ["object_type"], {"columns": ["title"]})
    engine.wait_for(shadow.shadow_index_id, timeout_s=30)
    result = engine.switch(shadow.shadow_index_id, request)
    assert not result.success
    assert "QUERY_COMPARISON" in result.message


# -- rollback --------------------------------------------------------------------------------------------------------


def test_there_is_nothing_to_go_back_to_after_the_soak(open_engine: Any, eventually: Eventually) -> None:
    engine = open_engine(soak_s=0)
    engine.create_branch("main")
    engine.write("main", [put("a")])
    with pytest.raises(UnknownIndex):
        engine.rollback("main", KIND)
    engine.rebuild("main", KIND, ["object_type"])
    with pytest.raises(UnknownIndex, match="no previous generation"):
        engine.rollback("main", KIND)
    old = engine.rebuild("main", KIND, ["object_type"]).old_index_path
    eventually(lambda: not os.path.exists(str(old)))
    with pytest.raises(UnknownIndex, match="no previous generation"):
        engine.rollback("main", KIND)


def test_an_index_that_fails_its_health_check_is_rolled_back(open_engine: Any, eventually: Eventually) -> None:
    engine = open_engine(health_interval_s=0.05)
    engine.create_branch("main")
    engine.write("main", [put("a")])
    first = engine.rebuild("main", KIND, ["object_type"])
    second = engine.rebuild("main", KIND, ["object_type"])
    engine.set_health_check(lambda info: "too slow" if info.generation == second.generation else None)
    eventually(lambda: bool(engine.index("main", KIND).generation == first.generation))
    eventually(lambda: bool(engine.shadow(second.shadow_index_id).error))
    assert engine.shadow(second.shadow_index_id).error == "health check: too slow"


# -- readers ---------------------------------------------------------------------------------------------------------


def test_a_pinned_generation_is_kept_and_follows_until_it_is_let_go(filled: Engine, eventually: Eventually) -> None:
    filled.rebuild("main", KIND, ["object_type"])
    reader = filled.reader("main", KIND)
    path = filled.index("main", KIND).path
    filled.rebuild("main", KIND, ["object_type"])
    filled.rebuild("main", KIND, ["object_type"])  # after two switches it is no backup any more
    filled.clean_up()
    assert os.path.exists(path)
    assert len(reader.search("word7")) == 1
    reader.close()
    reader.close()
    eventually(lambda: not os.path.exists(path))
    with pytest.raises(EngineClosed):
        reader.search("word7")


def test_a_reader_shows_the_writes_before_it(filled: Engine) -> None:
    filled.rebuild("main", KIND, ["object_type"])
    for n in range(50):
        receipt = filled.write("main", [put("0", f"edit{n}")])
        assert found(filled, f"edit{n}", min_lsn=receipt.lsn) == {"0"}
    with pytest.raises(InvalidConfig, match="beyond the head"):
        filled.reader("main", KIND, min_lsn=10**9)


def test_reading_without_an_index_says_what_to_do(engine: Engine) -> None:
    with pytest.raises(UnknownIndex, match="start_build"):
        engine.reader("main", KIND)
    assert engine.indexes() == []


def test_a_live_index_that_cannot_be_opened_raises_an_error_and_can_be_rebuilt(open_engine: Any) -> None:
    first = open_engine()
    first.create_branch("main")
    first.write("main", [put("a")])
    path = first.rebuild("main", KIND, ["object_type"]).new_index_path
    first.close()
    (first.path / path / "manifest.json").write_text("{}")
    second = open_engine()
    with pytest.raises(CorruptData, match="rebuild"):
        second.reader("main", KIND)
    assert second.get("main", "object_type", "a") is not None
    assert second.rebuild("main", KIND, ["object_type"]).success
    assert found(second, "worda") == {"a"}
