"""A switch and a rollback read no row of an index that was validated and followed; what is read later decides then.

A finding of that reading lets the index go back, forward after a rollback, or is said where there is no way back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from shadowswitch import Engine, SwitchRequest, Timeout
from tests.actors.test_validation import damage
from tests.support import inside
from tests.support.engine_helpers import KIND, built, fill, found, live, put, wait_until

ALTERED = "UPDATE docs SET c0 = 'altered' WHERE id = '5'"
"""No sample and no verification needs to draw this row."""
UNSAMPLED = SwitchRequest(validation_checks=("DIGEST", "INTEGRITY_CHECK", "RECORD_COUNT_VALIDATION"))


@pytest.fixture
def engine(open_engine: Callable[..., Engine]) -> Engine:
    """An engine with 300 records, whose damage stays."""
    engine = open_engine(sound=False)
    engine.create_branch("main")
    fill(engine, 300)
    return engine


def readings(engine: Engine) -> int:
    counters: dict[str, int] = engine.stats()["counters"]
    return counters.get("readings", 0) + counters.get("readings_failed", 0)


def live_and_read(engine: Engine) -> int:
    """Switch to a new generation, and wait until it was read through; its number."""
    before = readings(engine)
    generation = live(engine, shards=1)
    wait_until(lambda: readings(engine) == before + 1, 60.0)
    return generation


def audited(engine: Engine, kind: str) -> list[dict[str, Any]]:
    return [entry.data for entry in engine.audit() if entry.type == kind]


def test_a_rollback_gives_no_task_to_a_worker_before_it_is_committed(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    live_and_read(engine)
    live_and_read(engine)
    tasks: list[object] = []
    committed: list[int] = []

    def submit(ordinary: Callable[..., int], *given: Any) -> int:
        tasks.append(given)
        return ordinary(*given)

    inside.wrap(monkeypatch, inside.Step.WORKER_SUBMIT, submit)
    inside.before(monkeypatch, inside.Step.PREPARE, lambda: committed.append(len(tasks)))
    assert engine.rollback("main", KIND).success
    assert committed == [0]
    wait_until(lambda: readings(engine) == 3, 60.0)
    assert tasks, "it is read afterwards"


def test_what_became_live_is_read_also_where_nothing_is_rechecked(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine(recheck_interval_s=0.0)
    engine.create_branch("main")
    fill(engine, 300)
    live_and_read(engine)
    live_and_read(engine)
    waiting = built(engine, shards=1)
    assert engine.rollback("main", KIND).success
    wait_until(lambda: readings(engine) == 3, 60.0)
    assert engine.shadow(waiting.shadow_index_id).state == "BUILT"
    assert "rechecks" not in engine.stats()["counters"]


def test_a_switch_reads_samples_only(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    shadow = built(engine)
    checks: list[list[str]] = []

    def submit(ordinary: Callable[..., int], *given: Any) -> int:
        checks.append(getattr(given[1], "checks", []))
        return ordinary(*given)

    with monkeypatch.context() as patched:
        inside.wrap(patched, inside.Step.WORKER_SUBMIT, submit)
        inside.before(patched, inside.Step.PREPARE, lambda: checks.append(["committed"]))
        assert engine.switch(shadow.shadow_index_id).success
    assert checks[:2] == [["SAMPLE_READ_BACK"], ["committed"]]


def test_an_index_goes_back_when_the_reading_of_its_new_generation_finds_damage(engine: Engine) -> None:
    first = live(engine, shards=1)
    shadow = built(engine, shards=1)
    damage(shadow, ALTERED)
    second = engine.switch(shadow.shadow_index_id, UNSAMPLED)
    assert second.success
    wait_until(lambda: engine.index("main", KIND).generation == first, 60.0)
    (unsound,) = audited(engine, "generation.condemned")
    assert unsound["generation"] == second.generation
    assert "terms" in unsound["reason"]
    assert found(engine, "word5") == {"5"}


def test_an_index_goes_forward_again_when_the_reading_after_a_rollback_finds_damage(engine: Engine) -> None:
    live_and_read(engine)
    old = engine.index("main", KIND)
    second = live_and_read(engine)
    damage(engine.shadow(old.shadow_index_id), ALTERED)
    engine.write("main", [put("late", "written before the rollback")])
    assert engine.rollback("main", KIND).generation == old.generation
    engine.write("main", [put("later", "written after the rollback")])
    wait_until(lambda: engine.index("main", KIND).generation == second, 60.0)
    assert found(engine, "written", min_lsn=engine.head("main")) == {"late", "later"}
    assert [row["by"] for row in audited(engine, "switch.committed")][-1] == "shadowswitch"
    assert audited(engine, "generation.condemned")[0]["generation"] == old.generation


def test_damage_of_the_only_generation_is_told_and_a_rebuild_ends_it(engine: Engine) -> None:
    shadow = built(engine, shards=1)
    damage(shadow, ALTERED)
    assert engine.switch(shadow.shadow_index_id, UNSAMPLED).success
    wait_until(lambda: bool(audited(engine, "index.unsound")), 60.0)
    (said,) = audited(engine, "index.unsound")
    assert "rebuild the index" in said["reason"]
    assert engine.shadow(shadow.shadow_index_id).error == said["reason"]
    assert engine.index("main", KIND).generation == shadow.generation, "it is served on"
    assert live(engine) != shadow.generation
    wait_until(lambda: readings(engine) == 2, 60.0)
    assert len(audited(engine, "index.unsound")) == 1


def test_a_generation_that_soaks_at_a_restart_is_read(
    engine: Engine, open_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host may have stopped between the switch and the end of the reading."""
    first = live(engine, shards=1)
    shadow = built(engine, shards=1)
    with monkeypatch.context() as patched:
        inside.wrap(patched, inside.Step.RECHECK, lambda ordinary, scrubber: None)
        engine.switch(shadow.shadow_index_id, UNSAMPLED)
        engine.close()
    damage(shadow, ALTERED)
    again = open_engine(sound=False)
    wait_until(lambda: again.index("main", KIND).generation == first, 60.0)


def test_the_timeout_of_a_switch_bounds_the_wait_for_another_look_at_its_target(engine: Engine) -> None:
    shadow = built(engine)
    with inside.generation(engine, shadow.generation).maintenance_lock(5.0):
        result = engine.switch(shadow.shadow_index_id, SwitchRequest(switch_timeout_seconds=0.2))
    assert not result.success
    assert "is being looked at for longer than 0.2 s" in result.message
    assert engine.switch(shadow.shadow_index_id).success


def test_a_switch_that_does_not_end_in_time_says_that_it_goes_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shadow = built(engine)
    inside.patch_limit(monkeypatch, inside.Limit.SWITCH_GRACE_S, 0.1)
    go_on = threading.Event()
    with monkeypatch.context() as patched:
        inside.before(patched, inside.Step.VERIFY, lambda: go_on.wait(30.0))
        with pytest.raises(Timeout, match=r"index\(\) says which generation is live"):
            engine.switch(shadow.shadow_index_id, SwitchRequest(switch_timeout_seconds=3))
        go_on.set()
    wait_until(lambda: engine.index("main", KIND).generation == shadow.generation, 60.0)
