"""How a resource grows with the requests that a deployment answers, and whether that growth goes on.

Pure. It must not know which resource it is, nor limits.

Memory is not released at once, so its lower envelope counts: the smallest reading in each of 16 equal parts of the
requests. A garbage collector's saw-tooth and short peaks are above it. The growth per request in the second half is
Theil and Sen's slope, the median of the slopes between all pairs of points of the envelope. Its interval comes from the
steps between neighbouring points, by Student's t; the largest single step widens it, since an allocator takes memory
in pieces that may hold what thousands of requests need.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.analysis.intervals import CONFIDENCE, t_quantile
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.resource_track import Growth

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["growth_of", "requests_to_decide"]

_PARTS = (16, 8)
"""Parts of the requests; the smaller number if there are few readings, or if they missed many parts."""
_FEWEST = 16
"""Readings below which nothing is said."""
_LEAST_VARIANCE = 0.25
_SPARE = 1.2
"""Factor on the number of requests that is recommended, since it is only estimated."""
_SLOWER = 0.6
"""Growth in the last quarter, as a share of that in the second, below which it levels off: a logarithm gives 0.42."""
_PAUSE = 0.4
"""Growth in a quarter of the second half, as a share of an even one, below which the growth has paused."""


def growth_of(requests: NDArray[np.int64], amounts: NDArray[np.int64] | None) -> Growth | None:
    """The growth of one resource; None if it is not known or there are too few readings.

    Args:
        requests: answered until each reading, shape ``(readings,)``; never falling.
        amounts: of the resource, likewise; None if it is not known.
    """
    if amounts is None or requests.size < _FEWEST or requests[-1] <= requests[0]:
        return None
    for parts in _PARTS:
        envelope = _envelope(requests, amounts, parts)
        half, quarter, earlier = envelope.between(0.5, 1.0), envelope.between(0.75, 1.0), envelope.between(0.25, 0.5)
        if requests.size >= 2 * parts and min(half.steps.size, quarter.steps.size, earlier.steps.size) > 1:
            break
    else:
        return None
    slope, recent = half.slope(), quarter.slope()
    return Growth(
        requests=int(requests[-1] - requests[0]),
        slope=slope,
        recent=recent,
        gained=float(half.amounts[-1] - half.amounts[0]),
        levels_off=recent.value <= max(0.0, _SLOWER * earlier.slope().value) or half.pauses,
    )


def requests_to_decide(growth: Growth, limit: float, least: float) -> int | None:
    """About how many requests would decide whether a growth is below a limit; None if that cannot be said.

    The interval narrows as the requests become more, since the pieces in which memory is taken remain as large.

    Args:
        growth: what was found.
        limit: of the growth per request.
        least: growth over the second half from which it is a leak.
    """
    apart = abs(growth.slope.value - limit)
    if apart <= 0:
        return None
    needed = growth.requests * (growth.slope.high - growth.slope.low) / (2 * apart)
    if growth.slope.value > limit:
        needed = max(needed, 2 * least / growth.slope.value)
    return math.ceil(_SPARE * max(needed, growth.requests))


@dataclass(frozen=True, slots=True)
class _Envelope:
    """The smallest reading in each part of the requests, or in some of them; arrays of shape ``(points,)``.

    ``shares`` are the starts of the parts, as shares of all requests.
    """

    shares: NDArray[np.float64]
    requests: NDArray[np.float64]
    amounts: NDArray[np.float64]

    @property
    def steps(self) -> NDArray[np.float64]:
        """Growth per request from each point to the next."""
        rates: NDArray[np.float64] = np.diff(self.amounts) / np.diff(self.requests)
        return rates

    @property
    def pauses(self) -> bool:
        """Whether one of its quarters gained much less than an even share."""
        corners = np.linspace(self.requests[0], self.requests[-1], 5)
        gained = np.diff(np.interp(corners, self.requests, self.amounts))
        return bool(gained.min() < _PAUSE * gained.mean())

    def between(self, low: float, high: float) -> _Envelope:
        """The points of the parts from one share of the requests to another, and the last point before them."""
        first = max(int(np.searchsorted(self.shares, low)) - 1, 0)
        last = int(np.searchsorted(self.shares, high))
        return _Envelope(self.shares[first:last], self.requests[first:last], self.amounts[first:last])

    def slope(self) -> Estimate:
        """Growth per request: the median over all pairs of points, with an interval from the steps between them."""
        first, second = np.triu_indices(self.requests.size, k=1)
        rates = (self.amounts[second] - self.amounts[first]) / (self.requests[second] - self.requests[first])
        value, steps = float(np.median(rates)), self.steps
        half = t_quantile(CONFIDENCE, steps.size - 1) * math.sqrt(_variance_of_mean(steps))
        half += float(np.abs(steps - np.median(steps)).max()) / steps.size
        return Estimate(value, value - half, value + half)


def _variance_of_mean(steps: NDArray[np.float64]) -> float:
    """The variance of the mean of steps between neighbouring points.

    A point that is too high makes one step too large and the next one too small, which the covariance of neighbours
    takes into account (Newey & West 1987). It counts down to a quarter of the variance without it.
    """
    apart = steps - steps.mean()
    alone = float(apart @ apart) / (steps.size - 1)
    beside = float(apart[1:] @ apart[:-1]) / (steps.size - 1)
    return max(alone + 2 * beside, _LEAST_VARIANCE * alone) / steps.size


def _envelope(requests: NDArray[np.int64], amounts: NDArray[np.int64], parts: int) -> _Envelope:
    """The smallest reading of each part that has one."""
    edges = np.linspace(requests[0], requests[-1], parts + 1)
    part = np.clip(np.searchsorted(edges, requests, side="right") - 1, 0, parts - 1)
    order = np.lexsort((requests, amounts, part))  # in each part the smallest first, and of equal ones the earliest
    found, first = np.unique(part[order], return_index=True)
    lowest = order[first]
    return _Envelope(found / parts, requests[lowest].astype(np.float64), amounts[lowest].astype(np.float64))
