"""Supervision: whatever an actor raises, callers get an error, nothing hangs, and the engine works again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pykka
import pytest

from shadowswitch import Delete, Engine, EngineClosed, InternalFailure, Put, ShadowState, ShadowSwitchError, Timeout
from shadowswitch.actors.base import EngineActor
from shadowswitch.actors.branch import BranchActor
from shadowswitch.actors.builder import ShadowBuilder
from shadowswitch.actors.dispatcher import Dispatcher
from shadowswitch.actors.follower import Follower
from shadowswitch.actors.janitor import Janitor
from shadowswitch.actors.journal_writer import JournalWriter
from shadowswitch.actors.messages import (
    Append,
    BeginBuild,
    Kick,
    Seal,
    Step,
    Sweep,
    Tick,
    Transact,
    WorkerSaid,
    Write,
)
from shadowswitch.actors.switcher import Switcher
from shadowswitch.storage import points
from tests.engine_helpers import KIND, TYPES, HostActor, built, fill, found, live, put, wait_until

ERRORS = [OSError(5, "boom"), SystemExit(1), KeyboardInterrupt()]
NAMES = [type(error).__name__ for error in ERRORS]
every_error = pytest.mark.parametrize("error", ERRORS, ids=NAMES)


@pytest.fixture
def host_actor() -> Iterator[pykka.ActorRef[HostActor]]:
    ref = HostActor.start()
    yield ref
    ref.stop()


class Bombs:
    """Makes the next message of a kind fail in the handler of an actor of a class, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.planted: dict[tuple[type, type], BaseException] = {}
        ordinary = EngineActor.on_receive

        def on_receive(actor: EngineActor, message: Any) -> None:
            error = self.planted.pop((type(actor), type(message)), None)
            if error is None:
                ordinary(actor, message)
                return
            handlers = actor._handlers
            actor._handlers = {**handlers, type(message): lambda _: explode(error)}
            ordinary(actor, message)
            actor._handlers = handlers

        monkeypatch.setattr(EngineActor, "on_receive", on_receive)

    def plant(self, actor: type, message: type, error: BaseException) -> None:
        """The next `message` to an `actor` raises `error`."""
        self.planted[actor, message] = error


def explode(error: BaseException) -> None:
    raise error


@pytest.fixture
def bombs(monkeypatch: pytest.MonkeyPatch) -> Bombs:
    return Bombs(monkeypatch)


def works(engine: Engine) -> None:
    """The whole round: write, build, switch, read one's own write, roll back."""
    fill(engine, 20, text="works")
    live(engine)
    receipt = engine.write("main", [put("again", "worksagain"), Delete("object_type", "1")])
    assert found(engine, "worksagain", min_lsn=receipt.lsn) == {"again"}
    assert engine.check() == []


@every_error
def test_a_write_whose_branch_actor_fails_gets_the_error_and_the_next_one_works(
    engine: Engine, bombs: Bombs, host_actor: pykka.ActorRef[HostActor], error: BaseException
) -> None:
    engine.write("main", [put("a")])
    bombs.plant(BranchActor, Write, error)
    with pytest.raises(InternalFailure) as caught:
        engine.write("main", [put("b")])
    assert caught.value.__cause__ is error
    assert engine.get("main", "object_type", "b") is None
    assert host_actor.ask("alive?", timeout=5) == "alive?"
    works(engine)


@every_error
@pytest.mark.parametrize("kind", [Append, Transact])
def test_a_journal_writer_that_fails_refuses_what_it_held_and_goes_on(
    engine: Engine, bombs: Bombs, host_actor: pykka.ActorRef[HostActor], error: BaseException, kind: type
) -> None:
    engine.write("main", [put("a")])
    bombs.plant(JournalWriter, kind, error)
    with pytest.raises(InternalFailure):
        engine.write("main", [put("b")]) if kind is Append else engine.create_branch("other")
    assert engine.get("main", "object_type", "b") is None
    assert host_actor.ask("alive?", timeout=5) == "alive?"
    works(engine)


def test_a_transaction_that_fails_in_the_midst_fails_alone_and_leaves_nothing(engine: Engine) -> None:
    engine.write("main", [put("a")])

    def half(commit: Any) -> None:
        commit.create_branch("half", 0.0)
        raise SystemExit("in the midst")

    with pytest.raises(InternalFailure):
        engine._house.transact(half, "half")
    assert [branch.name for branch in engine.branches()] == ["main"]
    works(engine)


@pytest.mark.parametrize("action", ["exit", "raise:ENOSPC", "raise:EPERM"])
def test_a_commit_that_fails_acknowledges_nothing_and_the_next_one_works(engine: Engine, action: str) -> None:
    engine.write("main", [put("a")])
    points.plan_points(f"journal.before_commit={action}@1")
    with pytest.raises(ShadowSwitchError):
        engine.write("main", [put("b")])
    points.plan_points("")
    assert engine.get("main", "object_type", "b") is None
    assert engine.head("main") == 1
    works(engine)


def test_after_an_io_error_of_the_disk_nothing_is_accepted_any_more(open_engine: Any) -> None:
    engine = open_engine()
    engine.create_branch("main")
    engine.write("main", [put("a")])
    points.plan_points("journal.before_commit=raise:EIO@1")
    for _ in range(2):
        with pytest.raises(ShadowSwitchError, match="disk"):
            engine.write("main", [put("b")])
    points.plan_points("")
    assert engine.get("main", "object_type", "a") is not None
    engine.close()
    again = open_engine()
    assert again.count("main") == 1
    works(again)


@every_error
@pytest.mark.parametrize("kind", [Tick, Kick])
def test_a_follower_that_fails_goes_on_following(
    engine: Engine, bombs: Bombs, host_actor: pykka.ActorRef[HostActor], error: BaseException, kind: type
) -> None:
    fill(engine, 10)
    live(engine)
    bombs.plant(Follower, kind, error)
    receipt = engine.write("main", [put("new", "fresh")])
    assert found(engine, "fresh", min_lsn=receipt.lsn) == {"new"}
    assert host_actor.ask("alive?", timeout=5) == "alive?"


@every_error
def test_a_janitor_that_fails_gives_the_error_and_cleans_up_the_next_time(
    engine: Engine, bombs: Bombs, host_actor: pykka.ActorRef[HostActor], error: BaseException
) -> None:
    bombs.plant(Janitor, Sweep, error)
    with pytest.raises(InternalFailure):
        engine.clean_up()
    engine.clean_up()
    assert engine.stats()["crashes"][-1]["actor"] == "shadowswitch-janitor"
    assert host_actor.ask("alive?", timeout=5) == "alive?"


@every_error
def test_a_dispatcher_that_fails_delivers_everything_later(engine: Engine, bombs: Bombs, error: BaseException) -> None:
    types: list[str] = []
    bombs.plant(Dispatcher, Kick, error)
    engine.subscribe(lambda event: types.append(event.type), after=0)
    fill(engine, 10)
    live(engine)
    wait_until(lambda: "com.shadowswitch.switch.committed" in types)
    works(engine)


@every_error
@pytest.mark.parametrize("kind", [BeginBuild, WorkerSaid, Step])
def test_a_build_whose_builder_fails_is_failed_with_that_reason_and_can_be_retried(
    engine: Engine, bombs: Bombs, host_actor: pykka.ActorRef[HostActor], error: BaseException, kind: type
) -> None:
    fill(engine, 100)
    bombs.plant(ShadowBuilder, kind, error)
    shadow = engine.start_build("main", KIND, TYPES)
    status = engine.wait_for(shadow.shadow_index_id, "FAILED", timeout_s=30)
    assert type(error).__name__ in (status.error or "")
    assert host_actor.ask("alive?", timeout=5) == "alive?"
    engine.retry_build(shadow.shadow_index_id)
    engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=30)
    assert engine.switch(shadow.shadow_index_id).success


@every_error
def test_a_switch_whose_switcher_fails_gives_the_error_and_can_be_tried_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, host_actor: pykka.ActorRef[HostActor], error: BaseException
) -> None:
    fill(engine, 100)
    shadow = built(engine)
    with monkeypatch.context() as patched:
        patched.setattr(Switcher, "_switch", lambda *_: explode(error))
        with pytest.raises(InternalFailure):
            engine.switch(shadow.shadow_index_id)
    assert engine.shadow(shadow.shadow_index_id).state == ShadowState.BUILT
    assert host_actor.ask("alive?", timeout=5) == "alive?"
    assert engine.switch(shadow.shadow_index_id).success


@pytest.mark.parametrize(
    "planned",
    [
        "switch.validated=exit@1",
        "switch.validated=raise:EIO@1",
        "switch.sealed=exit@1",
        "switch.sealed=raise:EIO@1",
        "switch.drained=exit@1",
        "switch.drained=raise:EIO@1",
    ],
)
def test_a_switch_that_fails_before_its_commit_changes_nothing(engine: Engine, planned: str) -> None:
    fill(engine, 100)
    first = live(engine)
    shadow = built(engine)
    points.plan_points(planned)
    outcome = attempt(lambda: engine.switch(shadow.shadow_index_id).success)
    points.plan_points("")
    assert outcome is not True
    assert engine.index("main", KIND).generation == first
    assert engine.shadow(shadow.shadow_index_id).state == ShadowState.BUILT
    receipt = engine.write("main", [put("after", "later")])
    assert found(engine, "later", min_lsn=receipt.lsn) == {"after"}
    assert engine.switch(shadow.shadow_index_id).success


@pytest.mark.parametrize(
    "planned",
    [
        "switch.committed=exit@1",
        "switch.committed=raise:EIO@1",
        "switch.pointed=exit@1",
        "switch.pointed=raise:EIO@1",
        "switch.verify=exit@1",
    ],
)
def test_a_switch_that_fails_after_its_commit_leaves_one_whole_live_generation(engine: Engine, planned: str) -> None:
    fill(engine, 100)
    live(engine)
    shadow = built(engine)
    points.plan_points(planned)
    attempt(lambda: engine.switch(shadow.shadow_index_id).success)
    points.plan_points("")
    receipt = engine.write("main", [put("after", "later")])
    with engine.reader("main", KIND, min_lsn=receipt.lsn) as reader:
        assert reader.generation == engine.index("main", KIND).generation
        assert {hit.id for hit in reader.search("later")} == {"after"}
    assert engine.shadow(shadow.shadow_index_id).state != ShadowState.SWITCHING
    works(engine)


def attempt(call: Callable[[], object]) -> object:
    """What a call returned, or the error of this library that it raised."""
    try:
        return call()
    except ShadowSwitchError as error:
        return error


@every_error
def test_a_seal_that_fails_leaves_no_branch_sealed(engine: Engine, bombs: Bombs, error: BaseException) -> None:
    fill(engine, 50)
    shadow = built(engine)
    bombs.plant(BranchActor, Seal, error)
    attempt(lambda: engine.switch(shadow.shadow_index_id))
    engine.write("main", [put("after")])
    assert engine.shadow(shadow.shadow_index_id).state == ShadowState.BUILT
    assert engine._house.sealing == 0
    assert engine.switch(shadow.shadow_index_id).success


def test_a_host_that_stops_all_actors_of_the_process_gets_its_engine_back(engine: Engine) -> None:
    fill(engine, 100)
    live(engine)
    pykka.ActorRegistry.stop_all()
    outcome = attempt(lambda: engine.write("main", [put("during")], timeout_s=2))
    wait_until(lambda: not isinstance(attempt(lambda: engine.write("main", [put("after")])), ShadowSwitchError))
    if not isinstance(outcome, ShadowSwitchError):
        assert engine.get("main", "object_type", "during") is not None
    works(engine)


def test_subscribers_go_on_hearing_of_events_after_all_actors_were_stopped(engine: Engine) -> None:
    told: list[int] = []
    engine.subscribe(lambda event: told.append(event.sequence), after=0)
    pykka.ActorRegistry.stop_all()
    wait_until(lambda: not isinstance(attempt(lambda: engine.write("main", [put("a")])), ShadowSwitchError))
    live(engine)
    wait_until(lambda: told == [event.sequence for event in engine.events()])


def test_what_is_live_soaking_and_waiting_is_followed_again_after_all_actors_were_stopped(engine: Engine) -> None:
    fill(engine, 100)
    numbers = [live(engine), live(engine), built(engine).generation]
    pykka.ActorRegistry.stop_all()
    wait_until(lambda: not isinstance(attempt(lambda: engine.write("main", [put("a", "edited")])), ShadowSwitchError))
    for number in numbers:
        generation = engine._house.shelf.open[number]
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
    points.plan_points("write.admitted=sleep:1.0@1")
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
    points.plan_points("")
    works(engine)
