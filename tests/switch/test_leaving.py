"""Rollback from a live index that is slow or broken: it does not depend on that index, and readers read on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event

import pytest

from shadowswitch import CorruptData, Engine, StorageFull, SwitchRequest
from shadowswitch.storage.generations.writer import GenerationWriter
from tests.support import inside
from tests.support.engine_helpers import KIND, built, crew, fill, found, live, put, reads, wait_until
from tests.support.external_helpers import begin, complete, delivered

OpenEngine = Callable[..., Engine]
Hindrance = Callable[[GenerationWriter, int], object]


@contextmanager
def hindered(hindrance: Hindrance) -> Iterator[None]:
    """Call `hindrance` before a generation applies new changes; it may raise an error, or take time."""

    def hinder(writer: GenerationWriter, upto: int) -> int | None:
        return 10 if writer.applied_lsn < upto and hindrance(writer, upto) else None

    with pytest.MonkeyPatch.context() as patched:
        inside.before_apply(patched, hinder)
        yield


def slow(number: int) -> Hindrance:
    """A hindrance: the generation `number` applies 100 changes a second."""
    return lambda writer, _: writer.row.number == number and not Event().wait(0.1)


def behind(engine: Engine, number: int) -> None:
    """Write so many changes that a slow generation needs half a minute to apply them."""
    for n in range(300):
        engine.write("main", [put(f"m{n}-{k}", "more") for k in range(10)])
    assert inside.generation(engine, number).applied_lsn < engine.head("main") - 1000


def settled(engine: Engine) -> None:
    """Readers get the live generation of the catalog, and no generation is pinned."""
    engine.clean_up()
    assert reads(engine) == engine.index("main", KIND).generation
    assert all(generation.pins == 0 for generation in inside.open_generations(engine).values())
    assert engine.check() == []


def test_a_rollback_does_not_wait_for_a_slow_index(open_engine: OpenEngine) -> None:
    engine = open_engine(validation_timeout_s=20.0, recheck_interval_s=0.1)
    engine.create_branch("main")
    first = live(engine)
    wait_until(lambda: engine.stats()["counters"].get("readings") == 1)
    second = live(engine)
    wait_until(lambda: engine.stats()["counters"].get("readings") == 2)  # else the Scrubber holds the slow one
    in_turn: list[int] = []

    def hindrance(writer: GenerationWriter, upto: int) -> object:
        if inside.is_in_turn():
            in_turn.append(writer.row.number)
        return slow(second)(writer, upto)

    with hindered(hindrance):
        behind(engine, second)
        result = engine.rollback("main", KIND)
        assert result.success, result.message
        assert inside.generation(engine, second).applied_lsn < engine.head("main"), (
            "a wait for the slow generation would have taken much longer"
        )
        assert second not in in_turn, "writers do not wait for the slow generation"
        assert reads(engine) == first
    settled(engine)


def test_a_shadow_does_not_wait_for_a_slow_live_index_after_an_attempt_that_was_given_up(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(validation_timeout_s=20.0)
    engine.create_branch("main")
    first, shadow = live(engine), built(engine)
    with monkeypatch.context() as patched:
        inside.one_attempt(patched)
        inside.expire_first_commit_budget(patched)
        while engine.switch(shadow.shadow_index_id).success:  # the turn came before the wait for it began
            first, shadow = shadow.generation, built(engine)
            inside.expire_first_commit_budget(patched)
    assert not inside.is_exposed(engine, shadow.generation), "no reader got the shadow"
    with hindered(slow(first)):
        behind(engine, first)
        result = engine.switch(shadow.shadow_index_id)
        assert result.success, result.message
    settled(engine)


@pytest.mark.parametrize(
    "error", [OSError(5, "disk"), RuntimeError("a defect of the backend"), StorageFull("the disk is full")], ids=repr
)
def test_a_rollback_does_not_need_an_index_that_raises(open_engine: OpenEngine, error: Exception) -> None:
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
        assert found(engine, "late") == {"late"}
    settled(engine)


def test_readers_read_on_when_a_rollback_finds_no_room(open_engine: OpenEngine) -> None:
    """The live generation is in an unknown format and does not follow the journal."""
    engine = open_engine(disk_reserve_bytes=0)
    engine.create_branch("main")
    first = live(engine)
    shadow = begin(engine)
    delivered(engine, shadow)
    complete(engine, shadow)
    assert engine.switch(shadow.shadow_index_id, SwitchRequest(allow_empty=True)).success

    def no_room(writer: GenerationWriter, _: int) -> None:
        if writer.row.number == first:
            raise StorageFull("the disk is full")

    def look() -> None:
        with engine.reader("main", KIND, timeout_s=5) as reader:
            assert reader.generation in (first, shadow.generation)

    with hindered(no_room), crew() as hands:
        hands.start(look)
        engine.write("main", [put("late", "late")])
        result = engine.rollback("main", KIND, SwitchRequest(switch_timeout_seconds=0.1))
        assert (result.success, result.rolled_back) == (False, False)
        assert reads(engine) == shadow.generation
    assert engine.rollback("main", KIND).generation == first
    assert found(engine, "late") == {"late"}
    settled(engine)


def test_a_broken_live_index_is_replaced_without_its_files(open_engine: OpenEngine) -> None:
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
    assert engine.switch(shadow.shadow_index_id).success
    assert reads(engine) == shadow.generation
    wait_until(lambda: engine.index("main", KIND).previous_generation is None)
    settled(engine)
