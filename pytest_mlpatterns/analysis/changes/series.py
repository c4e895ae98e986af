"""Courses of a metric over many runs, from the lines of a history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.records.change import Course
    from pytest_mlpatterns.records.history import CommitPosition, HistoryLine

__all__ = ["Point", "Segment", "Series", "series_of"]


@dataclass(frozen=True, slots=True)
class Point:
    """One run in a course.

    Attributes:
        at: the commit.
        date: of the run, ISO 8601.
        level: natural logarithm of the value, or of the ratio to the first reference of the course.
        error: standard error of the level, from its launches.
    """

    at: CommitPosition
    date: str
    level: float
    error: float


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbouring runs whose set-up and environment are the same.

    Attributes:
        start: index of its first point.
        stop: index after its last point.
        reason: why it begins, as ``set-up`` or ``environment``; empty for the first one.
    """

    start: int
    stop: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """The course of one metric of one test, in the order of the commits.

    Attributes:
        test: the test's id.
        metric: its name.
        machine: where the values come from; empty for ratios, which hold on any.
        course: what the points are, values or ratios.
        points: one for each run.
        segments: stretches of points that are comparable; together they are all points.
    """

    test: str
    metric: str
    machine: str
    course: Course
    points: tuple[Point, ...]
    segments: tuple[Segment, ...]


def series_of(lines: Sequence[HistoryLine], order: Sequence[str] = ()) -> tuple[Series, ...]:
    """The courses that lines give, by test, metric and machine; those of ratios by test and metric.

    Args:
        lines: in any order.
        order: commits along first parents, the oldest first; lines of other commits do not count. Empty to order by
            position and date.
    """
    raise NotImplementedError
