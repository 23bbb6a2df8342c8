"""The table of `model.switch_outcome`: a test for each row, and a test that the table has every case."""

from __future__ import annotations

from itertools import product

import pytest

from shadowswitch.model.switch_outcome import Failure, SwitchOutcome, SwitchStep, WayBack, decide

FAILED = [failure for failure in Failure if failure != Failure.NONE]
ENDS = [outcome for outcome in SwitchOutcome if outcome not in (SwitchOutcome.GO_ON, SwitchOutcome.REVERT)]


@pytest.mark.parametrize("way_back", WayBack)
@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(("step", "then"), [("validate", "go on"), ("attempt", "go on"), ("revert", "reverted")])
def test_a_step_without_a_failure_goes_on(step: SwitchStep, then: str, live: bool, way_back: WayBack) -> None:
    assert decide(SwitchStep(step), Failure.NONE, live, way_back) == SwitchOutcome(then)


@pytest.mark.parametrize("way_back", WayBack)
def test_a_verified_switch_is_switched(way_back: WayBack) -> None:
    assert decide(SwitchStep.VERIFY, Failure.NONE, True, way_back) == SwitchOutcome.SWITCHED


@pytest.mark.parametrize("failure", FAILED)
def test_a_validation_that_fails_changes_nothing(failure: Failure) -> None:
    assert decide(SwitchStep.VALIDATE, failure, False, WayBack.OPEN) == SwitchOutcome.NOT_SWITCHED


@pytest.mark.parametrize("failure", FAILED)
@pytest.mark.parametrize("way_back", WayBack)
def test_an_attempt_that_failed_and_is_in_the_catalog_has_switched(failure: Failure, way_back: WayBack) -> None:
    assert decide(SwitchStep.ATTEMPT, failure, True, way_back) == SwitchOutcome.SWITCHED


def test_an_attempt_that_gave_up_can_be_made_again() -> None:
    assert decide(SwitchStep.ATTEMPT, Failure.GAVE_UP, False, WayBack.OPEN) == SwitchOutcome.GAVE_UP


@pytest.mark.parametrize("failure", [Failure.REFUSED, Failure.UNSOUND, Failure.ERROR])
def test_an_attempt_that_failed_before_its_commit_changes_nothing(failure: Failure) -> None:
    assert decide(SwitchStep.ATTEMPT, failure, False, WayBack.OPEN) == SwitchOutcome.NOT_SWITCHED


@pytest.mark.parametrize("failure", FAILED)
@pytest.mark.parametrize("way_back", WayBack)
def test_a_verification_of_a_replaced_generation_reverts_nothing(failure: Failure, way_back: WayBack) -> None:
    assert decide(SwitchStep.VERIFY, failure, False, way_back) == SwitchOutcome.SWITCHED


@pytest.mark.parametrize("failure", FAILED)
@pytest.mark.parametrize(
    ("way_back", "then"),
    [
        (WayBack.FIRST, SwitchOutcome.REVERT),
        (WayBack.OPEN, SwitchOutcome.REVERT),
        (WayBack.UNSOUND, SwitchOutcome.SWITCHED),
        (WayBack.LOST, SwitchOutcome.REVERT_FAILED),
    ],
)
def test_a_live_generation_that_fails_its_verification_is_reverted_if_it_can_be(
    failure: Failure, way_back: WayBack, then: SwitchOutcome
) -> None:
    assert decide(SwitchStep.VERIFY, failure, True, way_back) == then


@pytest.mark.parametrize("failure", FAILED)
def test_a_reversal_that_fails_ends_as_revert_failed(failure: Failure) -> None:
    assert decide(SwitchStep.REVERT, failure, True, WayBack.OPEN) == SwitchOutcome.REVERT_FAILED


@pytest.mark.parametrize("failure", FAILED)
@pytest.mark.parametrize("way_back", [WayBack.FIRST, WayBack.OPEN])
def test_a_reversal_that_failed_and_is_in_the_catalog_has_reverted(failure: Failure, way_back: WayBack) -> None:
    assert decide(SwitchStep.REVERT, failure, False, way_back) == SwitchOutcome.REVERTED


def test_every_case_has_an_outcome_and_a_revert_ends() -> None:
    for step, failure, live, way_back in product(SwitchStep, Failure, [False, True], WayBack):
        outcome = decide(step, failure, live, way_back)
        assert isinstance(outcome, SwitchOutcome)
        assert step != SwitchStep.REVERT or outcome in ENDS
        assert outcome != SwitchOutcome.REVERT or step == SwitchStep.VERIFY
