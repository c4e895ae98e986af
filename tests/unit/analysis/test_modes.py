"""Two modes are recognised, and one mode of any shape is not taken for two."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from support.each_row import each_row
from support.synthetic import MS

from pytest_mlpatterns.analysis.statistics.distributions import find_modes

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


@pytest.mark.parametrize("values", [[], [MS], [MS] * 9, [MS] * 500], ids=["none", "one", "few", "equal"])
def test_values_that_show_nothing_have_no_modes(values: list[float]) -> None:
    assert find_modes(np.array(values, dtype=np.float64)) is None


def test_modes_that_launches_may_differ_by_are_one() -> None:
    values = np.sort(np.concatenate([np.full(50, 100.0 * MS), np.full(50, 108.0 * MS)]))
    assert find_modes(values) is None


def test_the_unit_does_not_matter() -> None:
    values = two_modes(np.random.default_rng(3), 200, 0.4)
    first, second = find_modes(values), find_modes(values * 8)
    assert second.low == pytest.approx(8 * first.low)
    assert second.low_share == first.low_share
