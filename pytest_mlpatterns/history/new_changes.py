"""Which changes of a history the lines of one run made known.

A change is new if it is not found without these lines, or not confirmed without them. So the same change is new twice
at most: when it is found, and when enough runs after it confirm it. Pure. This module must not know how a change is
shown, nor what it does to the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.changes.findings import find_changes
from pytest_mlpatterns.analysis.changes.series import Segment, Series, commit_key, series_of
from pytest_mlpatterns.analysis.changes.stretches import FEWEST_RUNS
from pytest_mlpatterns.records.verdict import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.records.history import Change, Course, HistoryLine

_LATEST_RUNS = 200
"""Runs of a course in which a run looks for new changes, the latest ones; an older change is not news."""
_LATEST_LINES = 300
"""Lines of a test on a machine that are read at all, the latest ones: those of the runs that count, and of the commits
that their ratios refer to. The courses of 10,000 lines with ten metrics take two seconds."""
_PASSED = frozenset((Kind.PASSED, Kind.UNDECIDED))  # Kinds of tests that were compared, and that no verdict failed


def new_changes(
    before: Sequence[HistoryLine], added: Sequence[HistoryLine], order: Sequence[str] = ()
) -> tuple[Change, ...]:
    """The changes of the tests of a run that its lines made known: on its machine, and those of ratios.

    All courses of the history are looked at together, since the more of them there are, the surer one has to be.
    """
    before = _latest_lines(before)
    machines = {line.test: line.machine for line in added}
    now = {_Course.of(one): one for one in series_of([*before, *added], order)}
    found = [
        change
        for change in find_changes([latest_points(one, _LATEST_RUNS) for one in now.values()])
        if change.machine in ("", machines.get(change.test)) and change.test in machines
    ]
    if not found:  # as of most runs
        return ()
    without = [_same_start(one, now) for one in series_of(before, order)]
    places = {course: _Places.of(one) for course, one in now.items()}
    known = [(change, places[_Course.of(change)].stretch(change)) for change in find_changes(without)]
    return tuple(change for change in found if not _is_known(change, places[_Course.of(change)].stretch(change), known))


def _latest_lines(lines: Sequence[HistoryLine]) -> list[HistoryLine]:
    """The last lines of each test on each machine, by their dates."""
    found: dict[tuple[str, str], list[HistoryLine]] = {}
    for line in lines:
        found.setdefault((line.test, line.machine), []).append(line)
    return [line for own in found.values() for line in sorted(own, key=lambda line: line.date)[-_LATEST_LINES:]]


def each_passed(change: Change, lines: Sequence[HistoryLine]) -> bool:
    """Whether each run of a test since a change began was compared, and none failed."""
    ours = [line for line in lines if line.test == change.test and change.machine in ("", line.machine)]
    return {line.kind for line in ours if line.date >= change.date} <= _PASSED


def latest_points(series: Series, most: int) -> Series:
    """The last points of a course, with the segments that they are of. ``most``: number of points, at least one."""
    cut = len(series.points) - most
    if cut <= 0:
        return series
    segments = [Segment(max(one.start - cut, 0), one.stop - cut, one.reason) for one in series.segments]
    kept = tuple(one for one in segments if one.stop > 0)
    return replace(series, points=series.points[cut:], segments=(replace(kept[0], reason=""), *kept[1:]))


class _Course(Struct, frozen=True):
    """What distinguishes one course from another."""

    test: str
    metric: str
    machine: str
    course: Course

    @classmethod
    def of(cls, one: Series | Change) -> _Course:
        return cls(one.test, one.metric, one.machine, one.course)


def _same_start(series: Series, now: Mapping[_Course, Series]) -> Series:
    """A course without the lines of the run, from the point on at which the course with them begins."""
    more = len(now[_Course.of(series)].points) - len(series.points)
    return latest_points(series, max(_LATEST_RUNS - more, 1))


class _Places(Struct, frozen=True):
    """The index of the first and of the last run of each commit in a course."""

    first: Mapping[str, int]
    last: Mapping[str, int]

    @classmethod
    def of(cls, series: Series) -> _Places:
        keys = [commit_key(point.at) for point in series.points]
        last = {key: place for place, key in enumerate(keys)}
        return cls({key: place for place, key in reversed([*enumerate(keys)])}, last)

    def stretch(self, change: Change) -> tuple[int, int]:
        """The indices of the runs between which a change lies."""
        new = self.first.get(commit_key(change.new), 0)
        return min(self.last.get(commit_key(change.old), new), new), new


def _is_known(change: Change, at: tuple[int, int], known: Sequence[tuple[Change, tuple[int, int]]]) -> bool:
    """Whether a change was found before, and was as sure then."""
    return any(
        _Course.of(one) == _Course.of(change)
        and one.is_worse is change.is_worse
        and (one.is_confirmed or not change.is_confirmed)
        and start <= at[1] + FEWEST_RUNS  # looks at a course that grew place a change no further apart
        and at[0] <= end + FEWEST_RUNS
        for one, (start, end) in known
    )
