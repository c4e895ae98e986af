"""What the last runs of a history know of a test on this machine: its level since the last change, and its scatter.

The level stands in for one run where a baseline is recorded; a history whose last runs are too few, or failed, gives
none. The scatter is known in the workers of a distributed run too, where tests are measured. This module must not know
how a baseline is stored, nor how verdicts use the scatter.
"""

import functools
from collections.abc import Sequence

from pytest_mlpatterns.analysis.changes.findings import find_changes
from pytest_mlpatterns.analysis.changes.series import (
    USUAL_SCATTER,
    LaunchScatter,
    commit_key,
    counted_lines,
    scatter_in,
    series_of,
)
from pytest_mlpatterns.analysis.changes.stretches import FEWEST_RUNS
from pytest_mlpatterns.config.run_settings import RunSettings
from pytest_mlpatterns.errors import HistoryError
from pytest_mlpatterns.history.file import History
from pytest_mlpatterns.records.baseline_entry import Level
from pytest_mlpatterns.records.history import Change, HistoryLine, digest_of
from pytest_mlpatterns.records.setup import Environment, Setup
from pytest_mlpatterns.records.verdict import ERRORS, Kind
from pytest_mlpatterns.reports.text.history_text import change_sentence
from pytest_mlpatterns.wording import count


class OwnScatter:
    """The scatter of every test of a session; if ``known`` is None, the first test that asks reads the history."""

    def __init__(
        self, run: RunSettings, environment: Environment, *, known: Sequence[HistoryLine] | None = None
    ) -> None:
        self._run = run
        self._environment = environment
        self._known = known

    def of(self, test: str, setup: Setup, cluster: str = "") -> LaunchScatter:
        """The scatter of one test: of its runs on this machine with the present set-up and cluster (empty: none)."""
        if self._run.history is None or self._run.smoke:
            return USUAL_SCATTER
        machine, digest = self._environment.machine_of(cluster), digest_of(setup.to_json())
        ours = [
            line
            for line in self._lines.get(test, ())
            if line.machine == machine and line.setup == digest and line.kind not in ERRORS
        ]
        return scatter_in(sorted(ours, key=lambda line: line.date))

    @functools.cached_property
    def _lines(self) -> dict[str, Sequence[HistoryLine]]:
        """The lines of the history by test; none if it cannot be read, which the session reports."""
        found: dict[str, list[HistoryLine]] = {}
        for line in self._read() if self._known is None else self._known:
            found.setdefault(line.test, []).append(line)
        return {**found}

    def _read(self) -> Sequence[HistoryLine]:
        assert self._run.history is not None
        try:
            return History(self._run.history, str(self._run.history)).read().lines
        except HistoryError:
            return ()


MOST_LAUNCHES = 64
"""Launches of a level, of the latest runs: more make an entry no narrower that is compared with eight at most."""
_FAILED = (Kind.REGRESSION, Kind.LIMIT)
"""Kinds of runs that a person has to look at before their values become a baseline."""


def stable_levels(
    before: Sequence[HistoryLine], added: Sequence[HistoryLine], order: Sequence[str] = ()
) -> dict[str, Level]:
    """The level of each test of a run, or why there is none."""
    tests = {line.test for line in added}
    lines = [line for line in (*before, *added) if line.test in tests]
    changes = find_changes(series_of(lines, order))
    ordered = counted_lines(lines, order)
    return {
        own.test: _level(
            own,
            [line for line in ordered if (line.test, line.machine) == (own.test, own.machine)],
            [change for change in changes if change.test == own.test and change.machine in ("", own.machine)],
        )
        for own in added
    }


def _level(own: HistoryLine, ordered: Sequence[HistoryLine], changes: Sequence[Change]) -> Level:
    """The level of one test."""
    if own not in ordered:
        which = "its commit is not among the first parents" if own.clean else "files differ from the commit"
        return Level(why_not=f"the line of this run does not count, since {which}")
    stop = len(ordered) - ordered[::-1].index(own)
    start, last = 0, None
    for change in changes:
        begin = _begin_after(change, ordered)
        if start < begin <= stop:
            start, last = begin, change
    first = stop
    while first > start and (ordered[first - 1].setup, ordered[first - 1].facts) == (own.setup, own.facts):
        first -= 1
    window = ordered[first:stop]
    why_not = _why_not(window, last if first == start else None)
    if why_not:
        return Level(why_not=why_not)
    values = {
        name: tuple(launch for line in window for launch in line.values.get(name, ()))[-MOST_LAUNCHES:]
        for name in own.values
    }
    return Level(values, len(window), window[0].date[:10])


def _begin_after(change: Change, ordered: Sequence[HistoryLine]) -> int:
    """Index of the first line after a change; the number of lines if there is none."""
    at = commit_key(change.new)
    any_date = commit_key(change.old) != at  # no other run of the commit is before the change
    for place, line in enumerate(ordered):
        if commit_key(line.at) == at and (any_date or line.date >= change.date):
            return place
    return next((place for place, line in enumerate(ordered) if line.date > change.date), len(ordered))


def _why_not(window: Sequence[HistoryLine], last: Change | None) -> str:
    """Why the runs of a window make no level; empty if they do."""
    runs = len(window)
    if runs < FEWEST_RUNS:
        since = "with this set-up and environment on this machine"
        if last is not None:
            since = f"since the last change ({change_sentence(last)})"
        return f"the history has {count(runs, 'run')} {since}, expected at least {FEWEST_RUNS}; run it again later"
    failed = [line for line in window if line.kind in _FAILED]
    if not failed:
        return ""
    return (
        f"{len(failed)} of the last {count(len(window), 'run')} failed, the latest on {failed[-1].date[:10]}, expected "
        "runs that passed; accept the change or repair it first"
    )
