"""What one run does with the history: appends a line for each test, and reports the changes that they made known.

One object lives as long as the session, in the process that has all results. A line is made of a result that supports a
verdict: smoke runs, interrupted tests, and those that failed by an error or were not measured validly give none. A
change is new if no earlier run found it, or none found it confirmed. So the same change is new twice at most: when it
is found, and when enough runs after it confirm it. This module must not know pytest.
"""

from __future__ import annotations

import datetime
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.changes.findings import find_changes
from pytest_mlpatterns.analysis.changes.series import Segment, Series, commit_key, series_of
from pytest_mlpatterns.analysis.changes.stretches import FEWEST_RUNS
from pytest_mlpatterns.analysis.metrics.definitions import is_known_metric, metric_named, with_role
from pytest_mlpatterns.analysis.metrics.metric import AtNmrt, Nmrt, Role, objective_of
from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances
from pytest_mlpatterns.config.run_settings import HistoryFail, RunSettings
from pytest_mlpatterns.history.checkout import checkout_of, first_parents, position_in
from pytest_mlpatterns.history.file import History
from pytest_mlpatterns.records.baseline_entry import Level
from pytest_mlpatterns.records.history import (
    Change,
    CommitPosition,
    Course,
    HistoryLine,
    HistoryRead,
    NewChange,
    PairedRatio,
    digest_of,
)
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.package_layers import answer_figures
from pytest_mlpatterns.records.result import TestResult, id_from
from pytest_mlpatterns.records.setup import Environment
from pytest_mlpatterns.records.verdict import ERRORS, OPEN_KINDS, Kind
from pytest_mlpatterns.reports.text.history_text import bisect_command, change_sentence
from pytest_mlpatterns.units import Unit
from pytest_mlpatterns.wording import count

_LATEST_RUNS = 200
"""Runs of a course in which a run looks for new changes, the latest ones; an older change is not news."""
_LATEST_LINES = 300
"""Lines of a test on a machine that are read at all, the latest ones: from the runs that count, and of the commits
that their ratios refer to. The courses of 10,000 lines with ten metrics take two seconds."""
_PASSED = frozenset((Kind.PASSED, *OPEN_KINDS))  # Kinds of tests that were compared, and that no verdict failed


def new_changes(
    before: Sequence[HistoryLine], added: Sequence[HistoryLine], order: Sequence[str] = ()
) -> tuple[Change, ...]:
    """The changes of the tests of a run that its lines made known: on its machine, and of ratios.

    All courses of the history are looked at together, since the more of them there are, the surer one has to be. Two
    changes that are close may be found as one now and then, so all earlier runs are looked at for what they reported.
    """
    before = _latest_lines(before)
    machines = {line.test: line.machine for line in added}
    now = {_Course.of(one): one for one in series_of([*before, *added], order)}
    found: dict[_Course, list[Change]] = {}
    for change in find_changes([latest_points(one, _LATEST_RUNS) for one in now.values()]):
        if change.machine in ("", machines.get(change.test)) and change.test in machines:
            found.setdefault(_Course.of(change), []).append(change)
    if not found:  # as of most runs
        return ()
    without = {_Course.of(one): _same_start(one, now) for one in series_of(before, order)}
    known: dict[_Course, list[Change]] = {}
    for change in find_changes([*without.values()]):
        known.setdefault(_Course.of(change), []).append(change)
    news: list[Change] = []
    for course, changes in found.items():
        places = _Places.of(now[course])
        new = _unexplained(changes, known.get(course, ()), places)
        if new and course in without:
            since = min(places.stretch(change)[0] for change in new)
            for earlier in _earlier(without[course], len(now[course].points) - since):
                also_new = _unexplained(changes, find_changes([earlier], len(now) - 1), places)
                # the fewest are new; of as many the latest, since a run comes last
                new = min(new, also_new, key=lambda one: (len(one), -max(map(changes.index, one), default=0)))
        news += new
    return tuple(news)


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


def _earlier(series: Series, most: int) -> Iterator[Series]:
    """A course as each of this many runs before the last one had it, the latest first."""
    last = len(series.points) - 1
    for runs in range(last, max(last - most, FEWEST_RUNS), -1):
        kept = [one for one in series.segments if one.start < runs]
        segments = tuple(replace(one, stop=min(one.stop, runs)) for one in kept)
        yield replace(series, points=series.points[:runs], segments=segments)


def _unexplained(found: Sequence[Change], known: Sequence[Change], places: _Places) -> list[Change]:
    """The changes of a course that none of those explains which were known: each explains one, the nearest."""
    at = {change: places.stretch(change) for change in (*found, *known)}
    pairs = [
        (abs(at[one][1] - at[other][1]), one, other)
        for one in found
        for other in known
        if one.is_worse is other.is_worse
        and at[other][0] <= at[one][1] + FEWEST_RUNS  # looks at a course that grew place a change no further apart
        and at[one][0] <= at[other][1] + FEWEST_RUNS
    ]
    explained: dict[Change, Change] = {}
    for _, one, other in sorted(pairs, key=lambda pair: pair[0]):
        if one not in explained and other not in explained.values():
            explained[one] = other
    return [one for one in found if one not in explained or one.is_confirmed > explained[one].is_confirmed]


class RunOfLines(Struct, frozen=True):
    """What all lines of one run have in common."""

    environment: Environment  # the machine and its software
    at: CommitPosition  # the commit that was checked out
    clean: bool  # whether the files were the commit's
    date: str  # end of the run, ISO 8601 in UTC with seconds


def lines_of(
    results: Sequence[TestResult], run: RunOfLines, position_of: Callable[[str], CommitPosition]
) -> tuple[HistoryLine, ...]:
    """The lines of results in the order of the run, one per test that :func:`line_of` gives one; its last counts."""
    found = {line.test: line for result in results if (line := line_of(result, run, position_of)) is not None}
    return tuple(found.values())


def line_of(result: TestResult, run: RunOfLines, position_of: Callable[[str], CommitPosition]) -> HistoryLine | None:
    """The line of one result; None if the result supports no verdict, or has no value that a line keeps.

    A test that was measured interleaved with a revision adds the ratios of its launches to that revision: the one of
    ``--perf-against``, or the commit of a baseline entry that settled what the file left open.
    """
    if result.judged.interrupted or result.generator_limited or result.kind in ERRORS:
        return None
    kept = kept_metrics(result)
    values = {
        name: tuple(LaunchValue(value, error) for value, error in found)
        for name, found in ((name, result.measured.launches[name]) for name in kept)
        if found and all(map(math.isfinite, (number for pair in found for number in pair)))
    }
    if not values:
        return None
    ratios = _ratios(result, kept)
    commit = "" if result.reference is None else result.reference.revision_commit
    return HistoryLine(
        test=result.test,
        machine=run.environment.machine_of(result.conditions.cluster),
        date=run.date,
        at=run.at,
        clean=run.clean,
        setup=digest_of(result.setup.to_json()),
        facts=digest_of(result.conditions.facts),
        kind=result.kind,
        values=values,
        ratios=ratios,
        reference=position_of(commit) if ratios else None,
        figures={
            figure.name: (figure.unit, figure.better)
            for figure in answer_figures()
            if any(name.partition(":")[0] == figure.name for name in values)
        },
    )


def kept_metrics(result: TestResult) -> tuple[str, ...]:
    """The metrics of a result that its line keeps, by name: those that a comparison or the test judges, and NMRT.

    What the test asks to compare is kept although nothing was compared, as in a run that records a baseline. A
    cost, which follows from other metrics and a setting, is left out, and so is an NMRT that is a lower bound only.
    """
    judged = {name for role in (Role.PRIMARY, Role.GUARD) for name in with_role(role)}
    terms = result.definition.terms
    asked = {verdict.metric for verdict in result.verdicts} | {*(() if terms is None else terms.tolerances)}
    bounds: set[object] = {search.objective for search in result.limits.capacities if search.at_least}
    return tuple(name for name in result.measured.launches if _is_kept(name, judged | asked, bounds))


def _is_kept(name: str, judged: set[str], bounds: set[object]) -> bool:
    """Whether a line keeps a metric."""
    if not is_known_metric(name):
        return False
    metric = metric_named(name)
    if isinstance(metric.kind, Nmrt | AtNmrt) and objective_of(metric) in bounds:
        return False
    return (name in judged or isinstance(metric.kind, Nmrt)) and metric.unit is not Unit.COST


def _ratios(result: TestResult, kept: Sequence[str]) -> dict[str, tuple[PairedRatio, ...]]:
    """The ratios to the revision that was measured interleaved; none if nothing was, or its commit is not known."""
    reference = result.reference
    if reference is None or not reference.revision_commit:
        return {}
    return {
        name: tuple(PairedRatio(log_ratio, error) for log_ratio, error in found)
        for name, found in reference.log_ratios.items()
        if name in kept and found and all(map(math.isfinite, (number for pair in found for number in pair)))
    }


_MOST_NAMED = 3  # Files that differ from the commit, which a line of the terminal names at most


class HistorySession:
    """The history during one run. ``root``: directory that test ids are relative to."""

    def __init__(self, run: RunSettings, environment: Environment, *, root: Path) -> None:
        self._run = run
        self._environment = environment
        self._root = root
        assert run.history is not None
        name = run.history.relative_to(root) if run.history.is_relative_to(root) else run.history
        self._history = History(run.history, str(name))
        self._before = HistoryRead(()) if run.smoke else self._history.read()
        self._checkout = checkout_of(root, (run.baseline_file, *run.results_files))
        self._added: tuple[HistoryLine, ...] = ()
        self.lines: list[str] = [f"WARNING: {warning}" for warning in self._before.warnings]
        self.changes: tuple[NewChange, ...] = ()

    @property
    def known(self) -> Sequence[HistoryLine]:
        """The lines of the history without this run's."""
        return self._before.lines

    @property
    def fails(self) -> bool:
        """Whether a new change fails the run."""
        return any(one.fails for one in self.changes)

    def close(self, results: Sequence[TestResult], *, complete: bool) -> None:
        """Append a line for each test, and look for new changes."""
        if self._run.smoke or not results:
            return
        if not complete:
            self.lines.append(f"history {self._history.name} not extended: the run was not completed")
            return
        lines = self._lines_of(results)
        if not lines:
            self.lines.append(f"history {self._history.name} not extended: no test was measured validly")
            return
        said = self._history.append(lines)
        self._added = lines
        self.lines += [self._added_lines(), *said]
        self.changes = self._new_changes(results)

    def levels(self) -> dict[str, Level]:
        """The level of each test of this run as the last runs have it, or why there is none."""
        from pytest_mlpatterns.history.stable_level import stable_levels

        return stable_levels(self._before.lines, self._added, first_parents(self._root))

    def report(self) -> dict[str, Any]:
        """What was done with the history, as plain values for the result file."""
        return {
            "place": self._history.name,
            "added": len(self._added),
            "position": self._checkout.at.position,
            "clean": self._checkout.clean,
            "changes": [one.to_json() for one in self.changes],
        }

    def _lines_of(self, results: Sequence[TestResult]) -> tuple[HistoryLine, ...]:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        run = RunOfLines(self._environment, self._checkout.at, self._checkout.clean, now)
        position_of = functools.cache(functools.partial(position_in, self._root))
        return lines_of(results, run, position_of)

    def _added_lines(self) -> str:
        """How many lines were added, and why they do not count if files were changed."""
        text = f"history {self._history.name}: {count(len(self._added), 'line')} added"
        changed = self._checkout.changed
        if not changed:
            return text
        more = len(changed) - _MOST_NAMED
        named = ", ".join(changed[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        return f"{text}, which no change is looked for in, since files differ from the commit: {named}"

    def _new_changes(self, results: Sequence[TestResult]) -> tuple[NewChange, ...]:
        """The new changes of the tests of this run, with their sentences."""
        if not self._checkout.clean:
            return ()
        by_test = {result.test: result for result in results}
        before = self._before.lines
        everything = (*before, *self._added)
        return tuple(
            self._described(change, everything, by_test[change.test])
            for change in new_changes(before, self._added, first_parents(self._root))
        )

    def _described(self, change: Change, lines: Sequence[HistoryLine], result: TestResult) -> NewChange:
        """A change with its sentence; ``result`` belongs to its test."""
        is_known = is_known_metric(change.metric)
        tolerance = Tolerances(result.definition.tolerance).of(change.metric) if is_known else None
        sentence = change_sentence(change, passed=each_passed(change, lines), tolerance=tolerance)
        fails = self._run.history_fail is HistoryFail.NEW and change.is_worse and change.is_confirmed
        test = id_from(self._run.invoked_in, change.test, self._root)
        command = bisect_command(change, test) if change.is_worse else ""
        return NewChange(change, sentence, command, fails, result.definition.location)
