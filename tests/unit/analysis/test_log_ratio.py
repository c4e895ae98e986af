"""Ratios of paired launches: known intervals, exact boundaries, what looks cost, how often the verdict is wrong."""

import math
from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import PROPERTY

from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.statistics.log_ratio import (
    RATIO_SD,
    LogRatio,
    RatioPrior,
    judge_ratio,
    paired_log_ratio,
    ratio_estimate,
    wants_more_pairs,
)
from pytest_mlpatterns.records.verdict import Outcome

VALUES = st.floats(min_value=-1, max_value=1)
LAUNCHES = st.lists(st.builds(LogRatio, VALUES, st.floats(min_value=0, max_value=0.1)), min_size=1, max_size=8)
POSITIVE = st.floats(min_value=1e-3, max_value=1e9)
PAIRS = st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=9)


def alike(*values: float, error: float = 0.0) -> list[LogRatio]:
    return [LogRatio(value, error) for value in values]


class TestPairs:
    def test_the_ratio_is_the_median_over_pairs_with_its_error_and_without_shared_drift(self) -> None:
        assert paired_log_ratio([1, 2, 4], [2, 4.2, 7]).value == pytest.approx(math.log(2))
        found = paired_log_ratio([1] * 5, [math.exp(x) for x in (-0.02, -0.01, 0, 0.01, 0.02)])
        assert found.value == pytest.approx(0, abs=1e-12)
        assert found.error == pytest.approx(math.sqrt(math.pi / 2) * 1.4826 * 0.01 / math.sqrt(5))
        first = [10.0, 11.0, 13.0, 17.0]
        assert paired_log_ratio(first, [1.05 * value for value in first]).error == pytest.approx(0, abs=1e-12)

    def test_pairs_that_somebody_disturbed_are_left_out_where_three_remain(self) -> None:
        second = [101, 102, 103, 180, 190, 200]
        disturbed = [False] * 3 + [True] * 3
        assert paired_log_ratio([100] * 6, second, disturbed) == paired_log_ratio([100] * 3, second[:3])
        assert paired_log_ratio([100] * 6, second, [True] * 4 + [False] * 2) == paired_log_ratio([100] * 6, second)

    @each_row(
        ("quiet", "pairs", "more"),
        [(6, 6, False), (4, 6, False), (3, 6, True), (1, 6, True), (0, 6, False), (2, 2, False), (1, 2, True)],
    )
    def test_a_launch_that_was_disturbed_in_part_wants_more_pairs(self, quiet: int, pairs: int, more: bool) -> None:
        assert wants_more_pairs([False] * quiet + [True] * (pairs - quiet)) is more

    @PROPERTY
    @given(PAIRS)
    def test_the_other_way_round_it_is_the_opposite(self, pairs: list[tuple[float, float]]) -> None:
        first, second = zip(*pairs, strict=True)
        there, back = paired_log_ratio(first, second), paired_log_ratio(second, first)
        assert (there.value, there.error) == pytest.approx((-back.value, back.error))

    @PROPERTY
    @given(PAIRS, st.floats(min_value=0.01, max_value=100))
    def test_a_slower_side_moves_the_value_alone(self, pairs: list[tuple[float, float]], factor: float) -> None:
        first, second = zip(*pairs, strict=True)
        plain, moved = paired_log_ratio(first, second), paired_log_ratio(first, [value * factor for value in second])
        assert moved.value == pytest.approx(plain.value + math.log(factor))
        assert moved.error == pytest.approx(plain.error, abs=1e-9)


class TestEstimate:
    @each_row("confidence", [0.95, 0.99])
    @each_row("values", [(0.02,), (0.02, 0.05), (-0.01, 0.02, 0.05, 0.0)])
    @each_row("error", [0.0, 0.03])
    def test_with_errors_alike_it_is_a_t_interval_drawn_towards_the_prior(
        self, values: tuple[float, ...], error: float, confidence: float
    ) -> None:
        from scipy.stats import t as student  # slow to load

        n, mean = len(values), sum(values) / len(values)
        scatter = sum((value - mean) ** 2 for value in values)
        prior = RATIO_SD**2 + error**2
        weight = 3 * min(1, prior * (3 + n - 1) / (3 * prior + scatter))
        variance = (weight * prior + scatter) / (weight + n - 1)
        half = student.ppf(0.5 + confidence / 2, weight + n - 1) * math.sqrt(variance / n)
        found = ratio_estimate(alike(*values, error=error), confidence=confidence)
        expected = [math.exp(mean), math.exp(mean - half), math.exp(mean + half)]
        assert [found.value, found.low, found.high] == pytest.approx(expected, rel=2e-4)

    def test_a_launch_that_was_disturbed_hardly_counts(self) -> None:
        quiet = [LogRatio(0.01, 0.01), LogRatio(0.0, 0.012), LogRatio(0.02, 0.008), LogRatio(0.01, 0.01)]
        plain, spoiled = ratio_estimate(quiet), ratio_estimate([*quiet, LogRatio(0.4, 0.3)])
        assert spoiled.value == pytest.approx(plain.value, rel=0.01)
        assert spoiled.high - spoiled.low < 1.2 * (plain.high - plain.low)

    def test_a_strange_launch_that_was_not_disturbed_counts(self) -> None:
        quiet = alike(0.01, 0.0, 0.02, 0.01, error=0.01)
        found = ratio_estimate([*quiet, LogRatio(0.4, 0.01)])
        assert found.value == pytest.approx(math.exp(0.088))
        assert found.high > 1.2

    def test_launches_that_differ_by_more_than_their_errors_weigh_alike(self) -> None:
        """Pairs of one service, whose launches run in one of two ways: an error of two blocks says little."""
        found = [LogRatio(0.384, 0.048), LogRatio(-0.109, 0.141), LogRatio(0.288, 0.002), LogRatio(0.332, 0.031)]
        assert math.log(ratio_estimate(found).value) == pytest.approx(0.28, abs=0.01)  # by their errors 0.32
        plan = SequentialPlan(alpha=0.0125)
        assert judge_ratio(found, 1.1, "lower", plan=plan).outcome is Outcome.INCONCLUSIVE

    def test_more_degrees_for_the_prior_hold_the_interval_nearer_to_it(self) -> None:
        wide = [ratio_estimate(alike(-0.1, 0.1), RatioPrior(degrees=degrees)) for degrees in (3, 10, 100)]
        assert wide[0].high > wide[1].high > wide[2].high

    @PROPERTY
    @given(LAUNCHES)
    def test_the_value_lies_within_its_interval_and_its_launches(self, launches: list[LogRatio]) -> None:
        found = ratio_estimate(launches)
        assert found.low < found.value < found.high
        values = [launch.value for launch in launches]
        assert min(values) - 1e-9 <= math.log(found.value) <= max(values) + 1e-9

    @PROPERTY
    @given(LAUNCHES)
    def test_the_other_way_round_it_is_the_reciprocal(self, launches: list[LogRatio]) -> None:
        there = ratio_estimate(launches)
        back = ratio_estimate([LogRatio(-launch.value, launch.error) for launch in launches])
        assert (there.value, there.low, there.high) == pytest.approx((1 / back.value, 1 / back.high, 1 / back.low))

    @PROPERTY
    @given(LAUNCHES, st.randoms(use_true_random=False))
    def test_the_order_of_launches_does_not_matter(self, launches: list[LogRatio], random: object) -> None:
        mixed = list(launches)
        random.shuffle(mixed)  # type: ignore[attr-defined]
        one, other = ratio_estimate(launches), ratio_estimate(mixed)
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))

    @pytest.mark.simulation
    @each_row("launches", [3, 6, 12])
    @each_row("block_cv", [0.03, 0.06])
    def test_an_interval_of_95_percent_holds_the_truth_as_often(self, launches: int, block_cv: float) -> None:
        """Of 1000 the standard error is 0.7 %; the tests' own bound is a little wider than the 93 to 97 % claimed."""
        rng = np.random.default_rng(31)
        held = 0
        for _ in range(1000):
            found = ratio_estimate([*simulated(rng, 1.0, launches, block_cv=block_cv)])
            held += found.low <= 1.0 <= found.high
        assert 0.925 <= held / 1000 <= 0.98


class TestVerdict:
    @pytest.mark.parametrize("launches", [3, 5, 18])
    def test_the_limit_is_compared_with_the_ends_of_the_interval(self, launches: int) -> None:
        """The interval is taken from the verdict itself; a limit at its ends is on the good side of "at most"."""
        plan = SequentialPlan(first=launches)
        measured = alike(*([0.03, 0.05] * launches)[:launches], error=0.01)
        ends = judge_ratio(measured, 1.0, "lower", plan=plan).judged
        tiny = 1e-9
        for limit, lower in (
            (ends.high + tiny, Outcome.PASS),
            (ends.high, Outcome.PASS),
            (ends.high - tiny, Outcome.INCONCLUSIVE),
            (ends.value, Outcome.INCONCLUSIVE),
            (ends.low, Outcome.INCONCLUSIVE),
            (ends.low - tiny, Outcome.FAIL),
        ):
            assert judge_ratio(measured, limit, "lower", plan=plan).outcome is lower

    def test_at_least_holds_at_the_limit_itself_and_fails_below(self) -> None:
        measured, plan, tiny = alike(1.1, 1.12, 1.08), SequentialPlan(3, 3), 1e-9
        ends = judge_ratio(measured, 1.0, "higher", plan=plan).judged
        limits = (ends.low, ends.low + tiny, ends.high, ends.high + tiny)
        found = [judge_ratio(measured, limit, "higher", plan=plan).outcome for limit in limits]
        assert found == [Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.INCONCLUSIVE, Outcome.FAIL]

    @PROPERTY
    @given(LAUNCHES, st.floats(min_value=0.5, max_value=2))
    def test_at_most_turned_round_is_at_least(self, launches: list[LogRatio], limit: float) -> None:
        turned = [LogRatio(-launch.value, launch.error) for launch in launches]
        there, back = judge_ratio(launches, limit, "lower"), judge_ratio(turned, 1 / limit, "higher")
        assert (there.outcome, there.launches) == (back.outcome, back.launches)

    @PROPERTY
    @given(LAUNCHES, st.floats(min_value=0.5, max_value=2), st.floats(min_value=1, max_value=2))
    def test_a_looser_limit_never_turns_a_pass_into_a_failure(
        self, launches: list[LogRatio], limit: float, looser: float
    ) -> None:
        plan = SequentialPlan(first=len(launches))
        order = [Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS]
        strict, loose = (judge_ratio(launches, one, "lower", plan=plan).outcome for one in (limit, limit * looser))
        assert order.index(loose) >= order.index(strict)

    def test_each_end_of_the_interval_has_the_confidence_of_its_verdict(self) -> None:
        measured = alike(0.01, 0.012, 0.008)
        equal, eased = SequentialPlan(alpha=0.005), SequentialPlan(alpha=0.005, pass_alpha=0.01)
        both = judge_ratio(measured, 0.5, "lower", plan=equal).judged
        lower = judge_ratio(measured, 0.5, "lower", plan=eased).judged
        higher = judge_ratio(measured, 5.0, "higher", plan=eased).judged
        assert lower.low == both.low
        assert lower.high < both.high
        assert higher.high == both.high
        assert higher.low > both.low

    def test_the_first_look_that_decides_stands(self) -> None:
        measured = [*alike(0.0, 0.001, -0.001), *alike(0.4, 0.4, 0.4, 0.4)]
        found = judge_ratio(measured, 1.05, "lower", plan=SequentialPlan(last=8))
        assert (found.outcome, found.launches) == (Outcome.PASS, 3)
        assert found.ratio.value == pytest.approx(1.0)

    def test_nothing_is_looked_at_after_the_last_look(self) -> None:
        undecided = alike(0.05, 0.048, 0.052)
        found = judge_ratio([*undecided, *alike(*[2.0] * 9)], 1.05, "lower", plan=SequentialPlan(last=3))
        assert (found.outcome, found.launches) == (Outcome.INCONCLUSIVE, 3)

    def test_a_wider_prior_is_less_sure(self) -> None:
        measured = alike(0.0, 0.001, -0.001)
        assert judge_ratio(measured, 1.05, "lower").outcome is Outcome.PASS
        assert judge_ratio(measured, 1.05, "lower", prior=RatioPrior(0.1)).outcome is Outcome.INCONCLUSIVE

    def test_the_shown_interval_is_the_one_of_95_percent(self) -> None:
        measured = alike(0.1, 0.12, 0.11)
        found = judge_ratio(measured, 1.05, "lower")
        assert found.ratio == ratio_estimate(measured)
        assert found.judged.low < found.ratio.low < found.ratio.high < found.judged.high


def simulated(
    rng: np.random.Generator, ratio: float, launches: int, *, launch_sd: float = 0.017, block_cv: float = 0.04
) -> Iterator[LogRatio]:
    """Paired launches of six pairs of blocks A B B A, as a busy machine gives them.

    Blocks vary by ``block_cv`` and are like their neighbours (correlation 0.5); both sides drift together by 5 %; one
    block in fifty was disturbed.
    """
    blocks = 12
    shape = (launches, blocks)
    own = rng.normal(0, block_cv * math.sqrt(0.5), shape)
    shared = np.repeat(rng.normal(0, block_cv * math.sqrt(0.5), (launches, blocks // 2)), 2, axis=1)
    moment = np.arange(launches * blocks).reshape(shape) * 0.35
    drift = 0.05 * np.sin(2 * math.pi * moment / rng.uniform(30, 150) + rng.uniform(0, 7))
    busy = (rng.random(shape) < 0.02) * rng.exponential(0.3, shape)
    log = own + shared + drift + busy
    is_second = np.tile([False, True, True, False], blocks // 4) ^ (np.arange(launches) % 2 == 1)[:, None]
    log = np.exp(log + is_second * (math.log(ratio) + rng.normal(0, launch_sd, (launches, 1))))
    for row, second in zip(log, is_second, strict=True):
        yield paired_log_ratio(row[~second].tolist(), row[second].tolist())


def outcomes(ratio: float, tolerance: float, trials: int, block_cv: float = 0.04) -> dict[Outcome, float]:
    """Shares of the outcomes of so many whole procedures."""
    rng, plan = np.random.default_rng(33), SequentialPlan.for_tolerance(tolerance)

    def outcome() -> Outcome:
        """As most runs are decided early, the later launches are made only for the others."""
        launches = simulated(rng, ratio, plan.last, block_cv=block_cv)
        measured = [*islice(launches, 6)]
        decided = judge_ratio(measured, 1 + tolerance, "lower", plan=plan).outcome
        if decided is not Outcome.INCONCLUSIVE:
            return decided
        return judge_ratio([*measured, *launches], 1 + tolerance, "lower", plan=plan).outcome

    found = [outcome() for _ in range(trials)]
    return {outcome: found.count(outcome) / trials for outcome in Outcome}


@pytest.mark.simulation
class TestErrors:
    """At a small size; ``benchmarks/paired_simulation.py`` counts thousands."""

    @pytest.mark.parametrize("block_cv", [0.03, 0.045])
    def test_without_a_change_there_is_no_false_alarm_and_twice_the_tolerance_is_caught(self, block_cv: float) -> None:
        unchanged, slower = (outcomes(ratio, 0.05, 300, block_cv) for ratio in (1.0, 1.10))
        assert unchanged[Outcome.FAIL] == slower[Outcome.PASS] == 0
        assert unchanged[Outcome.INCONCLUSIVE] <= 0.03
        assert slower[Outcome.FAIL] >= 0.97

    def test_at_the_limit_itself_either_error_is_rare(self) -> None:
        """One per cent each is meant, whose standard error of 400 is 0.5 %."""
        found = outcomes(1.05, 0.05, 400)
        assert found[Outcome.FAIL] <= 0.025
        assert found[Outcome.PASS] <= 0.025


class TestGuards:
    @pytest.mark.parametrize(
        ("value", "outcome"),
        [(0.0, Outcome.PASS), (0.045, Outcome.PASS), (0.06, Outcome.INCONCLUSIVE), (0.2, Outcome.FAIL)],
    )
    def test_a_guard_fails_surely_suspects_or_passes(self, value: float, outcome: Outcome) -> None:
        assert judge_ratio(alike(value, value, value), 1.05, "lower", equivalence=False).outcome is outcome
        assert judge_ratio(alike(-value, -value, -value), 1 / 1.05, "higher", equivalence=False).outcome is outcome

    def test_a_guard_that_failed_at_an_earlier_look_stays_failed(self) -> None:
        launches = alike(0.2, 0.2, 0.2, -0.1, -0.1, -0.1, -0.1, -0.1)
        assert judge_ratio(launches, 1.05, "lower", equivalence=False).outcome is Outcome.FAIL

    def test_a_guard_passes_at_no_look_for_good(self) -> None:
        launches = alike(*[0.0] * 5, *[0.3] * 13)
        assert judge_ratio(launches, 1.05, "lower").outcome is Outcome.PASS
        assert judge_ratio(launches, 1.05, "lower", equivalence=False).outcome is not Outcome.PASS
