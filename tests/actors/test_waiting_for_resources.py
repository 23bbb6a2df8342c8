"""Work that lacks a resource waits or says so; none is called unsound, failed for good or half claimed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from shadowswitch import BuildFailed, Engine, ResourceExhausted, SwitchRequest
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, built, fill, found, live, reads, wait_until

BUILD = {"parallel_workers": 1}


def lacking(times: int) -> Callable[..., Any]:
    """Instead of a step: it lacks a descriptor so often, then it is done."""
    left = [times]

    def wrapper(ordinary: Callable[..., Any], *given: Any, **how: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise OSError(24, "Too many open files")
        return ordinary(*given, **how)

    return wrapper


def lacking_threads(patch: pytest.MonkeyPatch, name: str) -> list[str]:
    """Threads of that name cannot be had; the names of those that were refused."""
    refused: list[str] = []
    start = threading.Thread.start

    def refusing(thread: threading.Thread) -> None:
        if thread.name.startswith(name):
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    patch.setattr(threading.Thread, "start", refusing)
    return refused


def test_a_verification_that_lacks_a_descriptor_is_made_again(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(engine, 20)
    live(engine)
    shadow = built(engine, tokenizer="porter")
    inside.wrap(monkeypatch, inside.Step.VERIFY_READ, lacking(2))
    result = engine.switch(shadow.shadow_index_id)
    assert result.success
    assert result.verification_passed
    assert "not verified" not in result.message


def test_a_verification_that_never_could_be_made_takes_nothing_back(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(engine, 20)
    live(engine)
    shadow = built(engine, tokenizer="porter")
    inside.wrap(monkeypatch, inside.Step.VERIFY_READ, lacking(1000))
    result = engine.switch(shadow.shadow_index_id, SwitchRequest(switch_timeout_seconds=3))
    assert (result.success, result.rolled_back) == (True, False)
    assert "it was not verified" in result.message
    assert "open files" in result.message
    assert reads(engine) == shadow.generation
    assert engine.index("main", KIND).previous_generation is not None


def test_a_build_waits_for_a_worker_process(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(engine, 20)
    inside.wrap(monkeypatch, inside.Step.WORKER_START, lacking(2))
    shadow = engine.start_build("main", KIND, TYPES, BUILD)
    wait_until(lambda: engine.shadow(shadow.shadow_index_id).error, what="a build that says what it waits for")
    assert "RLIMIT_NOFILE" in str(engine.shadow(shadow.shadow_index_id).error)
    assert engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=60).error is None
    assert inside.crash_notes(engine) == []


def test_a_build_that_has_waited_too_long_fails_and_goes_on_by_a_retry(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(engine, 20)
    inside.patch_limit(monkeypatch, inside.Limit.SHORTAGES_MAX, 1)
    with monkeypatch.context() as patch:
        inside.wrap(patch, inside.Step.WORKER_START, lacking(1000))
        shadow = engine.start_build("main", KIND, TYPES, BUILD)
        with pytest.raises(BuildFailed, match="RLIMIT_NOFILE"):
            engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=60)
    engine.retry_build(shadow.shadow_index_id)
    assert engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=60).state == "BUILT"


def test_a_claim_without_a_thread_for_its_builder_waits(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(engine, 20)
    with monkeypatch.context() as patch:
        refused = lacking_threads(patch, "ShadowBuilder")
        shadow = engine.start_build("main", KIND, TYPES, BUILD)
        assert refused
        assert "RLIMIT_NPROC" in str(engine.shadow(shadow.shadow_index_id).error)
    engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=60)


def test_an_external_build_whose_directory_cannot_be_made_claims_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(engine, 20)
    with monkeypatch.context() as patch:
        inside.wrap(patch, inside.Step.MAKE_GENERATION, lacking(1))
        with pytest.raises(ResourceExhausted):
            engine.start_build("main", KIND, TYPES, external=True)
    assert engine.start_build("main", KIND, TYPES, external=True).state == "BUILDING"


def test_a_branch_without_a_thread_refuses_one_write_and_takes_the_next(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.create_branch("other")
    with monkeypatch.context() as patch:
        lacking_threads(patch, "BranchActor")
        with pytest.raises(ResourceExhausted, match="can't start new thread"):
            fill(engine, 1, branch="other")
    fill(engine, 1, branch="other")
    assert engine.count("other") == 1
    assert inside.queued_changes(engine) == 0


def test_a_switch_without_a_thread_changes_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(engine, 20)
    shadow = built(engine)
    with monkeypatch.context() as patch:
        lacking_threads(patch, "Switcher")
        with pytest.raises(ResourceExhausted):
            engine.switch(shadow.shadow_index_id)
    assert engine.shadow(shadow.shadow_index_id).state == "BUILT"
    assert engine.switch(shadow.shadow_index_id).success
    assert len(found(engine, "hello")) == 20


def test_a_health_check_without_a_thread_can_be_set_again(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        lacking_threads(patch, "shadowswitch-health")
        with pytest.raises(ResourceExhausted):
            engine.set_health_check(lambda info: None)
    engine.set_health_check(lambda info: None)


def test_a_validator_of_the_host_that_lacks_a_descriptor_has_found_nothing(engine: Engine) -> None:
    fill(engine, 20)
    shadow = built(engine)
    left = [1]

    def validator(reader: Any) -> list[str]:
        if left[0]:
            left[0] -= 1
            raise OSError(24, "Too many open files")
        return []

    engine.add_validator("MINE", validator)
    request = SwitchRequest(validation_checks=("MINE",))
    refused = engine.switch(shadow.shadow_index_id, request)
    assert not refused.success
    assert "RLIMIT_NOFILE" in refused.message
    assert engine.shadow(shadow.shadow_index_id).state == "BUILT"
    assert engine.switch(shadow.shadow_index_id, request).success


def test_a_worker_that_cannot_map_the_catalog_says_so_and_its_build_waits(engine: Engine) -> None:
    fill(engine, 20)
    with inside.map_in_workers(engine, 1 << 47):  # more than there is
        shadow = engine.start_build("main", KIND, TYPES, BUILD)
        wait_until(lambda: engine.shadow(shadow.shadow_index_id).error, what="a build that says what it waits for")
        assert "in a worker" in str(engine.shadow(shadow.shadow_index_id).error)
    assert engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=60).error is None
    assert inside.counter(engine, "worker_deaths") == 0
