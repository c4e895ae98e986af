"""The changes that many courses show, corrected for having looked at all of them.

Each course is searched for steps, segment by segment, with p-values that are corrected for the choice of the
place. Then Benjamini and Hochberg's procedure (Journal of the Royal Statistical Society B 57, 1995) limits the share of
false ones among all that are reported: the more tests and metrics a history has, the smaller a p-value must be, and the
less the more changes there are. The level of a course holds between borders of segments and changes; the last one is
now. Pure. This module must not know how changes are shown or what follows from them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from itertools import pairwise
from statistics import fmean, median

from msgspec import Struct

from pytest_mlpatterns.analysis.changes.series import Series, commit_key
from pytest_mlpatterns.analysis.changes.steps import SIGNIFICANCE, Step, steps_of
from pytest_mlpatterns.analysis.changes.stretches import FEWEST_RUNS, stretches_of
from pytest_mlpatterns.analysis.metrics.definitions import known_metric
from pytest_mlpatterns.analysis.statistics.intervals import (
    CHANGE_CONFIDENCE,
    CONFIDENCE,
    LogMean,
    median_and_error,
    t_quantile,
)
from pytest_mlpatterns.records.history import Change, Course

_FEW = 3  # Most runs whose scatter is not known, so that the errors of their launches count


class Level(Struct, frozen=True):
    """Neighbouring runs between which nothing changed."""

    start: int  # index of its first point
    stop: int  # index after its last point
    level: float  # natural logarithm of its level, the median of its points
    half: float | None  # half the width of the 95 % interval of the level, on the logarithm; None if it is not known


def changes_in(series: Series, changes: Iterable[Change]) -> tuple[Change, ...]:
    """Those changes that are of this course, in the order of their places."""
    own = (series.test, series.metric, series.machine, series.course)
    found = [one for one in changes if (one.test, one.metric, one.machine, one.course) == own]
    return tuple(sorted((one for one in found if place_of(series, one) >= 0), key=lambda one: place_of(series, one)))


def place_of(series: Series, change: Change) -> int:
    """Index of the first point after a change; -1 if the course does not have its commit."""
    new = commit_key(change.new)
    return next((place for place, point in enumerate(series.points) if commit_key(point.at) == new), -1)


def levels_of(series: Series, changes: Iterable[Change]) -> tuple[Level, ...]:
    """The stretches of a course, which together are all of its points; changes of other courses do not count."""
    if not series.points:
        return ()
    borders = {segment.start for segment in series.segments} | {0, len(series.points)}
    borders |= {place_of(series, change) for change in changes_in(series, changes)}
    return tuple(_level(series, start, stop) for start, stop in pairwise(sorted(borders)))


def _level(series: Series, start: int, stop: int) -> Level:
    points = series.points[start:stop]
    levels = [point.level for point in points]
    return Level(start, stop, median(levels), _half(levels, [point.error for point in points]))


def _half(levels: Sequence[float], errors: Sequence[float]) -> float | None:
    """Half the width of the interval of a level: from the scatter of the runs, or of few runs from their launches."""
    if len(levels) > _FEW and (error := median_and_error(levels)[1]) > 0:
        return error * t_quantile(CONFIDENCE, len(levels) - 1)
    known = [error for error in errors if error > 0]
    return 2 * fmean(known) / math.sqrt(len(known)) if known else None


LEAST_CHANGE = 0.005  # Smallest change that is reported, on the logarithm: half a percent, however sure it is


def find_changes(series: Sequence[Series], unchanged: int = 0) -> tuple[Change, ...]:
    """The changes of all courses, by course and in the order of the commits.

    A step is confirmed with five runs on each side. A new one, with two to four runs after it, is reported if it is
    significant. A change below the metric's floor is not reported, nor one below half a percent.

    ``unchanged``: further courses that show nothing, of which one may by chance.
    """
    searched = [_found_in(one) for one in series]
    tests = unchanged + sum(max(len(found), 1) for found in searched)
    candidates = [change for found in searched for change in found]
    limit = _largest_p_value([change.p_value for change in candidates], tests)
    return tuple(change for change in candidates if change.p_value <= limit)


def _largest_p_value(p_values: Iterable[float], tests: int) -> float:
    """The p-value up to which changes are reported; below zero if none is."""
    largest = -1.0
    for rank, p_value in enumerate(sorted(p_values), 1):
        if p_value <= SIGNIFICANCE * rank / tests:
            largest = p_value
    return largest


def _found_in(series: Series) -> list[Change]:
    """The changes of one course that are significant by themselves and large enough."""
    found: list[Change] = []
    for segment in series.segments:
        steps = steps_of(stretches_of(series.points, segment.start, segment.stop), segment.stop)
        here = [_change(series, step) for step in steps if _is_large(series, step.size, step.at - 1)]
        found += sorted(here, key=lambda change: change.date)
    return found


def _change(series: Series, step: Step) -> Change:
    """A step as a change of its course, with an interval whose ends are finite."""
    new = series.points[step.at]
    old = series.points[step.at - 1].at if step.at else new.reference
    size = LogMean(step.size, step.error, step.degrees, step.after)
    return Change(
        test=series.test,
        metric=series.metric,
        machine=series.machine,
        course=series.course,
        factor=astuple(size.interval(CHANGE_CONFIDENCE)),
        is_worse=_is_worse(series.metric, step.size),
        old=old or new.at,
        new=new.at,
        date=new.date,
        is_confirmed=step.is_confirmed,
        p_value=step.p_value,
    )


def _is_worse(name: str, size: float) -> bool:
    """Whether a change of this sign is one for the worse; False if it is not known which values are better."""
    metric = known_metric(name)
    return metric is not None and (size > 0) is (metric.better == "lower")


def _is_large(series: Series, size: float, before: int) -> bool:
    """Whether a change matters: half a percent, and the floor of the metric if the course has values."""
    if abs(size) < LEAST_CHANGE:
        return False
    metric = known_metric(series.metric)
    if metric is None or series.course is Course.RATIOS or not metric.floor:
        return True
    levels = [point.level for point in series.points[max(before - FEWEST_RUNS + 1, 0) : before + 1]]
    return abs(math.expm1(size)) * math.exp(median(levels)) >= metric.floor
