"""The independent measurements that a segment of a course consists of, and how much they scatter.

Runs of a machine are independent measurements around one level, and so are ratios to one release: each is a stretch. A
ratio to the commit before is a stretch of its own commit alone. If the level of the reference was measured in the same
segment, the stretch is anchored: unchanged code has the ratio 1, and the stretch begins with that as a known value.

The levels of a stretch are robust: a group of fewer than five runs that stand out, such as a single spike, is drawn
towards its neighbours (:func:`tamed`). So a change of five runs or more stays as it is, and a shorter one is none.

Pure. This module must not know what counts as a change.
"""

import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pytest_mlpatterns.analysis.changes.series import Point, commit_key
from pytest_mlpatterns.analysis.statistics.intervals import MAD_TO_SD, PRIOR_DEGREES, prior_weight

FEWEST_RUNS = 5  # Runs on each side of a confirmed change. A group of fewer runs that stand out is a disturbance.
ANCHOR_SD = 0.003
"""Standard deviation of the ratio 1 of unchanged code, relative: how far two checkouts of it may differ for long."""
_WINDOW = FEWEST_RUNS + 2
"""Runs in a row of which five must be like a run, so that up to two among them may be disturbed."""
_TAMED_AT = 3.0  # Standard deviations from the runs beside it from which a run stands out
_CLIPPED_AT = 2.5  # Robust standard deviations at which a difference is clipped before the scatter is taken from all
_CLIPPED_VARIANCE = 0.978  # Variance of a standard normal value that is clipped so
_LEAST_SD = 1e-3  # Least scatter between runs, relative: 0.1 %, below which neither values nor clocks are reproducible
_NOISY = 3.0  # Multiple of the lower quartile of all errors from which a run counts as noisy and gets less weight
_USE_OF_DIFFERENCES = 2 / 3
"""Degrees of freedom of a variance from differences of neighbours, as a share of their number (von Neumann 1941)."""
_CHANCE_OF_CORRELATION = 1.0
"""Standard errors by which a correlation of neighbours must exceed zero: 1 / sqrt(n) is that of n independent runs."""
_MOST_ALIKE = 0.9  # Largest correlation of neighbours that is taken off: beyond it all levels look alike


class Stretch(Struct, frozen=True):
    """Independent measurements around one level; arrays of shape ``(runs,)``."""

    index: NDArray[np.int64]  # of each run in the points of the course, ascending
    values: NDArray[np.float64]  # logarithms; of ratios those that were measured
    errors: NDArray[np.float64]  # their standard errors, from the launches
    begins: NDArray[np.bool_]  # whether a run is the first one of its commit, so that a change may lie before it
    # index of the last run of the reference's commit; None if its level is not known in this segment
    anchor: int | None = None

    @property
    def is_increment(self) -> bool:
        """Whether it is a single measurement of a chain: anchored, and too short to have a change inside."""
        return self.anchor is not None and self.index.size < FEWEST_RUNS


class Scatter(Struct, frozen=True):
    """The standard deviation of one run around its level, and how many degrees of freedom it rests on."""

    sd: float
    degrees: float


def stretches_of(points: Sequence[Point], start: int, stop: int) -> tuple[Stretch, ...]:
    """The stretches of the points of one segment, by their first run."""
    members: dict[str, list[int]] = {}
    last_of: dict[str, int] = {}
    for index in range(start, stop):
        point = points[index]
        members.setdefault("" if point.reference is None else commit_key(point.reference), []).append(index)
        last_of[commit_key(point.at)] = index
    found = []
    for key, indexes in members.items():
        chosen = [points[index] for index in indexes]
        keys = [commit_key(point.at) for point in chosen]
        before = last_of.get(key) if chosen[0].reference is not None else None
        found.append(
            Stretch(
                np.array(indexes),
                np.array([point.level - point.origin for point in chosen]),
                np.array([point.error for point in chosen]),
                np.array([not one or one != other for one, other in zip(keys, ["", *keys[:-1]], strict=True)]),
                before if before is not None and before < indexes[0] else None,
            )
        )
    return tuple(found)


def scatter_of_runs(values: NDArray[np.float64], errors: NDArray[np.float64]) -> Scatter:
    """The scatter of a run around its level, from the differences of neighbours, so that few changes do not matter.

    ``values``: logarithms, shape ``(runs,)``, at least one. ``errors``: their standard errors from the launches.
    """
    variance = scatter_of_differences(values) ** 2
    return _with_prior(variance, (values.size - 1) * _USE_OF_DIFFERENCES, errors)


def with_correlation(scatter: Scatter, left: NDArray[np.float64]) -> Scatter:
    """The scatter of independent runs whose means are known as badly as those of runs that resemble their neighbours.

    A machine with moods makes such runs. If the correlation falls by the factor r from one run to the next, differences
    of neighbours show 1 - r of the variance, and the mean of many runs has (1 + r) / (1 - r) times that of independent
    ones. A correlation that may be chance counts as none.

    ``left``: what the levels leave over, shape ``(runs,)``.
    """
    total = float(left @ left)
    if left.size < 2 * FEWEST_RUNS or total <= 0:
        return scatter
    alike = float(left[1:] @ left[:-1]) / total - _CHANCE_OF_CORRELATION / math.sqrt(left.size)
    alike = min(max(alike, 0.0), _MOST_ALIKE)
    return Scatter(scatter.sd * math.sqrt(1 + alike) / (1 - alike), scatter.degrees)


def scatter_of_differences(values: NDArray[np.float64]) -> float:
    """The standard deviation of runs around their level, from the differences of neighbours alone."""
    return math.sqrt(_clipped_variance(np.diff(values) / math.sqrt(2)))


def scatter_of_increments(sizes: NDArray[np.float64], errors: NDArray[np.float64]) -> Scatter:
    """The scatter of independent increments of which few are changes.

    ``sizes``: of the increments, each with the variance of one run; shape ``(increments,)``. ``errors``: standard
    errors of the runs from their launches, at least one.
    """
    return _with_prior(_clipped_variance(sizes), sizes.size, errors)


def _clipped_variance(differences: NDArray[np.float64]) -> float:
    """The variance of values around zero of which few stand out; 0 if there are none."""
    if not differences.size:
        return 0.0
    sizes = np.abs(differences)
    limit = _CLIPPED_AT * MAD_TO_SD * float(np.median(sizes)) or float(np.quantile(sizes, 0.9))
    return float(np.mean(np.minimum(sizes, limit) ** 2)) / _CLIPPED_VARIANCE


def _with_prior(variance: float, degrees: float, errors: NDArray[np.float64]) -> Scatter:
    """The scatter by an observed variance and by the errors of the launches.

    These are a prior that is worth :data:`~pytest_mlpatterns.analysis.statistics.intervals.PRIOR_DEGREES`, fewer if
    the observed variance contradicts it.
    """
    prior = max(float(np.median(errors**2)), _LEAST_SD**2)
    scatter = degrees * variance
    weight = prior_weight(PRIOR_DEGREES, prior, scatter=scatter, degrees=round(degrees))
    found = (weight * prior + scatter) / (weight + degrees)
    return Scatter(max(math.sqrt(found), _LEAST_SD), weight + degrees)


def pooled(scatters: Sequence[Scatter]) -> Scatter:
    """The scatter that several have in common, by their degrees of freedom."""
    degrees = sum(one.degrees for one in scatters)
    return Scatter(math.sqrt(sum(one.degrees * one.sd**2 for one in scatters) / degrees), degrees)


def deviations(errors: NDArray[np.float64], sd: float) -> NDArray[np.float64]:
    """The standard deviation of each run: the common one, or more if its launches scattered clearly more than others'.

    ``errors``: standard errors of the runs, shape ``(runs,)``. ``sd``: common standard deviation of a run.
    """
    usual = _NOISY * float(np.quantile(errors, 0.25))
    typical = float(np.median(errors**2))
    noisy = (errors > usual) & (errors > sd)
    return np.sqrt(np.where(noisy, sd**2 + np.maximum(errors**2 - typical, 0.0), sd**2))


def tamed(values: NDArray[np.float64], sds: NDArray[np.float64], *, anchor: float | None = None) -> NDArray[np.float64]:
    """The values; those that stand out in groups of fewer than five are replaced by what is usual beside them.

    A run is not alone if five of seven runs in a row, itself among them, are as high as it is, or higher, but for three
    standard deviations; and five as low. So a group of four that stand out, and a single one, are alone, and five in a
    row are not. The last runs of a stretch may be the first ones after a change: two to four of them in a row stay.

    ``values``: shape ``(runs,)``, at least five, or at least one with an anchor. ``sds``: standard deviation of each.
    ``anchor``: value that is known to have held before the first run; None if nothing is known.
    """
    shift = 0 if anchor is None else _WINDOW - 1
    padded = values if anchor is None else np.concatenate([np.full(shift, anchor), values])
    width = min(_WINDOW, padded.size)
    ordered = np.sort(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1)
    high, low = ordered[:, width - FEWEST_RUNS], ordered[:, FEWEST_RUNS - 1]
    ends = np.full(width - 1, np.inf)
    around = np.lib.stride_tricks.sliding_window_view
    upper = around(np.concatenate([-ends, high, -ends]), width).max(axis=1)[shift:]
    lower = around(np.concatenate([ends, low, ends]), width).min(axis=1)[shift:]
    for runs in range(2, min(FEWEST_RUNS, values.size)):
        upper[-runs:] = np.maximum(upper[-runs:], values[-runs:].min())
        lower[-runs:] = np.minimum(lower[-runs:], values[-runs:].max())
    slack = _TAMED_AT * sds
    held = np.where(values > upper + slack, upper, values)
    return np.where(values < lower - slack, lower, held)
