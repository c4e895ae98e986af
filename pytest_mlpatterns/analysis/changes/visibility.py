"""Which changes of a metric this machine sees: from the scatter of unchanged launches to changes that fail reliably.

A run is simulated as the comparisons judge it: launches are drawn, and each look has the interval that
:func:`pytest_mlpatterns.analysis.statistics.intervals.log_ratio_of` or
:func:`pytest_mlpatterns.analysis.statistics.log_ratio.weighed_rows` gives it, at the levels of the very plan of looks.
A change moves the values and leaves their scatter as it is. So one set of simulated unchanged runs answers for every
change and every tolerance: for each run there is a distance beyond the tolerance from which it fails, and a change that
is as far beyond it as 95 % of these distances is seen.

Scatter is known from few launches only. Its 90 % quantile is taken, so that nine of ten tests scatter no more than
that. Pure and seeded. This module must not know which metrics there are, nor how launches are measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist, fmean, median
from typing import TYPE_CHECKING, Literal

import numpy as np

from pytest_mlpatterns.analysis.statistics.intervals import log_ratio_of, prior_weight, t_quantile
from pytest_mlpatterns.analysis.statistics.log_ratio import weighed_rows
from pytest_mlpatterns.records.launch import LaunchValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
    from pytest_mlpatterns.analysis.statistics.intervals import LogMean

    Sitting = Sequence[tuple[float, float]]
    """Launches, or paired ones, that were measured together: logarithm of the value or ratio, and its error."""

__all__ = [
    "SEEN",
    "UPPER",
    "Levels",
    "Scatter",
    "SimulatedRuns",
    "differs_less",
    "fewest_launches",
    "room_of",
    "runs_beside_entry",
    "runs_of_pairs",
    "runs_of_sides",
    "scatter_of",
    "seen_change",
    "seen_tolerance",
]

SEEN = 0.95
"""Share of the runs in which a change fails that is called seen."""
UPPER = 0.90
"""Quantile of the standard deviation between launches that a promise rests on, given the launches that there are."""
_RUNS = 240
"""Simulated runs: the share of those that fail is known to 1.4 % where it is 95 %."""
_SEED = 31
"""Seed of the draws, so that the same launches give the same answer."""
_WIDEST = 3.0
"""Largest distance beyond the tolerance, on the logarithm, that is called seen: a factor of 20."""
_RARE = 0.01
"""Chance below which launches do not differ less than others by accident."""
_TINY = 1e-30
"""Least variance of a division."""
_WIDEST_HALF = 20.0
"""Half of the widest interval of a logarithm."""
_KNOTS = 24
"""Degrees of freedom at which a quantile is computed; between them it is known to a thousandth."""
_ROBUST = 1.4826
"""Standard deviation of a normal sample over its median absolute deviation."""


@dataclass(frozen=True, slots=True)
class Scatter:
    """By how much the launches of a metric differ while nothing changes, on the logarithm.

    Attributes:
        found: standard deviation from launch to launch, as it was measured.
        assumed: the same as it may be: its upper quantile.
        between: standard deviation from one sitting to the next, beyond what launches differ by; 0 with one sitting.
        errors: standard error within each measured launch.
        launches: number of launches that it is known from.
    """

    found: float
    assumed: float
    between: float
    errors: tuple[float, ...]
    launches: int

    @property
    def within(self) -> float:
        """Root mean square of the errors within launches."""
        return math.sqrt(fmean(error**2 for error in self.errors))

    def side_by_side(self) -> Scatter:
        """The scatter of the ratio of two launches that run side by side: what both share, it does not have."""
        factor = math.sqrt(2)
        errors = tuple(factor * error for error in self.errors)
        return Scatter(factor * self.found, factor * self.assumed, 0.0, errors, self.launches)


def scatter_of(sittings: Sequence[Sitting], prior_sd: float, prior_degrees: float) -> Scatter | None:
    """The scatter that some sittings show; None if no sitting has two launches.

    With S the sum of squares around the mean of each sitting, n its degrees of freedom, s0² the prior variance (that
    between launches and the mean of e²) worth k degrees, fewer if the launches contradict it, the variance is
    (k s0² + S) / (k + n). Its upper quantile divides by the lower quantile of chi-squared over its degrees (Wilson &
    Hilferty, Proceedings of the National Academy of Sciences 17, 1931). Between sittings counts what neighbouring
    sittings differ by, so that a change or a slow drift in a history adds little.

    Args:
        sittings: in the order in which they were measured.
        prior_sd: standard deviation between launches that verdicts start from.
        prior_degrees: of freedom that it is worth.
    """
    known = [sitting for sitting in sittings if sitting]
    degrees = sum(len(sitting) - 1 for sitting in known)
    if degrees < 1:
        return None
    errors = tuple(error for sitting in known for _, error in sitting)
    squares = sum(_squares([level for level, _ in sitting]) for sitting in known)
    prior = prior_sd**2 + fmean(error**2 for error in errors)
    weight = prior_weight(prior_degrees, prior, scatter=squares, degrees=degrees)
    variance = (weight * prior + squares) / (weight + degrees)
    assumed = math.sqrt(variance / _lower_quantile(weight + degrees))
    return Scatter(math.sqrt(squares / degrees), assumed, _between(known, variance), errors, degrees + len(known))


def differs_less(sittings: Sequence[Sitting], deviation: float) -> bool:
    """Whether launches differ by less than a standard deviation, by a gap that chance explains in 1 % of samples.

    By the cube root of chi-squared over its degrees of freedom, which is about normal; see :func:`scatter_of`.

    Args:
        sittings: with errors within each launch, which are added to the deviation.
        deviation: from launch to launch.
    """
    degrees = sum(len(sitting) - 1 for sitting in sittings if sitting)
    if degrees < 1:
        return False
    expected = degrees * (deviation**2 + fmean(error**2 for sitting in sittings for _, error in sitting))
    found = sum(_squares([level for level, _ in sitting]) for sitting in sittings if sitting) / max(expected, _TINY)
    part = 2 / (9 * degrees)
    return (math.cbrt(found) - (1 - part)) / math.sqrt(part) < NormalDist().inv_cdf(_RARE)


def _squares(levels: Sequence[float]) -> float:
    """Sum of squares around the mean."""
    mean = fmean(levels)
    return sum((level - mean) ** 2 for level in levels)


def _lower_quantile(degrees: float) -> float:
    """The quantile of chi-squared over its degrees of freedom that a variance falls below in one of ten samples."""
    part = 2 / (9 * degrees)
    return max(1 - part + NormalDist().inv_cdf(1 - UPPER) * math.sqrt(part), 0.1) ** 3


def _between(sittings: Sequence[Sitting], variance: float) -> float:
    """The standard deviation between sittings, from the differences of neighbouring ones."""
    means = [fmean(level for level, _ in sitting) for sitting in sittings]
    if len(means) < 2:
        return 0.0
    apart = [abs(after - before) for before, after in pairwise(means)]
    by_launches = variance * fmean(1 / len(sitting) for sitting in sittings)
    return math.sqrt(max((_ROBUST * median(apart)) ** 2 / 2 - by_launches, 0.0))


@dataclass(frozen=True, slots=True)
class Levels:
    """When a run is judged, and how surely.

    Attributes:
        first: launches of the first look.
        fails: confidence of the interval that decides a FAIL, at each look.
        passes: the same of a PASS; None for a guard, whose estimate decides it.
        confirmed: launches that a FAIL rests on at least.
    """

    first: int
    fails: tuple[float, ...]
    passes: tuple[float, ...] | None
    confirmed: int

    @classmethod
    def of_plan(cls, plan: SequentialPlan, launches: int, *, confirmed: int, is_guard: bool = False) -> Levels:
        """The looks of a plan for which there are launches.

        Args:
            plan: the looks.
            launches: that the budget has time for.
            confirmed: launches that a FAIL rests on, if there are that many.
            is_guard: whether the estimate decides a PASS.
        """
        looks = range(plan.first, min(max(launches, plan.first), plan.last) + 1)
        passes = None if is_guard else tuple(map(plan.confidence_of_pass, looks))
        return cls(plan.first, tuple(map(plan.confidence, looks)), passes, min(confirmed, looks[-1]))

    @classmethod
    def of_guard(cls, alpha: float, launches: int, *, first: int, confirmed: int) -> Levels:
        """The looks at a guard that has the same level at each of them.

        Args:
            alpha: probability, at each look, of failing a change exactly at the tolerance.
            launches: that the budget has time for.
            first: launches of the first look.
            confirmed: launches that a FAIL rests on, if there are that many.
        """
        count = max(launches - first + 1, 1)
        return cls(first, (1 - 2 * alpha,) * count, None, min(confirmed, first + count - 1))


@dataclass(frozen=True, slots=True)
class SimulatedRuns:
    """Unchanged runs: the mean after each launch with its error and degrees of freedom, shape ``(runs, launches)``."""

    means: NDArray[np.float64]
    errors: NDArray[np.float64]
    degrees: NDArray[np.float64]

    @property
    def launches(self) -> int:
        """Launches of each run."""
        return int(self.means.shape[1])

    def margin(self, levels: Levels, share: float = SEEN) -> float:
        """How far beyond its tolerance a change has to be, on the logarithm, to fail in a share of the runs.

        Infinite if no change up to a factor of 20 does.
        """
        found = float(np.quantile(self.margins(levels), share, method="higher"))
        return found if found <= _WIDEST else math.inf

    def margins(self, levels: Levels) -> NDArray[np.float64]:
        """For each run, how far beyond the tolerance it fails; shape ``(runs,)``.

        With m the mean at a look, h half its interval for a FAIL and g that for a PASS, a change that is d beyond the
        tolerance fails there if d > h - m, and passes if d <= -m - g. A run fails if a look fails before one passes.
        """
        looks = slice(levels.first - 1, levels.first - 1 + len(levels.fails))
        means = self.means[:, looks]
        fails_from = self._halves(looks, levels.fails) - means
        passes_to = -means if levels.passes is None else -means - self._halves(looks, levels.passes)
        earlier = np.full_like(means, -math.inf)
        earlier[:, 1:] = np.maximum.accumulate(passes_to[:, :-1], axis=1)
        fails_from[:, : max(levels.confirmed - levels.first, 0)] = math.inf
        found: NDArray[np.float64] = np.maximum(fails_from, earlier).min(axis=1)
        return found

    def _halves(self, looks: slice, confidences: Sequence[float]) -> NDArray[np.float64]:
        """Half the width of the interval of each run at each look."""
        degrees = self.degrees[:, looks].T
        factors = [_quantiles(*one) for one in zip(confidences, degrees, strict=True)]
        halves: NDArray[np.float64] = np.minimum(np.stack(factors, axis=1) * self.errors[:, looks], _WIDEST_HALF)
        return halves


def _quantiles(confidence: float, degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two-sided quantiles of Student's t; of many different degrees of freedom, interpolated between some of them."""
    known = np.unique(degrees)
    if known.size > _KNOTS:
        known = np.linspace(known[0], known[-1], _KNOTS)
    found: NDArray[np.float64] = np.interp(degrees, known, [t_quantile(confidence, one) for one in known.tolist()])
    return found


def runs_beside_entry(scatter: Scatter, *, recorded: int, launches: int, prior_sd: float) -> SimulatedRuns:
    """Unchanged runs beside a stored baseline that was recorded in another sitting.

    Args:
        scatter: of the launches of both.
        recorded: launches of the entry.
        launches: of each run.
        prior_sd: see :func:`pytest_mlpatterns.analysis.statistics.intervals.ratio_of`.
    """
    draw = np.random.default_rng(_SEED)
    found = []
    for _ in range(_RUNS):
        entry = [LaunchValue(math.exp(level), error) for level, error in _drawn(draw, scatter, recorded)]
        run = [LaunchValue(math.exp(level), error) for level, error in _drawn(draw, scatter, launches)]
        found.append([log_ratio_of(run[:number], entry, prior_sd) for number in range(1, launches + 1)])
    return _simulated(found)


def runs_of_pairs(scatter: Scatter, *, launches: int) -> SimulatedRuns:
    """Unchanged runs of paired launches.

    Args:
        scatter: of their ratios.
        launches: of each run.
    """
    draw = np.random.default_rng(_SEED)
    values = draw.normal(0, scatter.assumed, (_RUNS, launches))
    errors = draw.choice(scatter.errors, (_RUNS, launches))
    found = [weighed_rows(values[:, :number], errors[:, :number]) for number in range(1, launches + 1)]
    return SimulatedRuns(
        np.stack([one.means for one in found], axis=1),
        np.stack([one.errors for one in found], axis=1),
        np.stack([one.degrees for one in found], axis=1),
    )


def runs_of_sides(scatter: Scatter, *, launches: int, prior_sd: float) -> SimulatedRuns:
    """Unchanged runs of two sides that are measured together, whose launches are compared as two samples.

    Args:
        scatter: of the launches of both.
        launches: of each side.
        prior_sd: see :func:`pytest_mlpatterns.analysis.statistics.intervals.ratio_of`.
    """
    draw = np.random.default_rng(_SEED)
    found = []
    for _ in range(_RUNS):
        sides = [
            [LaunchValue(math.exp(level), error) for level, error in _drawn(draw, scatter, launches, is_together=True)]
            for _ in range(2)
        ]
        found.append(
            [log_ratio_of(sides[0][:number], sides[1][:number], prior_sd) for number in range(1, launches + 1)]
        )
    return _simulated(found)


def _drawn(
    draw: np.random.Generator, scatter: Scatter, launches: int, *, is_together: bool = False
) -> list[tuple[float, float]]:
    """Launches of one sitting."""
    shift = 0.0 if is_together else float(draw.normal(0, scatter.between))
    levels = (shift + draw.normal(0, scatter.assumed, launches)).tolist()
    errors = draw.choice(scatter.errors, launches).tolist()
    return list(zip(levels, errors, strict=True))


def _simulated(runs: Sequence[Sequence[LogMean]]) -> SimulatedRuns:
    return SimulatedRuns(
        np.array([[one.mean for one in run] for run in runs]),
        np.array([[one.error for one in run] for run in runs]),
        np.array([[one.degrees for one in run] for run in runs]),
    )


def seen_change(margin: float, tolerance: float, better: Literal["lower", "higher"]) -> float | None:
    """The smallest worsening that is seen at a tolerance, as a share; None if none is.

    Args:
        margin: as :meth:`SimulatedRuns.margin` gives it.
        tolerance: the largest acceptable worsening, as a share.
        better: which values of the metric are better; a rate can fall by less than 100 %.
    """
    if math.isinf(margin):
        return None
    if better == "lower":
        return (1 + tolerance) * math.exp(margin) - 1
    return 1 - (1 - tolerance) * math.exp(-margin) if tolerance < 1 else None


def room_of(tolerance: float, change: float, better: Literal["lower", "higher"]) -> float:
    """How far a change is beyond a tolerance, on the logarithm: the margin that a run may need to see it."""
    if better == "lower":
        return math.log((1 + change) / (1 + tolerance))
    return math.log((1 - tolerance) / (1 - change)) if change < 1 else math.inf


def fewest_launches(margin_of: Callable[[int], float], room: float, counts: Iterable[int]) -> int | None:
    """The smallest of some numbers of launches whose margin is at most the room; None if the largest has more.

    Args:
        margin_of: the margin with a number of launches; it falls as they grow.
        room: see :func:`room_of`.
        counts: numbers of launches, ascending.
    """
    numbers = list(counts)
    low, high = 0, len(numbers)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if margin_of(numbers[middle]) <= room else (middle + 1, high)
    return numbers[low] if low < len(numbers) else None


def seen_tolerance(margin: float, better: Literal["lower", "higher"]) -> float | None:
    """The smallest tolerance of which twice as much is seen, as a share; None if there is none.

    With m the margin and t the tolerance, (1 + 2 t) / (1 + t) = exp(m), and (1 - t) / (1 - 2 t) = exp(m) for a rate.
    """
    if math.isinf(margin):
        return None
    gain, factor = math.expm1(margin), math.exp(margin)
    if better == "lower":
        return gain / (2 - factor) if factor < 2 else None
    return gain / (2 * factor - 1)
