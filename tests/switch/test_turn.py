"""The turn of a switch: drain, digest, commit and pointer on the JournalWriter's thread, with nothing in between."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from shadowswitch import Engine, EngineClosed, ShadowState, StorageFull, SwitchRequest, SwitchResult, UnknownIndex
from shadowswitch.engine.reader import outside_reader
from shadowswitch.storage import failpoints
from shadowswitch.storage.catalog.transaction import Commit
from shadowswitch.storage.generations.generation import Generation
from shadowswitch.storage.generations.writer import GenerationWriter
from tests.support import inside
from tests.support.engine_helpers import KIND, attempt, built, crew, fill, found, live, put, reads, wait_until
from tests.support.external_helpers import begin, complete, delivered
from tests.support.gathering import HELD_S, Gathered, is_whole

OpenEngine = Callable[..., Engine]


class Move(NamedTuple):
    """A switch or a rollback from the generation `old` to `new`, ready to run."""

    engine: Engine
    old: int
    new: int
    shadow_id: str

    def run(self, **request: Any) -> SwitchResult:
        asked = SwitchRequest(**request)
        if self.shadow_id:
            return self.engine.switch(self.shadow_id, asked)
        return self.engine.rollback("main", KIND, asked)

    def changed_nothing(self) -> bool:
        index = self.engine.index("main", KIND)
        if self.shadow_id:
            assert self.engine.shadow(self.shadow_id).state == ShadowState.BUILT
        else:
            assert index.previous_generation == self.new
        return index.generation == self.old == reads(self.engine)


@pytest.fixture(params=["switch", "rollback"])
def move(request: pytest.FixtureRequest, engine: Engine, gathered: Gathered) -> Move:
    """A move whose turn has three writes ahead of it."""
    old = live(engine)
    if request.param == "switch":
        shadow = built(engine)
        made = Move(engine, old, shadow.generation, shadow.shadow_index_id)
    else:
        made = Move(engine, live(engine), old, "")
    gathered.armed = True
    return made


# -- the writes before it --------------------------------------------------------------------------------------------


def test_writes_that_gather_before_the_turn_are_acknowledged_before_it_and_are_in_the_generation(
    move: Move, gathered: Gathered, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = move.engine.head("main")
    seen: list[tuple[list[int], int]] = []

    def noting(ordinary: Any, commit: Commit, *work: Any) -> None:
        ordinary(commit, *work)
        seen.append(([last for last, _ in commit.heads.values()], commit.changes))

    inside.wrap(monkeypatch, inside.Step.TRANSACTION, noting)
    inside.before(monkeypatch, inside.Step.PREPARE, lambda: wait_until(lambda: len(gathered.receipts) == 3))
    result = move.run()
    monkeypatch.undo()
    gathered.join()
    assert result.success, result.message
    assert (result.attempts, result.sealed_lsn, result.drained_changes) == (1, head + 3, 3)
    assert [changes for _, changes in seen if changes] == [3], "one commit had all three writes"
    assert is_whole(move.engine)


def test_an_index_in_an_unknown_format_is_not_switched_to_when_a_change_came(
    engine: Engine, gathered: Gathered, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.one_attempt(monkeypatch)
    shadow = begin(engine)
    delivered(engine, shadow)
    complete(engine, shadow)
    gathered.armed = True
    result = engine.switch(shadow.shadow_index_id)
    gathered.join()
    assert not result.success
    assert "a change came that its builder has not applied" in result.message
    assert len(gathered.receipts) == 3
    assert engine.indexes("main") == []
    assert engine.shadow(shadow.shadow_index_id).state == ShadowState.BUILT


def test_a_turn_that_comes_late_is_given_up(open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writes before it take longer than `Config.seal_budget_ms`."""
    engine = open_engine(seal_budget_ms=500)
    engine.create_branch("main")
    fill(engine, 100)
    first, shadow, writes = live(engine), built(engine), Gathered(engine)
    with monkeypatch.context() as patched:
        inside.one_attempt(patched)
        inside.before(patched, inside.Step.TAKE_TURN, writes.begin)
        inside.before(patched, inside.Step.TRANSACTION_WRITE, lambda: threading.Event().wait(0.5))
        result = engine.switch(shadow.shadow_index_id)
        writes.join()
    assert (result.success, result.sealed_ms) == (False, 0)
    assert "Config.seal_budget_ms" in result.message
    assert len(writes.receipts) == 3
    assert Move(engine, first, shadow.generation, shadow.shadow_index_id).changed_nothing()
    assert engine.switch(shadow.shadow_index_id, SwitchRequest(switch_timeout_seconds=60)).success


# -- the drain -------------------------------------------------------------------------------------------------------


def slow_turns(patch: pytest.MonkeyPatch, number: int) -> None:
    """Make a generation apply one change at a time in a turn, each in 20 ms."""

    def hindrance(writer: GenerationWriter, upto: int) -> int | None:
        if writer.row.number != number or writer.applied_lsn >= upto or not inside.is_in_turn():
            return None
        threading.Event().wait(0.02)
        return 1

    inside.before_apply(patch, hindrance)


def test_a_drain_that_takes_too_long_is_given_up_and_done_beside_the_writers(
    move: Move, gathered: Gathered, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.patch_limit(monkeypatch, inside.Limit.DRAIN_FIRST_S, 0.001)
    slow_turns(monkeypatch, move.new)
    result = move.run()
    gathered.join()
    assert (result.success, result.attempts) == (True, 2), result.message
    assert len(gathered.receipts) == 3
    assert is_whole(move.engine)


def test_each_further_attempt_has_a_longer_drain(
    move: Move, gathered: Gathered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch stands just ahead of every turn, so only an attempt with a longer drain can succeed."""

    def again() -> None:
        gathered.armed = False
        gathered.join()
        gathered.begin()

    inside.patch_limit(monkeypatch, inside.Limit.DRAIN_FIRST_S, 0.001)
    inside.before(monkeypatch, inside.Step.TAKE_TURN, again)
    slow_turns(monkeypatch, move.new)
    result = move.run(switch_timeout_seconds=20)
    gathered.join()
    assert result.success, result.message
    assert result.attempts > 2
    assert not gathered.refused
    assert is_whole(move.engine)


# -- errors before the commit ----------------------------------------------------------------------------------------

ERRORS = [StorageFull("the disk is full"), OSError(5, "disk"), RuntimeError("a defect of the backend")]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_last_changes_that_cannot_be_applied_change_nothing(move: Move, gathered: Gathered, error: Exception) -> None:
    def hindrance(writer: GenerationWriter, upto: int) -> None:
        if writer.row.number == move.new and writer.applied_lsn < upto and inside.is_in_turn():
            raise error

    with pytest.MonkeyPatch.context() as patched:
        inside.before_apply(patched, hindrance)
        result = move.run()
        gathered.join()
    assert (result.success, result.rolled_back, result.attempts) == (False, False, 1), result.message
    assert str(error.args[-1]) in result.message
    assert not gathered.refused
    assert move.changed_nothing()
    assert move.run().success
    assert is_whole(move.engine)


def test_a_digest_that_differs_after_the_last_changes_changes_nothing(
    move: Move, gathered: Gathered, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.unsound(monkeypatch, lambda number: number == move.new and inside.is_in_turn())
    result = move.run()
    monkeypatch.undo()
    gathered.join()
    assert (result.success, result.rolled_back) == (False, False), result.message
    assert "digest differs from the source; run `shadowswitch check --repair`" in result.message
    assert move.changed_nothing()
    assert move.run().success
    assert is_whole(move.engine)


def test_a_stale_token_changes_nothing_and_does_not_take_the_writes_before_it_with_it(
    move: Move, gathered: Gathered, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        inside.stale_token(patched)
        result = move.run()
        gathered.join()
    assert not result.success
    assert "token" in result.message
    assert len(gathered.receipts) == 3
    assert move.changed_nothing()
    assert move.run().success
    assert is_whole(move.engine)


@pytest.mark.parametrize("planned", ["switch.drained=exit", "switch.proven=exit", "journal.before_commit=raise:ENOSPC"])
def test_a_turn_that_ends_before_its_commit_changes_nothing(
    move: Move, gathered: Gathered, monkeypatch: pytest.MonkeyPatch, planned: str
) -> None:
    inside.before(monkeypatch, inside.Step.PREPARE, lambda: failpoints.plan_points(f"{planned}@1"))
    result = move.run()
    monkeypatch.undo()
    failpoints.plan_points("")
    gathered.join()
    assert not result.success
    assert move.changed_nothing()
    assert move.run().success
    assert is_whole(move.engine)


# -- errors after the commit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "planned",
    [
        "journal.committed=raise:ENOSPC",
        "switch.committed=raise:ENOSPC",
        "switch.committed=exit",
        "switch.pointed=raise:ENOSPC",
        "switch.pointed=exit",
    ],
)
def test_a_switch_with_a_lost_answer_ends_as_the_catalog_says_and_readers_get_it_at_once(
    move: Move, gathered: Gathered, monkeypatch: pytest.MonkeyPatch, planned: str
) -> None:
    inside.after(monkeypatch, inside.Step.PREPARE, lambda: failpoints.plan_points(f"{planned}@1"))
    result = move.run()
    monkeypatch.undo()
    failpoints.plan_points("")
    assert reads(move.engine) == move.engine.index("main", KIND).generation == move.new
    assert (result.success, result.rolled_back) == (True, False)
    assert "switched, but not all that follows was done" in result.message
    gathered.join()
    assert is_whole(move.engine)
    assert found(move.engine, "later", min_lsn=move.engine.write("main", [put("x", "later")]).lsn) == {"x"}
    move.engine.clean_up()
    assert move.engine.check() == [], "the published path leads to the live generation, too"


@pytest.mark.parametrize("first", [True, False], ids=["the first generation", "a later one"])
def test_a_reversal_whose_answer_is_lost_ends_as_the_catalog_says(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    fill(engine, 10)
    old = 0 if first else live(engine)
    shadow = built(engine)

    def unfit(*_: object) -> list[str]:
        failpoints.plan_points("journal.committed=raise:ENOSPC@1")
        return ["made to fail"]

    inside.replace(monkeypatch, inside.Step.VERIFY, unfit)
    result = engine.switch(shadow.shadow_index_id)
    failpoints.plan_points("")
    assert (result.success, result.rolled_back) == (False, True), result.message
    assert "going back failed" not in result.message
    if first:
        assert engine.indexes() == []
        with pytest.raises(UnknownIndex):
            engine.reader("main", KIND)
    else:
        assert reads(engine) == engine.index("main", KIND).generation == old


# -- readers, and other switches -------------------------------------------------------------------------------------


def test_the_pointer_moves_before_anything_newer_is_durable(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[tuple[bool, bool]] = []

    def seen(_: Generation | None, new: Generation) -> None:
        head = inside.catalog(move.engine).head(1)[0]
        moved.append((inside.is_in_turn(), new.applied_lsn == head))

    inside.on_set_live(monkeypatch, seen)
    numbers = iter(range(10**6))
    with crew() as hands:
        hands.start(lambda: move.engine.write("main", [put(f"x{next(numbers)}")]), 2)
        assert move.run().success
    assert moved == [(True, True)]


def test_between_commit_and_pointer_readers_read_on_and_writers_and_switches_wait(
    move: Move, gathered: Gathered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes and a second switch wait until the live pointer has moved."""
    engine = move.engine
    moved: list[int] = []
    inside.on_set_live(monkeypatch, lambda _, new: moved.append(new.row.number))
    failpoints.plan_points("switch.committed=sleep:1.0@1")
    with ThreadPoolExecutor(3) as pool:
        switching = pool.submit(move.run)
        wait_until(lambda: engine.index("main", KIND).generation == move.new)
        assert reads(engine) == move.old
        back = pool.submit(engine.rollback, "main", KIND)
        engine.write("main", [put("x", "behind")])
        assert moved[:1] == [move.new], "the write is acknowledged after the move of the pointer"
        assert switching.result(HELD_S).success
        assert back.result(HELD_S).success, back.result().message
    assert moved == [move.new, move.old]
    gathered.join()
    assert reads(engine) == engine.index("main", KIND).generation == move.old
    assert found(engine, "behind", min_lsn=engine.head("main")) == {"x"}


def test_no_reader_goes_back_in_time_in_any_window_of_the_turn(
    move: Move, gathered: Gathered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers outside ask the catalog, readers inside ask the live pointer; followers do not pause."""
    engine = move.engine
    inside.patch_limit(monkeypatch, inside.Limit.FOLLOWER_REST_S, 0.0)
    windows = [f"switch.{window}" for window in ("near", "drained", "proven", "committed", "pointed", "verify")]
    failpoints.plan_points(";".join(f"{window}=sleep:0.2" for window in [*windows, "journal.before_commit"]))
    outside: list[int] = []
    within: list[int] = []
    numbers = iter(range(10**6))
    with ThreadPoolExecutor(1) as pool, crew() as hands:
        switching = pool.submit(move.run)
        wait_until(lambda: len(gathered.receipts) == 3)
        hands.start(lambda: engine.write("main", [put("0", f"edit{next(numbers)}")], timeout_s=HELD_S))
        while not switching.done():
            with outside_reader(engine.path, inside.catalog(engine), "main", KIND) as reader:
                outside.append(reader.applied_lsn())
            with engine.reader("main", KIND) as own:
                within.append(own.applied_lsn())
        assert switching.result().success, switching.result().message
    failpoints.plan_points("")
    assert outside == sorted(outside)
    assert within == sorted(within)
    assert min(len(outside), len(within)) > 10


@pytest.mark.parametrize("where", ["near", "drained", "proven", "committed", "verify"])
def test_an_engine_that_closes_while_a_switch_runs_opens_with_the_live_generation_of_the_catalog(
    open_engine: OpenEngine, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine()
    engine.create_branch("main")
    fill(engine, 100)
    first, shadow, turn = live(engine), built(engine), threading.Event()
    inside.before(monkeypatch, inside.Step.TAKE_TURN, turn.set)
    failpoints.plan_points(f"switch.{where}=sleep:0.3")
    with ThreadPoolExecutor(1) as pool:
        switching = pool.submit(attempt, lambda: engine.switch(shadow.shadow_index_id))
        assert turn.wait(HELD_S)
        engine.close()
        outcome = switching.result(HELD_S)
    failpoints.plan_points("")
    engine = open_engine()
    live_now = engine.index("main", KIND).generation
    assert reads(engine) == live_now in (first, shadow.generation)
    if isinstance(outcome, SwitchResult):
        assert outcome.success == (live_now == shadow.generation)
    else:
        assert isinstance(outcome, EngineClosed)
        assert f"if generation {shadow.generation} is live, the switch took effect" in str(outcome)
    assert engine.shadow(shadow.shadow_index_id).state in ("BUILT", "ACTIVE", "CLEANUP")
