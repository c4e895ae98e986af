"""The HTML page of a history: a table of the tests, and for each test its changes and a chart for each metric. Pure.

It is one self-contained page in the frame of the page of a run, so that a host of static files can serve it.
"""

import math
from collections.abc import Sequence

from msgspec import Struct

from pytest_mlpatterns.analysis.changes.findings import changes_in, levels_of, place_of
from pytest_mlpatterns.analysis.changes.series import Series
from pytest_mlpatterns.analysis.metrics.definitions import is_known_metric, known_metric, with_role
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.records.history import Change, Course
from pytest_mlpatterns.reports.html.chart import Cell, ChangeMark, Chart, Column, Unit, heading_of, unit_of
from pytest_mlpatterns.reports.html.drawing import chart_figure
from pytest_mlpatterns.reports.html.fragments import (
    Markup,
    anchors_of,
    breakable,
    facts_list,
    link_to,
    page_of,
    section,
    state_mark,
    table_of,
    tag,
)
from pytest_mlpatterns.reports.text.comparison import metric_label
from pytest_mlpatterns.reports.text.history_text import change_sentence, in_order, level_text
from pytest_mlpatterns.units import format_percent
from pytest_mlpatterns.wording import count

_STATES = {"worse": "failed", "new": "undecided", "better": "passed", "steady": "measured"}
"""What became of a test lately, the most urgent first, with the class of its sign and colour."""
_RECENT = 30  # Runs of a course in which a change counts as the state of its test; older ones are history
_MOST_OPEN = 3  # Number of tests that are open at first


class _Test(Struct, frozen=True):
    """One test with its courses and changes."""

    name: str  # its id
    anchor: str  # its place in the page
    all_series: tuple[Series, ...]  # its courses, in the order of reports
    changes: tuple[Change, ...]  # of these, the last one first
    state: str  # one of :data:`_STATES`


def history_page(all_series: Sequence[Series], changes: Sequence[Change], source: str = "") -> str:
    """The page's text.

    ``all_series``: the courses to show, each with at least one point. ``source``: the place of the history, as the user
    named it; empty to leave it out.
    """
    tests = _tests(in_order(all_series), changes)
    return page_of(
        f"Performance history{f', {source}' if source else ''}",
        _header(tests, source),
        [_overview_section(tests), _tests_section(tests)],
        description=f"How {count(len(tests), 'performance test')} went from run to run",
    )


def _tests(ordered: Sequence[Series], changes: Sequence[Change]) -> list[_Test]:
    """The tests, those that got worse first."""
    by_test: dict[str, list[Series]] = {}
    for series in ordered:
        by_test.setdefault(series.test, []).append(series)
    tests = []
    for (name, found), anchor in zip(by_test.items(), anchors_of(by_test), strict=True):
        own = [one for series in found for one in changes_in(series, changes)]
        own.sort(key=lambda change: (change.date, change.is_worse), reverse=True)
        tests.append(_Test(name, anchor, tuple(found), tuple(own), _state(found, own)))
    order = list(_STATES)
    return sorted(tests, key=lambda test: order.index(test.state))


def _state(found: Sequence[Series], changes: Sequence[Change]) -> str:
    recent = [
        change
        for series in found
        for change in changes_in(series, changes)
        if place_of(series, change) >= len(series.points) - _RECENT
    ]
    if any(change.is_worse and change.is_confirmed for change in recent):
        return "worse"
    if any(not change.is_confirmed for change in recent):
        return "new"
    return "better" if recent else "steady"


def _state_mark(state: str) -> Markup:
    return state_mark(_STATES[state], state)


def _header(tests: Sequence[_Test], source: str) -> Markup:
    dates = [point.date[:10] for test in tests for series in test.all_series for point in series.points]
    machines = dict.fromkeys(series.machine for test in tests for series in test.all_series if series.machine)
    runs = {point.date for test in tests for series in test.all_series for point in series.points}
    facts = {
        "History": source,
        "Runs": f"{len(runs):,}, {min(dates)} to {max(dates)}" if dates else "",
        "Machines": "; ".join(machines),
    }
    states = [test.state for test in tests]
    items = [
        tag("li", state_mark(_STATES[state], f"{states.count(state):,} {state}"))
        for state in _STATES
        if state in states
    ]
    return tag(
        "header",
        tag("h1", "Performance history"),
        tag("ul", *items or [tag("li", "The history has no runs yet.")], class_="tally"),
        facts_list(facts),
    )


def _sentence(change: Change, test: _Test) -> str:
    """A change in words, with the machine where it was seen if the test ran on several."""
    machines = {series.machine for series in test.all_series if series.machine}
    several = change.course is Course.VALUES and len(machines) > 1
    return f"{change_sentence(change)}, on {change.machine}" if several else change_sentence(change)


def _overview_section(tests: Sequence[_Test]) -> Markup | None:
    """A table with a row per test."""
    if len(tests) < 2:
        return None
    heads = ("Test", "Lately", "Runs", "Now", "Last change")
    table = table_of(heads, map(_overview_row, tests), name="Overview of the tests", class_="figures overview lately")
    return section("overview", "Overview", tag("div", table, class_="card"))


def _overview_row(test: _Test) -> Markup:
    runs = max(len(series.points) for series in test.all_series)
    changed = "–"
    if test.changes:
        last = test.changes[0]
        changed = f"{last.date[:10]}, {metric_label(last.metric)} {_amount(last)}"
    return tag(
        "tr",
        tag("td", link_to(test.anchor, breakable(test.name))),
        tag("td", _state_mark(test.state)),
        tag("td", f"{runs:,}", data_label="Runs"),
        tag("td", _now(test), data_label="Now"),
        tag("td", changed, data_label="Last change"),
    )


def _now(test: _Test) -> str:
    """The levels of the primary metrics now, on the machine of the newest run; or of the first metric there is."""
    values = [series for series in test.all_series if series.course is Course.VALUES] or list(test.all_series)
    newest = max(values, key=lambda series: series.points[-1].date).machine
    primary = with_role(Role.PRIMARY)
    shown = [series for series in values if series.machine == newest and series.metric in primary] or values[:1]
    levels = [levels_of(series, test.changes)[-1] for series in shown[:2]]
    return ", ".join(
        f"{metric_label(series.metric)} {level_text(series, level)}"
        for series, level in zip(shown, levels, strict=False)
    )


def _tests_section(tests: Sequence[_Test]) -> Markup | None:
    if not tests:
        return None
    few = len(tests) <= _MOST_OPEN
    parts = [_test(one, is_open=few or (at < _MOST_OPEN and one.state != "steady")) for at, one in enumerate(tests)]
    return section("tests", "Tests", *parts)


def _test(test: _Test, *, is_open: bool) -> Markup:
    """The changes of a test, and its charts."""
    several = len({series.machine for series in test.all_series if series.machine}) > 1
    kinds = ("new" if not one.is_confirmed else "worse" if one.is_worse else "better" for one in test.changes)
    reasons = [
        tag("li", _state_mark(kind), tag("div", _sentence(one, test)))
        for kind, one in zip(kinds, test.changes, strict=True)
    ]
    metrics = list(dict.fromkeys(series.metric for series in test.all_series))
    ordered = sorted(test.all_series, key=lambda series: metrics.index(series.metric))  # ratios beside their values
    figures = [chart_figure(course_chart(one, test.changes, names_machine=several)) for one in ordered]
    return tag(
        "details",
        tag("summary", _state_mark(test.state), tag("h3", breakable(test.name), class_="id")),
        tag(
            "div",
            tag("ul", *reasons, class_="reasons") if reasons else None,
            tag("div", *figures, class_="charts"),
            id=test.anchor,
        ),
        class_="test",
        open=is_open,
    )


MOST_RUNS = 400  # Most runs that a chart draws, the last ones; a point for each would not be seen with more
_COMMIT_DIGITS = 10  # Digits of a commit in the data of a chart
_FAR = 70.0  # Largest logarithm that is drawn, of 2.5e30; a history keeps no larger value


def course_chart(series: Series, changes: Sequence[Change], *, names_machine: bool = True) -> Chart:
    """The chart of one course, with the last :data:`MOST_RUNS` runs.

    Its columns are the number of the run, commit, date, value, both ends of the 95 % interval of the run, the level of
    its stretch, and what is new with the run.

    ``series``: with at least one point.
    """
    own = changes_in(series, changes)
    found = levels_of(series, own)
    begin = max(len(series.points) - MOST_RUNS, 0)
    is_ratio, known = series.course is Course.RATIOS, is_known_metric(series.metric)
    unit: Unit = "change" if is_ratio else unit_of(series.metric) if known else "count"
    runs = f"the last {MOST_RUNS} of {len(series.points):,} runs" if begin else count(len(series.points), "run")
    name = f"{metric_label(series.metric)} against the first reference" if is_ratio else metric_label(series.metric)
    where = "holds on any machine" if is_ratio else series.machine if names_machine else ""
    return Chart(
        "history",
        _title(series),
        "; ".join(filter(None, (f"now {level_text(series, found[-1])}", where, runs))),
        (
            Column("run", "count"),
            Column("commit", "text"),
            Column("date", "text"),
            *(Column(name, unit) for name in (name, "from", "to", "level")),
            Column("what is new", "text"),
        ),
        tuple(_points(series, own)[begin:]),
        axis="runs in the order of their commits",
        borders=tuple((one.start + 1, one.reason or "another") for one in series.segments[1:]),
        changes=tuple(_mark(series, change) for change in own),
    )


def _title(series: Series) -> str:
    """The metric, with the unit of a rate, whose ticks have none."""
    if (metric := known_metric(series.metric)) is None:
        return series.metric
    if series.course is Course.RATIOS:
        return f"{heading_of(metric)} as a ratio"
    unit = metric.unit.parts(1.0)[1]
    return (
        f"{heading_of(metric)} in {unit}"
        if unit_of(series.metric) in ("rate", "count") and unit
        else heading_of(metric)
    )


def _points(series: Series, changes: Sequence[Change]) -> list[tuple[Cell, ...]]:
    levels = {
        place: stretch.level for stretch in levels_of(series, changes) for place in range(stretch.start, stretch.stop)
    }
    new: dict[int, list[str]] = {one.start: [one.reason] for one in series.segments[1:] if one.reason}
    for change in changes:
        new.setdefault(place_of(series, change), []).append(
            f"{_amount(change)}{'' if change.is_confirmed else ' (new, unconfirmed)'}"
        )
    return [
        (
            number + 1,
            point.at.commit[:_COMMIT_DIGITS],
            point.date[:10],
            _shown(series, point.level),
            # both ends of its 95 % interval, if its error is known
            *(_shown(series, point.level + side * point.error if point.error > 0 else None) for side in (-2, 2)),
            _shown(series, levels[number]) if number in levels else None,
            "; ".join(new.get(number, ())) or None,
        )
        for number, point in enumerate(series.points)
    ]


def _shown(series: Series, level: float | None) -> float | None:
    """A level as the chart draws it: the value, or the difference of a ratio from one."""
    if level is None:
        return None
    inside = min(max(level, -_FAR), _FAR)
    return math.expm1(inside) if series.course is Course.RATIOS else math.exp(inside)


def _amount(change: Change) -> str:
    return format_percent(change.factor[0] - 1, signed=True)


def _mark(series: Series, change: Change) -> ChangeMark:
    at = place_of(series, change) + 1
    if not change.is_confirmed:
        return ChangeMark(at, f"{_amount(change)} ?", "open")
    return ChangeMark(at, _amount(change), "worse" if change.is_worse else "better")
