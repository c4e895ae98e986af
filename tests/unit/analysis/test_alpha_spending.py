"""Looks: published boundaries, what all of them together cost, and evidence that grows beside what is there already."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from support.each_row import each_row

from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan


def test_boundaries_are_those_of_lan_and_demets() -> None:
    """Five equal looks at 2.5 % in one direction, with the function near Pocock's boundary, as published."""
    looks = SequentialPlan(first=1, last=5, alpha=0.025)
    z = [NormalDist().inv_cdf(0.5 + looks.confidence(number) / 2) for number in range(1, 6)]
    assert z == pytest.approx([2.438, 2.427, 2.410, 2.397, 2.386], abs=1e-3)


@each_row(
    "looks",
    SequentialPlan(),
    SequentialPlan(last=8),
    SequentialPlan(first=1, last=24, alpha=0.02),
    SequentialPlan(4, 4),
    SequentialPlan(last=11, planned=6, alpha=0.025),
)
def test_all_looks_together_are_wrong_as_seldom_as_they_say(looks: SequentialPlan) -> None:
    rng = np.random.default_rng(32)
    numbers = np.arange(looks.first, looks.last + 1)
    sums = np.cumsum(rng.normal(size=(60_000, looks.last)), axis=1)[:, looks.first - 1 :] / np.sqrt(numbers)
    over = [NormalDist().inv_cdf(0.5 + looks.confidence(int(number)) / 2) for number in numbers]
    wrong = (sums > over).any(axis=1).mean()
    assert wrong == pytest.approx(looks.alpha, abs=5 * math.sqrt(looks.alpha / 60_000))


@pytest.mark.parametrize("looks", [3, 4, 5, 6])
def test_looks_beyond_the_planned_ones_widen_these_by_little(looks: int) -> None:
    def width(plan: SequentialPlan) -> float:
        return NormalDist().inv_cdf(0.5 + plan.confidence(looks) / 2)

    found = width(SequentialPlan(last=11, planned=6))
    assert width(SequentialPlan(last=6)) < found < width(SequentialPlan(last=11))
    assert found < 1.05 * width(SequentialPlan(last=6))


@each_row(("tolerance", "last"), [(0.0, 24), (0.01, 24), (0.025, 24), (0.05, 18), (0.07, 14), (0.1, 14), (0.5, 14)])
def test_a_tighter_tolerance_may_take_more_launches(tolerance: float, last: int) -> None:
    assert SequentialPlan.for_tolerance(tolerance) == SequentialPlan(last=last)


@pytest.mark.parametrize(("most", "last"), [(1, 8), (8, 8), (11, 11), (100, 18)])
def test_alpha_is_not_spent_on_looks_beyond_the_budget(most: int, last: int) -> None:
    looks = SequentialPlan.for_tolerance(0.05, most=most)
    assert looks == SequentialPlan(last=last)
    assert looks.confidence(8) <= SequentialPlan.for_tolerance(0.05).confidence(8)


@pytest.mark.parametrize("wrong", [{"first": 0}, {"first": 9, "last": 8}, {"alpha": 0.0}, {"alpha": 0.5}])
def test_looks_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"expected 1 <= first <= last and alpha between 0 and 0\.5"):
        SequentialPlan(**wrong)  # type: ignore[arg-type]


def test_metrics_share_alpha_but_not_the_alpha_of_a_pass() -> None:
    looks = SequentialPlan(alpha=0.005, pass_alpha=0.01)
    assert looks.confidence(3) == SequentialPlan(alpha=0.005).confidence(3)
    assert looks.confidence_of_pass(3) == SequentialPlan(alpha=0.01).confidence(3) < looks.confidence(3)
    assert SequentialPlan(alpha=0.005).confidence_of_pass(3) == SequentialPlan(alpha=0.005).confidence(3)


def test_launches_outside_the_plan_are_judged_as_at_its_ends() -> None:
    looks = SequentialPlan(first=2, last=5)
    assert looks.confidence(1) == looks.confidence(2)
    assert looks.confidence(9) == looks.confidence(5)


@pytest.mark.parametrize("beside", [1, 3, 10])
def test_looks_against_a_fixed_sample_keep_their_alpha(beside: int) -> None:
    rng, looks = np.random.default_rng(33), SequentialPlan(first=1, last=5, alpha=0.01, fixed_launches=beside)
    numbers = np.arange(1, 6)
    grown = np.cumsum(rng.normal(size=(60_000, 5)), axis=1) / numbers
    there = rng.normal(size=(60_000, beside)).mean(axis=1, keepdims=True)
    z = (grown - there) / np.sqrt(1 / numbers + 1 / beside)
    over = [NormalDist().inv_cdf(0.5 + looks.confidence(int(number)) / 2) for number in numbers]
    assert (z > over).any(axis=1).mean() == pytest.approx(0.01, abs=5 * math.sqrt(0.01 / 60_000))
