"""The universal scalability law, fitted to the capacity that was measured at several numbers of replicas.

With n replicas the capacity is X(n) = rate n / (1 + contention (n - 1) + coherency n (n - 1)): contention is the share
of the work that only one replica can do at a time, coherency the cost of keeping each pair of them consistent
(Gunther, "Guerrilla Capacity Planning", Springer 2007, chapter 4). n / X(n) is linear in three coefficients, none of
which is negative, so the fit is a weighted least-squares problem with few possible sets of positive coefficients.

An interval holds every value with which the law still fits, its profile likelihood: of 95 % intervals of resampled fits
only 80 to 90 % held the truth where a coefficient is zero (``benchmarks/scaling_simulation.py`` counts ours).

Pure. It must not know what a replica is.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pytest_mlpatterns.analysis.statistics.intervals import CONFIDENCE, LAUNCH_SD, drawn_variance, t_quantile
from pytest_mlpatterns.errors import TooFewSamplesError
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.units import format_rate

FARTHEST = 4
"""Predictions reach to this many times the largest measured number of replicas, if three numbers were measured."""
_PRIOR_DEGREES = 0.25
"""Degrees of freedom of the prior; with more, intervals at 1 % noise are too wide and at 3 % too narrow."""
_FEWEST_DEGREES = 2.0
"""Degrees of freedom of an interval if each capacity was measured once, so that its scatter is the prior's."""
_DOUBLINGS, _HALVINGS = 30, 30
_ROUNDING = 1e-12  # Share of the squares below which another coefficient explains nothing but the rounding of numbers
_FIRST_STEP = 0.01  # First step of the search for an end of an interval, as a share of the scale of the coefficient


class ScalabilityLaw(Struct, frozen=True):
    """One curve of the law."""

    rate_rps: float  # capacity of one replica, in requests per second
    contention: float  # sigma, 0 or more
    coherency: float  # kappa, 0 or more

    def capacity_rps(self, replicas: float) -> float:
        """Capacity of this number of replicas, in requests per second."""
        others = replicas - 1
        return self.rate_rps * replicas / (1 + self.contention * others + self.coherency * replicas * others)

    @property
    def peak_replicas(self) -> float:
        """The number of replicas with the largest capacity; infinite if each further one adds some."""
        if self.coherency == 0:
            return math.inf
        return max(1.0, math.sqrt(max(0.0, 1 - self.contention) / self.coherency))


class FittedLaw(Struct, frozen=True):
    """The law that fits measured capacities best, and every law that fits them nearly as well."""

    best: ScalabilityLaw  # the curve with the smallest weighted squares
    numbers: NDArray[np.float64]  # measured numbers of replicas, ascending, shape ``(n,)``
    times: NDArray[np.float64]  # their n / X(n), in seconds
    weights: NDArray[np.float64]  # one over the standard error of each time
    slack: float  # largest excess of the weighted squares over the smallest, with which a law still fits

    @property
    def largest(self) -> int:
        """The largest measured number of replicas."""
        return int(self.numbers[-1])

    @property
    def farthest(self) -> int:
        """The largest number of replicas that the law predicts.

        Two numbers cannot separate contention from coherency, which differ little between them and much beyond.
        """
        return self.largest * (FARTHEST if self._has_coherency else 1)

    @property
    def contention(self) -> Estimate:
        """Sigma, the share of the work that only one replica can do at a time; of two numbers at most that much."""
        others = self.numbers - 1

        def squares(sigma: float) -> float:
            return self._squares([1 + sigma * others, self._all_pairs])

        return self._interval(self.best.contention, squares, scale=1.0)

    @property
    def coherency(self) -> Estimate:
        """Kappa, the cost of each pair of replicas; known only from three numbers of replicas on."""

        def squares(kappa: float) -> float:
            return self._squares([1 + kappa * self._all_pairs, self.numbers - 1])

        if not self._has_coherency:
            return Estimate(0.0, 0.0, math.inf)
        return self._interval(self.best.coherency, squares, scale=0.1)

    def capacity_rps(self, replicas: int) -> Estimate:
        """Capacity of this number of replicas, in requests per second."""
        if replicas > self.farthest:
            raise TooFewSamplesError(self._too_far(f"{replicas} replicas"))
        others, pairs = replicas - 1, replicas * (replicas - 1)
        is_open = self._has_coherency or replicas not in self.numbers  # else one curve goes through it

        def squares(time: float) -> float:  # the law through (replicas, time): the first coefficient follows
            columns = [self.numbers - 1 - others, self._all_pairs - pairs][: 1 + is_open]
            return self._squares(columns, self.times - time, fewest=0)

        best = self.best.capacity_rps(replicas)
        found = self._interval(replicas / best, squares, scale=replicas / best)
        return Estimate(best, replicas / found.high, replicas / found.low)

    def replicas_for(self, rps: float) -> Estimate:
        """The fewest replicas that serve a rate; whole numbers."""
        numbers = range(1, self.farthest + 1)
        predicted = [self.capacity_rps(number) for number in numbers]
        value, low, high = (
            next((number for number, capacity in zip(numbers, column, strict=True) if capacity >= rps), None)
            for column in (
                [one.value for one in predicted],
                [one.high for one in predicted],
                [one.low for one in predicted],
            )
        )
        if value is None or low is None or high is None:
            surely, most = max(one.low for one in predicted), max(one.value for one in predicted)
            if not self._has_coherency:
                raise TooFewSamplesError(self._too_far(f"{format_rate(rps)} ({format_rate(surely)} are sure)"))
            raise TooFewSamplesError(
                f"{format_rate(rps)} are beyond what the measured numbers of replicas say: up to {numbers[-1]} "
                f"replicas serve {format_rate(most)} by the law, and surely {format_rate(surely)}; measure more of them"
            )
        return Estimate(value, low, high)

    def _too_far(self, asked: str) -> str:
        """Why something lies beyond the predictions, and what to do."""
        if self._has_coherency:
            return (
                f"{asked} are more than {FARTHEST} times the {self.largest} that were measured; measure more replicas"
            )
        first, second = self.numbers.astype(int)
        return (
            f"{asked} are beyond the two numbers of replicas that were measured, {first} and {second}, which cannot "
            f"tell contention from coherency; measure a third number, as replicas=({first}, {second}, {2 * second})"
        )

    @property
    def _has_coherency(self) -> bool:
        return self.numbers.size > 2

    @property
    def _all_pairs(self) -> NDArray[np.float64]:
        return self.numbers * (self.numbers - 1)

    def _squares(
        self, columns: Sequence[NDArray[np.float64]], target: NDArray[np.float64] | None = None, *, fewest: int = 1
    ) -> float:
        matrix = np.stack(columns, axis=1) * self.weights[:, None]
        wanted = (self.times if target is None else target) * self.weights
        return _non_negative(matrix, wanted, fewest=fewest)[1]

    def _interval(self, best: float, squares: Callable[[float], float], *, scale: float) -> Estimate:
        """Every value, from 0 on, with which the weighted squares stay within the slack of the smallest."""
        allowed = squares(best) + self.slack

        def edge(direction: int) -> float:
            step = _FIRST_STEP * scale
            inside, outside = best, max(0.0, best + direction * step)
            for _ in range(_DOUBLINGS):
                if squares(outside) > allowed:
                    break
                if outside == 0:
                    return 0.0
                step *= 2
                inside, outside = outside, max(0.0, best + direction * step)
            else:
                return math.inf
            for _ in range(_HALVINGS):
                middle = (inside + outside) / 2
                inside, outside = (middle, outside) if squares(middle) <= allowed else (inside, middle)
            return inside

        return Estimate(best, edge(-1), edge(1))


def fit_law(capacities: Mapping[int, Sequence[float]]) -> FittedLaw:
    """Fit the law to the capacities that were measured at each number of replicas.

    All numbers of replicas share one relative standard deviation between measurements. Its prior is the launches'
    (:mod:`pytest_mlpatterns.analysis.statistics.intervals`), which counts less the more the measurements contradict it.

    ``capacities``: requests per second by number of replicas, one for each measurement.
    """
    numbers = np.array(sorted(capacities), dtype=np.float64)
    if numbers.size < 2:
        raise TooFewSamplesError(
            f"the capacity of {numbers.size} number of replicas is known, expected at least 2 for the scalability law"
        )
    logs = [np.log(np.asarray(capacities[int(number)], dtype=np.float64)) for number in numbers]
    counts = np.array([one.size for one in logs])
    scatter = sum(float(((one - one.mean()) ** 2).sum()) for one in logs)
    measured = int((counts - 1).sum())
    variance, degrees = drawn_variance(_PRIOR_DEGREES, LAUNCH_SD**2, scatter=scatter, degrees=measured)
    times = numbers / np.exp([one.mean() for one in logs])
    weights = np.sqrt(counts / variance) / times
    columns = [np.ones_like(numbers), numbers - 1, numbers * (numbers - 1)][: 2 + (numbers.size > 2)]
    first, *others = _non_negative(np.stack(columns, axis=1) * weights[:, None], times * weights, fewest=1)[0]
    second, third = (*others, 0.0)[:2]
    law = ScalabilityLaw(float(1 / first), float(second / first), float(third / first))
    return FittedLaw(law, numbers, times, weights, t_quantile(CONFIDENCE, max(degrees, _FEWEST_DEGREES)) ** 2)


def _non_negative(
    matrix: NDArray[np.float64], target: NDArray[np.float64], *, fewest: int
) -> tuple[NDArray[np.float64], float]:
    """The coefficients, none negative, with the smallest squares; and these squares."""
    products, aims = matrix.T @ matrix, matrix.T @ target
    total = float(target @ target)
    best, least = np.zeros(aims.size), math.inf if fewest else total
    free = range(fewest, aims.size)
    for kept in itertools.chain.from_iterable(itertools.combinations(free, size) for size in range(len(free) + 1)):
        chosen = [*range(fewest), *kept]
        if not chosen:
            continue
        found = np.linalg.solve(products[np.ix_(chosen, chosen)], aims[chosen])
        squares = total - float(found @ aims[chosen])
        if squares < least - _ROUNDING * total and (found >= 0).all():
            best, least = np.zeros(aims.size), squares
            best[chosen] = found
    return best, least
