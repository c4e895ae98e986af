"""Percentiles, locations and quotients of what one launch measured in blocks, with their standard errors. Pure.

Resampled blocks give the errors.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.analysis.intervals import relative_error
from pytest_mlpatterns.analysis.location import location, trimmed_shares
from pytest_mlpatterns.records.launch import LaunchValue

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BlockedValues", "quotient"]

_GRID = 4096
_LEAST_ROUNDS = 2
"""Fewest requests of each input for which an error leaves out how the inputs differ; one request has no scatter."""


class BlockedValues:
    """Values above zero, such as latencies.

    Args:
        ascending: the values, shape ``(values,)``.
        block: the block of each value.
        weights: how often each block counts in each resample, shape ``(resamples, blocks)``.
        inputs: index of the input of each value; None if they differ in nothing.
    """

    def __init__(
        self,
        ascending: NDArray[np.int64] | NDArray[np.float64],
        block: NDArray[np.int64],
        weights: NDArray[np.float64],
        *,
        inputs: NDArray[np.uint32] | None = None,
    ) -> None:
        self.ascending = ascending
        self._block = block
        self._weights = weights
        self._inputs = inputs

    @classmethod
    def of(
        cls,
        values: NDArray[np.int64] | NDArray[np.float64],
        block: NDArray[np.int64],
        weights: NDArray[np.float64],
        *,
        inputs: NDArray[np.uint32] | None = None,
    ) -> BlockedValues:
        """As the constructor, from values in any order."""
        order = np.argsort(values, kind="stable")
        sorted_inputs = None if inputs is None else inputs[order]
        return cls(values[order], block[order], weights, inputs=sorted_inputs)

    def percentile(self, percentile: float, of: int | None = None) -> LaunchValue | None:
        """A percentile; None without a value.

        Args:
            percentile: at least 1 and less than 100.
            of: number of values, if some have no number because they are infinitely large; None: all are here.
        """
        size = self.ascending.size
        if not size:
            return None
        rank = percentile * ((of or size) / size)
        if rank > 100:
            return LaunchValue(math.inf, 0.0)
        value = float(np.percentile(self.ascending, rank))
        cumulated, upper = self._cumulated
        wanted = cumulated[:, -1] * (rank / 100)
        position = np.minimum((cumulated < wanted[:, None]).sum(axis=1), upper.size - 1)
        return LaunchValue(value, relative_error(upper[position]))

    def location(self) -> LaunchValue | None:
        """The location of the whole distribution, see :mod:`pytest_mlpatterns.analysis.location`; None if it is empty.

        Only the values that are here count: failed requests are judged by their number.
        """
        if not self.ascending.size:
            return None
        alike = self._without_inputs()
        error = self._location_error() if alike is None else alike
        return LaunchValue(location(self.ascending), error)

    def _location_error(self) -> float:
        cumulated, upper = self._cumulated
        drawn = cumulated[cumulated[:, -1] > 0]
        shares = trimmed_shares(drawn / drawn[:, -1:])
        return relative_error(np.exp(shares @ np.log(np.maximum(upper, 1.0)) / shares.sum(axis=1)))

    def _without_inputs(self) -> float | None:
        """The error of a location without what inputs differ by; None if that is in every block, or is not known.

        Each launch sends the same inputs as often, so that their differences are no scatter of its location. Blocks of
        few requests have some of the inputs only. So from each logarithm the mean of its input is subtracted; of n
        values and k inputs that leaves n - k degrees of freedom, so the error is multiplied by sqrt(n / (n - k)).
        """
        size, blocks = self.ascending.size, self._weights.shape[1]
        if self._inputs is None:
            return None
        counts = np.bincount(self._inputs)
        kinds = np.count_nonzero(counts)
        if kinds == 1 or not _LEAST_ROUNDS * kinds <= size < kinds * blocks:
            return None
        logs = np.log(np.maximum(self.ascending, 1.0))
        left = logs - (np.bincount(self._inputs, logs) / np.maximum(counts, 1))[self._inputs]
        alike = BlockedValues.of(np.exp(left + logs.mean()), self._block, self._weights)
        return alike._location_error() * math.sqrt(size / (size - kinds))

    @cached_property
    def _cumulated(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """For each resample, how many values are at most each of up to 4096 ascending ones; and these."""
        size, blocks = self.ascending.size, self._weights.shape[1]
        bins = min(size, _GRID)
        rank = np.arange(size) * bins // size
        counts = np.bincount(self._block * bins + rank, minlength=blocks * bins).reshape(blocks, bins)
        upper = self.ascending[np.flatnonzero(np.diff(rank, append=bins))].astype(np.float64)
        return np.cumsum(self._weights @ counts, axis=1), upper


def quotient(over: NDArray[np.float64], under: NDArray[np.float64], weights: NDArray[np.float64]) -> LaunchValue | None:
    """The quotient of two sums over blocks; None if the lower one is not above zero.

    Args:
        over: shape ``(blocks,)``.
        under: likewise.
        weights: how often each block counts in each resample, shape ``(resamples, blocks)``.
    """
    total = float(under.sum())
    if total <= 0:
        return None
    resampled = weights @ under
    positive = resampled > 0
    return LaunchValue(float(over.sum()) / total, relative_error((weights @ over)[positive] / resampled[positive]))
