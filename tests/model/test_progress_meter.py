"""Percent and ETA of a build: what they say at each moment of a copy, a catch-up and a validation."""

from __future__ import annotations

import pytest

from shadowswitch.model.progress import CATCH_UP_RATE, OVERDUE, VALIDATION_SHARE, ProgressMeter

ROWS = 100_000


def copying(meter: ProgressMeter, at: float, rate: float = 10_000.0) -> tuple[float, float | None]:
    meter.measure(at, at, ROWS, int(at * rate), rate, 0, 0.0, 0.0)
    return meter.read(at)


def test_nothing_is_said_before_something_was_measured() -> None:
    assert ProgressMeter().read(5.0) == (0.0, None)
    meter = ProgressMeter()
    meter.measure(1.0, 1.0, ROWS, 0, 0.0, 0, 0.0, 0.0)
    assert meter.read(1.0) == (0.0, None)


@pytest.mark.parametrize("share", [0.1, VALIDATION_SHARE, 1.5])
def test_a_build_as_expected_has_an_eta_without_error(share: float) -> None:
    """Ten seconds of copy, then the validation; nothing stands still."""
    meter, whole = ProgressMeter(validation_share=share), 10.0 + share * 10.0
    for at in (1.0, 5.0, 9.0):
        percent, left = copying(meter, at)
        assert left == pytest.approx(whole - at)
        assert percent == pytest.approx(100.0 * at / whole)
    meter.validating(10.0, 10.0)
    for at in (10.0, 10.0 + share * 5.0, 10.0 + share * 8.0):
        percent, left = meter.read(at)
        assert left == pytest.approx(whole - at)
        assert percent == pytest.approx(100.0 * at / whole)
    assert meter.validation_share(whole) == pytest.approx(share)


def test_time_passes_between_two_measurements() -> None:
    meter = ProgressMeter()
    _, left = copying(meter, 2.0)
    assert left is not None
    assert meter.read(4.0)[1] == pytest.approx(left - 2.0)


def test_work_that_is_overdue_is_not_about_to_end() -> None:
    meter = ProgressMeter(validation_share=0.1)
    copying(meter, 9.9)
    meter.validating(10.0, 10.0)
    percents = []
    for late in (1.0, 10.0, 100.0):
        percent, left = meter.read(10.0 + late)
        assert left == pytest.approx(OVERDUE * late)
        percents.append(percent)
    assert percents == sorted(percents)
    assert percents[-1] < 99.9


def test_the_eta_rises_and_the_percent_stands_when_the_copy_slows_down() -> None:
    meter = ProgressMeter()
    percent, left = copying(meter, 5.0)
    meter.measure(10.0, 10.0, ROWS, 51_000, 200.0, 0, 0.0, 0.0)
    again, more = meter.read(10.0)
    assert left is not None
    assert more is not None
    assert again == percent
    assert more > left


def test_a_backlog_counts_by_what_the_replay_gains_on_the_writers() -> None:
    meter = ProgressMeter(validation_share=0.0)
    meter.measure(10.0, 10.0, ROWS, ROWS, 0.0, 3_000, 1_000.0, 400.0)
    assert meter.read(10.0)[1] == pytest.approx(5.0)
    meter.measure(10.0, 10.0, ROWS, ROWS, 0.0, 3_000, 0.0, 0.0)
    assert meter.read(10.0)[1] == pytest.approx(3_000 / CATCH_UP_RATE)


def test_a_build_that_goes_on_has_its_percent() -> None:
    meter = ProgressMeter(70.0)
    assert copying(meter, 1.0)[0] == 70.0
    meter.finish()
    assert meter.read(1.0) == (100.0, None)


def test_a_validation_of_a_copy_that_was_not_measured_tells_no_share() -> None:
    meter = ProgressMeter()
    meter.validating(1.0, 1.0)
    assert meter.validation_share(2.0) is None
