"""Builds: states, progress, cancellation, workers that die, pauses."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shadowswitch import (
    BuildCancelled,
    Delete,
    DuplicateBuild,
    Engine,
    InvalidConfig,
    InvalidTransition,
    Put,
    ShadowState,
    SwitchRequest,
    Timeout,
    UnknownShadow,
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


def slow_copy(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.05) -> None:
    """Make workers that start later copy slowly, so that a test has time during the copy."""
    monkeypatch.setenv("SHADOWSWITCH_POINTS", f"copy.slice=sleep:{seconds}")


# -- builds ----------------------------------------------------------------------------------------------------------


def test_a_build_goes_through_its_states_and_its_progress_never_goes_back(
    filled: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_copy(monkeypatch)
    failpoints.plan_points("build.validated=sleep:1")  # so that the test sees this phase
    shadow = filled.start_build("main", KIND, ["object_type"], {"parallel_workers": 1})
    seen: list[tuple[str, float, float | None]] = []
    pause = threading.Event()
    while shadow.state != ShadowState.BUILT:
        seen.append((shadow.phase, shadow.build_progress_percent, shadow.estimated_completion_seconds))
        pause.wait(0.01)
        shadow = filled.shadow(shadow.shadow_index_id)
    percents = [percent for _, percent, _ in seen]
    assert percents == sorted(percents)
    assert any(eta is not None and eta > 0 for _, _, eta in seen)
    assert {"copying", "validating"} <= {phase for phase, _, _ in seen}
    assert (shadow.build_progress_percent, shadow.record_count, shadow.switch_ready) == (100.0, 3000, True)


def test_writes_during_the_copy_are_in_the_index(filled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_copy(monkeypatch)
    shadow = filled.start_build("main", KIND, ["object_type"], {"parallel_workers": 1})
    filled.write("main", [put("0", "changed"), Delete("object_type", "1"), put("new", "fresh")])
    filled.wait_for(shadow.shadow_index_id, timeout_s=30)
    assert filled.switch(shadow.shadow_index_id).success
    assert found(filled, "changed") == {"0"}
    assert found(filled, "word1") == set()
    assert found(filled, "fresh") == {"new"}


def test_a_second_build_of_the_same_index_is_a_duplicate_and_others_are_not(
    filled: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_copy(monkeypatch)
    shadow = filled.start_build("main", KIND, ["object_type"])
    with pytest.raises(DuplicateBuild) as caught:
        filled.start_build("main", KIND, ["object_type"])
    assert caught.value.shadow_index_id == shadow.shadow_index_id
    other = filled.start_build("main", "GRAPH_INDEX", ["object_type"], {"backend": "kv"})
    filled.wait_for(other.shadow_index_id, timeout_s=30)
    filled.wait_for(shadow.shadow_index_id, timeout_s=30)
    with pytest.raises(DuplicateBuild):
        filled.start_build("main", KIND, ["object_type"])  # BUILT, and waiting for its switch


@pytest.mark.parametrize(
    "config",
    [
        {"tokenizer": "nonsense"},
        {"backend": "none"},
        {"no_such_option": 1},
        {"parallel_workers": 0},
        {"parallel_workers": True},
        {"shards": 65},
        {"columns": []},
        {"tokenizer": {1, 2}},
    ],
    ids=str,
)
def test_a_bad_build_config_is_refused_before_anything_is_written(engine: Engine, config: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig):
        engine.start_build("main", KIND, ["object_type"], config)
    assert engine.shadows() == []
    assert [event.type for event in engine.events()] == ["com.shadowswitch.branch.created"]


def test_a_build_is_cancelled_while_it_copies_and_leaves_nothing(
    filled: Engine, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    slow_copy(monkeypatch, 5.0)
    shadow = filled.start_build("main", KIND, ["object_type"])
    eventually(lambda: bool(filled.stats()["worker_pids"]))
    pids = filled.stats()["worker_pids"]
    assert filled.cancel_build(shadow.shadow_index_id, "changed my mind").state == ShadowState.CANCELLED
    with pytest.raises(BuildCancelled, match="changed my mind"):
        filled.wait_for(shadow.shadow_index_id)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    eventually(lambda: not os.path.exists(shadow.shadow_index_path))
    with pytest.raises(InvalidTransition):
        filled.cancel_build(shadow.shadow_index_id)


def test_a_built_shadow_can_be_discarded(filled: Engine, eventually: Eventually) -> None:
    shadow = filled.start_build("main", KIND, ["object_type"])
    filled.wait_for(shadow.shadow_index_id, timeout_s=30)
    filled.cancel_build(shadow.shadow_index_id)
    eventually(lambda: not os.path.exists(shadow.shadow_index_path))
    with pytest.raises(InvalidTransition):
        filled.switch(shadow.shadow_index_id)


def test_a_build_pauses_and_goes_on(filled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_copy(monkeypatch)
    shadow = filled.start_build("main", KIND, ["object_type"], {"parallel_workers": 1})
    filled.pause_build(shadow.shadow_index_id)
    with pytest.raises(Timeout):
        filled.wait_for(shadow.shadow_index_id, timeout_s=0.7)
    filled.throttle_build(shadow.shadow_index_id, 0.5)
    filled.resume_build(shadow.shadow_index_id)
    filled.wait_for(shadow.shadow_index_id, timeout_s=30)
    with pytest.raises(InvalidTransition):
        filled.pause_build(shadow.shadow_index_id)
    with pytest.raises(InvalidConfig):
        filled.throttle_build(shadow.shadow_index_id, 0)


def test_an_index_covers_a_type_from_its_first_record_on(engine: Engine) -> None:
    assert engine.rebuild("main", KIND, ["link_type"], request=SwitchRequest(allow_empty=True)).success
    receipt = engine.write("main", [Put("link_type", "owns", {"text": "user owns file"}), put("not covered")])
    with engine.reader("main", KIND, min_lsn=receipt.lsn) as reader:
        assert [hit.id for hit in reader.search("owns")] == ["owns"]
        assert reader.count() == 1


def test_unknown_shadows_and_states_are_refused(engine: Engine) -> None:
    for call in (engine.shadow, engine.switch, engine.cancel_build, engine.retry_build, engine.wait_for):
        with pytest.raises(UnknownShadow):
            call("nonsense")
    with pytest.raises(InvalidConfig):
        engine.shadows(state="NONSENSE")
