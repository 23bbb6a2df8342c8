"""Convergence of a replay: judged by whole rounds, and during a round by changes written and replayed."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest

from shadowswitch import BuildFailed, Config, NotConverging
from shadowswitch.actors.build.pacing import Pacing
from shadowswitch.actors.build.running_builds import RunningBuilds
from shadowswitch.model.metrics import Metrics
from shadowswitch.model.progress import Place, Rounds


class Race:
    """Writers and a replay, each with a rate, second by second."""

    def __init__(self, backlog: int = 0) -> None:
        self.now, self.head, self.applied = 100.0, backlog, 0
        self.target = backlog
        self.rounds = Rounds(self.place)

    @property
    def place(self) -> Place:
        return Place(self.now, self.head, self.applied)

    def run(self, seconds: float, write: float, replay: float, step_s: float = 0.1) -> None:
        """Time passes; rounds end when their target is reached."""
        begun = self.applied
        for _ in range(round(seconds / step_s)):
            self.now += step_s
            self.head += round(write * step_s)
            self.applied = min(self.target, self.applied + round(replay * step_s))
            if self.applied < self.target:
                self.rounds.on_the_way(self.place)
                continue
            changes, begun, self.target = self.applied - begun, self.applied, self.head
            self.rounds.ended(self.place, changes)
            if changes <= 500:  # a build goes on to its validation
                return


def test_a_replay_that_works_off_a_burst_is_not_falling_behind() -> None:
    race = Race(backlog=20_000)
    race.run(5, write=100, replay=1000)
    race.head += 1_000_000
    race.run(600, write=900, replay=1000)
    assert race.rounds.without_gain <= 2, "only the burst and its own round are without gain: then the backlog shrinks"


@pytest.mark.parametrize(("write", "replay"), [(1000, 1000), (1010, 1000), (10_000, 1000)])
def test_writers_as_fast_as_the_replay_are_detected_when_no_round_ends(write: float, replay: float) -> None:
    race = Race(backlog=5000)
    race.run(120, write, replay)
    assert race.rounds.without_gain >= 10
    came, done = race.rounds.rates(race.place)
    assert came == pytest.approx(write, rel=0.2)
    assert done == pytest.approx(replay, rel=0.2)


def test_a_round_that_is_shorter_than_any_before_is_a_gain() -> None:
    race = Race(backlog=5000)
    race.run(20, write=2000, replay=1000)
    assert race.rounds.without_gain > 5
    race.run(120, write=100, replay=1000)
    assert race.head - race.applied <= 100
    assert race.rounds.without_gain == 0


def test_a_pause_of_the_build_does_not_count_as_falling_behind() -> None:
    race = Race(backlog=5000)
    race.now += 1000
    assert not race.rounds.on_the_way(race.place)


def test_the_verdict_names_both_rates_and_comes_after_the_milder_measures() -> None:
    now = [0.0]
    config = Config(catchup_rounds_max=6, write_delay_max_ms=10)
    clock = types.SimpleNamespace(monotonic=lambda: now[0])
    context: Any = types.SimpleNamespace(root=Path(), config=config, clock=clock)
    heads: Any = types.SimpleNamespace(of=lambda branch: round(500 * now[0]))
    row: Any = types.SimpleNamespace(id="s", branch=1, start_lsn=0, share=None)
    builds = RunningBuilds(Config(), Metrics())
    paced = Pacing(context, heads, builds, row)
    paced.round_target = 10**9  # a round without end
    measures = []

    def next_part() -> None:
        now[0] += 2
        assert not paced.round_ended(round(200 * now[0]))
        measures.append((paced.behind, round(1000 * builds.delays.get(1, 0))))

    for _ in range(5):
        next_part()
    with pytest.raises(NotConverging) as caught:
        next_part()
    assert measures == [(True, 0), (True, 0), (True, 5), (True, 10), (True, 10)]
    assert isinstance(caught.value, BuildFailed)
    assert "500 changes a second still come in, 200 a second are replayed" in str(caught.value)
    assert "3600 changes were left after 6 rounds without gain" in str(caught.value)
