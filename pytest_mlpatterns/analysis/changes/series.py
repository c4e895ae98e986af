"""Courses of a metric over many runs, from the lines of a history.

A course of values belongs to one machine. A course of ratios belongs to none: each of its lines compares its commit
with another one that was measured beside it, so that the machine cancels. If every commit is compared with one release,
the ratios are independent measurements around one level. If every commit is compared with the one before, a level is a
sum of ratios, and the errors add up along the course. A course may mix both, so a point keeps what its ratio refers to.
Tests work with the ratios as they were measured, never with the sums
(:mod:`pytest_mlpatterns.analysis.changes.stretches`).

Three launches know their scatter badly, so the interval of a verdict starts from a prior deviation. The usual one is
that of many services on a shared machine; a test with a history has its own. Pure. This module must not know where
lines are kept, what counts as a change, or how verdicts are made.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean, median
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.metrics.definitions import known_metric
from pytest_mlpatterns.analysis.metrics.metric import Metric
from pytest_mlpatterns.analysis.statistics.intervals import LAUNCH_SD, MAD_TO_SD, PRIOR_DEGREES, drawn_variance
from pytest_mlpatterns.analysis.statistics.log_ratio import RATIO_SD, USUAL_PRIOR, RatioPrior
from pytest_mlpatterns.records.history import CommitPosition, Course, HistoryLine
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import ERRORS

FEWEST_RUNS = 5
"""Runs from which the scatter of a test is its own: fewer do not show by how much one day differs from another."""
FEWEST_DEGREES = 10
"""Degrees of freedom of launches within their runs, from which a deviation is known to about a quarter."""
OWN_DEGREES = 8.0
"""Degrees of freedom that a test's own deviation is worth in an interval: as the launches of an entry. The history
knows it better, but a machine is not as busy each day. If launches differ by 4 %, 85 instead of 76 of 100 changes of
20 % are found beside an entry of eight launches, and 0.2 instead of 0.9 of 100 that are exactly at the tolerance."""
_USUAL_DEGREES = 4
"""Degrees of freedom that the usual deviation keeps beside those of the history, so that few runs that happen to be
alike promise no accuracy that is not there."""
_LATEST_RUNS = 100  # Runs that count, the latest ones: a machine's neighbours change with the months
_Launch = TypeVar("_Launch")


class LaunchScatter(Struct, frozen=True):
    """The deviations that a test's intervals start from, where its history knows them."""

    launches: Mapping[str, float] = {}  # relative standard deviation between launches, by the metric's name
    # standard deviation between the log ratios of paired launches, beyond that within a launch, by the same
    ratios: Mapping[str, float] = {}

    def of_launches(self, metric: Metric) -> Metric:
        """The metric with the test's own deviation between launches, if that is known and the metric has one at all."""
        own = self.launches.get(metric.name)
        return metric if own is None or not metric.launch_sd else replace(metric, launch_sd=own, sd_degrees=OWN_DEGREES)

    def of_ratios(self, metric: Metric) -> RatioPrior:
        """What the interval of paired launches starts from: the test's own deviation, else the usual one."""
        own = self.ratios.get(metric.name)
        return USUAL_PRIOR if own is None else RatioPrior(own, OWN_DEGREES)


USUAL_SCATTER = LaunchScatter()  # The scatter of a test without a history: as of many services


def scatter_in(lines: Sequence[HistoryLine]) -> LaunchScatter:
    """The deviations of one test, of the metrics of which there are enough launches.

    ``lines``: of one test, one machine and one set-up, in the order of their dates.
    """
    latest = lines[-_LATEST_RUNS:]
    launches = {
        name: _Runs(
            [[math.log(one.value) for one in run] for run in runs],
            fmean(one.relative_error**2 for run in runs for one in run),
        )
        for name, runs in _by_metric([line.values for line in latest]).items()
        if all(one.value > 0 for run in runs for one in run)
    }
    ratios = {
        name: _Runs(
            [[one.log_ratio for one in run] for run in runs], fmean(one.error**2 for run in runs for one in run)
        )
        for name, runs in _by_metric([line.ratios for line in latest]).items()
    }
    return LaunchScatter(
        {
            name: runs.deviation(metric.launch_sd)
            for name, runs in launches.items()
            if (metric := known_metric(name)) is not None and metric.launch_sd and runs.suffice
        },
        {name: runs.within(RATIO_SD) for name, runs in ratios.items() if runs.suffice},
    )


class _Runs(Struct, frozen=True):
    """The launches of some runs, on the logarithm."""

    logs: Sequence[Sequence[float]]  # of each run, at least one each
    within_launch: float  # mean square of the errors within a launch, which an interval adds itself

    @property
    def degrees(self) -> int:
        """Degrees of freedom of the launches around the means of their runs."""
        return sum(len(run) - 1 for run in self.logs)

    @property
    def suffice(self) -> bool:
        """Whether they are enough."""
        return len(self.logs) >= FEWEST_RUNS and self.degrees >= FEWEST_DEGREES

    def within(self, usual: float) -> float:
        """The deviation of a launch around the mean of its run, drawn towards the usual one."""
        squares = sum((log - fmean(run)) ** 2 for run in self.logs for log in run)
        return _drawn(squares / self.degrees - self.within_launch, self.degrees, usual)

    def deviation(self, usual: float) -> float:
        """The deviation of a launch, or that which explains how much one run differs from the next, if that is more.

        A stored baseline is of another day; if days differ, the launches of one do not show it. Changes of the level
        count little, since the median of the differences of neighbouring runs is taken.
        """
        means = [fmean(run) for run in self.logs]
        steps = [abs(now - before) for before, now in pairwise(means)]
        of_mean = MAD_TO_SD * median(steps) / math.sqrt(2)
        variance = of_mean**2 * fmean(map(len, self.logs)) - self.within_launch
        between = min(_drawn(variance, len(means) - 1, usual), usual)
        return max(self.within(usual), between)


def _drawn(variance: float, degrees: int, usual: float) -> float:
    """A deviation from a variance of some degrees of freedom and the usual deviation."""
    return math.sqrt((_USUAL_DEGREES * usual**2 + degrees * max(variance, 0.0)) / (_USUAL_DEGREES + degrees))


def _by_metric(runs: Iterable[Mapping[str, Sequence[_Launch]]]) -> dict[str, list[Sequence[_Launch]]]:
    """The launches of each run that has some, by metric."""
    found: dict[str, list[Sequence[_Launch]]] = {}
    for run in runs:
        for name, launches in run.items():
            if launches:
                found.setdefault(name, []).append(launches)
    return found


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
    """The courses that lines give, by test, metric and machine; ratios of all machines make one course.

    Lines of files that differ from their commit, and of tests that failed without a verdict, do not count. Several runs
    of one commit are points of their own, in the order of their dates.

    The logarithm needs values above zero. If one value of a course is not, every value of the course that is below the
    least one that counts (the metric's floor, 0.1 % for the error rate) is taken for that, so that a course of zeros is
    flat, and a rise from zero is shown as one from that value.

    ``lines``: in any order. ``order``: commits along first parents, the oldest first; lines of other commits do not
    count. Empty to order by position and date.
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
    """The mean, weighted by errors, and its standard error, as ``ratio_estimate`` has them."""
    weights = [1 / (sd * sd + error * error) for error in errors]
    total = sum(weights)
    mean = sum(weight * log for weight, log in zip(weights, logs, strict=True)) / total
    scatter = sum(weight * (log - mean) ** 2 for weight, log in zip(weights, logs, strict=True))
    variance, _ = drawn_variance(PRIOR_DEGREES, 1.0, scatter=scatter, degrees=len(logs) - 1)
    return mean, math.sqrt(variance / total)


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

        An environment is compared with the same machine's: ratios of several machines make one course.
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
