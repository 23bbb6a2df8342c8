"""Compare: the same queries of the live index and of a shadow, in a worker process, with a verdict."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from shadowswitch import (
    Comparison,
    Engine,
    EngineClosed,
    InvalidConfig,
    InvalidTransition,
    Put,
    ShadowSwitchError,
    Timeout,
    UnknownIndex,
    UnknownShadow,
)
from shadowswitch.engine.quality import comparing
from tests.support import inside
from tests.support.engine_helpers import KIND, attempt, built, fill, found, live, put, wait_until
from tests.support.external_helpers import begin, complete, delivered
from tests.support.korean import JUDGED, WORDS, judgments, records
from tests.support.slow_backend import SPEC

PORTER = {"tokenizer": "porter"}


@pytest.fixture
def waiting(engine: Engine) -> tuple[Engine, str]:
    """A live index, and a BUILT shadow with another tokenizer, of a few English records."""
    engine.write("main", [
        Put("object_type", "a", {"text": "running water"}),
        Put("object_type", "b", {"text": "run for the water"}),
        Put("object_type", "c", {"text": "nothing but air"}),
    ])  # fmt: skip
    live(engine)
    return engine, built(engine, **PORTER).shadow_index_id


def ids(hits: list[Any]) -> list[str]:
    return [hit.id for hit in hits]


def test_both_lists_stand_side_by_side_with_what_moved_vanished_and_is_new(waiting: tuple[Engine, str]) -> None:
    engine, id = waiting
    compared = engine.compare(id, ["run", "air", "zebra"])
    assert isinstance(compared, Comparison)
    run, air, zebra = compared.rows
    assert (ids(run.live), sorted(ids(run.shadow))) == (["b"], ["a", "b"])
    assert run.new == [("object_type", "a")]
    assert run.vanished == []
    assert run.overlap == 0.5
    assert (air.overlap, air.rbo, air.moved) == (1.0, 1.0, [])
    assert (zebra.live, zebra.shadow, zebra.overlap, zebra.rbo) == ([], [], 1.0, 1.0)
    assert all(row.live_ms > 0 and row.shadow_ms > 0 and row.ndcg is None for row in compared.rows)
    summary = compared.summary
    assert (summary.asked_from, summary.queries, summary.left_out, summary.ndcg) == ("caller", 3, 0, None)
    assert (summary.zero_results.live, summary.zero_results.shadow, summary.zero_results.lost) == (1, 1, 0)
    assert summary.overlap == pytest.approx(2.5 / 3)
    assert (compared.verdict.outcome, compared.verdict.passed) == ("unjudged", True)
    assert compared.live_generation == engine.index("main", KIND).generation
    assert compared.shadow_generation == engine.shadow(id).generation
    assert engine.stats()["pins"] == 0


def test_other_weights_move_hits(engine: Engine) -> None:
    engine.write("main", [
        Put("object_type", "in_body", {"title": "other words", "body": "amber amber amber"}),
        Put("object_type", "in_title", {"title": "amber and more words", "body": "nothing"}),
        *(Put("object_type", f"k{n}", {"title": f"t{n}", "body": f"b{n}"}) for n in range(20)),
    ])  # fmt: skip
    live(engine, columns={"title": 1.0, "body": 1.0})
    id = built(engine, columns={"title": 50.0, "body": 1.0}).shadow_index_id
    (row,) = engine.compare(id, ["amber"]).rows
    assert [(move.key[1], move.before, move.after) for move in row.moved] == [("in_title", 2, 1), ("in_body", 1, 2)]
    assert row.overlap == 1.0
    assert row.rbo < 1.0


def test_without_queries_those_of_readers_are_asked_the_newest_first_each_once(waiting: tuple[Engine, str]) -> None:
    engine, id = waiting
    with pytest.raises(InvalidConfig, match="nothing to compare") as refused:
        engine.compare(id)
    assert "write judgments" in refused.value.hint
    for query in ("water", "air", "\ud800", "water", "run"):
        found(engine, query)
    compared = engine.compare(id)
    assert [row.query for row in compared.rows] == ["run", "water", "air"]
    assert compared.summary.asked_from == "readers"
    assert len(inside.live(engine).asked) == 5, "a comparison is no reader"


def test_judged_queries_come_first_and_wrong_judgments_are_named(engine: Engine) -> None:
    engine.write("main", [*records(), *judgments(), Put("judgment", "bad", {"query": "x"})])
    live(engine, tokenizer="ascii")
    id = built(engine).shadow_index_id
    found(engine, "기차")
    compared = engine.compare(id)
    assert compared.summary.asked_from == "judgments"
    assert {row.query for row in compared.rows} == set(WORDS)
    assert compared.summary.ndcg is not None
    assert compared.summary.ndcg.live < compared.summary.ndcg.shadow
    assert (compared.verdict.outcome, compared.verdict.judged) == ("better", JUDGED)
    assert compared.summary.judgments_left_out == 1
    assert "'bad': resource_type is None" in compared.summary.wrong_judgments[0]
    gains = [row.ndcg.shadow - row.ndcg.live for row in compared.rows if row.ndcg is not None]
    assert gains == sorted(gains), "the one that loses most is the first"
    asked = engine.compare(id, ["기차", "nothing"])
    assert [row.ndcg is not None for row in asked.rows] == [True, False]
    assert asked.verdict.outcome == "too_few"


def test_one_that_soaks_is_compared_and_the_live_one_is_not(waiting: tuple[Engine, str]) -> None:
    engine, id = waiting
    before = engine.index("main", KIND).shadow_index_id
    assert engine.switch(id).success
    (row,) = engine.compare(before, ["run"]).rows
    assert (sorted(ids(row.live)), ids(row.shadow)) == (["a", "b"], ["b"])
    with pytest.raises(InvalidTransition, match="compared with itself"):
        engine.compare(id, ["run"])


def test_a_fork_is_compared_with_its_own_judgments(engine: Engine) -> None:
    engine.write("main", [*records(), *judgments(10)])
    live(engine)
    engine.fork_branch("fork", "main")
    engine.write("fork", [Put("judgment", "own", {**judgments(1)[0].fields, "query": "할머니"})])
    with engine.reader("fork", KIND, timeout_s=30):
        id = built(engine, "fork").shadow_index_id
    assert engine.compare(id).verdict.judged == 11
    assert engine.compare(built(engine).shadow_index_id).verdict.judged == 10


@pytest.mark.parametrize(
    "wrong",
    [
        {"queries": []}, {"queries": "run"}, {"queries": ["run", " "]}, {"queries": ["\ud800"]}, {"queries": [7]},
        {"queries": ["q"] * 201}, {"limit": 0}, {"limit": 101}, {"limit": "10"}, {"timeout_s": 0}, {"timeout_s": 601},
        {"shadow_index_id": 7},
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused(waiting: tuple[Engine, str], wrong: dict[str, Any]) -> None:
    engine, id = waiting
    with pytest.raises(InvalidConfig):
        engine.compare(**{"shadow_index_id": id, "queries": ["run"], **wrong})


def test_a_comparison_needs_a_live_index_and_a_readable_shadow(engine: Engine) -> None:
    fill(engine, 5)
    id = built(engine).shadow_index_id
    with pytest.raises(UnknownIndex):
        engine.compare(id, ["run"])
    with pytest.raises(UnknownShadow):
        engine.compare("f" * 32, ["run"])
    engine.cancel_build(id)
    with pytest.raises(InvalidTransition, match="is CANCELLED"):
        engine.compare(id, ["run"])
    live(engine)
    shadow = begin(engine)
    delivered(engine, shadow)
    complete(engine, shadow)
    with pytest.raises(InvalidConfig, match="only its builder"):
        engine.compare(shadow.shadow_index_id, ["run"])
    assert engine.switch(shadow.shadow_index_id).success
    with pytest.raises(InvalidConfig, match="only its builder"):
        engine.compare(built(engine).shadow_index_id, ["run"])
    assert engine.stats()["pins"] == 0


def test_a_comparison_is_bounded_by_its_time_and_says_what_it_left_out(waiting: tuple[Engine, str]) -> None:
    engine, id = waiting
    outcome = attempt(lambda: engine.compare(id, [f"w{n}*" for n in range(200)], timeout_s=0.001))
    if isinstance(outcome, Comparison):
        assert outcome.summary.left_out == 200 - outcome.summary.queries
    else:
        assert isinstance(outcome, Timeout), outcome
        assert "none of 200 queries" in outcome.message


def test_more_comparisons_than_there_are_places_wait_or_are_refused(
    waiting: tuple[Engine, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, id = waiting
    gate, begun = threading.Event(), threading.Semaphore(0)

    def held() -> None:
        begun.release()
        gate.wait(60)

    inside.before(monkeypatch, inside.Step.COMPARE_SIDES, held)
    done: list[Any] = []
    threads = [
        threading.Thread(target=lambda: done.append(engine.compare(id, ["run"], timeout_s=60)))
        for _ in range(comparing.AT_ONCE)
    ]
    for thread in threads:
        thread.start()
        assert begun.acquire(timeout=60)
    with pytest.raises(Timeout, match="other comparisons"):
        engine.compare(id, ["run"], timeout_s=0.01)
    gate.set()
    for thread in threads:
        thread.join(60)
    assert [one.summary.queries for one in done] == [1, 1]


def test_a_shadow_that_is_cancelled_meanwhile_is_compared_to_the_end(
    waiting: tuple[Engine, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, id = waiting

    def cancel() -> None:
        engine.cancel_build(id)
        engine.clean_up()

    inside.before(monkeypatch, inside.Step.COMPARE_SIDES, cancel)
    assert engine.compare(id, ["run"]).rows[0].new == [("object_type", "a")]
    wait_until(lambda: engine.stats()["generations_open"] == 1)


def test_a_closed_engine_compares_nothing(waiting: tuple[Engine, str]) -> None:
    engine, id = waiting
    engine.close()
    with pytest.raises(EngineClosed):
        engine.compare(id, ["run"])


def test_a_search_that_was_stopped_is_a_row_that_says_so(open_engine: Any) -> None:
    engine = open_engine(search_timeout_s=0.2)
    engine.create_branch("main")
    fill(engine, 5)
    live(engine, backend=SPEC)
    first, second = engine.compare(built(engine, backend=SPEC).shadow_index_id, ["slow", "hello"]).rows
    assert "live: the search took longer than 0.2 s" in first.stopped
    assert (first.live, first.shadow) == ([], [])
    assert second.stopped == ""


def test_a_comparison_works_for_kv(engine: Engine) -> None:
    engine.write("main", [put("alpha"), put("alto"), put("beta")])
    live(engine, backend="kv")
    id = built(engine, backend="kv").shadow_index_id
    (row,) = engine.compare(id, ["al"]).rows
    assert ids(row.live) == ids(row.shadow) == ["alpha", "alto"]


def errors(engine: Engine, id: str) -> ShadowSwitchError:
    outcome = attempt(lambda: engine.compare(id, ["run"]))
    assert isinstance(outcome, ShadowSwitchError)
    return outcome


def test_a_branch_that_was_dropped_has_no_shadow_to_compare(waiting: tuple[Engine, str]) -> None:
    engine, id = waiting
    engine.cancel_build(id)
    engine.drop_branch("main")
    assert isinstance(errors(engine, id), UnknownShadow)
