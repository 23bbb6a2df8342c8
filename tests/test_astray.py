"""Readers whose index is not the one of the catalog: a switch committed and did not come to its end. They read on, are
never led back in time, anybody may lead them away, and they are led over as soon as that is right."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from shadowswitch import Delete, Engine, EngineClosed, ShadowState, StorageFull, SwitchRequest
from shadowswitch.model.digest import Digest
from shadowswitch.storage import failpoints
from shadowswitch.storage.generations.generation import Generation, GenerationWriter
from tests.engine_helpers import KIND, attempt, built, fill, found, live, put, wait_until
from tests.external_helpers import begin, complete, delivered
from tests.support import inside

OpenEngine = Callable[..., Engine]


def after_proof(monkeypatch: pytest.MonkeyPatch, then: Callable[[], object]) -> None:
    """Something happens between the next proof and its commit, once."""
    left = [then]
    inside.after(monkeypatch, inside.Step.PROVE, lambda: left and left.pop()())


class Stranded(NamedTuple):
    """Which generation readers get, which is live; while `full` is not empty the disk of the indexes is."""

    readers: int
    live: int
    full: list[bool]


@contextmanager
def stranded(engine: Engine) -> Iterator[Stranded]:
    """The disk of the indexes is full in a switch, and inside the block."""
    fill(engine, 100)
    first = live(engine)
    shadow = built(engine)
    full: list[bool] = []

    def no_room(writer: GenerationWriter, upto: int) -> None:
        if full and writer.applied_lsn < upto:
            raise StorageFull("the disk is full")

    def written() -> None:
        engine.write("main", [put("late", "late")])
        full.append(True)

    with pytest.MonkeyPatch.context() as patched:
        inside.patch_limit(patched, inside.Limit.DRAIN_S, 0.2)
        inside.before_apply(patched, no_room)
        after_proof(patched, written)
        result = engine.switch(shadow.shadow_index_id, SwitchRequest(switch_timeout_seconds=0.1))
        assert "going back failed as well" in result.message
        yield Stranded(first, shadow.generation, full)


def without_janitor(open_engine: OpenEngine) -> Engine:
    """An engine whose janitor does nothing by itself."""
    engine = open_engine(janitor_interval_s=3600.0)
    engine.create_branch("main")
    return engine


def reads(engine: Engine) -> int:
    """The generation that readers get."""
    with engine.reader("main", KIND) as reader:
        return reader.generation


def test_readers_who_are_astray_read_on_and_check_tells_it(engine: Engine) -> None:
    with stranded(engine) as now:
        assert reads(engine) == now.readers
        assert engine.index("main", KIND).generation == now.live
        engine.clean_up()
        assert [(finding.invariant, finding.problem) for finding in engine.check()] == [
            ("IX-1", f"readers get generation {now.readers}, {now.live} is live")
        ]
    engine.clean_up()
    assert reads(engine) == now.live
    assert found(engine, "late") == {"late"}
    assert engine.check() == []


def test_what_is_live_is_not_brought_ahead_of_what_readers_get(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outsiders read what is live; if it is left again they must find no less where they are led then."""
    with stranded(engine) as now:
        inside.replace(monkeypatch, inside.Step.REPOINT, lambda *_: None)
        new = inside.generation(engine, now.live)
        stands = new.applied_lsn
        now.full.clear()
        with inside.pause_apply(engine, now.readers):
            engine.write("main", [put("later", "later")])
            for _ in range(20):
                inside.kick_follower(engine, now.live)
                threading.Event().wait(0.01)
                assert new.applied_lsn == stands
        monkeypatch.undo()
    engine.clean_up()
    assert found(engine, "later", min_lsn=engine.head("main")) == {"later"}


def test_readers_who_are_astray_can_stay_for_good_by_a_rollback(open_engine: OpenEngine) -> None:
    engine = without_janitor(open_engine)
    with stranded(engine) as now:
        pass
    assert reads(engine) == now.readers
    assert engine.rollback("main", KIND).generation == now.readers
    assert engine.index("main", KIND).previous_generation == now.live
    assert found(engine, "late", min_lsn=engine.head("main")) == {"late"}
    assert engine.check() == []


def test_a_switch_that_does_not_verify_goes_back_to_what_was_live_not_to_where_readers_were(
    open_engine: OpenEngine,
) -> None:
    engine = without_janitor(open_engine)
    with stranded(engine) as now:
        pass
    assert reads(engine) == now.readers
    third = built(engine)
    failpoints.plan_points("switch.verify=raise:EIO@1")
    result = engine.switch(third.shadow_index_id)
    failpoints.plan_points("")
    assert (result.success, result.rolled_back) == (False, True), result.message
    assert reads(engine) == engine.index("main", KIND).generation == now.live
    assert engine.shadow(third.shadow_index_id).state == ShadowState.CLEANUP
    engine.clean_up()


@pytest.mark.parametrize("error", [OSError(5, "disk"), MemoryError()], ids=repr)
def test_whatever_keeps_readers_from_being_led_over_it_is_tried_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    fill(engine, 100)
    live(engine)
    shadow = built(engine)
    errors = [error, error]

    def fail() -> None:
        if errors:
            raise errors.pop()

    inside.before(monkeypatch, inside.Step.REPOINT_CATCH_UP, fail)
    failpoints.plan_points("switch.committed=exit@1")
    attempt(lambda: engine.switch(shadow.shadow_index_id))
    failpoints.plan_points("")
    wait_until(lambda: reads(engine) == shadow.generation)
    assert not errors
    engine.clean_up()
    assert engine.check() == []


def test_readers_are_led_over_while_nobody_brings_either_generation_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(engine, 100)
    live(engine)
    held: list[bool] = []

    def moved(old: Generation | None, new: Generation) -> None:
        held.append(inside.is_apply_paused(new) and (old is None or inside.is_apply_paused(old)))

    inside.on_set_live(monkeypatch, moved)
    live(engine)
    shadow = built(engine)
    failpoints.plan_points("switch.committed=raise:EIO@1")
    attempt(lambda: engine.switch(shadow.shadow_index_id))
    failpoints.plan_points("")
    assert reads(engine) == shadow.generation
    assert held == [True, True]
    engine.clean_up()  # leads outsiders over


def test_a_switch_whose_answer_is_lost_is_told_as_the_catalog_has_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(engine, 100)
    live(engine)
    shadow = built(engine)
    after_proof(monkeypatch, lambda: failpoints.plan_points("journal.committed=raise:ENOSPC@1"))
    result = engine.switch(shadow.shadow_index_id)
    failpoints.plan_points("")
    assert result.success
    assert "switched, but not all that follows was done" in result.message
    assert engine.shadow(shadow.shadow_index_id).state == ShadowState.ACTIVE
    assert reads(engine) == engine.index("main", KIND).generation == shadow.generation
    engine.clean_up()
    assert engine.check() == []


def test_a_disk_that_is_full_for_a_moment_costs_a_switch_no_more_than_that(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(engine, 100)
    first, second = live(engine), live(engine)
    errors: list[StorageFull] = []

    def no_room(writer: GenerationWriter, _: int) -> None:
        if writer.row.number == first and errors:
            raise errors.pop()

    def written() -> None:
        engine.write("main", [put("late", "late")])
        errors.append(StorageFull("the disk is full"))

    inside.before_apply(monkeypatch, no_room)
    after_proof(monkeypatch, written)
    result = engine.rollback("main", KIND)
    assert (result.success, result.generation, result.attempts) == (True, first, 1), result.message
    assert not errors
    assert engine.index("main", KIND).previous_generation == second
    assert found(engine, "late", min_lsn=engine.head("main")) == {"late"}


def test_an_index_in_an_unknown_format_is_passed_over_changes_that_undo_each_other(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(engine, 10)
    shadow = begin(engine)
    delivered(engine, shadow)
    complete(engine, shadow)
    after_proof(monkeypatch, lambda: engine.write("main", [put("x"), Delete("object_type", "x")]))
    result = engine.switch(shadow.shadow_index_id)
    assert result.success, result.message
    assert result.sealed_lsn == engine.head("main")
    assert engine.index("main", KIND).applied_lsn == engine.head("main")


def test_a_closed_index_is_said_to_be_closed_not_to_differ(engine: Engine) -> None:
    fill(engine, 10)
    shadow = built(engine)
    writer = inside.generation(engine, shadow.generation).writer
    engine.cancel_build(shadow.shadow_index_id)
    wait_until(lambda: writer.closed)
    for call in (writer.digest, lambda: writer.differing(Digest()), lambda: writer.repair(0, 0, []), writer.adopt):
        with pytest.raises(EngineClosed, match="is closed"):
            call()
    with pytest.raises(EngineClosed, match="is closed"):
        writer.advance_to(99)
