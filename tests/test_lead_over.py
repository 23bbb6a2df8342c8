"""What fails between the commit of a switch and the moment when readers are led over: nothing is lost, nobody is led to
less than he saw, and readers end up where the catalog says."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from shadowswitch import Engine, ShadowState, StorageFull, SwitchRequest
from shadowswitch.storage import failpoints
from tests.engine_helpers import KIND, attempt, built, fill, live, wait_until
from tests.external_helpers import begin, complete, delivered
from tests.gathering import HELD_S, Gathered, is_whole
from tests.support import inside

OpenEngine = Callable[..., Engine]


def unsound_since(gathered: Gathered, generation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generation differs from its source once the writes have come, and not before."""
    inside.unsound(monkeypatch, lambda number: number == generation and bool(gathered.threads))


# -- what fails meanwhile --------------------------------------------------------------------------------------------


def test_last_changes_that_cannot_be_brought_in_take_the_switch_back(
    engine: Engine, gathered: Gathered, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = live(engine)
    shadow = built(engine)
    gathered.armed = True
    failpoints.plan_points("switch.committed=sleep:0.3@1")

    def no_room() -> None:
        if gathered.receipts:
            raise StorageFull("the disk is full")

    inside.patch_limit(monkeypatch, inside.Limit.DRAIN_S, 0.3)
    inside.before_apply_until(monkeypatch, shadow.generation, no_room)
    result = engine.switch(shadow.shadow_index_id)
    gathered.join()
    assert (result.success, result.rolled_back) == (False, True), result.message
    assert "the last changes cannot be brought in" in result.message
    assert not gathered.refused
    assert engine.index("main", KIND).generation == first
    assert engine.index("main", KIND).previous_generation == shadow.generation, "a full disk says nothing against it"
    wait_until(lambda: is_whole(engine))


def test_a_first_switch_whose_digest_differs_after_the_last_changes_is_withdrawn(
    engine: Engine, gathered: Gathered, monkeypatch: pytest.MonkeyPatch
) -> None:
    shadow = built(engine)
    gathered.armed = True
    unsound_since(gathered, shadow.generation, monkeypatch)
    result = engine.switch(shadow.shadow_index_id)
    gathered.join()
    assert (result.success, result.rolled_back) == (False, True), result.message
    assert "differs from the source after the last changes" in result.message
    assert engine.indexes("main") == []
    assert live(engine) > shadow.generation
    assert is_whole(engine)


def test_a_digest_that_differs_after_the_last_changes_takes_the_switch_back(
    engine: Engine, gathered: Gathered, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = live(engine)
    shadow = built(engine)
    gathered.armed = True
    unsound_since(gathered, shadow.generation, monkeypatch)
    result = engine.switch(shadow.shadow_index_id)
    gathered.join()
    assert (result.success, result.rolled_back) == (False, True), result.message
    assert engine.index("main", KIND).generation == first
    wait_until(lambda: is_whole(engine))


@pytest.mark.parametrize(
    "planned",
    [
        "switch.committed=raise:EIO@1",
        "switch.committed=exit@1",
        "switch.drained=raise:EIO@1",
        "switch.drained=exit@1",
        "switch.pointed=exit@1",
        "switch.verify=exit@1",
    ],
)
def test_whatever_ends_an_attempt_after_its_commit_readers_are_led_to_what_is_live(
    engine: Engine, gathered: Gathered, planned: str
) -> None:
    live(engine)
    shadow = built(engine)
    gathered.armed = True
    failpoints.plan_points(planned)
    attempt(lambda: engine.switch(shadow.shadow_index_id))
    gathered.join()
    assert engine.index("main", KIND).generation == shadow.generation
    assert is_whole(engine)
    engine.clean_up()
    assert engine.check() == [], "the path for outsiders leads there, too"


def test_where_going_back_fails_too_readers_stay_until_they_can_be_led_over(
    engine: Engine, gathered: Gathered, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = live(engine)
    shadow = built(engine)
    gathered.armed = True
    failpoints.plan_points("switch.committed=sleep:0.3@1")

    def no_room(*_: object) -> None:
        if gathered.receipts:
            raise StorageFull("the disk is full")

    with monkeypatch.context() as patched:
        inside.patch_limit(patched, inside.Limit.DRAIN_S, 0.3)
        inside.before_apply(patched, no_room)
        result = engine.switch(shadow.shadow_index_id, SwitchRequest(switch_timeout_seconds=0.1))
        gathered.join()
        assert not result.success
        assert "going back failed as well" in result.message
        with engine.reader("main", KIND) as reader:
            assert reader.generation == first, "they read what they read before"
            assert len(reader.search("hello")) > 0
        engine.clean_up()
    assert engine.index("main", KIND).generation == shadow.generation
    engine.clean_up()
    assert is_whole(engine)
    assert engine.check() == []


def test_a_stale_switch_does_not_take_the_gathered_writes_with_it(
    engine: Engine, gathered: Gathered, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = live(engine)
    shadow = built(engine)
    gathered.armed = True
    with monkeypatch.context() as patched:
        inside.stale_token(patched)
        result = engine.switch(shadow.shadow_index_id)
        gathered.join()
    assert not result.success
    assert "token" in result.message
    assert len(gathered.receipts) == 3
    assert engine.index("main", KIND).generation == first
    assert engine.shadow(shadow.shadow_index_id).state == ShadowState.BUILT
    wait_until(lambda: is_whole(engine))
    assert engine.switch(shadow.shadow_index_id).success


def test_a_switch_whose_turn_comes_late_in_its_group_is_given_up(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was claimed in time, and the writes before it in the same transaction took long."""
    engine = open_engine(seal_budget_ms=2_000)
    engine.create_branch("main")
    fill(engine, 100)
    first = live(engine)
    shadow = built(engine)
    writes = Gathered(engine)
    with monkeypatch.context() as patched:
        inside.after(patched, inside.Step.PROVE, writes.begin)
        inside.before(patched, inside.Step.TRANSACTION_WRITE, lambda: threading.Event().wait(0.8))
        result = engine.switch(shadow.shadow_index_id, SwitchRequest(switch_timeout_seconds=0.01))
        writes.join()
    assert not result.success
    assert "Config.seal_budget_ms" in result.message
    assert result.sealed_ms == 0
    assert len(writes.receipts) == 3
    assert engine.index("main", KIND).generation == first
    assert engine.switch(shadow.shadow_index_id).success


def test_an_index_in_an_unknown_format_is_not_switched_to_when_a_change_comes_before_the_commit(
    engine: Engine, gathered: Gathered
) -> None:
    """Nobody but its builder could bring that change in."""
    shadow = begin(engine)
    delivered(engine, shadow)
    complete(engine, shadow)
    gathered.armed = True
    request = SwitchRequest(switch_timeout_seconds=0.01)
    result = engine.switch(shadow.shadow_index_id, request)
    gathered.join()
    assert not result.success
    assert "a change came that its builder has not applied" in result.message
    assert not gathered.refused
    assert engine.indexes("main") == []
    assert engine.shadow(shadow.shadow_index_id).state == ShadowState.BUILT


# -- who leads whom --------------------------------------------------------------------------------------------------


def test_readers_are_never_led_back_by_a_switch_that_was_overtaken(engine: Engine) -> None:
    fill(engine, 10)
    first, second = live(engine), live(engine)
    row = inside.catalog(engine).index(1, KIND)
    assert row is not None
    assert not inside.set_live(engine, first, row.epoch - 1)
    with engine.reader("main", KIND) as reader:
        assert reader.generation == second
    assert engine.rollback("main", KIND).generation == first
    with engine.reader("main", KIND) as reader:
        assert reader.generation == first


def test_a_second_switch_waits_until_readers_were_led_over_by_the_first(engine: Engine) -> None:
    fill(engine, 10)
    first = live(engine)
    shadow = built(engine)
    failpoints.plan_points("switch.committed=sleep:1.0@1")
    with ThreadPoolExecutor(1) as pool:
        switching = pool.submit(engine.switch, shadow.shadow_index_id)
        wait_until(lambda: engine.index("main", KIND).generation == shadow.generation)
        back = engine.rollback("main", KIND)
        switching.result(HELD_S)
    assert back.success, back.message
    with engine.reader("main", KIND) as reader:
        assert reader.generation == first == engine.index("main", KIND).generation
    assert engine.check() == []
