"""The changes that many courses show, corrected for having looked at all of them.

Each course is searched for steps, segment by segment, with p-values that are corrected for the choice of the
place. Then Benjamini and Hochberg's procedure (Journal of the Royal Statistical Society B 57, 1995) limits the share of
false ones among all that are reported: the more tests and metrics a history has, the smaller a p-value must be, and the
less the more changes there are.

Pure. This module must not know how changes are shown or what follows from them.
"""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.changes.series import Series, known_metric
from pytest_mlpatterns.analysis.changes.steps import SIGNIFICANCE, Step, steps_of
from pytest_mlpatterns.analysis.changes.stretches import FEWEST_RUNS, stretches_of
from pytest_mlpatterns.analysis.statistics.intervals import CHANGE_CONFIDENCE, t_quantile
from pytest_mlpatterns.records.change import Change, Course

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


__all__ = ["LEAST_CHANGE", "find_changes"]

LEAST_CHANGE = 0.005
"""Smallest change that is reported, on the logarithm: half a percent, however sure it is."""
_WIDEST = 20.0
"""Half of the widest interval of a log ratio: a factor of 5e8 stands for no knowledge."""


def find_changes(series: Sequence[Series]) -> tuple[Change, ...]:
    """The changes of all courses, by course and in the order of the commits.

    A step is confirmed with five runs on each side. A new one, with two to four runs after it, is reported if it is
    significant. A change below the metric's floor is not reported, nor one below half a percent.

    Args:
        series: of all tests and metrics that are looked at together.
    """
    searched = [_found_in(one) for one in series]
    tests = sum(max(len(found), 1) for found in searched)
    candidates = [change for found in searched for change in found]
    limit = _largest_p_value([change.p_value for change in candidates], tests)
    return tuple(change for change in candidates if change.p_value <= limit)


def _largest_p_value(p_values: Iterable[float], tests: int) -> float:
    """The p-value up to which changes are reported; below zero if none is.

    Args:
        p_values: of the candidates.
        tests: number of all, with the courses that have no candidate.
    """
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
    half = min(t_quantile(CHANGE_CONFIDENCE, step.degrees) * step.error, _WIDEST)
    return Change(
        test=series.test,
        metric=series.metric,
        machine=series.machine,
        course=series.course,
        factor=(math.exp(step.size), math.exp(step.size - half), math.exp(step.size + half)),
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
    """Whether a change matters: half a percent, and the floor of the metric if the course has values.

    Args:
        series: the course.
        size: the change, on the logarithm.
        before: index of the last point before it.
    """
    if abs(size) < LEAST_CHANGE:
        return False
    metric = known_metric(series.metric)
    if metric is None or series.course is Course.RATIOS or not metric.floor:
        return True
    levels = [point.level for point in series.points[max(before - FEWEST_RUNS + 1, 0) : before + 1]]
    return abs(math.expm1(size)) * math.exp(median(levels)) >= metric.floor
