"""Quiet hours: what the adviser chooses, what the rule chooses, and the verdicts on four real histories."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from benchmarks.bench_quiet_hours import HISTORIES, judged
from shadowswitch.model.operating.quiet_hours import (
    HALF_LIFE_S,
    HOUR_S,
    WEEK_S,
    Choice,
    Histogram,
    advised,
    backtest,
    hits,
    hour_of,
    ruled,
)

MONDAY = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
DAY_S = 24 * HOUR_S


def test_hours_begin_on_monday_in_utc() -> None:
    assert [hour_of(MONDAY), hour_of(MONDAY + HOUR_S), hour_of(MONDAY - 1)] == [0, 1, 167]


def test_old_commits_weigh_less() -> None:
    histogram = Histogram()
    histogram.add(MONDAY)
    histogram.add(MONDAY + HALF_LIFE_S + HOUR_S)
    shares = histogram.shares()
    assert shares[hour_of(MONDAY + HOUR_S)] == pytest.approx(2 / 3, abs=0.01)
    assert sum(shares) == pytest.approx(1)


def test_a_history_of_centuries_overflows_nothing() -> None:
    histogram = Histogram()
    for number in range(40):
        histogram.add(MONDAY + number * 100 * HALF_LIFE_S)
    assert sum(histogram.shares()) == pytest.approx(1)


def test_the_rule_takes_the_first_quiet_moment_and_the_deadline_otherwise() -> None:
    commits = [0.0, 10.0, 20.0, 100.0, 105.0]
    assert ruled(commits, [0.0, 20.0], 30.0, 1000.0) == [Choice(0.0, 50.0), Choice(20.0, 50.0)]
    assert ruled(commits, [0.0], 30.0, 40.0) == [Choice(0.0, 40.0)]
    assert ruled(commits, [100.0], 30.0, 1000.0) == [Choice(100.0, 135.0)]
    assert ruled(commits, [60.0], 30.0, 1000.0) == [Choice(60.0, 60.0)], "it is quiet already"


def test_the_rule_agrees_with_a_clock_that_goes_second_by_second() -> None:
    chance = random.Random(7)
    commits = sorted({float(chance.randrange(600)) for _ in range(60)})
    for for_s in (3.0, 10.0, 25.0):
        for choice in ruled(commits, commits, for_s, 100.0):
            at = choice.ready
            while at < choice.ready + 100 and at - max(c for c in commits if c <= at) < for_s:
                at += 1
            assert choice.at == at, (for_s, choice)


def test_a_hit_is_a_switch_behind_which_no_commit_comes() -> None:
    choices = [Choice(0, 5), Choice(0, 10), Choice(0, 11), Choice(0, 400)]
    assert list(hits([0.0, 10.0, 20.0], choices, 9.5)) == [False, True, False, True]


def memoryless(weeks: int, chance: random.Random, resting: range = range(0)) -> list[float]:
    """Commits at any time, about one an hour, without memory; none in the resting hours of each day."""
    every = (MONDAY + chance.random() * weeks * WEEK_S for _ in range(weeks * 168))
    return sorted(at for at in every if int(at % DAY_S) // HOUR_S not in resting)


def test_the_adviser_sees_only_the_past() -> None:
    commits = memoryless(12, random.Random(1), range(12, 15))
    whole = advised(commits, DAY_S)
    half = [one for one in commits if one < MONDAY + 8 * WEEK_S]
    known = {choice.ready: choice for choice in whole}
    for choice in advised(half, DAY_S):
        assert known[choice.ready] == choice


def test_hours_that_only_the_week_knows_are_advised_and_the_message_has_the_backtest() -> None:
    """Behind a pause the next commit is as near as ever, but no commit comes at noon."""
    found = backtest(memoryless(20, random.Random(2), range(12, 15)), 2 * HOUR_S, DAY_S)
    assert found.beats
    assert found.adviser > 0.95
    assert found.wait_s == pytest.approx(found.rule_wait_s, rel=0.05)
    text = "the quietest hour beats the quiet rule: no commit came within 120 min after"
    assert found.message(7200).startswith(text)


def test_commits_at_any_time_are_not_advised() -> None:
    found = backtest(memoryless(30, random.Random(3)), 900, DAY_S)
    assert not found.beats
    assert found.message(900).startswith("no advice: the quietest hour does not beat the quiet rule")


@pytest.mark.parametrize("commits", [[], [MONDAY], [MONDAY + n * HOUR_S for n in range(100)]])
def test_a_short_past_is_no_ground_for_advice(commits: list[float]) -> None:
    found = backtest(commits, 900, DAY_S)
    assert not found.beats
    assert "are needed" in found.message(900)


@pytest.mark.parametrize("name", HISTORIES)
def test_the_verdicts_on_real_histories_are_as_documented(name: str) -> None:
    """Only on ruff, with its working week, does the quietest hour beat the rule of the same wait."""
    found = judged(name)
    assert found.beats == (name == "ruff")
    assert found.wait_s == pytest.approx(found.rule_wait_s, rel=0.01)
    if name != "ruff":
        assert found.rule > found.adviser, "here the rule is even better"
