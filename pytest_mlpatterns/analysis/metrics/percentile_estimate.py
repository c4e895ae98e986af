"""The estimate of a percentile over all launches of a test: of latencies, and of the times of streams. Pure.

A percentile is below a limit if and only if at least that share of the requests is. So the interval has two sources:
how much launches differ in speed, which multiplies all times, and how much the share of the requests below a time may
differ. The second one is what modes make large: between two modes a small share moves the percentile from one to the
other. Also: ``analysis/statistics/intervals.py`` gives the intervals of other metrics.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from statistics import NormalDist

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pytest_mlpatterns import wording
from pytest_mlpatterns.analysis.metrics.metric import Metric
from pytest_mlpatterns.analysis.statistics.distributions import Modes, find_modes
from pytest_mlpatterns.analysis.statistics.intervals import (
    drawn_variance,
    estimate,
    min_samples,
    order_bounds,
    t_quantile,
    within_seen,
)
from pytest_mlpatterns.errors import InvalidResultError, TooFewSamplesError
from pytest_mlpatterns.records.launch import Estimate, LaunchValue

_LEVELS = np.linspace(0.05, 0.95, 19)
"""Quantiles by which the speeds of launches are compared: their median is moved by no tail and by no mode alone."""
_SHARE_DEGREES = 20
"""Degrees of freedom of the expectation that requests are independent, so that shares of them are binomial.

With 8, 39 % of simulated limits 25 % beside the median are decided by 8 launches of 20 requests of a wide distribution;
with 20, 58 %."""
_MODE_SHARE_SD, _MODE_DEGREES = 0.12, 4
"""Standard deviation of the share of a mode between launches that is expected if there are two, and its degrees of
freedom. With 0.1 and 2, up to 6 % of simulated limits between modes whose shares differ by 10 % are judged wrongly on a
side, with these up to 2 %."""
_MEDIAN = 50  # Percent of the median
_FEWEST_FOR_A_MEDIAN = 2  # Fewest samples of a median, whose ends are then the samples


class LaunchTimes(Struct, frozen=True):
    """The times of one launch, ascending; shape ``(values,)``. Further ``infinite`` ones are larger than any."""

    ascending: NDArray[np.int64] | NDArray[np.float64]
    infinite: int = 0

    @property
    def count(self) -> int:
        """Number of values, infinite ones included."""
        return self.ascending.size + self.infinite


class PooledTimes:
    """The times of all launches of a test."""

    def __init__(self, launches: Sequence[LaunchTimes]) -> None:
        self._launches = [launch for launch in launches if launch.count]

    @property
    def count(self) -> int:
        """Number of values, infinite ones included."""
        return sum(launch.count for launch in self._launches)

    @property
    def finite(self) -> int:
        """Number of values without the infinite ones."""
        return self._ascending.size

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

        The interval of the launches' percentiles, as :func:`pytest_mlpatterns.analysis.statistics.intervals.estimate`
        gives it. It is never narrower than the bounds of order statistics over the times of all launches, whose ranks
        hold what shares differ by between launches. And it is never wider than these bounds with what launches differ
        by in speed: medians of launches that jump between two modes do not show that the median is beyond both. The
        median of two to six values, which no order statistic bounds, is within their range and what requests differ by.

        ``percentile``: at least 1 and less than 100. ``launches``: the percentile in each launch. Raises ValueError:
        another percentile.
        """
        self._require(metric, percentile)
        if self.count < min_samples(percentile):
            return self._of_few(confidence)
        middle = self._at(math.ceil(self.count * percentile / 100) - 1)
        dispersion = self._dispersion(percentile, middle, confidence)
        low, high = map(self._at, order_bounds(self.count, percentile, confidence, dispersion=dispersion))
        if not all(math.isfinite(launch.value) for launch in launches):
            return Estimate(middle, low, math.inf)
        found = estimate(launches, metric.launch_sd, confidence, scatter=scatter)
        beyond = _beyond(scatter, found.value, low=low, high=high)
        speeds = [LaunchValue(speed, 0.0) for speed in self._speeds]
        speed = estimate(speeds, metric.launch_sd, confidence, scatter=beyond)
        reach = speed.high / speed.value
        low, high = min(low, max(found.low, low / reach)), max(high, min(found.high, high * reach))
        return Estimate(min(max(found.value, low), high), low, high)

    def _require(self, metric: Metric, percentile: float) -> None:
        """Refuse a percentile of no value, or of too few."""
        count, is_of_few = self.count, percentile == _MEDIAN and self.finite == self.count
        needed = _FEWEST_FOR_A_MEDIAN if is_of_few else min_samples(percentile)
        if not self.finite:
            raise InvalidResultError(f"no request succeeded, so there is no {metric.label}")
        if count < needed:
            raise TooFewSamplesError(
                f"{metric.label} of {wording.count(count, 'sample')}, expected at least {needed} for 99 % "
                f"confidence; write requests={needed}, or measure longer",
                needed=needed,
                found=count,
            )

    def _of_few(self, confidence: float) -> Estimate:
        """A limit that is far away is decided by two answers."""
        anywhere = Estimate(float(np.median(self._ascending)), 0.0, math.inf)
        return within_seen(anywhere, (self._at(0), self._at(self.finite - 1)), confidence, of=self.finite)

    @cached_property
    def modes(self) -> Modes | None:
        """The two modes of the times, launches brought to one speed; None if they show one."""
        if not self.finite:
            return None
        aligned = [one.ascending / speed for one, speed in zip(self._launches, self._speeds, strict=True)]
        return find_modes(np.sort(np.concatenate(aligned)))

    @cached_property
    def _ascending(self) -> NDArray[np.float64]:
        """The finite values of all launches."""
        return np.sort(np.concatenate([np.zeros(0), *(launch.ascending for launch in self._launches)]))

    @cached_property
    def _speeds(self) -> list[float]:
        """How many times as long everything takes in each launch, relative to all: the median over their quantiles."""
        if len(self._launches) == 1:
            return [1.0]
        of_all = np.quantile(np.maximum(self._ascending, 1), _LEVELS)
        return [
            float(np.median(np.quantile(np.maximum(one.ascending, 1), _LEVELS) / of_all)) if one.ascending.size else 1.0
            for one in self._launches
        ]

    def _dispersion(self, percentile: float, middle: float, confidence: float) -> float:
        """By how much fewer independent requests weigh as much, at a confidence, as these."""
        quantile, launches = percentile / 100, len(self._launches)
        sizes = np.array([launch.count for launch in self._launches], dtype=np.float64)
        below = [
            np.searchsorted(launch.ascending, middle * speed, side="right") / launch.count
            for launch, speed in zip(self._launches, self._speeds, strict=True)
        ]
        mean_size = self.count / launches
        scatter = float(sizes @ (np.array(below) - np.average(below, weights=sizes)) ** 2) / mean_size
        of_independent = quantile * (1 - quantile) / mean_size
        expected, prior_degrees = of_independent, _SHARE_DEGREES
        if self.modes is not None:
            expected, prior_degrees = of_independent + _MODE_SHARE_SD**2, _MODE_DEGREES
        variance, degrees = drawn_variance(prior_degrees, expected, scatter=scatter, degrees=launches - 1)
        dispersion = max(variance / of_independent, 1.0)
        return dispersion * (t_quantile(confidence, degrees) / NormalDist().inv_cdf(0.5 + confidence / 2)) ** 2

    def _at(self, rank: int) -> float:
        """The value with an index among all, ascending."""
        return float(self._ascending[rank]) if rank < self.finite else math.inf


def _beyond(scatter: Sequence[LaunchValue], value: float, *, low: float, high: float) -> list[LaunchValue]:
    """By which factor each launch of a baseline is beyond what shares explain, relative to their mean."""
    known = [launch.value for launch in scatter if 0 < launch.value < math.inf]
    if not known:
        return []
    mean = math.exp(sum(map(math.log, known)) / len(known))
    moved = [value * one / mean for one in known]
    return [LaunchValue(one / min(max(one, low), high), 0.0) for one in moved]
