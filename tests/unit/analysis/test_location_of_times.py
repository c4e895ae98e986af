"""The location of a distribution: what moves it, and what does not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
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
    def test_the_location_is_the_geometric_mean_of_two_modes(self) -> None:
        found = location(np.array([100e6] * 9 + [400e6] * 11))  # of which the slowest two are left out
        assert found == pytest.approx(200e6)

    @pytest.mark.parametrize("values", [10, 14, 24])
    def test_one_straggler_of_ten_or_more_has_no_weight(self, values: int) -> None:
        assert location(np.array([100e6] * (values - 1) + [5e9])) == pytest.approx(100e6)

    def test_a_value_at_the_edge_counts_in_part(self) -> None:
        five = location(np.array([1e6] * 4 + [2e6]))
        assert np.log(five / 1e6) == pytest.approx(np.log(2) * 0.1 / 0.9)

    def test_a_mode_that_got_slower_moves_it_by_its_share(self) -> None:
        before, after = np.array([190e6] * 11 + [375e6] * 9), np.array([190e6] * 11 + [600e6] * 9)
        assert location(after) / location(before) == pytest.approx((600 / 375) ** (7 / 18), rel=1e-6)

    def test_a_time_of_zero_counts_as_a_nanosecond(self) -> None:
        assert location(np.array([0, 0, 0])) == 1.0

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
    def test_its_value_is_the_location_of_all_values(self) -> None:
        values = [100e6, 200e6, 300e6, 400e6] * 6
        found = blocked(values, 8).location()
        assert found.value == pytest.approx(location(np.array(values)))

    def test_equal_values_have_no_error(self) -> None:
        found = blocked([5e6] * 40, 8).location()
        assert found.relative_error == pytest.approx(0, abs=1e-12)

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
        found = BlockedValues(values, block, block_weights(8)).location()
        assert found.value == pytest.approx(location(values))

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

    def test_nothing_has_no_location(self) -> None:
        assert BlockedValues(np.array([]), np.array([], dtype=np.int64), block_weights(8)).location() is None
