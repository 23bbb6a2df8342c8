"""The measures of rankings, and the verdict on a shadow, by calls of pure functions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowswitch.model.search.judgments import NAMED_MAX, Judgments
from shadowswitch.model.search.relevance import (
    JUDGED_MIN,
    WORST,
    Key,
    Measured,
    Outcome,
    bootstrap,
    judge,
    moves,
    ndcg,
    overlap,
    rbo,
)


def keys(text: str) -> list[Key]:
    """A ranking of records that are named by letters."""
    return [("t", letter) for letter in text]


RANKINGS = st.lists(st.sampled_from("abcdefghijkl"), unique=True).map(lambda found: keys("".join(found)))


def test_ndcg_is_one_for_the_best_order_and_falls_with_each_rank() -> None:
    grades = {("t", "a"): 3, ("t", "b"): 1, ("t", "c"): 0}
    assert ndcg(keys("abx"), grades) == 1.0
    assert ndcg(keys("xab"), grades) == pytest.approx((7 / math.log2(3) + 1 / 2) / (7 + 1 / math.log2(3)))
    assert ndcg(keys(""), grades) == 0.0
    assert ndcg(keys("xyzxyzxyzxa"), grades) == 0.0, "the eleventh hit does not count"
    assert ndcg(keys("ab"), {("t", "c"): 0}) is None, "every order is the best"
    assert ndcg(keys("ab"), {}) is None


def test_rbo_of_short_equal_lists_is_one_and_of_two_empty_ones_too() -> None:
    assert rbo(keys("ab"), keys("ab")) == 1.0, "the plain sum is 0.19"
    assert rbo([], []) == 1.0
    assert rbo(keys("a"), []) == rbo([], keys("a")) == rbo(keys("abc"), keys("xyz")) == 0.0
    assert rbo(keys("abc"), keys("abcdef")) == 1.0, "as far as the shorter one goes"
    assert rbo(keys("ab"), keys("ba"), p=0.9) == pytest.approx(0.9 / 1.9)
    assert rbo(keys("abcd"), keys("abdc")) > rbo(keys("abcd"), keys("bacd")), "the first ranks weigh more"


@given(RANKINGS, RANKINGS)
def test_likeness_is_symmetric_and_between_none_and_all(one: list[Key], other: list[Key]) -> None:
    for measure in (rbo, overlap):
        assert measure(one, other) == pytest.approx(measure(other, one))
        assert -1e-9 <= measure(one, other) <= 1 + 1e-9
        assert measure(one, one) == pytest.approx(1)


@given(RANKINGS, st.dictionaries(st.sampled_from("abcdefghijkl").map(lambda letter: ("t", letter)), st.integers(0, 3)))
def test_no_order_is_better_than_the_best_one(ranking: list[Key], grades: dict[Key, int]) -> None:
    found = ndcg(ranking, grades)
    assert found is None or 0 <= found <= 1 + 1e-9
    assert (found is None) == (not any(grades.values()))


def test_overlap_counts_the_longer_list() -> None:
    assert overlap(keys("abcd"), keys("ab")) == overlap(keys("ab"), keys("abcd")) == 0.5
    assert overlap([], []) == 1.0


def test_moves_name_both_ranks() -> None:
    found = [(move.key[1], move.before, move.after) for move in moves(keys("abc"), keys("xacb"))]
    assert found == [("a", 1, 2), ("b", 2, 4)]


def test_the_bootstrap_is_the_same_each_time_and_spans_the_mean() -> None:
    gains = [(-1.0) ** n * n / 50 + 0.1 for n in range(40)]
    found = bootstrap(gains)
    assert found == bootstrap(gains)
    assert found.low < found.mean < found.high
    assert bootstrap([0.25] * 30) == type(found)(0.25, 0.25, 0.25)


def measured(count: int, live: float, shadow: float, pinned: bool = False) -> list[Measured]:
    return [Measured(f"{live}>{shadow}#{n}", 10, 10, live, shadow, pinned) for n in range(count)]


@pytest.mark.parametrize(
    ("queries", "outcome", "passed"),
    [
        (measured(30, 0.5, 0.8), Outcome.BETTER, True),
        (measured(30, 0.8, 0.8), Outcome.NOT_WORSE, True),
        (measured(30, 0.8, 0.79), Outcome.WORSE, False),
        (measured(29, 0.8, 0.8) + measured(1, 0.9, 0.8), Outcome.NOT_WORSE, True),
        (measured(15, 0.8, 0.6) + measured(15, 0.6, 0.8), Outcome.UNDECIDED, True),
        (measured(30, 0.5, 0.8) + measured(1, 0.9, 0.5, pinned=True), Outcome.WORSE, False),
        (measured(30, 0.5, 0.8) + measured(1, 0.9, 0.65, pinned=True), Outcome.BETTER, True),
        (measured(JUDGED_MIN - 1, 0.9, 0.1), Outcome.TOO_FEW, True),
        (measured(JUDGED_MIN, 0.9, 0.1), Outcome.WORSE, False),
        (measured(3, 0.9, 0.1, pinned=True), Outcome.TOO_FEW, True),
    ],
)
def test_the_verdict_follows_the_samples_and_the_pinned_queries(
    queries: list[Measured], outcome: Outcome, passed: bool
) -> None:
    found = judge(queries)
    assert (found.outcome, found.passed) == (outcome, passed), found.message
    assert found.judged == len(queries)


def test_the_worst_queries_are_named_the_worst_first_and_ten_at_most() -> None:
    queries = [Measured(f"q{n:02d}", 1, 1, 0.5, 0.5 - n / 100) for n in range(1, 31)]
    found = judge(queries)
    assert found.worst == [f"q{n:02d}" for n in range(30, 20, -1)]
    assert all(f"'{query}'" in found.message for query in found.worst)
    assert "q20" not in found.message
    assert len(found.worst) == WORST


@pytest.mark.parametrize(("lost", "outcome"), [(5, Outcome.UNJUDGED), (6, Outcome.LOST_RESULTS)])
def test_without_judgments_only_lost_results_count(lost: int, outcome: Outcome) -> None:
    queries = [Measured(f"q{n}", 3, 0 if n < lost else 1) for n in range(100)]
    queries += [Measured(f"none{n}", 0, 0) for n in range(500)]
    found = judge(queries)
    assert (found.outcome, found.passed) == (outcome, outcome is Outcome.UNJUDGED)
    assert f"{lost} of 100 queries" in found.message
    assert found.gain is None


def test_nothing_asked_and_nothing_found_is_no_loss() -> None:
    assert judge([]).passed
    assert judge([Measured("q", 0, 0)]).passed


RIGHT = {"query": "q", "resource_type": "t", "id": "a", "grade": 2}


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"query": None}, "query is None"),
        ({"query": "  "}, "query is '  '"),
        ({"query": "x" * 4001}, "longer than 4000"),
        ({"resource_type": 7}, "resource_type is 7"),
        ({"id": ""}, "id is ''"),
        ({"grade": 4}, "grade is 4"),
        ({"grade": -1}, "grade is -1"),
        ({"grade": True}, "grade is True"),
        ({"grade": 1.5}, "grade is 1.5"),
        ({"grade": "3"}, "grade is '3'"),
        ({"pinned": "yes"}, "pinned is 'yes'"),
    ],
)
def test_a_wrong_judgment_is_named_and_left_out(wrong: dict[str, object], text: str) -> None:
    judgments = Judgments()
    judgments.add("good", 1, RIGHT)
    judgments.add("bad", 2, {**RIGHT, **wrong})
    judgments.add("none", 3, {})
    assert judgments.grades == {"q": {("t", "a"): 2}}
    assert judgments.left_out == 2
    assert judgments.wrong[0].startswith("'bad': ")
    assert text in judgments.wrong[0]


def test_the_newest_judgment_of_a_record_counts_and_one_pin_pins_the_query() -> None:
    judgments = Judgments()
    judgments.add("new", 9, {**RIGHT, "grade": 3, "pinned": True})
    judgments.add("old", 4, {**RIGHT, "grade": 1})
    judgments.add("zero", 5, {**RIGHT, "query": "nothing", "grade": 0})
    judgments.add("other", 6, {**RIGHT, "query": "a"})
    assert judgments.grades["q"] == {("t", "a"): 3}
    assert judgments.judged() == ["q", "a"], "the pinned one first; no record is right for `nothing`"
    for n in range(2 * NAMED_MAX):
        judgments.add(f"bad{n}", n, {})
    assert len(judgments.wrong) == NAMED_MAX
    assert judgments.left_out == 2 * NAMED_MAX
