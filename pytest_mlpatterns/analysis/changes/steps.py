"""Steps: from one run to the next a metric has another level, and keeps it.

E-divisive (Matteson & James, Journal of the American Statistical Association 109, 2014), with which MongoDB watches its
tests (Daly et al., International Conference on Performance Engineering 2020), as Apache Otava does, takes any other
distribution for a change, and needs permutations, or a test without a correction for having chosen the place. Here the
errors of the launches and the scatter between runs are known. So a change of the level is looked for alone, with more
power and a significance in closed form:

- The runs are tamed (:mod:`pytest_mlpatterns.analysis.changes.stretches`), so that single spikes change no level.
- The best split of each of many nested windows is a candidate (seeded binary segmentation: Kovács, Bühlmann, Li & Munk,
  Biometrika 110, 2023), so that a change is also found between two others.
- Each candidate is placed and tested anew between its neighbours. One is dropped if they explain more without it, then
  the least significant one, until each one that is left is significant.

The test is the difference of the means on both sides over its standard error, by Student's t. It is corrected for
having chosen the place (:func:`corrected`). In a chain of ratios to the commit before, each increment is a test.

Pure. This module must not know directions, tests or metrics. ``benchmarks/change_points.py`` counts its errors.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from pytest_mlpatterns.analysis.changes.stretches import (
    ANCHOR_SD,
    FEWEST_RUNS,
    Scatter,
    Stretch,
    deviations,
    pooled,
    scatter_of_differences,
    scatter_of_increments,
    scatter_of_runs,
    tamed,
    with_correlation,
)
from pytest_mlpatterns.analysis.statistics.distributions import student_tail

SIGNIFICANCE = 0.001  # Largest corrected p-value of a change: one of a thousand unchanged courses may show one
FEWEST_NEW = 2  # Runs after a change that is new and not confirmed: a single one may be a spike
_CANDIDATE = 3.0
"""Least standard errors of a candidate. The largest of n normal values is near sqrt(2 log n); the test needs more."""
_SHRINKS = math.sqrt(0.5)  # Ratio of the lengths of two layers of windows
_OVERLAP = 4.0
"""Places that count as one, since windows overlap. With it 1.3 to 4.1 % of simulated unchanged courses of 12 to 300
runs have a p-value below 5 %."""
_ROUNDS = 3  # Most times that the places of all changes are sought anew
_LEAST_P = 1e-300  # Least p-value: a smaller one is no better known
_TO_MEDIAN = math.sqrt(math.pi / 2)  # Standard error of a median over a mean's


class Step(Struct, frozen=True):
    """A change of the level between two runs."""

    at: int  # index of the first point after it
    size: float  # the change, on the logarithm
    error: float  # its standard error
    degrees: float  # degrees of freedom of that
    p_value: float  # corrected for the choice of the place
    after: int  # number of points after it, up to the next change or the end

    @property
    def is_confirmed(self) -> bool:
        """Whether enough runs follow it."""
        return self.after >= FEWEST_RUNS


def steps_of(stretches: Sequence[Stretch], stop: int) -> tuple[Step, ...]:
    """The steps of one segment, in the order of the course."""
    found: list[Step] = []
    levels = [one for one in stretches if not one.is_increment]
    for stretch in levels:
        found += _steps_of_stretch(stretch, found)
    increments = [one for one in stretches if one.is_increment]
    if increments:
        others = [scatter_of_runs(one.values, one.errors) for one in levels]
        found += _steps_of_increments(increments, found, stop=stop, others=others)
    return _apart(found)


def corrected(z: float, degrees: float, *, runs: int, side: int) -> float:
    """The probability that unchanged runs show such a change at any place.

    A change whose shorter side has h of n runs lies in one of about n / 2h windows of 2h runs. The split within a
    window is chosen too. There the statistic is the maximum of a process, whose tail is that of 1 + z² independent ones
    at most (the rate at which an Ornstein-Uhlenbeck process crosses a level: James, James & Siegmund, Biometrika 74,
    1987), and never more than there are splits. The lengths of windows share the error, the j-th one below the longest
    with 6 / (π j)² of it. Windows overlap, so that fewer of their tests are independent.

    ``z``: absolute difference of two means, over its standard error. ``degrees``: degrees of freedom of the standard
    error.
    """
    window = min(2 * side, runs)
    layer = 1 + math.log2(runs / window)
    places = (math.pi * layer) ** 2 / 6 * runs / window * min(window, 1 + z * z)
    return min(max(2 * student_tail(z, degrees) * max(places / _OVERLAP, 1.0), _LEAST_P), 1.0)


@lru_cache(maxsize=64)
def layers_of_windows(runs: int) -> tuple[tuple[NDArray[np.int64], int], ...]:
    """Starts and lengths of nested windows, from one of all runs down to the shortest; two of a length hold a run."""
    layers = []
    length = runs
    while length >= min(2 * FEWEST_RUNS, runs) and length > 1:
        windows = 2 * math.ceil(runs / length) - 1
        starts = np.unique(np.round(np.linspace(0, runs - length, windows)).astype(np.int64))
        starts.setflags(write=False)
        layers.append((starts, length))
        length = min(int(length * _SHRINKS), length - 1)
    return tuple(layers)


class _Runs:
    """Tamed runs of one stretch, and the test of a change between two of them."""

    def __init__(self, stretch: Stretch, anchor: float | None) -> None:
        values = stretch.values
        self.scatter = scatter_of_runs(values, stretch.errors)
        sds = deviations(stretch.errors, self.scatter.sd)
        values = tamed(values, sds, anchor=anchor)
        begins = stretch.begins
        self.shift = 0 if anchor is None else 1
        self._measured = stretch.values
        self._common_sd = self.scatter.sd
        if anchor is not None:
            values, sds = np.concatenate([[anchor], values]), np.concatenate([[ANCHOR_SD], sds])
            begins = np.concatenate([[True], begins])
        self.size = values.size
        self._begins = begins
        weights = 1 / sds**2
        self._weights = np.concatenate([[0.0], np.cumsum(weights)])
        self._values = values - values.mean()
        self._sums = np.concatenate([[0.0], np.cumsum(weights * self._values)])
        self._factor = 1.0
        self._p_values: dict[tuple[int, int, int], float] = {}

    def correlate(self, places: Sequence[int]) -> bool:
        """Take the correlation of neighbours into the scatter, as it is around the levels between changes."""
        ends = [0, *places, self.size]
        levels = [
            (self._sums[stop] - self._sums[start]) / (self._weights[stop] - self._weights[start])
            for start, stop in pairwise(ends)
        ]
        left = self._values - np.repeat(levels, np.diff(ends))
        found = with_correlation(self.scatter, left[self.shift :])
        self._factor, self.scatter = self._factor * found.sd / self.scatter.sd, found
        self._p_values.clear()
        return self._factor > 1

    def split(self, start: int, stop: int, place: int) -> tuple[float, float]:
        """The difference of the means after and before a place, and its standard error."""
        before = self._weights[place] - self._weights[start]
        after = self._weights[stop] - self._weights[place]
        size = (self._sums[stop] - self._sums[place]) / after - (self._sums[place] - self._sums[start]) / before
        return float(size), self._factor * self._noisier(start, stop) * math.sqrt(1 / before + 1 / after)

    def _noisier(self, start: int, stop: int) -> float:
        """How many times the common scatter some runs have, at least 1: a machine may have noisy weeks."""
        first, last = max(start - self.shift, 0), stop - self.shift
        if last - first < 2 * FEWEST_RUNS:
            return 1.0
        return max(scatter_of_differences(self._measured[first:last]) / self._common_sd, 1.0)

    def agree(self, start: int, stop: int, place: int) -> bool:
        """Whether each run after a place is nearer to their mean than to the mean before it."""
        size, _ = self.split(start, stop, place)
        before = (self._sums[place] - self._sums[start]) / (self._weights[place] - self._weights[start])
        return bool(np.all((self._values[place:stop] - before) / size > 0.5))

    def best_splits(self, starts: NDArray[np.int64], length: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The best place in each window of one length, and how many standard errors both sides differ by.

        ``starts``: of the windows, shape ``(windows,)``. Returns two arrays of that shape; 0 standard errors in a
        window without an allowed place.
        """
        places = starts[:, None] + np.arange(1, length)[None, :]
        begin, end = starts[:, None], starts[:, None] + length
        before = self._weights[places] - self._weights[begin]
        after = self._weights[end] - self._weights[places]
        size = (self._sums[end] - self._sums[places]) / after - (self._sums[places] - self._sums[begin]) / before
        fewest_before = np.where((begin == 0) & (self.shift == 1), 1, FEWEST_RUNS)
        fewest_after = np.where(end == self.size, FEWEST_NEW, FEWEST_RUNS)
        allowed = (places - begin >= fewest_before) & (end - places >= fewest_after) & self._begins[places]
        z = np.where(allowed, np.abs(size) / np.sqrt(1 / before + 1 / after), 0.0)
        best = z.argmax(axis=1)
        rows = np.arange(starts.size)
        return places[rows, best], z[rows, best]

    def best_split(self, start: int, stop: int) -> tuple[int, float]:
        """As :meth:`best_splits`, of one window; 0 standard errors if it has no allowed place."""
        if stop - start < 2:
            return start, 0.0
        places, z = self.best_splits(np.array([start]), stop - start)
        return int(places[0]), float(z[0])

    def explained(self, places: Sequence[int]) -> float:
        """The weighted squares of the runs that the levels between these places explain."""
        ends = [0, *places, self.size]
        return float(np.sum(np.diff(self._sums[ends]) ** 2 / np.diff(self._weights[ends])))

    def p_value(self, start: int, stop: int, place: int) -> float:
        """Of the change at a place between two others."""
        key = start, stop, place
        if key not in self._p_values:
            size, error = self.split(start, stop, place)
            before = self.size if start == 0 and self.shift else place - start
            side = max(min(before, stop - place), 1)
            p_value = corrected(abs(size) / error, self.scatter.degrees, runs=self.size, side=side)
            self._p_values[key] = p_value
        return self._p_values[key]


def _steps_of_stretch(stretch: Stretch, known: Sequence[Step]) -> list[Step]:
    """The steps of a stretch of several runs."""
    first = int(stretch.index[0])
    anchor = None
    if stretch.anchor is not None:
        anchor = sum(step.size for step in known if stretch.anchor < step.at <= first)
    if stretch.values.size < FEWEST_RUNS + (0 if anchor is not None else FEWEST_NEW):
        return []
    runs = _Runs(stretch, anchor)
    places = _significant(runs, _fewest(runs, _relocated(runs, _candidates(runs))))
    if runs.correlate(places):
        places = _significant(runs, places)
    ends = [0, *places, runs.size]
    found = []
    for before, place, after in zip(ends, places, ends[2:], strict=False):
        size, error = runs.split(before, after, place)
        at = int(stretch.index[place - runs.shift])
        p_value = runs.p_value(before, after, place)
        if after - place >= FEWEST_RUNS or runs.agree(before, after, place):
            found.append(Step(at, size, error, runs.scatter.degrees, p_value, after - place))
    return found


def _candidates(runs: _Runs) -> list[int]:
    """Places of possible changes: the best split of the most significant window, then of those without it, and on."""
    places, zs, begins, ends = [], [], [], []
    for starts, length in layers_of_windows(runs.size):
        place, z = runs.best_splits(starts, length)
        places.append(place)
        zs.append(z)
        begins.append(starts)
        ends.append(starts + length)
    place, z = np.concatenate(places), np.concatenate(zs)
    begin, end = np.concatenate(begins), np.concatenate(ends)
    chosen: list[int] = []
    least = max(_CANDIDATE, math.sqrt(2 * math.log(runs.size)))
    while z.max(initial=0.0) >= least:
        here = int(place[z.argmax()])
        chosen.append(here)
        z = np.where((begin < here) & (here < end), 0.0, z)
    return _completed(runs, sorted(chosen), least)


def _completed(runs: _Runs, places: Sequence[int], least: float) -> list[int]:
    """The places, and the best splits between them, as of a short stretch that no window begins or ends with."""
    found = list(places)
    while True:
        splits = [runs.best_split(start, stop) for start, stop in pairwise([0, *found, runs.size])]
        more = [place for place, z in splits if z >= least]
        if not more:
            return found
        found = sorted({*found, *more})


def _relocated(runs: _Runs, places: Sequence[int], which: slice = slice(None)) -> list[int]:
    """The places, some of them sought anew between their neighbours; one without an allowed place is dropped."""
    found = list(places)
    for _ in range(_ROUNDS):
        before = found
        found = _moved(runs, found, which)
        if found == before:
            break
    return found


def _fewest(runs: _Runs, places: Sequence[int]) -> list[int]:
    """The places without those without which their neighbours, sought anew, explain more.

    Of two changes that are close three places may be found, of which none can move as they have to be five runs apart.
    """
    left, number = list(places), 0
    while number < len(left):
        fewer = _relocated(runs, left[:number] + left[number + 1 :], slice(max(number - 2, 0), number + 2))
        if runs.explained(fewer) < runs.explained(left):
            number += 1
        else:
            left, number = fewer, max(number - 1, 0)
    return left


def _moved(runs: _Runs, places: Sequence[int], which: slice) -> list[int]:
    """The places, some of them sought anew between their neighbours."""
    first, last, _ = which.indices(len(places))
    moved = list(places[:first])
    for number in range(first, last):
        stop = places[number + 1] if number + 1 < len(places) else runs.size
        best, z = runs.best_split(moved[-1] if moved else 0, stop)
        if z > 0:
            moved.append(best)
    return [*moved, *places[last:]]


def _significant(runs: _Runs, places: Sequence[int]) -> list[int]:
    """The places without those that are not significant, which go one by one, the least significant first."""
    left = list(places)
    while left:
        ends = [0, *left, runs.size]
        p_values = [runs.p_value(*one) for one in zip(ends, ends[2:], left, strict=False)]
        worst = max(range(len(left)), key=p_values.__getitem__)
        if p_values[worst] <= SIGNIFICANCE:
            return left
        del left[worst]
        left = _moved(runs, left, slice(max(worst - 1, 0), worst + 1))
    return left


def _steps_of_increments(
    increments: Sequence[Stretch], known: Sequence[Step], *, stop: int, others: Sequence[Scatter]
) -> list[Step]:
    """The increments of a chain that differ from zero."""
    places = np.array([int(one.index[0]) for one in increments])
    runs = np.array([one.index.size for one in increments])
    explained = [
        sum(step.size for step in known if one.anchor is not None and one.anchor < step.at <= place)
        for one, place in zip(increments, places, strict=True)
    ]
    sizes = np.array([_middle(one.values) for one in increments]) - np.array(explained)
    errors = np.concatenate([one.errors for one in increments])
    own_scatter = scatter_of_increments(sizes * np.sqrt(runs) if sizes.size >= FEWEST_RUNS else sizes[:0], errors)
    scatter = pooled([own_scatter, *others])
    own = np.array([float(np.sqrt(np.mean(one.errors**2))) for one in increments])
    sds = deviations(own, scatter.sd) * np.where(runs > 1, _TO_MEDIAN, 1.0) / np.sqrt(runs)
    sds = np.hypot(sds, ANCHOR_SD)
    found = []
    for place, size, sd in zip(places, sizes, sds, strict=True):
        p_value = min(max(2 * student_tail((abs(size) / sd), scatter.degrees) * len(increments), _LEAST_P), 1.0)
        if p_value <= SIGNIFICANCE:
            found.append(Step(int(place), float(size), float(sd), scatter.degrees, p_value, stop - int(place)))
    return found


def _middle(values: NDArray[np.float64]) -> float:
    """The median; of an even number the middle one that is nearer to zero."""
    ascending = np.sort(values)
    middle = ascending[(values.size - 1) // 2 : values.size // 2 + 1]
    return float(middle[np.abs(middle).argmin()])


def _apart(found: Sequence[Step]) -> tuple[Step, ...]:
    """Steps that are five runs apart and not new ones with a single run: of a closer group one is left, or none.

    A group counts as one step, of their sum, at its largest step of that direction: a change that was taken back is
    none.
    """
    groups: list[list[Step]] = []
    for step in sorted(found, key=lambda step: step.at):
        if groups and step.at - groups[-1][-1].at < FEWEST_RUNS:
            groups[-1].append(step)
        else:
            groups.append([step])
    kept: list[Step] = []
    for group in groups:
        whole = _as_one(group)
        if whole is not None and whole.after >= FEWEST_NEW:
            kept.append(whole)
    followed = [replace(step, after=min(step.after, later.at - step.at)) for step, later in pairwise(kept)]
    return (*followed, *kept[-1:])


def _as_one(group: Sequence[Step]) -> Step | None:
    """Close steps as one; None if together they come to nothing."""
    if len(group) == 1:
        return group[0]
    size = sum(step.size for step in group)
    error = math.sqrt(sum(step.error**2 for step in group))
    likely = [step for step in group if step.size * size > 0]
    if not likely or abs(size) < (-NormalDist().inv_cdf(SIGNIFICANCE / 2)) * error:
        return None
    largest = max(likely, key=lambda step: abs(step.size))
    return replace(largest, size=size, error=error, after=max(step.after for step in group))
