"""The location of a distribution: what moves it, and what does not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.each_row import each_row
from support.synthetic import PROPERTY

from pytest_mlpatterns.analysis.metrics.blocked_values import BlockedValues
from pytest_mlpatterns.analysis.statistics.distributions import location
from pytest_mlpatterns.analysis.statistics.intervals import block_weights
from pytest_mlpatterns.records.launch import LaunchValue

TIMES = st.lists(st.floats(min_value=1e3, max_value=1e12), min_size=1, max_size=60)


def blocked(values: list[float], blocks: int) -> BlockedValues:
    """Values that came one after the other, as many in each block."""
    found = np.array(values)
    return BlockedValues(found, np.arange(found.size) * blocks // found.size, block_weights(blocks))


def _location(values: NDArray[np.float64], blocks: int, inputs: NDArray[np.uint32] | None) -> LaunchValue:
    block = np.arange(values.size) * blocks // values.size
    return BlockedValues(values, block, block_weights(blocks), inputs=inputs).location()


class TestLocation:
    @each_row(
        ("values", "expected"),
        ([100e6] * 9 + [400e6] * 11, 200e6),  # of which the slowest two are left out
        *(([100e6] * (count - 1) + [5e9], 100e6) for count in (10, 14, 24)),  # a straggler has no weight
        ([1e6] * 4 + [2e6], 1e6 * 2 ** (0.1 / 0.9)),  # at the edge it counts in part
        ([190e6] * 11 + [600e6] * 9, location(np.array([190e6] * 11 + [375e6] * 9)) * 1.6 ** (7 / 18)),
        ([0, 0, 0], 1.0),  # a time of zero counts as a nanosecond
    )
    def test_the_location_is_the_geometric_mean_without_the_slowest_tenth(
        self, values: list[float], expected: float
    ) -> None:
        assert location(np.array(values)) == pytest.approx(expected, rel=1e-6)

    @PROPERTY
    @given(TIMES, st.floats(min_value=0.1, max_value=10))
    def test_times_longer_by_a_factor_have_a_location_longer_by_it(self, times: list[float], factor: float) -> None:
        assert location(factor * np.array(times)) == pytest.approx(factor * location(np.array(times)), rel=1e-9)

    @PROPERTY
    @given(TIMES)
    def test_the_location_lies_among_the_values_and_their_order_does_not_matter(self, times: list[float]) -> None:
        found = location(np.array(times))
        assert min(times) * (1 - 1e-9) <= found <= max(times) * (1 + 1e-9)
        assert location(np.array(times[::-1])) == found


class TestOfALaunch:
    def test_its_error_is_that_of_a_mean_of_independent_values(self) -> None:
        rng = np.random.default_rng(1)
        found = blocked(np.exp(rng.normal(16, 0.2, 3200)).tolist(), 160).location()
        assert found.relative_error == pytest.approx(0.2 / np.sqrt(3200), rel=0.25)

    def test_the_location_is_known_better_than_the_median_of_two_modes(self) -> None:
        rng = np.random.default_rng(2)
        found = blocked(np.where(rng.random(24) < 0.5, 190e6, 375e6).tolist(), 24)
        median, whole = found.percentile(50), found.location()
        assert whole.relative_error < median.relative_error / 2

    def test_blocks_without_a_value_are_no_obstacle(self) -> None:
        values, block = np.array([5e6, 6e6]), np.array([0, 7])
        assert BlockedValues(values, block, block_weights(8)).location().value == pytest.approx(location(values))
        assert BlockedValues(values[:0], block[:0], block_weights(8)).location() is None

    def test_what_inputs_differ_by_is_no_error_of_a_launch_that_sends_each_of_them_as_often(self) -> None:
        rng = np.random.default_rng(3)
        inputs = np.tile(np.arange(4, dtype=np.uint32), 6)
        values = 1e8 * np.array([1, 2, 4, 1.5])[inputs] * np.exp(rng.normal(0, 0.02, 24))
        known, unknown = (_location(values, 24, one) for one in (inputs, None))
        assert known.value == unknown.value
        assert unknown.relative_error > 0.05
        assert known.relative_error == pytest.approx(0.02 / np.sqrt(24), rel=0.5)

    def test_its_error_is_right_if_the_inputs_do_not_differ(self) -> None:
        rng = np.random.default_rng(4)
        inputs = np.tile(np.arange(8, dtype=np.uint32), 3)
        runs = 1e8 * np.exp(rng.normal(0, 0.2, (300, 24)))
        errors = [_location(values, 24, inputs).relative_error for values in runs]
        scatter = np.std([np.log(location(values)) for values in runs])
        assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(scatter, rel=0.15)

    @pytest.mark.parametrize("inputs", [np.zeros(40), np.arange(40), np.arange(40) % 2], ids=["one", "each", "in all"])
    def test_inputs_have_no_part_if_each_comes_once_or_in_every_block(self, inputs: NDArray[np.float64]) -> None:
        values = np.linspace(1e8, 3e8, 40)
        assert _location(values, 8, inputs.astype(np.uint32)) == _location(values, 8, None)
