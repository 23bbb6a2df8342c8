"""Percent and ETA of a build: what they say at each moment of a copy, a catch-up and a validation."""

from __future__ import annotations

import itertools

import pytest

from shadowswitch.model.progress import ASSUMED, CATCH_UP_RATE, OVERDUE, TENTHS, Pace, ProgressMeter

ROWS = 100_000
SLOWING = [0.02, 0.05, 0.1, 0.16, 0.23, 0.31, 0.40, 0.50, 0.6, 0.7, 0.8]
"""Each tenth takes longer than the one before."""
EVEN = [tenth * 0.08 for tenth in range(1, TENTHS + 1)] + [0.8]


def a_build(meter: ProgressMeter, pace: Pace, whole_s: float, until: float = 1.0) -> list[tuple[float, float, float]]:
    """A build that takes as long and goes as `pace` says: time, percent and ETA, up to a share of its time."""
    said = []
    meter.begin(0.0)
    steps = 200
    for step in range(round(steps * until)):
        share, at = step / steps, step / steps * whole_s
        copied = next((tenth for tenth in range(TENTHS * 100) if pace.share_of(tenth / TENTHS / 100) >= share), None)
        if share < pace.shares[-1]:
            done = ROWS if copied is None else copied * ROWS // TENTHS // 100
            meter.measure(at, ROWS, done, 0, 0.0, 0.0)
        elif share - 1 / steps < pace.shares[-1]:
            meter.validating(at)
        percent, left_s = meter.read(at)
        if left_s is not None:
            said.append((at, percent, left_s))
    return said


def test_nothing_is_said_before_something_was_measured() -> None:
    meter = ProgressMeter()
    assert meter.read(5.0) == (0.0, None)
    meter.measure(1.0, ROWS, 0, 0, 0.0, 0.0)
    assert meter.read(1.0) == (0.0, None)


def test_a_first_build_is_expected_to_go_as_another_one_by_its_rows() -> None:
    meter = ProgressMeter(other=Pace(ROWS, 10.0, EVEN))
    assert meter.read(0.0)[1] is None, "its rows are not known"
    meter.measure(0.0, 3 * ROWS, 0, 0, 0.0, 0.0)
    assert meter.read(0.0)[1] == pytest.approx(30.0)


def test_the_first_rows_of_a_first_build_say_little() -> None:
    """Its workers take a moment to start: by its speed alone it would take 100 s."""
    meter = ProgressMeter()
    meter.measure(0.5, ROWS, ROWS // 160, 0, 0.0, 0.0)
    assert meter.read(0.5)[1] == pytest.approx(ASSUMED.whole_s, rel=0.01)
    meter.measure(1.0, ROWS, ROWS // 2, 0, 0.0, 0.0)
    whole_s = 0.5 / (ASSUMED.shares[4] - ASSUMED.shares[0] / 16)
    assert meter.read(1.0)[1] == pytest.approx(whole_s * (1 - ASSUMED.shares[4]))


@pytest.mark.parametrize("whole_s", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("other", [None, Pace(ROWS, 3.0, EVEN)])
def test_a_first_build_is_known_by_its_own_speed_soon(whole_s: float, other: Pace | None) -> None:
    pace = Pace(ROWS, whole_s, EVEN if other else ASSUMED.shares)
    for at, _, left_s in a_build(ProgressMeter(other=other), pace, whole_s):
        if 0.35 * whole_s < at < 0.9 * whole_s:
            assert left_s == pytest.approx(whole_s - at, rel=0.1, abs=0.02 * whole_s)


def test_the_pace_of_a_first_build_is_its_own() -> None:
    meter = ProgressMeter(other=Pace(ROWS // 2, 15.0, EVEN))
    a_build(meter, Pace(ROWS, 10.0, SLOWING), 10.0)
    found = meter.pace(10.0)
    assert found is not None
    assert (found.rows, found.whole_s) == (ROWS, 10.0)


def test_the_last_build_says_something_before_the_first_measurement() -> None:
    meter = ProgressMeter(pace=Pace(ROWS, 10.0, EVEN))
    meter.begin(3.0)
    assert list(meter.read(3.0)) == pytest.approx([0.0, 10.0])
    assert list(meter.read(4.0)) == pytest.approx([10.0, 9.0])
    meter.measure(4.0, 2 * ROWS, 0, 0, 0.0, 0.0)
    assert list(meter.read(4.0)) == pytest.approx([10.0, 20.0]), "the percent does not go back"


@pytest.mark.parametrize("shares", [SLOWING, EVEN, ASSUMED.shares])
@pytest.mark.parametrize("whole_s", [10.0, 30.0])
def test_a_build_that_goes_as_the_last_one_has_a_true_eta(shares: list[float], whole_s: float) -> None:
    """Also when the machine is three times as slow: from the first third on."""
    pace = Pace(ROWS, 10.0, shares)
    said = a_build(ProgressMeter(pace=pace), pace, whole_s)
    assert said
    assert said[0][0] == 0.0, "the time of the last build is known at once"
    for at, _, left_s in said:
        if (whole_s == 10.0 or at > 0.45 * whole_s) and at < 0.95 * whole_s:
            assert left_s == pytest.approx(whole_s - at, rel=0.1, abs=0.02 * whole_s)


def test_the_time_of_the_last_build_counts_by_the_rows() -> None:
    meter = ProgressMeter(pace=Pace(ROWS, 10.0, EVEN))
    meter.measure(0.0, 3 * ROWS, 0, 0, 0.0, 0.0)
    assert meter.read(0.0)[1] == pytest.approx(30.0)


@pytest.mark.parametrize("known", [None, Pace(ROWS, 3.0, EVEN), Pace(ROWS, 100.0, EVEN)])
def test_the_percent_moves_at_every_moment(known: Pace | None) -> None:
    """Also when the build goes at another pace than the last one, or takes much more or less time."""
    said = a_build(ProgressMeter(pace=known), Pace(ROWS, 10.0, SLOWING), 10.0)
    percents = [percent for _, percent, _ in said]
    steps = [after - before for before, after in itertools.pairwise(percents)]
    assert min(steps) > 0.0
    assert percents[-1] > 90.0


@pytest.mark.parametrize("shares", [SLOWING, EVEN])
def test_the_pace_of_a_build_is_the_time_of_its_tenths(shares: list[float]) -> None:
    meter, pace = ProgressMeter(), Pace(ROWS, 10.0, shares)
    a_build(meter, pace, 10.0)
    found = meter.pace(10.0)
    assert found is not None
    assert (found.rows, found.whole_s) == (ROWS, 10.0)
    assert found.shares == pytest.approx(shares, abs=0.02)


def test_the_pace_is_smoothed_by_the_builds_before() -> None:
    meter = ProgressMeter(pace=Pace(ROWS // 2, 15.0, EVEN))
    a_build(meter, Pace(ROWS, 10.0, SLOWING), 10.0)
    found = meter.pace(10.0)
    assert found is not None
    assert (found.rows, found.whole_s) == (ROWS, 20.0)
    assert found.shares == pytest.approx([(a + b) / 2 for a, b in zip(EVEN, SLOWING, strict=True)], abs=0.02)


def test_few_measurements_give_a_pace() -> None:
    meter = ProgressMeter()
    meter.begin(5.0)
    meter.measure(6.0, ROWS, ROWS // 2, 0, 0.0, 0.0)
    meter.measure(7.0, ROWS, ROWS, 0, 0.0, 0.0)
    meter.validating(8.0)
    found = meter.pace(9.0)
    assert found is not None
    assert found.shares == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.75])


def test_an_empty_build_has_a_pace() -> None:
    meter = ProgressMeter()
    meter.measure(1.0, 0, 0, 0, 0.0, 0.0)
    meter.validating(1.0)
    found = meter.pace(2.0)
    assert found is not None
    assert found.rows == 0
    assert found.shares == pytest.approx([0.05 * tenth for tenth in range(1, TENTHS + 1)] + [0.5])
    again = ProgressMeter(pace=found)
    again.measure(1.0, ROWS, ROWS // 2, 0, 0.0, 0.0)
    assert again.read(1.0)[1] is not None


def test_time_passes_between_two_measurements() -> None:
    meter = ProgressMeter(pace=Pace(ROWS, 10.0, EVEN))
    meter.measure(2.0, ROWS, ROWS // 4, 0, 0.0, 0.0)
    assert meter.read(4.0)[1] == pytest.approx(6.0)


def test_work_that_is_overdue_is_not_about_to_end() -> None:
    meter = ProgressMeter(pace=Pace(ROWS, 10.0, EVEN))
    meter.measure(7.9, ROWS, ROWS - 1, 0, 0.0, 0.0)
    meter.validating(8.0)
    percents = []
    for late_s in (3.0, 10.0, 100.0):
        percent, left_s = meter.read(8.0 + late_s)
        assert left_s == pytest.approx(OVERDUE * late_s)
        percents.append(percent)
    assert percents == sorted(percents)
    assert percents[-1] < 99.95


def test_the_eta_rises_when_the_copy_slows_down() -> None:
    meter = ProgressMeter()
    meter.measure(5.0, ROWS, ROWS // 2, 0, 0.0, 0.0)
    percent, left_s = meter.read(5.0)
    meter.measure(10.0, ROWS, ROWS // 2 + 1_000, 0, 0.0, 0.0)
    again, more_s = meter.read(10.0)
    assert left_s is not None
    assert more_s is not None
    assert again > percent
    assert more_s > left_s


def test_a_backlog_counts_by_what_the_replay_gains_on_the_writers() -> None:
    meter = ProgressMeter(pace=Pace(ROWS, 10.0, [1.0] * (TENTHS + 1)))
    meter.measure(10.0, ROWS, ROWS, 3_000, 1_000.0, 400.0)
    assert meter.read(10.0)[1] == pytest.approx(5.0)
    meter.measure(10.0, ROWS, ROWS, 3_000, 0.0, 0.0)
    assert meter.read(10.0)[1] == pytest.approx(3_000 / CATCH_UP_RATE)


def test_a_build_that_goes_on_counts_its_speed_from_there() -> None:
    """Its rows of before say nothing of how fast it is now; and its time is not that of a whole build."""
    meter = ProgressMeter(70.0, goes_on=True)
    meter.begin(100.0, goes_on=True)
    meter.measure(100.0, ROWS, 0, 0, 0.0, 0.0)
    assert meter.read(100.0) == (70.0, None)
    meter.measure(101.0, ROWS, ROWS // 2, 0, 0.0, 0.0, ROWS // 2)
    assert meter.read(101.0) == (70.0, None)
    meter.measure(103.0, ROWS, ROWS, 0, 0.0, 0.0, ROWS // 2)
    percent, left_s = meter.read(103.0)
    half, whole = ASSUMED.shares[4], ASSUMED.shares[9]
    assert left_s == pytest.approx(2.0 / (whole - half) * (1.0 - whole))
    assert percent > 70.0
    meter.validating(104.0)
    assert meter.pace(105.0) is None
    meter.finish()
    assert meter.read(105.0) == (100.0, None)


def test_a_build_that_goes_on_before_its_first_stored_percent_is_where_its_rows_are() -> None:
    """The rows of its earlier builder are its percent, and not its speed; its time is the pace of no build."""
    meter = ProgressMeter(0.0, Pace(ROWS, 10.0, EVEN), goes_on=True)
    meter.begin(0.0, goes_on=True)
    assert meter.read(0.5) == (0.0, None), "where it is has not been read yet"
    meter.measure(1.0, ROWS, ROWS // 2, 0, 0.0, 0.0, ROWS // 2)
    percent, left_s = meter.read(1.0)
    assert percent == pytest.approx(100 * EVEN[4])
    assert left_s == pytest.approx(10.0 * (1 - EVEN[4]))
    meter.measure(9.0, ROWS, ROWS, 0, 0.0, 0.0, ROWS // 2)
    assert meter.read(9.0)[1] == pytest.approx(4.0), "it copies half as fast as the last build"
    meter.validating(9.0)
    assert meter.pace(13.0) is None


def test_the_rows_of_shards_that_report_late_are_no_speed() -> None:
    """Two shards, one after the other, of a build that was cut off in the second one."""
    meter = ProgressMeter(0.0, Pace(ROWS, 10.0, EVEN), goes_on=True)
    meter.begin(0.0, goes_on=True)
    meter.measure(1.0, ROWS, ROWS // 2, 0, 0.0, 0.0, ROWS // 2)
    meter.measure(1.0, ROWS, ROWS * 3 // 4, 0, 0.0, 0.0, ROWS * 3 // 4)
    percent, left_s = meter.read(1.0)
    assert percent == pytest.approx(100 * (EVEN[6] + EVEN[7]) / 2)
    assert left_s == pytest.approx(10.0 - percent / 10)


def test_a_build_that_goes_on_behind_its_copy_is_not_done_in_a_moment() -> None:
    known, unknown = ProgressMeter(0.0, Pace(ROWS, 10.0, EVEN), goes_on=True), ProgressMeter(goes_on=True)
    for meter in (known, unknown):
        meter.begin(0.0, goes_on=True)
        meter.measure(0.5, ROWS, ROWS, 0, 0.0, 0.0, ROWS)
    assert known.read(0.5)[1] == pytest.approx(10.0 * (1 - EVEN[-2]))
    assert unknown.read(0.5)[1] is None, "nothing was measured, and no pace is known"


def test_a_paused_build_has_no_eta_and_its_pause_does_not_count() -> None:
    meter = ProgressMeter(pace=Pace(ROWS, 10.0, EVEN))
    meter.measure(4.0, ROWS, ROWS // 2, 0, 0.0, 0.0)
    percent, left_s = meter.read(4.0)
    meter.work(4.0, 0.0)
    meter.work(5.0, 0.0)
    assert meter.read(1_000.0) == (percent, None)
    meter.work(1_000.0, 1.0)
    assert list(meter.read(1_000.0)) == pytest.approx([percent, left_s])
    meter.measure(1_004.0, ROWS, ROWS, 0, 0.0, 0.0)
    assert meter.read(1_004.0)[1] == pytest.approx(2.0)


def test_a_throttled_build_takes_so_much_longer_but_for_its_validation() -> None:
    """The ETA knows at once; and the pace is that of full speed."""
    meter = ProgressMeter(pace=Pace(ROWS, 10.0, EVEN))
    meter.measure(4.0, ROWS, ROWS // 2, 0, 0.0, 0.0)
    meter.work(4.0, 0.25)
    assert meter.read(4.0)[1] == pytest.approx(4.0 / 0.25 + 2.0)
    assert meter.read(8.0)[1] == pytest.approx(3.0 / 0.25 + 2.0)
    meter.measure(8.0, ROWS, ROWS * 5 // 8, 0, 0.0, 0.0)
    assert meter.read(8.0)[1] == pytest.approx(3.0 / 0.25 + 2.0)
    meter.measure(20.0, ROWS, ROWS, 0, 0.0, 0.0)
    meter.validating(20.0)
    assert meter.read(20.0)[1] == pytest.approx(2.0)
    found = meter.pace(22.0)
    assert found is not None
    assert found.whole_s == pytest.approx(10.0)
    assert found.shares == pytest.approx(EVEN, abs=0.02)


def test_a_throttled_build_that_goes_on_is_not_nearly_done() -> None:
    """The first slice is copied at full speed; only the rest behind it makes its pace a twentieth."""
    meter = ProgressMeter(60.0, other=Pace(ROWS, 10.0, EVEN), goes_on=True)
    meter.begin(0.0, goes_on=True)
    meter.work(0.0, 0.05)
    percents = []
    for slice_ in range(8):  # 0.1 s of work, 1.9 s of rest
        at = 0.1 + 2.0 * slice_
        meter.measure(at, ROWS, ROWS * 6 // 10 + 1000 * (slice_ + 1), 0, 0.0, 0.0, ROWS * 6 // 10)
        percents.append(meter.read(at)[0])
    assert percents[-1] < 75.0, percents
