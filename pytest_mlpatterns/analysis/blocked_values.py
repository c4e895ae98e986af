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


class BlockedValues:
    """Values above zero, such as latencies.

    Args:
        ascending: the values, shape ``(values,)``.
        block: the block of each value.
        weights: how often each block counts in each resample, shape ``(resamples, blocks)``.
    """

    def __init__(
        self, ascending: NDArray[np.int64] | NDArray[np.float64], block: NDArray[np.int64], weights: NDArray[np.float64]
    ) -> None:
        self.ascending = ascending
        self._block = block
        self._weights = weights

    @classmethod
    def of(
        cls, values: NDArray[np.int64] | NDArray[np.float64], block: NDArray[np.int64], weights: NDArray[np.float64]
    ) -> BlockedValues:
        """As the constructor, from values in any order."""
        order = np.argsort(values, kind="stable")
        return cls(values[order], block[order], weights)

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
        cumulated, upper = self._cumulated
        drawn = cumulated[cumulated[:, -1] > 0]
        shares = trimmed_shares(drawn / drawn[:, -1:])
        resampled = np.exp(shares @ np.log(np.maximum(upper, 1.0)) / shares.sum(axis=1))
        return LaunchValue(location(self.ascending), relative_error(resampled))

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
