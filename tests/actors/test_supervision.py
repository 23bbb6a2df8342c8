"""Supervision: when an actor raises, its callers get an error, no call hangs, and the engine works again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pykka
import pytest

from shadowswitch import Engine, InternalFailure, ShadowState, ShadowSwitchError
from shadowswitch.actors.branch.actor import BranchActor
from shadowswitch.actors.branch.locks import Write
from shadowswitch.actors.build.builder import BeginBuild, ShadowBuilder, Step
from shadowswitch.actors.build.shard_workers import WorkerSaid
from shadowswitch.actors.journal_writer import Append, CommitSwitch, JournalWriter, Transact
from shadowswitch.actors.kit.signals import Kick, Tick
from shadowswitch.actors.maintenance.dispatcher import Dispatcher
from shadowswitch.actors.maintenance.follower import Follower
from shadowswitch.actors.maintenance.janitor import Janitor, Sweep
from shadowswitch.storage import failpoints
from tests.support import inside
from tests.support.engine_helpers import (
    KIND,
    TYPES,
    HostActor,
    attempt,
    built,
    fill,
    found,
    live,
    put,
    wait_until,
    works,
)

ERRORS = [OSError(5, "boom"), SystemExit(1), KeyboardInterrupt()]
NAMES = [type(error).__name__ for error in ERRORS]
every_error = pytest.mark.parametrize("error", ERRORS, ids=NAMES)


@pytest.fixture
def host_actor() -> Iterator[pykka.ActorRef[HostActor]]:
    ref = HostActor.start()
    yield ref
    ref.stop()


class Bombs:
    """Makes the handler of an actor raise once, at the next message of a type."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.planted: dict[tuple[type, type], BaseException] = {}
        inside.fail_messages(monkeypatch, lambda actor, message: self.planted.pop((actor, message), None))

    def plant(self, actor: type, message: type, error: BaseException) -> None:
        """The next `message` to an `actor` raises `error`."""
        self.planted[actor, message] = error


def explode(error: BaseException) -> None:
    raise error


@pytest.fixture
def bombs(monkeypatch: pytest.MonkeyPatch) -> Bombs:
    return Bombs(monkeypatch)


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
def test_a_journal_writer_that_fails_refuses_its_pending_writes_and_goes_on(
    engine: Engine, bombs: Bombs, host_actor: pykka.ActorRef[HostActor], error: BaseException, kind: type
) -> None:
    engine.write("main", [put("a")])
    bombs.plant(JournalWriter, kind, error)
    with pytest.raises(InternalFailure):
        engine.write("main", [put("b")]) if kind is Append else engine.create_branch("other")
    assert engine.get("main", "object_type", "b") is None
    assert host_actor.ask("alive?", timeout=5) == "alive?"
    works(engine)


def test_a_transaction_that_fails_half_way_fails_alone_and_leaves_nothing(engine: Engine) -> None:
    engine.write("main", [put("a")])

    def half(commit: Any) -> None:
        commit.create_branch("half", 0.0)
        raise SystemExit("in the midst")

    with pytest.raises(InternalFailure):
        inside.transact(engine, half, "half")
    assert [branch.name for branch in engine.branches()] == ["main"]
    works(engine)


@pytest.mark.parametrize("action", ["exit", "raise:ENOSPC", "raise:EPERM"])
def test_a_commit_that_fails_acknowledges_nothing_and_the_next_one_works(engine: Engine, action: str) -> None:
    engine.write("main", [put("a")])
    failpoints.plan_points(f"journal.before_commit={action}@1")
    with pytest.raises(ShadowSwitchError):
        engine.write("main", [put("b")])
    failpoints.plan_points("")
    assert engine.get("main", "object_type", "b") is None
    assert engine.head("main") == 1
    works(engine)


def test_after_an_io_error_of_the_disk_nothing_is_accepted_any_more(open_engine: Any) -> None:
    engine = open_engine()
    engine.create_branch("main")
    engine.write("main", [put("a")])
    failpoints.plan_points("journal.before_commit=raise:EIO@1")
    for _ in range(2):
        with pytest.raises(ShadowSwitchError, match="disk"):
            engine.write("main", [put("b")])
    failpoints.plan_points("")
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
        inside.replace(patched, inside.Step.SWITCH, lambda *_: explode(error))
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
        "switch.near=exit@1",
        "switch.near=raise:EIO@1",
        "switch.drained=exit@1",
        "switch.drained=raise:EIO@1",
        "switch.proven=exit@1",
        "switch.proven=raise:EIO@1",
    ],
)
def test_a_switch_that_fails_before_its_commit_changes_nothing(engine: Engine, planned: str) -> None:
    fill(engine, 100)
    first = live(engine)
    shadow = built(engine)
    failpoints.plan_points(planned)
    outcome = attempt(lambda: engine.switch(shadow.shadow_index_id).success)
    failpoints.plan_points("")
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
        "switch.committed=raise:ENOSPC@1",
        "switch.pointed=exit@1",
        "switch.pointed=raise:ENOSPC@1",
        "switch.verify=exit@1",
    ],
)
def test_a_switch_that_fails_after_its_commit_leaves_one_whole_live_generation(engine: Engine, planned: str) -> None:
    fill(engine, 100)
    live(engine)
    shadow = built(engine)
    failpoints.plan_points(planned)
    attempt(lambda: engine.switch(shadow.shadow_index_id).success)
    failpoints.plan_points("")
    receipt = engine.write("main", [put("after", "later")])
    with engine.reader("main", KIND, min_lsn=receipt.lsn) as reader:
        assert reader.generation == engine.index("main", KIND).generation
        assert {hit.id for hit in reader.search("later")} == {"after"}
    assert engine.shadow(shadow.shadow_index_id).state != ShadowState.SWITCHING
    works(engine)


@every_error
@pytest.mark.parametrize("actor", [BranchActor, JournalWriter])
def test_a_switch_that_fails_in_an_actor_leaves_the_branch_open(
    engine: Engine, bombs: Bombs, actor: type, error: BaseException
) -> None:
    fill(engine, 50)
    shadow = built(engine)
    bombs.plant(actor, CommitSwitch, error)
    attempt(lambda: engine.switch(shadow.shadow_index_id))
    engine.write("main", [put("after")])
    assert engine.shadow(shadow.shadow_index_id).state == ShadowState.BUILT
    assert not inside.is_attempt_under_way(engine)
    assert engine.switch(shadow.shadow_index_id).success
