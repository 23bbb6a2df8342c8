"""Only a text, or several texts, is a reason: any other answer of a function of the host is refused when it is seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from shadowswitch import Engine, InvalidConfig, SwitchRequest
from shadowswitch.actors.kit.host_answer import reasons_of
from tests.support import inside
from tests.support.engine_helpers import KIND, built, fill, live, wait_until
from tests.support.external_helpers import incoming

NO_TEXTS: list[Any] = [True, False, 0, 7, 0.5, object(), b"slow", {"p99": "slow"}, ["slow", 7], [True]]
EMPTY: list[Any] = ["", " \n", [""], ["slow", ""], ("\t",)]


def several() -> Iterator[str]:
    yield "slow"
    yield "wrong"


def label(answer: object) -> str:
    """The name of a case, the same in each process."""
    return "an object" if type(answer) is object else repr(answer)


@pytest.mark.parametrize(
    ("answer", "reasons"),
    [(None, []), ([], []), ("slow", ["slow"]), (["slow"], ["slow"]), (several(), ["slow", "wrong"])],
)
def test_a_text_is_a_reason_and_so_are_several(answer: Any, reasons: list[str]) -> None:
    assert reasons_of("the health check", answer) == reasons


@pytest.mark.parametrize("answer", NO_TEXTS + EMPTY, ids=label)
def test_any_other_answer_is_refused_with_what_to_return(answer: Any) -> None:
    with pytest.raises(InvalidConfig, match="neither a reason nor None") as refused:
        reasons_of("the health check", answer)
    assert "return None when all is well, else the reason as a text that is not empty" in str(refused.value)


@pytest.mark.parametrize("answer", [True, 7, object(), {"p99": 1}, "", ["slow", " "]], ids=label)
def test_a_health_check_that_gives_no_text_leaves_the_index_where_it_is(
    open_engine: Any, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_engine(health_interval_s=0.01)
    engine.create_branch("main")
    fill(engine, 20)
    live(engine)
    second = live(engine)
    engine.set_health_check(lambda info: answer)
    wait_until(lambda: inside.counter(engine, "health_checks_failed") >= 3 or not is_live(engine, second))
    assert is_live(engine, second)
    assert "neither a reason nor None" in caplog.text


def is_live(engine: Engine, generation: int) -> bool:
    return bool(engine.index("main", KIND).generation == generation)


def test_a_health_check_may_give_several_reasons(open_engine: Any) -> None:
    engine = open_engine(health_interval_s=0.01)
    engine.create_branch("main")
    fill(engine, 20)
    first, second = live(engine), live(engine)
    engine.set_health_check(lambda info: ["slow", "wrong"] if info.generation == second else [])
    wait_until(lambda: is_live(engine, first), what="the way back")
    row = [entry for entry in engine.audit() if entry.type == "switch.committed"][-1]
    assert row.data["reason"] == "health check: slow; wrong"


@pytest.mark.parametrize("answer", [True, False, 7, {"p99": "slow"}, [7], "", " ", ["too few", ""]], ids=label)
def test_a_validator_that_gives_no_text_is_itself_a_finding(engine: Engine, answer: Any) -> None:
    fill(engine, 20)
    engine.add_validator("OWN", lambda reader: answer)
    result = engine.switch(built(engine).shadow_index_id, SwitchRequest(validation_checks=("OWN",)))
    assert not result.success
    (finding,) = result.validation_errors
    assert finding.startswith("OWN: the validator returned")
    assert "neither a reason nor None" in finding


@pytest.mark.parametrize("answer", ["too few records", ["too few records"]])
def test_a_text_of_a_validator_is_one_finding(engine: Engine, answer: Any) -> None:
    fill(engine, 20)
    engine.add_validator("OWN", lambda reader: answer)
    result = engine.switch(built(engine).shadow_index_id, SwitchRequest(validation_checks=("OWN",)))
    assert result.validation_errors == ["OWN: too few records"]


def test_a_validator_that_returns_nothing_has_found_nothing(engine: Engine) -> None:
    fill(engine, 20)
    engine.add_validator("OWN", lambda reader: None)
    assert engine.switch(built(engine).shadow_index_id, SwitchRequest(validation_checks=("OWN",))).success


@pytest.mark.parametrize("answer", [True, False, 0, ""], ids=label)
def test_a_merge_condition_that_gives_no_text_is_not_met(engine: Engine, answer: Any) -> None:
    engine.add_merge_condition("no_conflicts", lambda branch, data: answer)
    engine.start_indexing("main", "funnel")
    outcome = engine.receive_event(incoming("com.oms.indexing.completed", validation_results={"passed": True}))
    assert not outcome.merged
    assert "neither a reason nor None" in outcome.unmet[0]
    assert engine.branch("main").state == "READY"
