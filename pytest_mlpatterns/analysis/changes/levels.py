"""The level of each stretch of a course, between borders of segments and changes; the last one is now. Pure."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import fmean, median
from typing import TYPE_CHECKING

from msgspec import Struct

from pytest_mlpatterns.analysis.changes.series import Series, commit_key
from pytest_mlpatterns.analysis.statistics.intervals import CONFIDENCE, t_quantile

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_mlpatterns.records.change import Change

__all__ = ["Level", "changes_in", "levels_of", "place_of"]

_FEW = 3
"""Most runs whose scatter is not known, so that the errors of their launches count."""


class Level(Struct, frozen=True):
    """Neighbouring runs between which nothing changed.

    Attributes:
        start: index of its first point.
        stop: index after its last point.
        level: natural logarithm of its level, the median of its points.
        half: half the width of the 95 % interval of the level, on the logarithm; None if it is not known.
    """

    start: int
    stop: int
    level: float
    half: float | None


def changes_in(series: Series, changes: Iterable[Change]) -> tuple[Change, ...]:
    """Those changes that are of this course, in the order of their places."""
    own = (series.test, series.metric, series.machine, series.course)
    found = [one for one in changes if (one.test, one.metric, one.machine, one.course) == own]
    placed = [(place, one) for one in found if (place := place_of(series, one)) is not None]
    return tuple(one for _, one in sorted(placed, key=lambda pair: pair[0]))


def place_of(series: Series, change: Change) -> tuple[int, int] | None:
    """Indices of the points that a change lies between: the last one before it, -1 if none is, and the first one after.

    None if the course does not have its commit.
    """
    keys, new = [commit_key(point.at) for point in series.points], commit_key(change.new)
    return (keys.index(new) - 1, keys.index(new)) if new in keys else None


def levels_of(series: Series, changes: Iterable[Change]) -> tuple[Level, ...]:
    """The stretches of a course, which together are all of its points.

    Args:
        series: the course.
        changes: of any course; those of this one count.
    """
    if not series.points:
        return ()
    borders = {segment.start for segment in series.segments} | {0, len(series.points)}
    for change in changes_in(series, changes):
        _, after = place_of(series, change) or (0, 0)
        borders.add(after)
    return tuple(_level(series, start, stop) for start, stop in pairwise(sorted(borders)))


def _level(series: Series, start: int, stop: int) -> Level:
    points = series.points[start:stop]
    levels = [point.level for point in points]
    return Level(start, stop, median(levels), _half(levels, [point.error for point in points]))


def _half(levels: Sequence[float], errors: Sequence[float]) -> float | None:
    """Half the width of the interval of a level: from the scatter of the runs, or of few runs from their launches.

    The median of n normal values scatters ``sqrt(pi / 2) s / sqrt(n)``; s is 1.4826 times the median absolute
    deviation, so that a stray run does not count.
    """
    if len(levels) > _FEW:
        middle = median(levels)
        deviation = 1.4826 * median(abs(level - middle) for level in levels)
        if deviation > 0:
            return math.sqrt(math.pi / 2 / len(levels)) * t_quantile(CONFIDENCE, len(levels) - 1) * deviation
    known = [error for error in errors if error > 0]
    return 2 * fmean(known) / math.sqrt(len(known)) if known else None
