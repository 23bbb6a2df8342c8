"""A host stops every actor of the process, closes the engine under load, and has a branch that hangs."""

from __future__ import annotations

import threading

import pykka
import pytest

from shadowswitch import Engine, EngineClosed, Put, ShadowSwitchError, Timeout
from shadowswitch.actors.build.builder import ShadowBuilder
from shadowswitch.storage import failpoints
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, attempt, built, fill, found, live, put, wait_until, works


def test_a_host_that_stops_all_actors_of_the_process_gets_its_engine_back(engine: Engine) -> None:
    fill(engine, 100)
    live(engine)
    pykka.ActorRegistry.stop_all()
    outcome = attempt(lambda: engine.write("main", [put("during")], timeout_s=2))
    wait_until(lambda: not isinstance(attempt(lambda: engine.write("main", [put("after")])), ShadowSwitchError))
    if not isinstance(outcome, ShadowSwitchError):
        assert engine.get("main", "object_type", "during") is not None
    works(engine)


def test_subscribers_get_further_events_after_all_actors_stopped(engine: Engine) -> None:
    sequences: list[int] = []
    engine.subscribe(lambda event: sequences.append(event.sequence), after=0)
    pykka.ActorRegistry.stop_all()
    wait_until(lambda: not isinstance(attempt(lambda: engine.write("main", [put("a")])), ShadowSwitchError))
    live(engine)
    wait_until(lambda: sequences == [event.sequence for event in engine.events()])


def test_live_soaking_and_waiting_generations_are_followed_again_after_all_actors_stopped(engine: Engine) -> None:
    fill(engine, 100)
    numbers = [live(engine), live(engine), built(engine).generation]
    pykka.ActorRegistry.stop_all()
    wait_until(lambda: not isinstance(attempt(lambda: engine.write("main", [put("a", "edited")])), ShadowSwitchError))
    for number in numbers:
        generation = inside.generation(engine, number)
        wait_until(lambda g=generation: g.applied_lsn == engine.head("main"))  # type: ignore[misc]
    assert found(engine, "edited") == {"a"}


def test_calls_under_way_when_all_actors_are_stopped_get_an_answer(engine: Engine) -> None:
    fill(engine, 100)
    live(engine)
    outcomes: list[object] = []
    acked: list[str] = []
    begun = threading.Event()

    def write(number: int) -> None:
        for n in range(40):
            id = f"{number}-{n}"
            outcome = attempt(lambda id=id: engine.write("main", [put(id)], timeout_s=3))  # type: ignore[misc]
            outcomes.append(outcome)
            begun.set()
            if not isinstance(outcome, ShadowSwitchError):
                acked.append(id)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    assert begun.wait(10)
    pykka.ActorRegistry.stop_all()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    for id in acked:
        assert engine.get("main", "object_type", id) is not None, f"{id} was acknowledged and is lost"
    wait_until(lambda: not isinstance(attempt(lambda: engine.write("main", [put("after")])), ShadowSwitchError))
    works(engine)


def test_a_build_goes_on_when_its_builder_is_stopped_by_the_host(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(engine, 3000)
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "copy.slice=sleep:0.2")
    shadow = engine.start_build("main", KIND, TYPES, {"parallel_workers": 1})
    wait_until(lambda: engine.stats()["worker_pids"])
    for ref in pykka.ActorRegistry.get_by_class(ShadowBuilder):
        ref.stop()
    assert engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=60).record_count == 3000
    assert engine.switch(shadow.shadow_index_id).success


def test_closing_ends_every_call_that_waits(filled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "copy.slice=sleep:0.5")
    shadow = filled.start_build("main", KIND, TYPES)
    outcomes: list[object] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(attempt(lambda: filled.wait_for(shadow.shadow_index_id)))),
        threading.Thread(target=lambda: outcomes.append(attempt(lambda: _write_on(filled)))),
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: filled.stats()["worker_pids"])
    filled.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert {type(outcome) for outcome in outcomes} == {EngineClosed}
    for call in (lambda: filled.write("main", [put("x")]), filled.branches, filled.stats, filled.check):
        with pytest.raises(EngineClosed):
            call()


def _write_on(engine: Engine) -> None:
    for n in range(1_000_000):
        engine.write("main", [Put("link_type", str(n), {})])


def test_a_caller_whose_branch_hangs_is_let_go_at_its_deadline(engine: Engine) -> None:
    failpoints.plan_points("write.admitted=sleep:1.0@1")
    outcomes: list[object] = []
    threads = [
        threading.Thread(
            target=lambda: outcomes.append(attempt(lambda: engine.write("main", [put("b")], timeout_s=0.1)))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [type(outcome) for outcome in outcomes].count(Timeout) >= 2
    failpoints.plan_points("")
    works(engine)
