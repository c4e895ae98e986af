"""Courses of a metric over many runs, from the lines of a history.

A course of values belongs to one machine. A course of ratios belongs to none: each of its lines compares its commit
with another one that was measured beside it, so that the machine cancels. There are two usual ways, and a course may
mix them. If every commit is compared with one release, the ratios are independent measurements around one level. If
every commit is compared with the one before, a level is a sum of ratios, and the errors add up along the course. So a
point keeps what its ratio refers to. Tests work with the ratios as they were measured, never with the sums
(:mod:`pytest_mlpatterns.analysis.changes.stretches`).

Pure. This module must not know where lines are kept, or what counts as a change.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec import Struct

from pytest_mlpatterns.analysis.metrics.definitions import is_known_metric, metric_named
from pytest_mlpatterns.analysis.statistics.intervals import LAUNCH_SD, PRIOR_DEGREES, prior_weight
from pytest_mlpatterns.analysis.statistics.log_ratio import RATIO_SD
from pytest_mlpatterns.records.history import Course
from pytest_mlpatterns.records.verdict import ERRORS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_mlpatterns.analysis.metrics.metric import Metric
    from pytest_mlpatterns.records.history import CommitPosition, HistoryLine
    from pytest_mlpatterns.records.launch import LaunchValue

_KEY_DIGITS = 12  # Digits of a hash by which a commit is recognised; a history keeps twelve or more
_LEAST_SD = 1e-4  # Least standard deviation between launches, relative: files hold values to five digits
_LEAST_SHARE = 0.01
"""Least value of a course with zeros, for a metric without a floor and with a tolerance that is larger."""


class Point(Struct, frozen=True):
    """One run in a course."""

    at: CommitPosition  # the commit
    date: str  # of the run, ISO 8601
    # natural logarithm of the value, or of the ratio to the first reference of the course. A metric that may be
    # zero has a least value in its place (:func:`series_of`)
    level: float
    error: float  # standard error of what the run measured, value or ratio to ``reference``, from its launches
    reference: CommitPosition | None = None  # the commit that a ratio refers to; None for a value
    # level of that commit, so that ``level - origin`` is the logarithm of the ratio that was measured
    origin: float = 0.0


class Segment(Struct, frozen=True):
    """Neighbouring runs that are comparable."""

    start: int  # index of its first point
    stop: int  # index after its last point
    # why it begins: ``set-up``, ``environment``, or ``reference`` if the level of the new reference was never
    # measured; empty for the first one
    reason: str = ""


class Series(Struct, frozen=True):
    """The course of one metric of one test, in the order of the commits."""

    test: str  # the test's id
    metric: str  # its name
    machine: str  # where the values come from; empty for ratios, which hold on any
    course: Course  # what the points are, values or ratios
    points: tuple[Point, ...]  # one for each run
    segments: tuple[Segment, ...]  # stretches of points that are comparable; together they are all points


def series_of(lines: Sequence[HistoryLine], order: Sequence[str] = ()) -> tuple[Series, ...]:
    """The courses that lines give, by test, metric and machine; those of ratios by test and metric.

    Lines of files that differ from their commit, and of tests that failed without a verdict, do not count. Several runs
    of one commit are points of their own, in the order of their dates.

    The logarithm needs values above zero. If one value of a course is not, every value of the course that is below the
    least one that counts (the metric's floor, 0.1 % for the error rate) is taken for that, so that a course of zeros is
    flat, and a rise from zero is shown as one from that value.

    Args:
        lines: in any order.
        order: commits along first parents, the oldest first; lines of other commits do not count. Empty to order by
            position and date.
    """
    ordered = counted_lines(lines, order)
    return (*_series_of_values(ordered), *_series_of_ratios(ordered))


def counted_lines(lines: Iterable[HistoryLine], order: Sequence[str] = ()) -> list[HistoryLine]:
    """The lines that count, in the order of their commits and of their dates; arguments as for :func:`series_of`."""
    counted = [line for line in lines if line.clean and line.kind not in ERRORS]
    return _by_order(counted, order) if order else _by_position(counted)


def commit_key(at: CommitPosition) -> str:
    """By which a commit is recognised, however many digits of its hash a line has; empty outside git."""
    return at.commit[:_KEY_DIGITS]


def known_metric(name: str) -> Metric | None:
    """The metric of a name; None if this version knows none, as of a later version or of a pattern of one's own."""
    return metric_named(name) if is_known_metric(name) else None


def _by_order(lines: Iterable[HistoryLine], order: Sequence[str]) -> list[HistoryLine]:
    """Those of the commits along first parents, in their order, and by date."""
    places = {commit[:_KEY_DIGITS]: place for place, commit in enumerate(order)}
    kept = [line for line in lines if commit_key(line.at) in places]
    return sorted(kept, key=lambda line: (places[commit_key(line.at)], line.date))


def _by_position(lines: Iterable[HistoryLine]) -> list[HistoryLine]:
    """By the commits' own positions, and by date; a line without a position follows the last one that has one."""
    placed: list[tuple[int, str, HistoryLine]] = []
    last = 0
    for line in sorted(lines, key=lambda line: line.date):
        last = max(last, line.at.position)
        placed.append((line.at.position or last, line.date, line))
    return [line for _, _, line in sorted(placed, key=lambda one: one[:2])]


# --- values ---------------------------------------------------------------------------------------------------------


def _series_of_values(lines: Sequence[HistoryLine]) -> Iterable[Series]:
    by_course: dict[tuple[str, str, str], list[HistoryLine]] = {}
    for line in lines:
        for metric in line.values:
            by_course.setdefault((line.test, metric, line.machine), []).append(line)
    for (test, metric, machine), found in by_course.items():
        course = _Builder()
        least = _least_value(metric, found)
        for line in found:
            measured = _value(line.values[metric], known_metric(metric), least)
            if measured is not None:
                course.add_value(line, measured)
        if course.points:
            yield Series(test, metric, machine, Course.VALUES, tuple(course.points), course.segments)


def _least_value(name: str, lines: Sequence[HistoryLine]) -> float:
    """The value that all lower ones of a course are taken for; 0 if all are above zero."""
    if all(launch.value > 0 for line in lines for launch in line.values[name]):
        return 0.0
    metric = known_metric(name)
    if metric is None:
        return _LEAST_SHARE
    return metric.floor or min(metric.tolerance, _LEAST_SHARE)


def _value(launches: Sequence[LaunchValue], metric: Metric | None, least: float) -> tuple[float, float] | None:
    """The mean over launches on the logarithm, and its standard error; None without one, or if one is not finite."""
    if not launches or not all(math.isfinite(launch.value) for launch in launches):
        return None
    logs = [math.log(max(launch.value, least)) for launch in launches]
    sd = LAUNCH_SD if metric is None else metric.launch_sd
    return _weighed(logs, [launch.relative_error for launch in launches], max(sd, _LEAST_SD))


def _weighed(logs: Sequence[float], errors: Sequence[float], sd: float) -> tuple[float, float]:
    """The mean, weighted by errors, and its standard error, as ``ratio_estimate`` has them.

    Args:
        logs: one for each launch, at least one.
        errors: their standard errors.
    """
    weights = [1 / (sd * sd + error * error) for error in errors]
    total = sum(weights)
    mean = sum(weight * log for weight, log in zip(weights, logs, strict=True)) / total
    scatter = sum(weight * (log - mean) ** 2 for weight, log in zip(weights, logs, strict=True))
    degrees = len(logs) - 1
    prior = prior_weight(PRIOR_DEGREES, 1.0, scatter=scatter, degrees=degrees)
    return (mean, math.sqrt((prior + scatter) / (prior + degrees) / total))


# --- ratios ---------------------------------------------------------------------------------------------------------


def _series_of_ratios(lines: Sequence[HistoryLine]) -> Iterable[Series]:
    by_course: dict[tuple[str, str], list[HistoryLine]] = {}
    for line in lines:
        for metric, ratios in line.ratios.items():
            if ratios and line.reference is not None:
                by_course.setdefault((line.test, metric), []).append(line)
    for (test, metric), found in by_course.items():
        course = _Builder()
        for line in found:
            ratios = line.ratios[metric]
            measured = _weighed([one.log_ratio for one in ratios], [one.error for one in ratios], RATIO_SD)
            if math.isfinite(measured[0]) and line.reference is not None:
                course.add_ratio(line, line.reference, measured)
        if course.points:
            yield Series(test, metric, "", Course.RATIOS, tuple(course.points), course.segments)


class _Builder:
    """Points of one course and where its segments begin."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._starts: list[int] = []
        self._reasons: list[str] = []
        self._setup = ""
        self._facts: dict[str, str] = {}
        self._levels: dict[str, list[Point]] = {}
        self._origins: dict[str, float] = {}

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments of all points."""
        stops = [*self._starts[1:], len(self.points)]
        return tuple(map(Segment, self._starts, stops, self._reasons))

    def add_value(self, line: HistoryLine, measured: tuple[float, float]) -> None:
        """Add a run of a course of values."""
        self._begin(self._change_of_conditions(line))
        self.points.append(Point(line.at, line.date, *measured))

    def add_ratio(self, line: HistoryLine, reference: CommitPosition, measured: tuple[float, float]) -> None:
        """Add a run of a course of ratios; an unknown level of its reference begins a segment."""
        reason = self._change_of_conditions(line)
        key = commit_key(reference)
        if self._origin(key) is None:
            reason = reason or "reference"
            self._levels, self._origins = {}, {key: 0.0}
        self._begin(reason)
        origin = self._origins.setdefault(key, self._origin(key) or 0.0)
        level, error = measured
        point = Point(line.at, line.date, origin + level, error, reference, origin)
        self.points.append(point)
        self._levels.setdefault(commit_key(line.at), []).append(point)

    def _begin(self, reason: str) -> None:
        """Begin a segment with the next point if there is a reason to, or no point yet."""
        if reason or not self.points:
            self._starts.append(len(self.points))
            self._reasons.append(reason if self.points else "")

    def _origin(self, key: str) -> float | None:
        """The level of a commit: as earlier ratios to it have it, else as it was measured; None if it was not."""
        if key in self._origins:
            return self._origins[key]
        points = self._levels.get(key)
        if not points:
            return None
        weights = [1 / max(point.error, _LEAST_SD) ** 2 for point in points]
        return sum(weight * point.level for weight, point in zip(weights, points, strict=True)) / sum(weights)

    def _change_of_conditions(self, line: HistoryLine) -> str:
        """What differs from the runs before; empty if nothing does. What is not known does not differ.

        An environment is compared with that of the same machine: ratios of several machines make one course.
        """
        facts = self._facts.get(line.machine, "")
        reason = ""
        if _differ(self._setup, line.setup):
            reason = "set-up"
        elif _differ(facts, line.facts):
            reason = "environment"
        self._setup = line.setup or self._setup
        self._facts[line.machine] = line.facts or facts
        return reason


def _differ(before: str, now: str) -> bool:
    return bool(before and now and before != now)
