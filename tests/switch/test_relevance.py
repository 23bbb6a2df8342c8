"""RELEVANCE: a switch is refused where judged queries, or queries of readers, find less in the shadow."""

from __future__ import annotations

from typing import Any

import pytest

from shadowswitch import Engine, GroupMember, GroupResult, Put, SwitchRequest, SwitchResult
from tests.support import inside
from tests.support.engine_helpers import KIND, TYPES, built, found, live, wait_until
from tests.support.external_helpers import begin, complete, delivered
from tests.support.korean import JUDGED, judgments, records

ASKED = SwitchRequest(validation_checks=("RELEVANCE",), switch_timeout_seconds=60)
FORCED = SwitchRequest(validation_checks=("RELEVANCE",), switch_timeout_seconds=60, force_switch=True)


@pytest.fixture
def korean(engine: Engine) -> Engine:
    """Korean records, without judgments."""
    engine.write("main", records())
    return engine


def switched(engine: Engine, request: SwitchRequest = ASKED, **config: Any) -> SwitchResult:
    return engine.switch(built(engine, **config).shadow_index_id, request)


def test_a_trigram_shadow_is_refused_and_one_that_is_better_than_the_live_index_passes(korean: Engine) -> None:
    korean.write("main", judgments())
    live(korean, tokenizer="ascii")
    better = switched(korean)
    assert better.success, better.message
    assert "RELEVANCE: the shadow is better: nDCG +" in better.message
    assert f"over {JUDGED} judged queries" in better.message
    worse = switched(korean, tokenizer="trigram")
    assert not worse.success
    assert worse.message.startswith("validation failed: RELEVANCE: the shadow is worse: nDCG -")
    assert "the worst: " in worse.message
    (shadow,) = korean.shadows(state="BUILT")
    same = korean.switch(shadow.shadow_index_id, FORCED)
    assert same.success, "it is advisory"
    assert korean.rollback("main", KIND).success


def test_the_same_index_again_is_not_worse(korean: Engine) -> None:
    korean.write("main", judgments())
    live(korean)
    result = switched(korean)
    assert result.success
    assert "the shadow is not worse: nDCG +0.000" in result.message


def test_a_pinned_query_that_loses_much_refuses_a_shadow_that_is_better_on_average(korean: Engine) -> None:
    korean.write("main", [
        *judgments(),
        Put("object_type", "pinned", {"other": "비밀"}),
        Put("judgment", "pinned", {
            "query": "비밀", "resource_type": "object_type", "id": "pinned", "grade": 3, "pinned": True,
        }),
    ])  # fmt: skip
    live(korean, tokenizer="ascii")
    result = switched(korean, columns={"text": 1.0})
    assert not result.success
    assert "pinned queries lose more than 0.3: '비밀'" in result.message


def test_few_judgments_and_wrong_ones_are_reported_and_refuse_nothing(korean: Engine) -> None:
    korean.write("main", [*judgments(5), Put("judgment", "bad", {"grade": 9})])
    live(korean)
    result = switched(korean, tokenizer="trigram")
    assert result.success
    assert "over 5 judged queries: a verdict needs 20" in result.message
    assert "1 judgments are left out: 'bad': query is None" in result.message


def test_without_judgments_only_queries_that_lose_all_their_hits_count(korean: Engine) -> None:
    live(korean)
    nothing = switched(korean)
    assert nothing.success
    assert "not checked: RELEVANCE, for no query is judged, and no reader has asked one" in nothing.message
    for word in ("이야기를", "할머니는"):
        assert found(korean, word)
    korean.write("main", [Put("object_type", "x", {"title": "할머니는 이야기를"})])
    assert "no judged query; 0 of 2 queries" in switched(korean).message
    given = SwitchRequest(validation_checks=("RELEVANCE",), switch_timeout_seconds=60, queries=("오래", "또박또박"))
    result = switched(korean, given, columns={"title": 1.0})
    assert not result.success
    assert "2 of 2 queries with hits in the live index have none in the shadow: '오래'" in result.message


def test_the_first_index_and_one_of_a_builder_have_nothing_to_compare_with(korean: Engine) -> None:
    korean.write("main", judgments())
    first = switched(korean)
    assert first.success
    assert "not checked: RELEVANCE, for there is nothing to compare with" in first.message
    shadow = begin(korean)
    delivered(korean, shadow)
    complete(korean, shadow)
    other = korean.switch(shadow.shadow_index_id, ASKED)
    assert other.success
    assert "RELEVANCE, for only its builder can read it" in other.message


def test_a_group_is_refused_for_one_member_and_says_what_passed(korean: Engine) -> None:
    korean.write("main", judgments())
    live(korean)
    assert korean.rebuild("main", "GRAPH_INDEX", TYPES, {"backend": "kv"}).success

    def switched_group(tokenizer: str) -> tuple[str, GroupResult]:
        kinds = {KIND: {"tokenizer": tokenizer}, "GRAPH_INDEX": {"backend": "kv"}}
        group = korean.start_group(tokenizer, [GroupMember("main", kind, TYPES, how) for kind, how in kinds.items()])
        for one in group.members:
            korean.wait_for(one.shadow_index_id, "BUILT", timeout_s=60)
        return group.id, korean.switch_group(group.id, ASKED)

    id, worse = switched_group("trigram")
    assert not worse.success
    assert "RELEVANCE: the shadow is worse" in worse.message
    korean.dissolve_group(id)
    for one in korean.shadows(state="BUILT"):
        korean.cancel_build(one.shadow_index_id)
    _, same = switched_group("unicode61")
    assert same.success, same.message
    assert f"{KIND} of branch 'main'; RELEVANCE: the shadow is not worse" in same.message


def test_queries_are_compared_up_to_a_thousand_and_more_refuse_nothing(korean: Engine) -> None:
    live(korean)
    queries = tuple(f"none{number}" for number in range(1200))
    request = SwitchRequest(validation_checks=("QUERY_COMPARISON",), queries=queries, switch_timeout_seconds=60)
    result = switched(korean, request)
    assert result.success, result.message
    assert result.query_performance_improvement


def test_a_scheduled_switch_is_refused_like_any_other(korean: Engine) -> None:
    korean.write("main", judgments())
    live(korean)
    id = built(korean, tokenizer="trigram").shadow_index_id
    korean.schedule_switch(id, quiet_for_s=0, within_s=60, request=ASKED)

    def refused() -> bool:
        plan = korean.shadow(id).scheduled_switch
        return plan is not None and "RELEVANCE: the shadow is worse" in (plan.error or "")

    wait_until(refused, 60)
    korean.unschedule_switch(id)


def test_a_switch_without_time_for_the_judged_queries_is_refused(
    korean: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    korean.write("main", judgments())
    live(korean)
    inside.patch_limit(monkeypatch, inside.Limit.COMPARISON_S, 1e-6)
    result = switched(korean)
    assert not result.success
    assert f"none of {JUDGED} queries was answered" in result.message
