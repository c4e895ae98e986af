"""Tail probabilities agree with scipy's, imported where a test runs (every worker collects every test); two modes."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.each_row import each_row
from support.synthetic import MS, PROPERTY

from pytest_mlpatterns.analysis.statistics.distributions import (
    binomial_tail,
    excess_chance,
    find_modes,
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


def test_an_estimated_scale_makes_a_small_probability_larger() -> None:
    for chance in (1e-9, 0.01, 0.3):
        assert chance < with_uncertain_scale(chance, 20) < with_uncertain_scale(chance, 5)
    for end in (0.0, 1.0):  # whose quantile is finite
        assert with_uncertain_scale(end, 10) == pytest.approx(end, abs=1e-4)


RECORDED_MS = (
    *(188, 186, 190, 192, 189, 191, 187, 195, 200, 193),
    *(355, 359, 361, 365, 372, 373, 375, 377, 380, 381, 383, 386, 390, 400),
)
"""Times to the first token of 24 requests: two callers share two slots."""
ONE_MODE: dict[str, Callable[[np.random.Generator, int], NDArray[np.float64]]] = {
    "lognormal": lambda rng, count: 20 * MS * np.exp(rng.normal(0, 0.15, count)),
    "wide": lambda rng, count: 20 * MS * np.exp(rng.normal(0, 1, count)),
    "exponential": lambda rng, count: 20 * MS * rng.exponential(1, count),
    "uniform": lambda rng, count: MS * rng.uniform(10, 30, count),
    "uniform logarithm": lambda rng, count: MS * np.exp(rng.uniform(0, 2, count)),
    "pareto": lambda rng, count: 20 * MS * (1 + rng.pareto(1.1, count)),
    "stragglers": lambda rng, count: 20 * MS * np.exp(rng.normal(0, 0.1, count)) * (1 + 9 * (rng.random(count) < 0.05)),
}


def two_modes(rng: np.random.Generator, count: int, low_share: float, spread: float = 0.05) -> NDArray[np.float64]:
    middle = np.where(rng.random(count) < low_share, 190.0, 375.0) * MS
    return np.sort(middle * np.exp(rng.normal(0, spread, count)))


def test_the_modes_of_a_recorded_launch_are_found() -> None:
    found = find_modes(np.sort(np.array(RECORDED_MS)) * MS)
    assert found.low == pytest.approx(190 * MS, rel=0.02)
    assert found.high == pytest.approx(376 * MS, rel=0.02)
    assert 200 * MS < found.valley < 355 * MS
    assert found.low_share == pytest.approx(10 / 24)


@pytest.mark.parametrize(("each", "is_found"), [(8, False), (9, True)])
def test_nine_values_show_a_mode(each: int, is_found: bool) -> None:
    assert (find_modes(np.repeat([100.0 * MS, 200.0 * MS], each)) is not None) is is_found


@pytest.mark.parametrize(("count", "low_share"), [(40, 0.5), (100, 0.3), (400, 0.15), (20_000, 0.42)])
def test_two_modes_are_found(count: int, low_share: float) -> None:
    rng = np.random.default_rng(7)
    found = [find_modes(two_modes(rng, count, low_share)) for _ in range(20)]
    assert sum(one is not None for one in found) >= 18
    known = [one for one in found if one is not None]
    assert np.mean([one.low_share for one in known]) == pytest.approx(low_share, abs=0.05)


@pytest.mark.simulation
@each_row("count", [20, 60, 300, 5000])
@each_row("shape", ONE_MODE)
def test_one_mode_is_not_taken_for_two(shape: str, count: int) -> None:
    rng = np.random.default_rng(11)
    found = [find_modes(np.sort(ONE_MODE[shape](rng, count))) for _ in range(200)]
    assert sum(one is not None for one in found) <= 2


@each_row("values", [[], [1.0], [1.0] * 9, [1.0] * 500, [100.0] * 50 + [108.0] * 50])  # launches may differ by the last
def test_values_that_show_nothing_have_no_modes(values: list[float]) -> None:
    assert find_modes(np.array(values, dtype=np.float64) * MS) is None


def test_the_unit_does_not_matter() -> None:
    values = two_modes(np.random.default_rng(3), 200, 0.4)
    first, second = find_modes(values), find_modes(values * 8)
    assert second.low == pytest.approx(8 * first.low)
    assert second.low_share == first.low_share
