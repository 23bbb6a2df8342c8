"""Followers: live, soaking and waiting generations apply the journal, also after errors."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest

from shadowswitch import Delete, Engine
from shadowswitch.model.errors import StorageFull
from shadowswitch.storage import failpoints
from tests.support import inside
from tests.support.engine_helpers import KIND, built, crew, fill, found, live, put, wait_until


def test_an_edit_is_searchable_after_the_refresh_interval_without_min_lsn(engine: Engine) -> None:
    live(engine)
    engine.write("main", [put("a", "edited")])
    wait_until(lambda: found(engine, "edited") == {"a"})
    assert engine.index("main", KIND).lag_changes == 0
    engine.write("main", [Delete("object_type", "a")])
    wait_until(lambda: found(engine, "edited") == set())


def test_the_lag_is_shown_while_an_index_cannot_follow(filled: Engine) -> None:
    number = live(filled)
    with inside.pause_apply(filled, number):
        fill(filled, 300, text="again")
        info = filled.index("main", KIND)
        assert (info.lag_changes, info.head_lsn - info.applied_lsn) == (300, 300)
    wait_until(lambda: filled.index("main", KIND).lag_changes == 0)


def test_the_previous_and_the_waiting_generation_follow_too(filled: Engine) -> None:
    first, second = live(filled), live(filled)
    shadow = built(filled)
    receipt = filled.write("main", [put("a", "edited"), Delete("object_type", "1")])
    for number in (first, second, shadow.generation):
        wait_until(lambda number=number: inside.generation(filled, number).applied_lsn == receipt.lsn)  # type: ignore[misc]
    assert filled.shadow(shadow.shadow_index_id).lag_changes == 0


def test_a_pinned_soaking_generation_never_runs_ahead_of_the_live_one(filled: Engine) -> None:
    first = live(filled)
    with filled.reader("main", KIND) as old:
        second = live(filled)
        assert old.generation == first
        with inside.pause_apply(filled, second):
            stands = inside.generation(filled, second).applied_lsn
            receipt = filled.write("main", [put("a", "edited")])
            filled.write("main", [put("b", "edited")])
            for _ in range(20):
                threading.Event().wait(0.01)
                assert old.applied_lsn() <= stands, (
                    "SW-2: a reader that moves to the live generation would go back in time"
                )
        wait_until(lambda: old.applied_lsn() >= receipt.lsn)
        assert inside.generation(filled, second).applied_lsn >= old.applied_lsn()


@pytest.mark.parametrize("error", [StorageFull("no room"), OSError(5, "disk"), RuntimeError("boom")], ids=repr)
def test_an_error_while_following_is_counted_and_tried_again(
    filled: Engine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    number = live(filled)
    failures = iter([error, error])

    def fail() -> None:
        failure = next(failures, None)
        if failure is not None:
            raise failure

    inside.on_follow(monkeypatch, number, fail)
    receipt = filled.write("main", [put("a", "edited")])
    assert found(filled, "edited", min_lsn=receipt.lsn, timeout_s=30) == {"a"}
    counters = filled.stats()["counters"]
    assert counters.get("follow_errors", 0) or filled.stats()["crashes"]


def test_one_generation_that_fails_does_not_keep_the_others_back(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(followers=1)
    engine.create_branch("main")
    engine.create_branch("other")
    numbers = {branch: live(engine, branch) for branch in ("main", "other")}

    def fail() -> None:
        raise StorageFull("no room")

    inside.on_follow(monkeypatch, numbers["main"], fail)
    engine.write("main", [put("a", "edited")])
    engine.write("other", [put("b", "edited")])
    wait_until(lambda: found(engine, "edited", "other") == {"b"})
    assert found(engine, "edited") == set()
    monkeypatch.undo()
    wait_until(lambda: found(engine, "edited") == {"a"})


def test_applied_changes_are_forced_to_disk_after_a_while(open_engine: Any) -> None:
    engine = open_engine(flush_interval_s=0.05)
    engine.create_branch("main")
    number = live(engine)
    receipt = engine.write("main", [put("a")])
    wait_until(lambda: inside.generation(engine, number).writer.durable_lsn >= receipt.lsn)


def test_what_another_thread_has_applied_is_forced_to_disk_too(open_engine: Any) -> None:
    """As an attempt does, and the Scrubber: no follower applies these changes, and no change comes behind them."""
    engine = open_engine(flush_interval_s=0.05)
    engine.create_branch("main")
    number = live(engine)
    writer = inside.generation(engine, number).writer
    with inside.pause_apply(engine, number):
        receipt = engine.write("main", [put("a", "edited")])
        writer.apply_slice(receipt.lsn)
    wait_until(lambda: writer.durable_lsn >= receipt.lsn)


def test_many_changes_are_forced_to_disk_long_before_a_few(open_engine: Any) -> None:
    engine = open_engine(flush_interval_s=3600.0, flush_changes=10)
    engine.create_branch("main")
    number = live(engine)
    few = engine.write("main", [put("a")])
    assert found(engine, "hello", min_lsn=few.lsn) == {"a"}
    assert inside.generation(engine, number).writer.durable_lsn < few.lsn
    many = engine.write("main", [put(str(n)) for n in range(10)])
    wait_until(lambda: inside.generation(engine, number).writer.durable_lsn >= many.lsn)


def test_an_index_under_steady_writes_is_compacted_and_forced_to_disk(
    open_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under steady writes the head is always a little ahead. The follower compacts and flushes nevertheless: without
    this a search of 1,000 segments took 30 ms instead of one."""
    engine = open_engine(flush_interval_s=3600.0, flush_changes=10)
    engine.create_branch("main")
    number = live(engine)
    writer = inside.generation(engine, number).writer
    compacted: list[int] = []

    def compact() -> None:
        if writer.applied_lsn < engine.head("main"):
            compacted.append(writer.applied_lsn)

    inside.on_follow(monkeypatch, number, lambda: None, lambda: engine.write("main", [put("a")]))
    inside.before_compact(monkeypatch, number, compact)
    first = engine.write("main", [put("a")])
    wait_until(lambda: len(compacted) > 3, what="the housekeeping of the index")
    wait_until(lambda: writer.durable_lsn > first.lsn + 20, what="a flush batch that is forced to disk")
    monkeypatch.undo()


def test_followers_rest_while_an_index_is_switched_but_not_for_ever(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.patch_limit(monkeypatch, inside.Limit.FOLLOWER_REST_S, 1.5)
    live(engine)
    wait_until(lambda: engine.stats()["counters"].get("readings", 0) > 0, what="the reading, which applies, too")
    with inside.attempt_under_way(engine):
        assert inside.followers_rest(engine)
        receipt = engine.write("main", [put("a")])
        assert found(engine, "hello", min_lsn=receipt.lsn, timeout_s=30) == {"a"}, (
            "a reader does not wait for a stalled switch"
        )
        assert not inside.followers_rest(engine)


def test_an_apply_that_fails_half_way_leaves_no_half_batch(filled: Engine) -> None:
    number = live(filled, shards=3)
    failpoints.plan_points("follow.applied=raise:EIO@1")
    receipt = filled.write("main", [put(str(n), "edited") for n in range(500)])
    assert len(found(filled, "edited", min_lsn=receipt.lsn, timeout_s=30)) == 500
    failpoints.plan_points("")
    assert inside.generation(filled, number).writer.digest().count == filled.count("main")


def test_many_branches_are_followed_by_few_threads(open_engine: Any) -> None:
    engine = open_engine(followers=2)
    names = [f"branch{n}" for n in range(12)]
    for name in names:
        engine.create_branch(name)
        live(engine, name, backend="kv")
    with crew() as hands:
        for name in names:
            hands.start(partial(fill, engine, 20, name))
        wait_until(lambda: engine.stats()["counters"]["commits"] > 200)
    for name in names:
        with engine.reader(name, KIND, min_lsn=engine.head(name), timeout_s=30) as reader:
            assert reader.count() == 20


def test_a_branch_actor_that_is_idle_gives_its_thread_back_and_comes_again(open_engine: Any) -> None:
    engine = open_engine(branch_idle_s=0.1, janitor_interval_s=0.05)
    engine.create_branch("main")
    for n in range(3):
        engine.write("main", [put(str(n))])
        wait_until(lambda: engine.stats()["branch_actors"] == 0)
    assert engine.count("main") == 3
