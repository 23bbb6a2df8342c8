"""The rules of `LiveIndex` for readers, one by one, with two real generations that only the test advances."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest

from shadowswitch import Engine, EngineClosed, Timeout
from shadowswitch.storage.catalog.rows import EXTERNAL
from shadowswitch.storage.generations.generation import Generation
from shadowswitch.storage.generations.writer import GenerationWriter
from tests.support import inside
from tests.support.engine_helpers import KIND, built, fill, found, live, put, wait_until

OpenEngine = Callable[..., Engine]
WAIT_S = 30.0


class Pair:
    """Two generations at LSN 10 of a branch whose head is 13, and a LiveIndex that has neither."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        fill(engine, 10)
        numbers = [live(engine), built(engine).generation]
        self.first, self.second = (inside.generation(engine, number) for number in numbers)
        self.index, self.changes = inside.new_live_index(engine)
        with ExitStack() as paused:
            for number in numbers:
                paused.enter_context(inside.pause_apply(engine, number))
            self.head = fill(engine, 3)
            self.release = paused.pop_all().close

    @property
    def at(self) -> tuple[int, int]:
        """The applied LSNs of the two generations."""
        return self.first.applied_lsn, self.second.applied_lsn

    def advance(self, generation: Generation, upto: int) -> None:
        generation.writer.apply_until(upto, time.monotonic() + WAIT_S)
        generation.advanced()

    def catch_up(self, generation: Generation, upto: int, live_s: float = WAIT_S) -> int:
        now = time.monotonic()
        return self.index.catch_up(generation, upto, now + WAIT_S, now + live_s)


@pytest.fixture
def pair(engine: Engine) -> Iterator[Pair]:
    made = Pair(engine)
    assert made.at == (10, 10)
    assert made.head == 13
    yield made
    made.release()


class Row(msgspec.Struct):
    """The row of the index in a catalog."""

    live: int
    epoch: int
    sealed_lsn: int


def agree(pair: Pair, row: Row | None) -> bool:
    class Says:
        def index(self, *_: object) -> Any:
            return row

    return pair.index.agree(Says(), inside.generations(pair.engine), None)  # type: ignore[arg-type]


# -- SW-4, IX-1: the pointer -----------------------------------------------------------------------------------------


def test_the_pointer_moves_by_the_epoch_of_a_committed_switch_and_never_back(pair: Pair) -> None:
    index = pair.index
    index.set_live(pair.first, 1, 0)
    index.set_live(pair.second, 2, 0)
    with pytest.raises(AssertionError, match="SW-4"):
        index.set_live(pair.first, 1, 0)
    assert (index.live, index.epoch) == (pair.second, 2)


def test_the_pointer_agrees_with_the_catalog_and_an_epoch_that_it_knows_moves_nothing(pair: Pair) -> None:
    index = pair.index
    assert not agree(pair, None)
    assert agree(pair, Row(pair.first.row.number, 3, 7))
    assert (index.live, index.epoch, index.read_floor_lsn) == (pair.first, 3, 7)
    for stale in (3, 2):
        assert not agree(pair, Row(pair.second.row.number, stale, 9))
    assert (index.live, index.epoch, index.read_floor_lsn) == (pair.first, 3, 7)
    assert agree(pair, Row(0, 4, 7)), "the first switch was withdrawn"
    assert (index.live, index.epoch) == (None, 4)


# -- SW-2: the floor -------------------------------------------------------------------------------------------------


def test_the_floor_is_raised_by_a_switch_and_never_falls(pair: Pair) -> None:
    index = pair.index
    index.set_live(pair.first, 1, 5)
    index.set_live(pair.second, 2, 9)
    assert index.read_floor_lsn == 9
    index.set_live(pair.first, 3, 4)
    index.set_live(None, 4, 11)
    assert index.read_floor_lsn == 9


def test_after_a_start_no_reader_is_given_less_than_the_head_was(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index can lose changes that were not forced to disk, and readers have seen them."""
    engine = open_engine()
    engine.create_branch("main")
    fill(engine, 10)
    number = live(engine)
    with inside.pause_apply(engine, number):
        head = engine.write("main", [put("late", "late")]).lsn
        engine.close()
    go_on = threading.Event()

    def hindrance(writer: GenerationWriter, upto: int) -> None:
        if writer.applied_lsn < upto:
            assert go_on.wait(WAIT_S)

    inside.before_apply(monkeypatch, hindrance)
    engine = open_engine()
    assert inside.live_index(engine).read_floor_lsn == head
    with pytest.raises(Timeout):
        engine.reader("main", KIND, timeout_s=0.05)
    go_on.set()
    assert found(engine, "late") == {"late"}


# -- SW-1, SW-2: readers ---------------------------------------------------------------------------------------------


def test_without_a_live_generation_there_is_nothing_to_pin(pair: Pair) -> None:
    assert pair.index.pin(0, WAIT_S) is None
    assert not pair.index.shows(0)


@pytest.mark.parametrize(("floor", "min_lsn"), [(11, 0), (0, 11), (11, 11)])
def test_a_reader_waits_for_the_floor_and_for_its_own_bound(pair: Pair, floor: int, min_lsn: int) -> None:
    index = pair.index
    index.set_live(pair.first, 1, floor)
    assert not index.shows(min_lsn)
    with pytest.raises(Timeout):
        index.pin(min_lsn, 0.0)
    assert pair.first.pins == 0
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(index.pin, min_lsn, WAIT_S)
        wait_until(lambda: pair.first.pins == 1)
        assert not waiting.done()
        pair.advance(pair.first, 13)
        assert waiting.result(WAIT_S) is pair.first
    assert index.shows(min_lsn)
    assert pair.first.pins == 1
    pair.first.unpin()


def test_a_reader_that_waits_goes_along_when_the_pointer_moves(pair: Pair) -> None:
    index = pair.index
    index.set_live(pair.first, 1, 0)
    pair.advance(pair.second, 13)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(index.pin, 13, WAIT_S)
        wait_until(lambda: pair.first.pins == 1)
        index.set_live(pair.second, 2, 13)
        assert waiting.result(WAIT_S) is pair.second
    assert (pair.first.pins, pair.second.pins) == (0, 1)
    pair.second.unpin()


def test_a_closed_generation_that_is_still_live_is_no_endless_loop(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.index.set_live(pair.first, 1, 0)
    monkeypatch.setattr(pair.first, "pin", lambda: False)
    with pytest.raises(EngineClosed):
        pair.index.pin(0, WAIT_S)


def test_an_index_in_an_unknown_format_has_no_floor(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such an index shows the state that its builder delivered."""
    monkeypatch.setattr(pair.first, "row", msgspec.structs.replace(pair.first.row, backend=EXTERNAL))
    pair.index.set_live(pair.first, 1, 13)
    assert pair.index.shows(0)
    assert pair.index.pin(0, 0.0) is pair.first
    pair.first.unpin()
    assert not pair.index.shows(11)


# -- SW-2: followers -------------------------------------------------------------------------------------------------


def test_an_exposed_generation_follows_no_further_than_the_live_one(pair: Pair) -> None:
    index = pair.index
    assert index.follow_limit(pair.second, 13) == 13, "nothing is live"
    index.set_live(pair.first, 1, 0)
    assert index.follow_limit(pair.first, 13) == 13
    assert index.follow_limit(pair.second, 13) == 13, "no reader can hold the second generation"
    index.expose(pair.second.row.number)
    assert index.follow_limit(pair.second, 13) == 10
    pair.advance(pair.first, 12)
    assert index.follow_limit(pair.second, 13) == 12
    assert index.follow_limit(pair.second, 11) == 11


def test_a_generation_that_was_live_stays_exposed(pair: Pair) -> None:
    index = pair.index
    assert not index.is_exposed(pair.first)
    index.set_live(pair.first, 1, 0)
    index.set_live(pair.second, 2, 0)
    assert index.is_exposed(pair.first)
    assert index.is_exposed(pair.second)


def test_catching_up_an_exposed_generation_catches_up_the_live_one_first(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[int] = []
    for one in (pair.first, pair.second):
        inside.before_apply_until(monkeypatch, one.row.number, lambda one=one: order.append(one.row.number))  # type: ignore[misc]
    pair.index.set_live(pair.first, 1, 0)
    pair.index.expose(pair.second.row.number)
    assert pair.catch_up(pair.second, 12) == 2
    assert pair.at == (12, 12)
    assert order == [pair.first.row.number, pair.second.row.number]


def test_catching_up_a_generation_that_no_reader_holds_leaves_the_live_one_alone(pair: Pair) -> None:
    pair.index.set_live(pair.first, 1, 0)
    assert pair.catch_up(pair.second, 13) == 3
    assert pair.at == (10, 13)


def test_a_live_generation_that_raises_does_not_keep_another_from_catching_up(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("a defect of the backend")

    inside.before_apply_until(monkeypatch, pair.first.row.number, broken)
    pair.index.set_live(pair.first, 1, 0)
    pair.index.expose(pair.second.row.number)
    assert pair.catch_up(pair.second, 13) == 3
    assert pair.at == (10, 13)


def test_a_live_generation_that_was_left_behind_is_not_tried_again_when_its_time_is_over(pair: Pair) -> None:
    pair.index.set_live(pair.first, 1, 0)
    pair.index.expose(pair.second.row.number)
    pair.catch_up(pair.second, 11, live_s=-1.0)
    assert pair.at == (11, 11), "a live generation that is caught up has one slice"
    pair.advance(pair.second, 12)
    pair.catch_up(pair.second, 13, live_s=-1.0)
    assert pair.at == (11, 13)
    pair.advance(pair.first, 12)
    pair.catch_up(pair.second, 13)
    assert pair.at == (13, 13)


# -- one switch at a time --------------------------------------------------------------------------------------------


def test_a_second_switch_waits_for_the_first_until_its_time_is_over_or_the_engine_closes(pair: Pair) -> None:
    index = pair.index
    with index.switch_lock(-1.0):
        with pytest.raises(Timeout, match="another switch"), index.switch_lock(-1.0):
            pass
        pair.changes.closing = True
        with pytest.raises(EngineClosed), index.switch_lock(WAIT_S):
            pass
    with index.switch_lock(0.0):
        pass
