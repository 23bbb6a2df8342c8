"""Leaving a live index that is slow, broken or has no room: that is what going back is for. Nobody waits for it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from shadowswitch import CorruptData, Engine, EngineClosed, StorageFull, SwitchRequest, Timeout, UnknownIndex
from shadowswitch.actors.switch.live_index import Shelf
from shadowswitch.storage import failpoints
from shadowswitch.storage.generations.generation import GenerationWriter
from tests.engine_helpers import KIND, attempt, built, crew, fill, live, put, wait_until
from tests.external_helpers import begin, complete, delivered
from tests.support import inside
from tests.test_astray import after_proof, reads

OpenEngine = Callable[..., Engine]
Hindrance = Callable[[GenerationWriter, int], object]


@contextmanager
def hindered(hindrance: Hindrance) -> Iterator[None]:
    """Before a generation applies what it has not got: `hindrance`, which may raise, or take its time."""

    def hinder(writer: GenerationWriter, upto: int) -> int | None:
        return 10 if writer.applied_lsn < upto and hindrance(writer, upto) else None

    with pytest.MonkeyPatch.context() as patched:
        inside.before_apply(patched, hinder)
        yield


def slow(number: int) -> Hindrance:
    """That generation applies 100 changes a second."""
    return lambda writer, _: writer.row.number == number and not threading.Event().wait(0.1)


@contextmanager
def no_room(engine: Engine, of: int | None = None, changes: int = 1, slices: int = 0) -> Iterator[None]:
    """What is written between proof and commit finds no room in a generation (None: in any), but for some slices."""
    full: list[bool] = []
    passed = itertools.count()

    def hindrance(writer: GenerationWriter, _: int) -> None:
        if full and of in (None, writer.row.number) and next(passed) >= slices:
            raise StorageFull("the disk is full")

    def written() -> None:
        for n in range(changes):
            engine.write("main", [put(f"late{n}", "late")])
        full.append(True)

    with pytest.MonkeyPatch.context() as patched, hindered(hindrance):
        inside.patch_limit(patched, inside.Limit.DRAIN_S, 0.5)
        after_proof(patched, written)
        yield
        full.clear()


def settled(engine: Engine) -> None:
    """Readers are where the catalog says, nobody is left behind."""
    wait_until(lambda: not inside.pending_repoints(engine), what="the janitor to lead readers over")
    engine.clean_up()
    assert all(generation.pins == 0 for generation in inside.open_generations(engine).values())
    assert engine.check() == []


# -- a live index that does not come on ------------------------------------------------------------------------------


def behind(engine: Engine, number: int) -> None:
    """Write so much that it takes half a minute to apply it slowly."""
    for n in range(300):
        engine.write("main", [put(f"m{n}-{k}", "more") for k in range(10)])
    assert inside.generation(engine, number).applied_lsn < engine.head("main") - 1000


def test_an_index_that_is_slow_is_gone_back_from_without_waiting_for_it(open_engine: OpenEngine) -> None:
    engine = open_engine(validation_timeout_s=20.0)
    engine.create_branch("main")
    first, second = live(engine), live(engine)
    with hindered(slow(second)):
        behind(engine, second)
        result = engine.rollback("main", KIND)
        assert result.success, result.message
        assert inside.generation(engine, second).applied_lsn < engine.head("main"), "it would have taken much longer"
        assert reads(engine) == first
    settled(engine)


def test_an_attempt_that_was_given_up_does_not_tie_the_shadow_to_an_index_that_is_slow(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(validation_timeout_s=20.0)
    engine.create_branch("main")
    first, shadow = live(engine), built(engine)
    inside.expire_first_commit_budget(monkeypatch)
    assert not engine.switch(shadow.shadow_index_id, SwitchRequest(switch_timeout_seconds=0.01)).success
    assert not inside.is_exposed(engine, shadow.generation), "nobody was led there"
    with hindered(slow(first)):
        behind(engine, first)
        result = engine.switch(shadow.shadow_index_id)
        assert result.success, result.message
    settled(engine)


@pytest.mark.parametrize("error", [OSError(5, "disk"), RuntimeError("a defect of the backend")], ids=repr)
def test_an_index_that_raises_is_gone_back_from(open_engine: OpenEngine, error: Exception) -> None:
    engine = open_engine(sound=False)  # crashes of followers are counted
    engine.create_branch("main")
    first, second = live(engine), live(engine)

    def hindrance(writer: GenerationWriter, _: int) -> None:
        if writer.row.number == second:
            raise error

    with hindered(hindrance):
        engine.write("main", [put("late", "late")])
        result = engine.rollback("main", KIND)
        assert result.success, result.message
        assert reads(engine) == first
    settled(engine)


def test_a_build_that_is_validated_can_be_cancelled_while_its_index_is_switched(engine: Engine) -> None:
    live(engine), live(engine)
    failpoints.plan_points("switch.committed=sleep:6@1")
    with ThreadPoolExecutor(1) as pool:
        switching = pool.submit(engine.rollback, "main", KIND)
        wait_until(lambda: inside.attempts_under_way(engine), what="the switch")
        shadow = engine.start_build("main", KIND, ["object_type"], {"parallel_workers": 1})
        engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=30)
        assert not switching.done(), "the build did not wait for the switch"
        engine.cancel_build(shadow.shadow_index_id)
        assert switching.result(30).success


def test_nobody_waits_for_a_turn_whose_time_is_over_or_of_an_engine_that_closes() -> None:
    shelf = Shelf()
    with shelf.turn(1, KIND, -1.0):
        with pytest.raises(Timeout, match="another switch"), shelf.turn(1, KIND, -1.0):
            pass
        shelf.closing = True
        with pytest.raises(EngineClosed), shelf.turn(1, KIND, 60.0):
            pass
    with shelf.turn(2, KIND, 0.0):
        pass


# -- no room ---------------------------------------------------------------------------------------------------------


def test_readers_read_on_while_a_drain_finds_no_room(engine: Engine) -> None:
    live(engine), live(engine)
    with no_room(engine), ThreadPoolExecutor(1) as pool:
        switching = pool.submit(engine.rollback, "main", KIND, SwitchRequest(switch_timeout_seconds=0.1))
        while not switching.done():
            with engine.reader("main", KIND, timeout_s=5):
                pass
        assert not switching.result().success
    settled(engine)


def test_readers_of_an_index_in_an_unknown_format_read_on_when_going_back_finds_no_room(engine: Engine) -> None:
    first = live(engine)
    shadow = begin(engine)
    delivered(engine, shadow)
    complete(engine, shadow)
    assert engine.switch(shadow.shadow_index_id).success
    with no_room(engine, first, changes=600, slices=1):  # half of them do
        engine.rollback("main", KIND, SwitchRequest(switch_timeout_seconds=0.1))
        with engine.reader("main", KIND, timeout_s=5) as reader:
            assert reader.generation == shadow.generation
    settled(engine)


def test_a_first_switch_waits_for_room(engine: Engine) -> None:
    shadow = built(engine)
    with no_room(engine):
        result = engine.switch(shadow.shadow_index_id)
        assert (result.success, result.rolled_back) == (True, False), result.message
        assert "the disk is full; readers are led to it once it has come as far" in result.message
        with pytest.raises(UnknownIndex, match="not served yet: the disk is full"):
            engine.reader("main", KIND)
        assert engine.index("main", KIND).generation == shadow.generation
    settled(engine)
    assert reads(engine) == shadow.generation


def test_where_the_live_index_is_broken_a_new_one_waits_for_room(open_engine: OpenEngine) -> None:
    engine = open_engine()
    engine.create_branch("main")
    fill(engine, 100)
    path = inside.generation(engine, live(engine)).path
    engine.close()
    for file in path.glob("shard-*/*"):
        file.write_bytes(b"garbage" * 1000)
    engine = open_engine(sound=False)
    with pytest.raises(CorruptData):
        engine.reader("main", KIND)
    shadow = built(engine)
    with no_room(engine):
        result = engine.switch(shadow.shadow_index_id)
        assert (result.success, result.rolled_back) == (True, False), result.message
        with pytest.raises(UnknownIndex, match="not served yet: the disk is full"):
            engine.reader("main", KIND)
    settled(engine)
    assert reads(engine) == shadow.generation


def test_a_branch_is_not_ready_before_its_index_is_served(engine: Engine) -> None:
    fill(engine, 100)
    engine.create_branch("other")
    shadow = engine.start_build("main", KIND, ["object_type"], {"parallel_workers": 1}, track_ready=True)
    engine.wait_for(shadow.shadow_index_id, "BUILT", timeout_s=30)
    with no_room(engine):
        assert engine.switch(shadow.shadow_index_id).success
        engine.clean_up()
        assert engine.branch("main").state != "READY"
    settled(engine)
    wait_until(lambda: engine.branch("main").state == "READY")


def test_whoever_holds_the_index_that_is_led_to_is_not_shown_less_by_another(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers cannot be led over for a while: it differs each time it has been brought on."""
    first = live(engine)
    held = engine.reader("main", KIND)
    live(engine)
    bad, numbers = [False], itertools.count()
    inside.unsound(monkeypatch, lambda number: bad[0] and number == first)
    after_proof(monkeypatch, lambda: bad.__setitem__(0, True))
    failpoints.plan_points("switch.committed=raise:EIO@1")
    attempt(lambda: engine.rollback("main", KIND))
    failpoints.plan_points("")
    looks = itertools.count()
    assert inside.pending_repoints(engine)

    def look() -> None:
        before = held.applied_lsn()
        with engine.reader("main", KIND) as reader:
            assert reader.applied_lsn() >= before, "SW-2"
        next(looks)

    with held, crew() as hands:
        hands.start(lambda: engine.write("main", [put(f"x{next(numbers)}")]), 2)
        hands.start(look)
        for _ in range(4):
            inside.repoint(engine)
            wait_until(lambda: next(looks) > 200)
    bad[0] = False
    settled(engine)
