"""The interval of a percentile: launches that differ in speed, and shares of requests where times have two modes."""

import math
from statistics import median

import numpy as np
import pytest
from support.each_row import each_row
from support.synthetic import MS, S

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.metrics.metric_makers import percentile_metric
from pytest_mlpatterns.analysis.metrics.percentile_estimate import LaunchTimes, PooledTimes
from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.statistics.intervals import estimate, order_bounds
from pytest_mlpatterns.errors import InvalidResultError, TooFewSamplesError
from pytest_mlpatterns.records.launch import Estimate, LaunchValue

RTM = METRICS["rtm"]
LOW, HIGH = 190 * MS, 375 * MS


def two_modes(low: int, high: int, *, speed: float = 1.0, spread: float = 0.03) -> LaunchTimes:
    """One launch with so many requests in each mode, evenly spread around both."""
    modes = [
        middle * np.exp(spread * np.linspace(-1.7, 1.7, count)) for middle, count in ((LOW, low), (HIGH, high)) if count
    ]
    return LaunchTimes(np.sort(np.concatenate(modes)) * speed)


def one_mode(count: int, *, middle: float = 20 * MS, spread: float = 0.1) -> LaunchTimes:
    return LaunchTimes(middle * np.exp(spread * np.linspace(-1.7, 1.7, count)))


def values_of(launches: list[LaunchTimes], percentile: float = 50) -> list[LaunchValue]:
    return [LaunchValue(float(np.percentile(one.ascending, percentile)), 0.01) for one in launches]


def found(launches: list[LaunchTimes], percentile: float = 50, confidence: float = 0.99) -> Estimate:
    values = values_of(launches, percentile)
    return PooledTimes(launches).estimate(percentile_metric(percentile), percentile, values, confidence=confidence)


def test_medians_that_jump_between_two_modes_are_not_beyond_both() -> None:
    launches = [two_modes(10, 14), two_modes(14, 10), two_modes(11, 13)]
    by_launches = estimate(values_of(launches), RTM.launch_sd, 0.99)
    assert by_launches.low < LOW / 1.8  # what launches alone say
    assert by_launches.high > HIGH * 1.8
    interval = found(launches)
    assert LOW / 1.3 < interval.low < LOW * 1.1
    assert HIGH / 1.1 < interval.high < HIGH * 1.3


def test_one_share_below_half_in_each_launch_does_not_show_that_the_median_is_in_the_upper_mode() -> None:
    launches = [two_modes(400, 600), two_modes(450, 550), two_modes(420, 580), two_modes(440, 560)]
    values = values_of(launches)
    assert min(value.value for value in values) > HIGH / 1.1
    pooled = np.sort(np.concatenate([one.ascending for one in launches]))
    assert pooled[order_bounds(pooled.size, 50, 0.98)[0]] > HIGH / 1.1  # if requests were independent
    assert found(launches, confidence=0.98).low < LOW * 1.1


def test_shares_that_differ_leave_the_mode_of_a_tail_open_and_those_far_from_the_percentile_decide_it() -> None:
    launches = [two_modes(9800, 200), two_modes(8900, 1100), two_modes(9700, 300), two_modes(9000, 1000)]
    pooled = np.sort(np.concatenate([one.ascending for one in launches]))
    assert pooled[order_bounds(pooled.size, 95, 0.99)[0]] > HIGH / 1.1  # if requests were independent
    assert found(launches, 95).low < LOW * 1.1
    launches = [two_modes(200, 800), two_modes(190, 810), two_modes(210, 790), two_modes(195, 805)]
    assert found(launches).low > 300 * MS


@pytest.mark.parametrize(("middles_ms", "spread"), [((20.0, 20.3, 19.8), 0.1), ((20.0, 21.0, 19.2, 20.4), 0.005)])
def test_launches_of_one_mode_have_their_interval_though_they_differ_in_speed(
    middles_ms: tuple[float, ...], spread: float
) -> None:
    launches = [one_mode(2000, middle=middle * MS, spread=spread) for middle in middles_ms]
    assert found(launches) == estimate(values_of(launches), RTM.launch_sd, 0.99)


def test_launches_of_a_baseline_widen_the_interval_where_one_mode_differs_in_speed() -> None:
    launches = [one_mode(2000)]
    scatter = [LaunchValue(value * MS, 0.01) for value in (18.0, 20.0, 22.0, 19.0, 21.5, 20.5)]
    values = values_of(launches)
    interval = PooledTimes(launches).estimate(RTM, 50, values, confidence=0.99, scatter=scatter)
    expected = estimate(values, RTM.launch_sd, 0.99, scatter=scatter)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), rel=0.05)
    few = [one_mode(2000), one_mode(2000)]  # two launches that happen to agree
    alone, known = (
        PooledTimes(few).estimate(RTM, 50, values_of(few), confidence=0.95, scatter=recorded)
        for recorded in ((), scatter)
    )
    assert known.high / known.low > alone.high / alone.low


def test_medians_of_a_baseline_that_jump_between_two_modes_do_not_widen_it_beyond_both() -> None:
    launches = [two_modes(10, 14), two_modes(12, 12)]
    scatter = [LaunchValue(value * MS, 0.01) for value in (190.0, 373.0, 191.0, 280.0, 375.0)]
    interval = PooledTimes(launches).estimate(RTM, 50, values_of(launches), confidence=0.98, scatter=scatter)
    assert LOW / 1.3 < interval.low < interval.high < HIGH * 1.3


@pytest.mark.parametrize("percentile", [50, 90])
def test_the_interval_holds_the_bounds_of_order_statistics(percentile: float) -> None:
    launches = [one_mode(60, spread=0.7), one_mode(60, spread=0.7)]
    pooled = np.sort(np.concatenate([one.ascending for one in launches]))
    low, high = order_bounds(pooled.size, percentile, 0.99)
    interval = found(launches, percentile)
    assert interval.low <= pooled[low]
    assert interval.high >= pooled[high]
    assert interval.low <= interval.value <= interval.high


def test_failed_requests_are_the_latest() -> None:
    launches = [LaunchTimes(one_mode(40).ascending, infinite=60)]
    interval = PooledTimes(launches).estimate(RTM, 50, [LaunchValue(math.inf, 0.0)], confidence=0.95)
    assert interval.high == interval.value == math.inf
    assert interval.low > 20 * MS


def test_launches_without_a_request_do_not_count() -> None:
    some = [one_mode(100), one_mode(100, middle=20.2 * MS)]
    with_none, alone = (
        PooledTimes(times).estimate(RTM, 50, values_of(some), confidence=0.95)
        for times in ([*some, LaunchTimes(np.zeros(0))], some)
    )
    assert with_none == alone


def test_no_value_and_too_few_of_them_are_refused() -> None:
    with pytest.raises(InvalidResultError, match="no request succeeded, so there is no median latency"):
        PooledTimes([]).estimate(RTM, 50, [], confidence=0.95)
    with pytest.raises(TooFewSamplesError, match="median latency of 1 sample, expected at least 2") as caught:
        found([one_mode(1)])
    assert (caught.value.needed, caught.value.found) == (2, 1)


@pytest.mark.parametrize(("answers_s", "limit_s"), [((3.04, 3.71), 2.0), ((3.0, 3.0), 2.0), ((2.9, 3.1, 3.3), 2.2)])
def test_two_answers_that_take_half_longer_are_beyond_a_limit(answers_s: tuple[float, ...], limit_s: float) -> None:
    few = found([LaunchTimes(np.array(answers_s) * S)], confidence=SequentialPlan(1, 8, alpha=0.02).confidence(1))
    assert few.low > limit_s * S
    assert few.high < 1.5 * answers_s[-1] * S


@each_row("count", [2, 3, 6])
@each_row("sd", [0.05, 0.25])
def test_the_interval_of_a_few_answers_covers_their_median(count: int, sd: float) -> None:
    times = np.sort(np.exp(np.random.default_rng(5).normal(0, sd, (2000, count))), axis=1) * S
    ranges = [found([LaunchTimes(one)]) for one in times]
    assert sum(one.low <= S <= one.high for one in ranges) / 2000 >= 0.985


def test_modes_are_those_of_launches_brought_to_one_speed() -> None:
    launches = [two_modes(100, 100, speed=speed) for speed in (0.9, 1.0, 1.1)]
    modes = PooledTimes(launches).modes
    assert modes.high / modes.low == pytest.approx(HIGH / LOW, rel=0.02)
    assert modes.low_share == pytest.approx(0.5)


def test_launches_of_two_speeds_are_no_two_modes() -> None:
    launches = [one_mode(200, middle=middle * MS, spread=0.01) for middle in (16.0, 22.0, 16.2, 22.2)]
    assert median(value.value for value in values_of(launches)) > 16 * MS
    assert PooledTimes(launches).modes is None
    assert PooledTimes([]).modes is None
