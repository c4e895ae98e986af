"""Tail probabilities agree with scipy's, which is imported where a test runs: every worker collects every test."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import PROPERTY

from pytest_mlpatterns.analysis.statistics.distributions import (
    binomial_tail,
    excess_chance,
    incomplete_beta,
    student_tail,
    with_uncertain_scale,
)

SHAPES = st.floats(min_value=0.1, max_value=3000)


@PROPERTY
@given(SHAPES, SHAPES, st.floats(min_value=1e-6, max_value=1 - 1e-6))
def test_the_incomplete_beta_function_is_that_of_scipy(a: float, b: float, x: float) -> None:
    from scipy import special

    assert incomplete_beta(a, b, x) == pytest.approx(float(special.betainc(a, b, x)), rel=1e-7, abs=1e-12)


@pytest.mark.parametrize(("x", "expected"), [(0.0, 0.0), (-1.0, 0.0), (1.0, 1.0)])
def test_the_incomplete_beta_function_is_exact_at_its_ends(x: float, expected: float) -> None:
    assert incomplete_beta(2.0, 3.0, x) == expected


@pytest.mark.parametrize(("events", "others", "share"), [(0, 5, 0.3), (3, 2, 0.4), (24, 0, 0.5), (7, 300, 0.01)])
def test_a_binomial_tail_is_that_of_whole_numbers(events: int, others: int, share: float) -> None:
    from scipy import special

    expected = float(special.bdtrc(events - 1, events + others, share))
    assert binomial_tail(events, others, share) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("events", "chance"), [(4, 1 / 70), (3, 17 / 70), (0, 1.0)])
def test_eight_cups_of_which_four_had_the_milk_first(events: int, chance: float) -> None:
    assert excess_chance(events, 4, before=4 - events, of_before=4) == pytest.approx(chance)


@each_row("t", [-3.0, 0.0, 0.7, 4.2, 20.0])
@each_row("degrees", [2.5, 10, 200])
def test_a_tail_of_students_t_is_that_of_scipy(t: float, degrees: float) -> None:
    from scipy import special

    assert student_tail(t, degrees) == pytest.approx(float(special.stdtr(degrees, -t)), rel=1e-8)


@pytest.mark.parametrize("chance", [1e-9, 0.01, 0.3])
def test_an_estimated_scale_makes_a_small_probability_larger(chance: float) -> None:
    assert chance < with_uncertain_scale(chance, 20) < with_uncertain_scale(chance, 5)


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_a_probability_at_its_end_has_a_finite_quantile(chance: float) -> None:
    assert with_uncertain_scale(chance, 10) == pytest.approx(chance, abs=1e-4)
