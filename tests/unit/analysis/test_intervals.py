"""Statistics: quantiles as scipy gives them, intervals with known values, and what any estimate must be true to."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import PROPERTY, launch_values

from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.statistics.intervals import (
    LAUNCH_SD,
    block_weights,
    estimate,
    launch_deviation,
    median_error,
    min_samples,
    order_bounds,
    prior_weight,
    ratio_of,
    relative_error,
    t_quantile,
    wilson_interval,
)
from pytest_mlpatterns.records.launch import LaunchValue

LAUNCHES = st.lists(
    st.builds(LaunchValue, st.floats(min_value=1e-3, max_value=1e9), st.floats(min_value=0, max_value=0.2)),
    min_size=1,
    max_size=6,
)
SCALES = st.floats(min_value=1e-3, max_value=1e3)


def scaled(launches: list[LaunchValue], factor: float) -> list[LaunchValue]:
    return [LaunchValue(launch.value * factor, launch.relative_error) for launch in launches]


@each_row(
    ("percentile", "confidence", "needed"),
    [(99, 0.99, 459), (95, 0.99, 90), (90, 0.99, 44), (50, 0.99, 7), (99.9, 0.99, 4603), (95, 0.95, 59), (1, 0.99, 1)],
)
def test_a_percentile_needs_so_many_samples(percentile: float, confidence: float, needed: int) -> None:
    assert min_samples(percentile, confidence) == needed


@each_row("wrong", [0, 100, -1, 101, math.nan, 0.99, 0.5])
def test_a_percentile_that_does_not_exist_or_is_a_quantile_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="percentile") as caught:
        min_samples(wrong)
    assert str(caught.value) == f"percentile is {wrong!r}, expected at least 1 and less than 100; write 99 for p99"


@pytest.mark.parametrize("confidence", [0.95, 0.99])
def test_the_quantile_of_student_is_that_of_scipy(confidence: float) -> None:
    from scipy.stats import t as student  # slow to load

    degrees = np.arange(2, 101)
    found = [t_quantile(confidence, one) for one in degrees.tolist()]
    assert found == pytest.approx(student.ppf(0.5 + confidence / 2, degrees), rel=1e-3)


@PROPERTY
@given(st.integers(min_value=1, max_value=400))
def test_block_weights_are_whole_counts_whose_rows_sum_to_the_blocks(blocks: int) -> None:
    weights = block_weights(blocks)
    assert weights.shape == (200, blocks)
    assert np.all(weights.sum(axis=1) == blocks)
    assert np.all(weights >= 0)
    assert np.all(weights == np.round(weights))


def test_block_weights_are_the_same_at_every_call_and_differ_between_resamples() -> None:
    assert np.array_equal(block_weights(12), block_weights(12))
    assert np.unique(block_weights(12), axis=0).shape[0] > 100


def test_blocks_are_drawn_with_their_neighbours() -> None:
    """Weights of blocks side by side go together, which those of a plain bootstrap do not (they avoid each other)."""
    weights = block_weights(60)
    beside = np.corrcoef(weights[:, :-1].ravel(), weights[:, 1:].ravel())[0, 1]
    apart = np.corrcoef(weights[:, :-10].ravel(), weights[:, 10:].ravel())[0, 1]
    assert beside > 0.5
    assert abs(apart) < 0.1


def test_resampling_favours_no_block() -> None:
    assert block_weights(24).mean(axis=0) == pytest.approx(1.0, abs=0.35)


def test_a_relative_error_is_the_deviation_of_the_logarithms_of_two_values_above_zero() -> None:
    assert relative_error(np.array([1.0, math.e])) == pytest.approx(0.5)
    for values in ([7.0, 7.0, 7.0], [], [3.0], [0.0, 0.0], [0.0, 3.0]):
        assert relative_error(np.array(values)) == 0.0


def test_the_error_of_a_median_is_about_that_of_many_repetitions() -> None:
    rng = np.random.default_rng(5)
    runs = 100 * np.exp(rng.normal(0, 0.05, size=(400, 31)))
    seen = np.std(np.log(np.median(runs, axis=1)))
    told = np.median([median_error(list(run)) for run in runs])
    assert told == pytest.approx(seen, rel=0.2)


def test_the_error_of_a_median_does_not_count_a_stray_value() -> None:
    plain = median_error([98.0, 99.0, 100.0, 101.0, 102.0])
    assert median_error([98.0, 99.0, 100.0, 101.0, 10_000.0]) == plain
    assert plain == pytest.approx(math.sqrt(math.pi / 2) * 1.4826 / (100 * math.sqrt(5)))
    assert median_error([3.0]) == median_error([0.0, 0.0, 5.0]) == median_error([7.0, 7.0]) == 0.0


@PROPERTY
@given(LAUNCHES, SCALES)
def test_scaling_all_launches_scales_the_estimate(launches: list[LaunchValue], factor: float) -> None:
    plain, larger = estimate(launches, LAUNCH_SD), estimate(scaled(launches, factor), LAUNCH_SD)
    assert (larger.value, larger.low, larger.high) == pytest.approx(
        (plain.value * factor, plain.low * factor, plain.high * factor)
    )


@PROPERTY
@given(LAUNCHES)
def test_an_estimate_lies_within_its_interval_and_its_launches(launches: list[LaunchValue]) -> None:
    found = estimate(launches, LAUNCH_SD)
    values = [launch.value for launch in launches]
    assert found.low < found.value < found.high
    assert min(values) * (1 - 1e-9) <= found.value <= max(values) * (1 + 1e-9)


@PROPERTY
@given(LAUNCHES, st.randoms(use_true_random=False))
def test_the_order_of_launches_does_not_matter(launches: list[LaunchValue], random: object) -> None:
    mixed = list(launches)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    one, other = estimate(launches, LAUNCH_SD), estimate(mixed, LAUNCH_SD)
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))


@PROPERTY
@given(LAUNCHES, st.floats(min_value=1.01, max_value=10))
def test_a_slower_launch_raises_the_estimate(launches: list[LaunchValue], factor: float) -> None:
    slower = [*scaled(launches[:1], factor), *launches[1:]]
    assert estimate(slower, LAUNCH_SD).value > estimate(launches, LAUNCH_SD).value


@PROPERTY
@given(LAUNCHES)
def test_more_confidence_and_more_doubt_widen_the_interval(launches: list[LaunchValue]) -> None:
    surer = estimate(launches, LAUNCH_SD, 0.99)
    plain = estimate(launches, LAUNCH_SD, 0.95)
    assert surer.low < plain.low < plain.high < surer.high or plain.high / plain.low > 1e6
    one = launches[:1]
    plain = estimate(one, LAUNCH_SD)
    for wider in (
        estimate(one, 2 * LAUNCH_SD),
        estimate([LaunchValue(one[0].value, one[0].relative_error + 0.1)], LAUNCH_SD),
    ):
        assert wider.low <= plain.low < plain.high <= wider.high


def test_scattered_launches_of_another_sample_widen_the_interval_and_alike_ones_narrow_it() -> None:
    launches = [LaunchValue(100.0, 0.0), LaunchValue(101.0, 0.0)]
    plain = estimate(launches, LAUNCH_SD)
    apart = estimate(launches, LAUNCH_SD, scatter=[LaunchValue(value, 0.0) for value in (50.0, 60.0, 70.0)])
    alike = estimate(launches, LAUNCH_SD, scatter=[LaunchValue(value, 0.0) for value in (50.0, 50.1, 50.2)])
    assert plain.value == apart.value == alike.value
    assert apart.low < plain.low < alike.low < alike.high < plain.high < apart.high


def test_values_at_zero_of_another_sample_have_no_scatter() -> None:
    launches = [LaunchValue(100.0, 0.0)]
    assert estimate(launches, LAUNCH_SD, scatter=[LaunchValue(0.0, 0.0)]) == estimate(launches, LAUNCH_SD)


def test_a_contradicted_prior_is_worth_less() -> None:
    assert prior_weight(2, 1.0, scatter=0.0, degrees=0) == 2
    assert prior_weight(2, 1.0, scatter=5.0, degrees=5) == 2
    assert prior_weight(2, 1.0, scatter=500.0, degrees=5) == pytest.approx(2 * 7 / 502)


@pytest.mark.parametrize("sd", [0.017, 0.04, 0.08])
def test_wrong_verdicts_at_a_limit_stay_rare_if_a_baseline_shows_the_scatter(sd: float) -> None:
    """At a small size: 2.5 % are meant over all looks; ``benchmarks/verdict_simulation.py`` counts thousands."""
    rng = np.random.default_rng(11)
    plan = SequentialPlan(first=1, last=8, alpha=0.02)
    wrong = 0
    for _ in range(400):
        before, values = (
            [LaunchValue(float(value), 0.0) for value in np.exp(rng.normal(0, sd, count))] for count in (6, 8)
        )
        for count in range(2, 9):
            found = estimate(values[:count], LAUNCH_SD, plan.confidence(count), scatter=before)
            if found.low > 1:
                wrong += 1
                break
    assert wrong / 400 < 0.04


def test_agreeing_launches_narrow_the_interval_and_disagreeing_ones_widen_it() -> None:
    widths = [estimate([LaunchValue(100.0, 0.01)] * count, LAUNCH_SD) for count in range(1, 8)]
    assert all(more.high - more.low < fewer.high - fewer.low for fewer, more in itertools.pairwise(widths))
    apart = estimate([LaunchValue(80.0, 0.01), LaunchValue(126.0, 0.01)], LAUNCH_SD)
    assert apart.high / apart.low > widths[1].high / widths[1].low


def test_an_estimate_of_one_launch_follows_the_formula_of_its_docstring() -> None:
    from scipy.stats import t as student  # slow to load

    half = student.ppf(0.975, 2) * math.sqrt(LAUNCH_SD**2 + 0.02**2)
    found = estimate([LaunchValue(50.0, 0.02)], LAUNCH_SD)
    assert found.value == pytest.approx(50.0)
    assert found.low == pytest.approx(50 * math.exp(-half), rel=1e-3)
    assert found.high == pytest.approx(50 * math.exp(half), rel=1e-3)


@pytest.mark.parametrize(
    ("values", "launch_sd"), [([10.0, 14.0, 12.0], 0.0), ([0.0, 14.0, 22.0], 0.017), ([-3.0, 39.0, 0.0], 0.017)]
)
def test_values_without_variance_or_at_zero_have_their_range_as_interval(values: list[float], launch_sd: float) -> None:
    found = estimate([LaunchValue(value, 0.05) for value in values], launch_sd)
    assert (found.value, found.low, found.high) == (12.0, min(values), max(values))


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    runs = [estimate(launch_values(rng, 1000.0, 3), LAUNCH_SD) for _ in range(500)]
    assert sum(run.low <= 1000.0 <= run.high for run in runs) / len(runs) >= 0.93


def test_no_interval_reaches_far_beyond_what_was_seen() -> None:
    """Student's t of two launches that differ by a factor of 50 alone gives 15 ns to 700 s."""
    apart = [LaunchValue(2e6, 0.0), LaunchValue(100e6, 0.0)]
    found = estimate(apart, LAUNCH_SD, 0.99)
    assert (found.low, found.high) == pytest.approx((2e6 / 1.904, 100e6 * 1.904), rel=1e-3)
    change = ratio_of(apart, [LaunchValue(1e6, 0.0)], LAUNCH_SD)
    assert (change.low, change.high) == pytest.approx((2 / 2.486, 100 * 2.486), rel=1e-3)


@PROPERTY
@given(LAUNCHES, LAUNCHES)
def test_a_ratio_turned_round_is_its_own_inverse(present: list[LaunchValue], baseline: list[LaunchValue]) -> None:
    one, other = ratio_of(present, baseline, LAUNCH_SD), ratio_of(baseline, present, LAUNCH_SD)
    assert (one.value, one.low, one.high) == pytest.approx((1 / other.value, 1 / other.high, 1 / other.low))


@PROPERTY
@given(LAUNCHES, LAUNCHES, st.floats(min_value=1.01, max_value=10))
def test_a_slower_present_raises_the_ratio_by_its_factor(
    present: list[LaunchValue], baseline: list[LaunchValue], factor: float
) -> None:
    one = ratio_of(present, baseline, LAUNCH_SD)
    slower = ratio_of(scaled(present, factor), baseline, LAUNCH_SD)
    assert (slower.value, slower.low, slower.high) == pytest.approx(
        (one.value * factor, one.low * factor, one.high * factor)
    )


def test_a_ratio_of_one_launch_each_follows_the_formula_of_its_docstring() -> None:
    from scipy.stats import t as student  # slow to load

    found = ratio_of([LaunchValue(60.0, 0.03)], [LaunchValue(50.0, 0.01)], LAUNCH_SD)
    half = student.ppf(0.995, 2) * math.sqrt(2 * (LAUNCH_SD**2 + (0.03**2 + 0.01**2) / 2))
    assert found.value == pytest.approx(1.2)
    assert found.low == pytest.approx(1.2 * math.exp(-half), rel=2e-3)
    assert found.high == pytest.approx(1.2 * math.exp(half), rel=2e-3)


@PROPERTY
@given(st.integers(1, 100_000).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_the_interval_of_a_share_is_that_of_scipy(counted: tuple[int, int]) -> None:
    from scipy.stats import binomtest  # slow to load

    events, trials = counted
    for confidence, found in ((0.95, wilson_interval(events, trials)), (0.99, wilson_interval(events, trials, 0.99))):
        known = binomtest(events, trials).proportion_ci(confidence, method="wilson")
        assert found.value == events / trials
        assert found.low == pytest.approx(known.low, abs=1e-9)
        assert found.high == pytest.approx(known.high, abs=1e-9)


class TestOrderBounds:
    @each_row(
        ("samples", "percentile", "expected"),
        (5, 50, (0, 4)),
        (10, 50, (1, 8)),  # as tabulated: the 2nd and the 9th of ten bound the median at 97.9 %
        (20, 50, (5, 14)),
        (100, 50, (39, 60)),
        (100, 90, (83, 95)),
    )
    def test_order_bounds_equal_the_tables(self, samples: int, percentile: float, expected: tuple[int, int]) -> None:
        assert order_bounds(samples, percentile) == expected

    def test_samples_that_weigh_less_than_one_bound_by_the_least_and_the_most(self) -> None:
        assert order_bounds(3, 99, dispersion=9) == (0, 2)

    @each_row(("samples", "percentile"), [(50, 50), (90, 95), (459, 99), (5000, 99.9), (1_000_000, 99)])
    @each_row("confidence", [0.9, 0.99])
    def test_order_bounds_are_the_narrowest_that_hold(self, samples: int, percentile: float, confidence: float) -> None:
        from scipy.stats import binom  # slow to load

        low, high = order_bounds(samples, percentile, confidence)
        below, tail = binom(samples, percentile / 100).cdf, (1 - confidence) / 2
        if low > 0:
            assert below(low) <= tail < below(low + 1)
        if high < samples - 1:
            assert 1 - below(high) <= tail < 1 - below(high - 1)

    def test_order_bounds_hold_the_percentile_of_any_distribution(self) -> None:
        rng, held = np.random.default_rng(8), 0
        low, high = order_bounds(300, 95)
        for _ in range(2000):
            values = np.sort(rng.pareto(1.5, 300))
            held += values[low] <= 20 ** (1 / 1.5) - 1 <= values[high]
        assert held / 2000 == pytest.approx(0.96, abs=0.02)

    @PROPERTY
    @given(st.integers(1, 3000), st.floats(0.1, 99.9), st.floats(0.5, 0.999))
    def test_order_bounds_are_samples_in_order(self, samples: int, percentile: float, confidence: float) -> None:
        low, high = order_bounds(samples, percentile, confidence)
        assert 0 <= low <= high < samples


class TestDeviationOfALaunch:
    def test_launches_that_agree_are_known_as_well_as_their_blocks_say(self) -> None:
        alike = [LaunchValue(5e6, 0.02)] * 4
        assert launch_deviation(alike) == pytest.approx(0.02 * math.sqrt(2 / 5))
        before, after = [LaunchValue(5e6, 0.01)] * 3, [LaunchValue(9e6, 0.01)] * 3  # slower as a whole: no scatter
        assert launch_deviation(before, after) == pytest.approx(0.01 * math.sqrt(2 / 6))

    def test_launches_that_jump_are_badly_known_and_those_without_a_logarithm_not_at_all(self) -> None:
        jumping = [LaunchValue(value, 0.002) for value in (190e6, 375e6, 190e6, 375e6)]
        assert launch_deviation(jumping) > 0.25
        for unknown in ([], [LaunchValue(0.0, 0.0)], [LaunchValue(math.inf, 0.0)]):
            assert launch_deviation([LaunchValue(5e6, 0.01)], unknown) == math.inf

    @PROPERTY
    @given(LAUNCHES, LAUNCHES, SCALES)
    def test_units_do_not_matter(self, first: list[LaunchValue], second: list[LaunchValue], factor: float) -> None:
        found = launch_deviation(first, second)
        assert launch_deviation(scaled(first, factor), second) == pytest.approx(found, rel=1e-6, abs=1e-9)
