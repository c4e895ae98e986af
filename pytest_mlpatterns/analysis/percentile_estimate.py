"""The estimate of a percentile over all launches of a test: of latencies, and of the times of streams. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns import wording
from pytest_mlpatterns.analysis.intervals import estimate, min_samples, order_bounds
from pytest_mlpatterns.errors import InvalidResultError, TooFewSamplesError
from pytest_mlpatterns.records.launch import Estimate, LaunchValue

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pytest_mlpatterns.analysis.metric_definitions import Metric

__all__ = ["PooledValues"]


@dataclass(frozen=True, slots=True)
class PooledValues:
    """The values of all launches, ascending; shape ``(values,)``. Further ``infinite`` ones are larger than any."""

    ascending: NDArray[np.int64] | NDArray[np.float64]
    infinite: int

    @property
    def count(self) -> int:
        """Number of values, infinite ones included."""
        return self.ascending.size + self.infinite

    def estimate(
        self,
        metric: Metric,
        percentile: float,
        launches: Sequence[LaunchValue],
        *,
        confidence: float,
        scatter: Sequence[LaunchValue] = (),
    ) -> Estimate:
        """A percentile with its interval.

        It holds what launches and blocks differ by, and what so few values leave open, whichever is wider: the bounds
        of order statistics over the values of all launches.

        Args:
            metric: which one, for its label and the prior deviation between launches.
            percentile: at least 1 and less than 100.
            launches: the percentile in each launch.
            confidence: of the interval.
            scatter: launches of a baseline, which show how much launches differ.

        Raises:
            TooFewSamplesError: too few values to bound it at 99 % confidence.
            InvalidResultError: no value is finite.
            ValueError: another percentile.
        """
        needed, count = min_samples(percentile), self.count
        if not self.ascending.size:
            raise InvalidResultError(f"no request succeeded, so there is no {metric.label}")
        if count < needed:
            raise TooFewSamplesError(
                f"{metric.label} of {wording.count(count, 'sample')}, expected at least {needed} for 99 % "
                "confidence; measure longer (duration=), or with more load",
                needed=needed,
                found=count,
            )
        low, high = (self._at(rank) for rank in order_bounds(count, percentile, confidence))
        if not all(math.isfinite(launch.value) for launch in launches):
            return Estimate(self._at(math.ceil(count * percentile / 100) - 1), low, math.inf)
        found = estimate(launches, metric.launch_sd, confidence, scatter=scatter)
        return Estimate(found.value, min(found.low, low), max(found.high, high))

    def _at(self, rank: int) -> float:
        """The value with an index among all, ascending."""
        return float(self.ascending[rank]) if rank < self.ascending.size else math.inf
