"""Builds give way while writers' commits take longer than without builds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from shadowswitch import Config, Engine, InvalidConfig
from shadowswitch.actors.queue.giving_way import SHARE_MIN, GivingWay
from shadowswitch.model.metrics import Metrics
from shadowswitch.storage import failpoints
from shadowswitch.storage.generations.shard_build import Control
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, crew, fill, put, wait_until


class Second:
    """Seconds of commits, each with so many changes."""

    def __init__(self, budget_ms: float = 10.0) -> None:
        self.metrics = Metrics()
        self.way = GivingWay(self.metrics, budget_ms)

    def __call__(self, ms: float, busy: bool, changes: int = 1, commits: int = 20) -> float:
        for _ in range(commits):
            self.metrics.observe("commit", ms)
            self.metrics.count("changes", changes)
        self.way.look(busy)
        return self.way.share


def test_builds_work_less_while_commits_are_slower_and_come_back() -> None:
    second = Second()
    for _ in range(4):
        assert second(2.0, busy=False) == 1
    assert second(9.0, busy=True) == 1, "within the budget"
    assert second(30.0, busy=True) < 1
    assert "a commit takes 30.0 ms, 2.0 ms without builds" in (second.way.text or "")
    for _ in range(20):
        lowest = second(30.0, busy=True)
    assert lowest == SHARE_MIN, "it comes to its end"
    held = second(10.0, busy=True)
    assert held == lowest, "between half of the budget and all of it nothing changes"
    for _ in range(20):
        second(4.0, busy=True)
    assert (second.way.share, second.way.text) == (1, None)


def test_without_writers_and_without_a_budget_builds_do_not_give_way() -> None:
    second = Second()
    second(2.0, busy=False)
    second(50.0, busy=True)
    assert second.way.share < 1
    for _ in range(10):
        second(0.0, busy=True, commits=0)
    assert (second.way.share, second.way.text) == (1, None)
    never = Second(budget_ms=0.0)
    never(2.0, busy=False)
    assert never(500.0, busy=True) == 1


def test_an_import_with_large_batches_is_no_reason() -> None:
    second = Second()
    for _ in range(4):
        second(2.0, busy=False)
    for _ in range(5):
        assert second(200.0, busy=True, changes=5000) == 1
    assert second(400.0, busy=True, changes=5000) < 1, "against commits of the same size it is"


def test_a_second_in_which_a_build_ended_is_not_quiet() -> None:
    second = Second()
    second(30.0, busy=True)
    second(30.0, busy=False)
    for _ in range(3):
        second(2.0, busy=False)
    assert second(30.0, busy=True) < 1


def test_the_workers_of_a_build_get_less_of_their_time_and_all_of_it_again(
    open_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the status says so."""
    engine = open_engine(commit_latency_budget=40.0, copy_slice_rows=20)
    engine.create_branch("main")
    fill(engine, 4000)
    monkeypatch.setenv("SHADOWSWITCH_POINTS", "copy.slice=sleep:0.1")
    pause, given = threading.Event(), list[float]()

    def note(ordinary: Callable[..., None], pool: object, number: int, control: Control) -> None:
        given.append(control.share)
        ordinary(pool, number, control)

    inside.wrap(monkeypatch, inside.Step.PACE_OF_WORKER, note)

    def write() -> None:
        engine.write("main", [put("x")])
        pause.wait(0.005)

    with crew() as hands:
        hands.start(write)
        wait_until(lambda: engine.stats()["latencies"].get("commit", {}).get("count", 0) > 5)
        pause.wait(4)  # seconds without a build
        failpoints.plan_points("journal.before_commit=sleep:0.15")
        id = engine.start_build("main", KIND, TYPES, {"parallel_workers": 1}).shadow_index_id
        wait_until(lambda: engine.shadow(id).gives_way, what="giving way")
        assert engine.stats()["build_share_given"] < 1
        wait_until(lambda: given and given[-1] < 1, what="a smaller share for the workers")
        least = given[-1]
        failpoints.plan_points("")
        wait_until(lambda: given[-1] == 1, what="the whole share for the workers")
        assert min(given) <= least < 1
        assert (engine.shadow(id).state, engine.shadow(id).gives_way) == ("BUILDING", None)
        engine.cancel_build(id, "seen")


@pytest.mark.parametrize("value", [-1, True, "much"])
def test_a_wrong_budget_is_refused(value: Any) -> None:
    with pytest.raises(InvalidConfig, match="commit_latency_budget"):
        Config(commit_latency_budget=value)
