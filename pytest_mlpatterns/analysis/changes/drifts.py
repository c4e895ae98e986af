"""Drifts: a metric changes a little with each run, so that no single step shows it.

Two questions are asked of a stretch of runs:

- *Is it no step?* In each of many nested windows the slope is tested beside a step at every place, and the least
  significant of these tests counts (an intersection-union test: Berger, Technometrics 24, 1982). A step of any size at
  any place leaves no slope beside it, so the test keeps its error for every step.
- *Are several steps no better account?* A ramp between two runs and the steps that are left beside it must be less
  costly than the steps alone, by the squares of what both leave over and by a price for each of their numbers (Schwarz,
  Annals of Statistics 6, 1978). So a staircase stays one.

In a chain of ratios to the commit before, a drift is a mean increment other than zero, without those that are steps and
without the largest one.

Pure. This module must not know directions, tests or metrics. ``benchmarks/change_points.py`` counts its errors.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.changes.steps import SIGNIFICANCE, corrected, layers_of_windows, steps_of_stretch
from pytest_mlpatterns.analysis.changes.stretches import (
    FEWEST_RUNS,
    Scatter,
    Stretch,
    deviations,
    scatter_of_increments,
    scatter_of_runs,
    tamed,
    with_correlation,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pytest_mlpatterns.analysis.changes.steps import Step

__all__ = ["Drift", "drifts_of", "without_drifts"]

_FEWEST_OF_DRIFT = 20
"""Runs of the shortest window that is searched for a drift."""
_SHORTEST_RAMP = 10
"""Runs of the shortest drift: a shorter one is a step that is not sharp."""
_MOST_DRIFTS = 4
"""Most drifts of a stretch."""
_LEAST_SLOPE = 3.0
"""Standard errors of a slope that may be significant; the corrected test needs more."""
_MOST_LENGTHS = 4
"""Lengths of windows in which a drift is fitted, around the clearest one."""
_ENDS = 24
"""Places that are tried for each end of a drift."""
_MOST_BINS = 400
"""Means of neighbouring runs among which the ends of a drift are sought."""
_REFINEMENTS = 2
"""How often the ends are sought, each time between the neighbours of the best ones."""
_NUMBERS_OF_STEP, _NUMBERS_OF_DRIFT = 2, 3
"""Numbers that describe a step (its place and size) and a drift (its ends and size)."""
_HELD_AT = 3.0
"""Standard deviations from the median at which an increment is held, so that a disturbed one makes no drift."""
_BIAS_SD = 0.0003
"""Standard deviation of the mean of many ratios of unchanged code, relative: such a mean is no drift."""


class Drift(Struct, frozen=True):
    """A change of the level over many runs.

    Attributes:
        first: index of the first point of it.
        last: index of its last point.
        size: the whole change, on the logarithm.
        error: its standard error.
        degrees: degrees of freedom of that.
        p_value: that runs with one step at most show as much, corrected for the choice of the window.
    """

    first: int
    last: int
    size: float
    error: float
    degrees: float
    p_value: float


def drifts_of(stretches: Sequence[Stretch], steps: Sequence[Step]) -> tuple[Drift, ...]:
    """The drifts of one segment, in the order of the course.

    Args:
        stretches: of the segment.
        steps: that they show if there is no drift.
    """
    found: list[Drift] = []
    for stretch in stretches:
        if not stretch.is_increment:
            found += _drifts_of_stretch(stretch)
    places = {step.at for step in steps}
    found += _drift_of_chain([one for one in stretches if one.is_increment and int(one.index[0]) not in places])
    return tuple(sorted(found, key=lambda drift: drift.first))


def without_drifts(stretch: Stretch, drifts: Sequence[Drift]) -> Stretch:
    """The stretch without its drifts, so that what is left are steps."""
    if stretch.is_increment:
        return stretch
    values = stretch.values
    for drift in drifts:
        values = values - drift.size * _ramp(stretch.index, drift.first, drift.last)
    return replace(stretch, values=values)


def _ramp(at: NDArray[np.int64], first: int, last: int) -> NDArray[np.float64]:
    """From 0 at the first point of a drift to 1 at its last one."""
    return np.clip((at - first) / (last - first), 0.0, 1.0)


# --- independent runs around a level -------------------------------------------------------------------------------


class _Window(Struct, frozen=True):
    """Runs with a slope beside any step: the first one, the one after the last, and the slope in standard errors."""

    start: int
    stop: int
    z: float
    sd: float = 1.0


def _drifts_of_stretch(stretch: Stretch) -> list[Drift]:
    """The drifts of a stretch of several runs."""
    size = stretch.values.size
    if size < _FEWEST_OF_DRIFT:
        return []
    found: list[Drift] = []
    scatter = scatter_of_runs(stretch.values, stretch.errors)
    windows = [one for one in _sloping_windows(stretch, scatter) if _p_value(one, scatter, size) <= SIGNIFICANCE]
    while windows and len(found) < _MOST_DRIFTS:
        clearest = _clearest(windows)
        rest = without_drifts(stretch, found)
        common = _around(rest, min(one.start for one in clearest), max(one.stop for one in clearest))
        alone = _fit_of_steps(common, scatter)
        tried = [_gained(rest, one, scatter, alone=alone) for one in clearest]
        best = max(tried, key=lambda one: one.gain)
        p_value = _p_value(clearest[0], with_correlation(scatter, best.left), size)
        low, high = stretch.index[clearest[0].start], stretch.index[clearest[0].stop - 1]
        if best.gain > 0 and p_value <= SIGNIFICANCE:
            found.append(replace(best.drift, p_value=p_value))
            low, high = best.drift.first, best.drift.last
        windows = [one for one in windows if stretch.index[one.start] > high or stretch.index[one.stop - 1] < low]
    return found


def _clearest(windows: Sequence[_Window]) -> list[_Window]:
    """The window with the clearest slope, and the clearest ones of other lengths that overlap it."""
    ordered = sorted(windows, key=lambda one: -one.z)
    first = ordered[0]
    by_length: dict[int, _Window] = {}
    for one in ordered:
        if one.start < first.stop and first.start < one.stop:
            by_length.setdefault(one.stop - one.start, one)
    return list(by_length.values())[:_MOST_LENGTHS]


class _Gain(Struct, frozen=True):
    """A drift, how much less it costs than steps alone, and what it leaves over; below zero if steps cost less."""

    drift: Drift
    gain: float
    left: NDArray[np.float64]


def _gained(stretch: Stretch, window: _Window, scatter: Scatter, *, alone: _Fit) -> _Gain:
    """The drift of a window, alone or beside the largest step.

    Args:
        stretch: all runs, without the drifts that were found before.
        window: where they have a slope.
        scatter: of a run.
        alone: what steps make of the runs in and around this window and those that compete with it.
    """
    part = _around(stretch, window.start, window.stop)
    steps = [step for step in alone.steps if part.index[0] < step.at <= part.index[-1]]
    tried = [_best_drift(part, scatter, beside=place) for place in (None, _largest(steps, part))]
    fits = [_fit_of_steps(without_drifts(alone.stretch, [drift]), scatter) for drift in tried]
    price = math.log(stretch.values.size)
    best = 1 if fits[1].cost + _NUMBERS_OF_STEP * price < fits[0].cost else 0
    return _Gain(tried[best], alone.cost - fits[best].cost - _NUMBERS_OF_DRIFT * price, fits[best].left)


def _p_value(window: _Window, scatter: Scatter, runs: int) -> float:
    """Of the slope in a window, corrected for the choice of the window; its own scatter may be larger."""
    z = window.z * window.sd / scatter.sd
    return corrected(z, scatter.degrees, runs=runs, side=(window.stop - window.start) // 2)


class _Fit(Struct, frozen=True):
    """What steps make of a stretch.

    Attributes:
        stretch: the runs.
        steps: that they show.
        left: what their levels leave over, shape ``(runs,)``.
        cost: squares of that, in variances of a run, and the price of the steps.
    """

    stretch: Stretch
    steps: tuple[Step, ...]
    left: NDArray[np.float64]
    cost: float


def _fit_of_steps(stretch: Stretch, scatter: Scatter) -> _Fit:
    sds = deviations(stretch.errors, scatter.sd)
    weights = 1 / sds**2
    values = tamed(stretch.values, sds)
    steps = tuple(steps_of_stretch(stretch, ()))
    places = np.searchsorted(stretch.index, [step.at for step in steps])
    left = [
        part - weight @ part / weight.sum()
        for part, weight in zip(np.split(values, places), np.split(weights, places), strict=True)
    ]
    residuals = np.concatenate(left)
    cost = float(weights @ residuals**2) + _NUMBERS_OF_STEP * len(steps) * math.log(values.size)
    return _Fit(stretch, steps, residuals, cost)


def _largest(steps: Sequence[Step], stretch: Stretch) -> int | None:
    """The run before which the largest step is; None if there is none."""
    if not steps:
        return None
    return int(np.searchsorted(stretch.index, max(steps, key=lambda step: abs(step.size)).at))


def _around(stretch: Stretch, start: int, stop: int) -> Stretch:
    """The runs of a window and half as many on each side of it."""
    margin = (stop - start) // 2
    chosen = slice(max(start - margin, 0), stop + margin)
    return Stretch(stretch.index[chosen], stretch.values[chosen], stretch.errors[chosen], stretch.begins[chosen])


def _sloping_windows(stretch: Stretch, scatter: Scatter) -> list[_Window]:
    """Windows of all lengths whose slope remains beside the step that explains most of it."""
    sds = deviations(stretch.errors, scatter.sd)
    sums = _Sums(tamed(stretch.values, sds), sds)
    found = []
    for starts, length in layers_of_windows(stretch.values.size, _FEWEST_OF_DRIFT, overlap=4):
        zs = sums.slopes(starts, length)
        found += [
            _Window(int(starts[number]), int(starts[number]) + length, float(zs[number]), scatter.sd)
            for number in np.flatnonzero(zs >= _LEAST_SLOPE)
        ]
    return found


class _Sums:
    """Sums over the runs before each one, from which the slope of any window follows.

    Args:
        values: tamed, shape ``(runs,)``.
        sds: standard deviation of each.
    """

    def __init__(self, values: NDArray[np.float64], sds: NDArray[np.float64]) -> None:
        weights = 1 / sds**2
        times = np.arange(values.size) - (values.size - 1) / 2
        centred = values - values.mean()
        columns = (weights, weights * times, weights * centred, weights * times**2, weights * times * centred)
        self._sums = [np.concatenate([[0.0], np.cumsum(column)]) for column in columns]

    def _of(self, start: NDArray[np.int64], stop: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The weighted sums of squares of the times, and of their products with the values, around both means."""
        w, t, y, tt, ty = (total[stop] - total[start] for total in self._sums)
        return tt - t * t / w, ty - t * y / w

    def slopes(self, starts: NDArray[np.int64], length: int) -> NDArray[np.float64]:
        """In standard errors the slope of each window, beside the step that leaves least of it; never below zero."""
        begin, end = starts[:, None], starts[:, None] + length
        places = begin + np.arange(1, length)[None, :]
        squares_before, products_before = self._of(begin, places)
        squares_after, products_after = self._of(places, end)
        z = (products_before + products_after) / np.sqrt(np.maximum(squares_before + squares_after, 1e-300))
        least: NDArray[np.float64] = np.maximum(z.min(axis=1), -z.max(axis=1))
        return np.maximum(least, 0.0)


def _best_drift(stretch: Stretch, scatter: Scatter, *, beside: int | None) -> Drift:
    """The ramp that leaves least of some runs over, with the level before it and after it.

    The error of its size includes that its ends are not known: other ramps count as they explain the runs.

    Args:
        stretch: the runs.
        scatter: of a run.
        beside: a run before which there is a step, too; None for no step.
    """
    sds = deviations(stretch.errors, scatter.sd)
    runs = _Weighted(tamed(stretch.values, sds), 1 / sds, beside)
    size = stretch.values.size
    low, high, step = np.zeros(2), np.full(2, size - 1.0), 1.0
    tried: list[_Ramps] = []
    for _ in range(_REFINEMENTS):
        first, last = (
            np.unique(np.round(np.linspace(*ends, _ENDS)).astype(np.int64)) for ends in zip(low, high, strict=True)
        )
        tried.append(runs.ramps(first, last))
        step = max((high - low).max() / (_ENDS - 1), 1.0)
        best = np.array([tried[-1].first, tried[-1].last])
        low, high = np.maximum(best - step, 0), np.minimum(best + step, size - 1)
    ends = int(stretch.index[tried[-1].first]), int(stretch.index[tried[-1].last])
    return Drift(*ends, tried[-1].size, tried[0].error, scatter.degrees, p_value=1.0)


class _Ramps(Struct, frozen=True):
    """The ramp that explains most of some runs, and the error of its size with that of its ends."""

    first: int
    last: int
    size: float
    error: float


class _Weighted:
    """Runs, or means of neighbouring ones, in units of their standard deviation and without their level.

    Args:
        values: shape ``(runs,)``.
        roots: one over the standard deviation of each.
        beside: a run before which there is a step, too; None for no step.
    """

    def __init__(self, values: NDArray[np.float64], roots: NDArray[np.float64], beside: int | None) -> None:
        weights = roots**2
        cuts = np.arange(0, values.size, math.ceil(values.size / _MOST_BINS))
        totals = np.add.reduceat(weights, cuts)
        self._at = np.add.reduceat(weights * np.arange(values.size), cuts) / totals
        self._roots = np.sqrt(totals)
        rows = np.add.reduceat(weights * values, cuts) / self._roots
        is_after = self._at >= (0 if beside is None else beside)
        parts = [self._roots * is_after, self._roots * ~is_after]
        self._levels = [part / math.sqrt(float(part @ part)) for part in parts if part.any()]
        self._rest = self._without_levels(rows[None, :])[0]

    def _without_levels(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        for level in self._levels:
            rows = rows - np.outer(rows @ level, level)
        return rows

    def ramps(self, firsts: NDArray[np.int64], lasts: NDArray[np.int64]) -> _Ramps:
        """The best ramp between some first and last runs, ascending each; one of them is long enough."""
        first, last = (ends.ravel() for ends in np.meshgrid(firsts, lasts, indexing="ij"))
        is_long = last - first >= _SHORTEST_RAMP - 1
        first, last = first[is_long], last[is_long]
        rows = np.clip((self._at[None, :] - first[:, None]) / (last - first)[:, None], 0.0, 1.0) * self._roots
        rows = self._without_levels(rows)
        squares, products = np.maximum((rows**2).sum(axis=1), 1e-300), rows @ self._rest
        sizes, explained = products / squares, products**2 / squares
        best = int(explained.argmax())
        shares = np.exp((explained - explained[best]) / 2)
        shares /= shares.sum()
        error = math.sqrt(float(shares @ (1 / squares + (sizes - sizes[best]) ** 2)))
        return _Ramps(int(first[best]), int(last[best]), float(sizes[best]), error)


# --- increments -----------------------------------------------------------------------------------------------------


def _drift_of_chain(increments: Sequence[Stretch]) -> list[Drift]:
    """The clearest drift of a chain, if it has one.

    Args:
        increments: anchored stretches of few runs each, without those that are steps.
    """
    size = len(increments)
    if size < _FEWEST_OF_DRIFT:
        return []
    runs = np.array([one.index.size for one in increments])
    sizes = np.array([float(np.median(one.values)) for one in increments])
    usual, errors = float(np.median(sizes)), np.concatenate([one.errors for one in increments])
    scatter = scatter_of_increments((sizes - usual) * np.sqrt(runs), errors)
    weights = runs.astype(np.float64)
    held = np.clip(sizes, usual - _HELD_AT * scatter.sd, usual + _HELD_AT * scatter.sd)
    totals, products = (np.concatenate([[0.0], np.cumsum(column)]) for column in (weights, weights * held))
    best = _Window(0, 0, 0.0)
    for starts, length in layers_of_windows(size, _FEWEST_OF_DRIFT, overlap=4):
        members = (weights * held)[starts[:, None] + np.arange(length)[None, :]]
        total, product = totals[starts + length] - totals[starts], products[starts + length] - products[starts]
        least = np.maximum(product - members.max(axis=1), -(product - members.min(axis=1)))
        z = np.maximum(least, 0.0) / total / np.sqrt(scatter.sd**2 / total + _BIAS_SD**2)
        if z.max() > best.z:
            start = int(starts[z.argmax()])
            best = _Window(start, start + length, float(z.max()))
    side = max((best.stop - best.start) // 2, FEWEST_RUNS)
    p_value = corrected(best.z, scatter.degrees, runs=size, side=side)
    if p_value > SIGNIFICANCE:
        return []
    chosen = slice(best.start, best.stop)
    error = math.sqrt(scatter.sd**2 * float((1 / weights[chosen]).sum()))
    first, last = int(increments[best.start].index[0]), int(increments[best.stop - 1].index[-1])
    return [Drift(first, last, float(held[chosen].sum()), error, scatter.degrees, p_value)]
