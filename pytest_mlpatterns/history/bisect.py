"""The search for the commit that changed a metric of one test: measures commits, decides, and confirms what it found.

:mod:`pytest_mlpatterns.analysis.changes.bisection` decides. Each measurement is kept at once, so
that an interrupted search goes on. This module must not know how a commit is measured, nor how a result is shown.

What a search has measured so far, in a file by which an interrupted one goes on.

Format, version 1 (2026): ``{"format": "pytest-mlpatterns-bisect", "version": 1, "search": {...}, "events": [...]}``.
``search`` is what makes two searches the same. An event is a measurement, ``{"commit": SHA, "figure": NAME, "launches":
[[log ratio, standard error], ...]}``, or a commit that does not run, ``{"commit": SHA, "skipped": TEXT}``. A file of
another search, of another version or with damaged events counts as none. One of another format is left alone.
"""

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct, ValidationError, convert
from msgspec.structs import replace

from pytest_mlpatterns.analysis.changes.bisection import (
    Bisection,
    Bracket,
    Measure,
    NoChange,
    SearchRules,
    StepCheck,
    check_step,
    most_steps,
)
from pytest_mlpatterns.analysis.metrics.definitions import bisectable, metric_named
from pytest_mlpatterns.analysis.metrics.metric import Metric
from pytest_mlpatterns.analysis.statistics.log_ratio import LogRatio
from pytest_mlpatterns.analysis.verdicts.tolerances import judged_statistic
from pytest_mlpatterns.errors import DeploymentError, SettingError
from pytest_mlpatterns.history.checkout import CommitRange
from pytest_mlpatterns.history.commit_runs import CommitRun, MeasuredAs, NotRun, WhyNotRun, limit_s
from pytest_mlpatterns.records.bisect import BisectResult, CommitName, SearchedCommit, SearchEnd, SearchExtent, WhyRange
from pytest_mlpatterns.records.codec import plain
from pytest_mlpatterns.records.json_text import parsed
from pytest_mlpatterns.reports.text.where import where_texts
from pytest_mlpatterns.revision.commits import Revision
from pytest_mlpatterns.system.files import read_text, replace_file
from pytest_mlpatterns.system.owned_files import remove_file
from pytest_mlpatterns.wording import listed, named

_FORMAT = "pytest-mlpatterns-bisect"
_VERSION = 1  # Version of the state file's form; a file of another one is refused
_MOST_EVENTS = 10_000  # Most events that are read; a search has some tens
_OTHER = "name another file with --state"
_Ratio = Annotated[float, Meta(ge=-1e3, le=1e3)]  # The logarithm of a ratio; JSON can have an infinite number
_Error = Annotated[float, Meta(ge=0, le=1e3)]  # Its standard error


class SearchEvent(Struct, frozen=True, omit_defaults=True):
    """A measurement of a commit, or why it cannot be measured."""

    commit: str  # its hash
    figure: str = ""  # name of the metric whose ratios these are; empty if it was not measured
    launches: tuple[tuple[_Ratio, _Error], ...] = ()  # log ratios to the good commit; none if it was not measured
    skipped: str = ""  # why it cannot be measured; empty if it was

    @property
    def ratios(self) -> tuple[LogRatio, ...]:
        """The same as values."""
        return tuple(LogRatio(*pair) for pair in self.launches)


_Events = Annotated[list[SearchEvent], Meta(max_length=_MOST_EVENTS)]


class SearchState:
    """The events of one search in a file. ``events``: in the order in which they were added."""

    def __init__(self, file: Path, search: Mapping[str, str | float]) -> None:
        self._file = file
        self._search = dict(search)
        data = _own_data(file)
        found = _events(data, self._search)
        self.events: list[SearchEvent] = found or []
        self.was_other: bool = found is None and bool(data)

    def add(self, event: SearchEvent) -> None:
        """Add an event, and write the file."""
        self.events.append(event)
        data = {
            "format": _FORMAT,
            "version": _VERSION,
            "search": self._search,
            "events": plain(self.events),
        }
        try:
            replace_file(self._file, lambda: json.dumps(data, indent=1, ensure_ascii=False) + "\n")
        except OSError as error:
            raise SettingError(f"{named(self._file)} cannot be written: {error.strerror or error}; {_OTHER}") from error

    def forget(self) -> None:
        """Begin anew: no events; the file is replaced with the next one."""
        self.events.clear()

    def remove(self) -> None:
        """Remove the file of a search that has ended, if it is one of this search."""
        if self.events:
            with contextlib.suppress(OSError):
                remove_file(self._file)


def _own_data(file: Path) -> dict[str, Any]:
    """What a file of this format holds; nothing if it is absent or empty."""
    if not file.parent.is_dir() or not os.access(file.parent, os.W_OK):
        why = "cannot be written" if file.parent.is_dir() else "does not exist"
        raise SettingError(f"{named(file)} is in {named(file.parent)}, which {why}; {_OTHER}")
    if file.is_dir():
        raise SettingError(f"{named(file)} is a directory, expected a file; {_OTHER}")
    try:
        text = read_text(file)
        data = parsed(text) if text.strip() else {}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingError(f"{named(file)} cannot be read: {error.strerror or error}; {_OTHER}") from error
    except ValueError:  # no JSON, or no text
        data = None
    if not isinstance(data, dict) or (data and data.get("format") != _FORMAT):
        raise SettingError(
            f"{named(file)} is not what a search wrote, and would be lost; {_OTHER}, or move this one away"
        )
    return data


def _events(data: Mapping[str, Any], search: Mapping[str, object]) -> list[SearchEvent] | None:
    """The events of a search; None if there are none, or if they are damaged or of another search."""
    if data.get("version") != _VERSION or data.get("search") != search:
        return None
    try:
        found = convert(data.get("events"), _Events)
    except ValidationError:
        return None
    return found if all(one.skipped or (one.figure and one.launches) for one in found) else None


class BisectPlan(Struct, frozen=True):
    """What is searched for, and how long."""

    test: str  # id of the test
    metric: str  # name of one of :func:`bisectable`
    commits: CommitRange  # the range
    names: Mapping[str, CommitName]  # how people name the commits, by hash
    budget_ns: int  # time of one measurement
    at_most_ns: int  # time of the whole search
    rules: SearchRules  # what it is to find, and how surely

    @property
    def between(self) -> int:
        """Number of the commits that may have changed the metric."""
        return len(self.commits.shas) - 1

    @property
    def extent(self) -> SearchExtent:
        """The size of the search, for people."""
        ends = self.name(0), self.name(self.between)
        steps = most_steps(self.between)
        return SearchExtent(self.test, self.metric, *ends, self.between, steps, self.budget_ns, self.at_most_ns)

    def name(self, position: int) -> CommitName:
        """How people name the commit of a position."""
        return self.names[self.commits.shas[position]]

    @property
    def key(self) -> Mapping[str, str | float]:
        """What makes two searches the same."""
        ends = {"good": self.commits.shas[0], "bad": self.commits.shas[-1]}
        rules = {"error": self.rules.error, "smallest": self.rules.smallest}
        return {"test": self.test, "metric": self.metric, **ends, **rules}


class Search:
    """One search. ``clock``: seconds of a clock that never goes back."""

    def __init__(
        self,
        plan: BisectPlan,
        measure: Callable[..., CommitRun | NotRun],
        state: SearchState,
        *,
        show: Callable[[SearchedCommit], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan = plan
        self._measure = measure
        self._state = state
        self._show = show
        self._clock = clock
        self._deadline = clock() + plan.at_most_ns / 1e9
        self._figure = ""
        self._searched: list[SearchedCommit] = []
        self._bisection = Bisection(plan.between, plan.rules)

    def run(self) -> BisectResult:
        """Search until the commit is found, or the time is over; a search that has ended leaves no state."""
        self._replay()
        while isinstance(step := self._bisection.step, Measure):
            if not self._take(step):
                return self._at_range(step.good, step.bad, WhyRange.TIME)
        if isinstance(step, NoChange):
            self._state.remove()
            return replace(self._end(SearchEnd.NONE), whole=step.change, is_open=step.is_open)
        result = self._concluded(step)
        if result.why is not WhyRange.TIME:
            self._state.remove()
        return result

    # --- one commit ---------------------------------------------------------------------------------------------------

    def _replay(self) -> None:
        """Repeat what was measured before; events that do not fit the search make it begin anew."""
        for event in self._state.events:
            step = self._bisection.step
            if not isinstance(step, Measure) or self._plan.commits.shas[step.position] != event.commit:
                break
            is_end = step.position == self._plan.between
            if (event.skipped and is_end) or (self._figure and event.figure not in ("", self._figure)):
                break
            self._add(step, event)
        else:
            return
        self._state.forget()
        self._searched.clear()
        self._figure, self._bisection = "", Bisection(self._plan.between, self._plan.rules)

    def _take(self, step: Measure) -> bool:
        """Measure the commit of a step; False if there is no time for it."""
        commits = self._plan.commits
        found = self._timed(commits.revision(step.position), commits.good)
        if found is None:
            return False
        event = self._event(commits.shas[step.position], found)
        if event.skipped and step.position == self._plan.between:
            raise self._no_end(event, found)
        self._state.add(event)
        self._show(self._add(step, event))
        return True

    def _timed(self, commit: Revision, reference: Revision, *, is_profiled: bool = False) -> CommitRun | NotRun | None:
        """Measure a commit against another one; None if there is no time for it."""
        plan, left_s = self._plan, self._deadline - self._clock()
        if left_s < plan.budget_ns / 1e9:
            return None
        usual_s = limit_s(plan.budget_ns) * (2 if is_profiled else 1)
        asked = MeasuredAs(plan.budget_ns, plan.metric, plan.rules.smallest, is_profiled)
        found = self._measure(commit, reference, asked, most_s=min(usual_s, left_s))
        is_cut = isinstance(found, NotRun) and found.why is WhyNotRun.TIMEOUT and left_s < usual_s
        return None if is_cut else found

    def _event(self, sha: str, found: CommitRun | NotRun) -> SearchEvent:
        """What a measurement adds to the state."""
        if isinstance(found, NotRun):
            return SearchEvent(sha, skipped=str(found))
        self._figure = self._figure or _figure_of(self._plan.metric, found)
        if launches := found.ratios(self._figure):
            return SearchEvent(sha, self._figure, tuple((one.value, one.error) for one in launches))
        label = metric_named(self._plan.metric).label
        return SearchEvent(sha, skipped=str(NotRun(WhyNotRun.NOT_COMPARED, f"both sides do not have {label}")))

    def _no_end(self, event: SearchEvent, found: CommitRun | NotRun) -> DeploymentError | SettingError:
        """The error of an end of the range that cannot be compared with the other one."""
        commits = self._plan.commits
        if isinstance(found, CommitRun):
            known = [one for one in bisectable() if found.ratios(one)]
            return SettingError(
                f"--metric {self._plan.metric}: {self._plan.test} does not have it at {commits.good.name} and "
                f"{commits.bad.name}, expected {listed(known, 'or')}"
            )
        log = f"\nIt printed last:\n{found.log}" if found.log else ""
        return DeploymentError(
            f"{commits.bad.name} ({commits.bad.short}) cannot be compared with {commits.good.name} "
            f"({commits.good.short}): {event.skipped}; name ends at which {self._plan.test} runs{log}"
        )

    def _add(self, step: Measure, event: SearchEvent) -> SearchedCommit:
        """Let the decisions take an event; what is to be shown of it."""
        name = self._plan.name(step.position)
        if event.skipped:
            self._bisection.skip()
            found = SearchedCommit(name, self._left(), skipped=event.skipped)
        else:
            self._figure = event.figure
            decided = self._bisection.add_run(event.ratios)
            likeness = "" if decided.likeness is None else decided.likeness.value
            found = SearchedCommit(name, self._left(), decided.change, decided.launches, likeness)
        self._searched.append(found)
        return found

    def _left(self) -> int:
        """Number of commits that the change may be at."""
        step = self._bisection.step
        return 0 if isinstance(step, NoChange) else step.bad - step.good

    # --- the end ------------------------------------------------------------------------------------------------------

    def _concluded(self, bracket: Bracket) -> BisectResult:
        """The commit that was found, compared with its parent; or the range."""
        if not bracket.is_one_commit:
            why = WhyRange.GRADUAL if bracket.is_gradual else WhyRange.NOT_RUN
            return replace(self._at_range(bracket.good, bracket.bad, why), whole=bracket.whole)
        found = self._checked(bracket)
        if found is None:
            return replace(self._at_range(bracket.good, bracket.bad, WhyRange.TIME), whole=bracket.whole)
        check, cause = found
        end = self._end(SearchEnd.FOUND)
        if not check.is_confirmed:
            end = replace(end, end=SearchEnd.RANGE, why=WhyRange.UNCONFIRMED)
        return replace(
            end,
            whole=bracket.whole,
            before=self._plan.name(bracket.good),
            first=self._plan.name(bracket.bad),
            step=check.change,
            is_part=check.is_part and self._plan.between > 1,
            cause=cause,
        )

    def _checked(self, bracket: Bracket) -> tuple[StepCheck, str] | None:
        """Compare the commit with its parent until that is decided, with a profile; None if there is no time for it."""
        commits, cause = self._plan.commits, ""
        runs: list[tuple[LogRatio, ...]] = []
        first, before = commits.revision(bracket.bad), commits.revision(bracket.good)
        while True:
            found = self._timed(first, before, is_profiled=not runs)
            if found is None:
                return None
            launches = () if isinstance(found, NotRun) else found.ratios(self._figure)
            if isinstance(found, NotRun) or not launches:
                text = found.text if isinstance(found, NotRun) else "it has no ratios"
                raise DeploymentError(
                    f"{first.short} cannot be compared with its parent {before.short}, although both were measured "
                    f"before: {text}; run the same command again"
                )
            cause = "\n".join(where_texts(found.result, found.result.verdicts)) if not runs else cause
            runs.append(launches)
            check = check_step(runs, bracket, self._plan.rules)
            if check.is_confirmed is not None:
                return check, cause

    def _at_range(self, good: int, bad: int, why: WhyRange) -> BisectResult:
        names = self._plan.name(good), self._plan.name(bad)
        whole = next((one.change for one in self._searched if one.change is not None), None)
        return replace(self._end(SearchEnd.RANGE), why=why, before=names[0], first=names[1], whole=whole)

    def _end(self, end: SearchEnd) -> BisectResult:
        plan = self._plan
        ends = plan.name(0), plan.name(plan.between)
        return BisectResult(plan.test, plan.metric, self._figure, *ends, end, searched=tuple(self._searched))


def _figure_of(metric: str, found: CommitRun) -> str:
    """The metric whose ratios are compared: the location of the times, or their median if the reference knows it
    better."""
    known = {} if found.result.reference is None else found.result.reference.metrics

    def deviation(of: Metric) -> float:
        value, low, high = known.get(of.name, (1.0, 1.0, 1.0))
        return (high - low) / value if found.ratios(of.name) else math.inf

    return judged_statistic(metric_named(metric), deviation).name
