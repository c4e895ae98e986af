"""A history for the terminal: each course as a sparkline with the level of now, and the last changes in words. Pure.

A sparkline is the course on a logarithmic scale, one column for each run, or for neighbouring runs if there are more of
them than columns. A bar separates runs whose set-up or environment differs; signs below mark the changes.

A change of a history in a sentence, and the command that finds its commit.

``RTM +4.2 % (+3.1 to +5.3 %) near d4e5f6a (a1b2c3d..d4e5f6a), 2026-10-03; each run passed, since each step was below
the tolerance``. Changes → text. This module must not know how changes are found, nor which of them are new.
"""

from __future__ import annotations

import math
import shlex
from itertools import pairwise
from statistics import fmean, median
from typing import TYPE_CHECKING

from msgspec import Struct

from pytest_mlpatterns.analysis.changes.findings import Level, changes_in, levels_of, place_of
from pytest_mlpatterns.analysis.metrics.definitions import METRICS, is_known_metric, metric_named, with_role
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.records.history import Change, Course, NewChange
from pytest_mlpatterns.reports.text.terminal_text import Line, Style, cut, line, padded, wrapped
from pytest_mlpatterns.units import format_percent, format_percents
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_mlpatterns.analysis.changes.series import Series

_SHOWN_DIGITS = 7  # Digits of a commit's hash in a sentence, as git abbreviates it in a small repository
_USUAL = "rtm"  # The metric that a search looks for unless another is given
_GIVEN_DIGITS = 12  # Digits of a commit's hash in a command, which name one commit in any repository


def change_sentence(change: Change, *, passed: bool = False, tolerance: float | None = None) -> str:
    """A change in a sentence, without the name of its test.

    Args:
        passed: whether each run since the commit before it passed, which is then a part of the sentence.
        tolerance: of the test, as a share; a change below it is why they passed. None if it is not known.
    """
    value, low, high = (factor - 1 for factor in change.factor)
    label = metric_named(change.metric).label if is_known_metric(change.metric) else change.metric
    size = f"{format_percent(value, signed=True)} ({format_percents(low, high)})"
    found = f"{' '.join(filter(None, (label, size, _where(change))))}, {change.date[:10]}"
    beside = "beside revisions, so on any machine" if change.course is Course.RATIOS else ""
    return "; ".join(filter(None, (found, beside, _certainty(change), _verdicts(change, tolerance) if passed else "")))


def bisect_command(change: Change, test: str = "") -> str:
    """The command that finds the commit of a change; empty if its commits are not known, or are the same.

    A metric that is not measured as a ratio, such as p95, is searched for by RTM.

    Args:
        test: its id from where the command is to run; empty for pytest's root.
    """
    old, new = change.old.commit, change.new.commit
    if not old or not new or old == new:
        return ""
    commits = f"{old[:_GIVEN_DIGITS]}..{new[:_GIVEN_DIGITS]}"
    is_searched = change.metric in with_role(Role.PAIRED) and change.metric != _USUAL
    metric = f" --metric {change.metric}" if is_searched else ""
    return f"python -m pytest_mlpatterns bisect {shlex.quote(test or change.test)} {commits}{metric}"


def new_change_lines(changes: Sequence[NewChange]) -> list[Line]:
    """The new changes of a run for the terminal, by test, each with the command that finds its commit; none if none."""
    lines: list[Line] = []
    for test, found in _by_test(changes).items():
        lines += [(), line(f"{test} changed in the history", Style.BAD if any(map(_is_worse, found)) else Style.PLAIN)]
        for one in found:
            lines.append(line(f"  {one.sentence}", Style.BAD if _is_worse(one) else Style.PLAIN))
        commands = dict.fromkeys(one.command for one in found if one.command)
        lines += [line(f"  which commit it was: {command}") for command in commands]
    if any(one.fails for one in changes):
        lines.append(line("the run fails, since a change for the worse is new: --perf-history-fail new", Style.BAD))
    return lines


def _by_test(changes: Sequence[NewChange]) -> dict[str, list[NewChange]]:
    found: dict[str, list[NewChange]] = {}
    for one in changes:
        found.setdefault(one.change.test, []).append(one)
    return found


def _is_worse(one: NewChange) -> bool:
    return one.change.is_worse


def _where(change: Change) -> str:
    """Between which commits it is."""
    old, new = (commit.commit[:_SHOWN_DIGITS] for commit in (change.old, change.new))
    if not new:
        return ""
    if old == new:
        return f"between two runs of {new}"
    return f"near {new} ({old}..{new})" if old else f"near {new}"


def _certainty(change: Change) -> str:
    return "" if change.is_confirmed else "new, unconfirmed: too few runs are after it"


def _verdicts(change: Change, tolerance: float | None) -> str:
    """Why no run failed, if it is known that each passed."""
    is_small = tolerance is not None and abs(change.factor[0] - 1) < tolerance
    if is_small:
        return "each run passed, since each step was below the tolerance"
    return "each run passed"


_BARS = "▁▂▃▄▅▆▇█"
_BORDER = "│"
_CUT = "…"
_CONFIRMED, _UNCONFIRMED = "^", "?"
_LONGEST_LABEL = 18  # Widest label of a metric, in columns
_LEVEL_WIDTH = 22  # Columns of a level with its interval, ``1,234 req/s ±10.2 %``
_INDENT = 4  # Columns before the label of a metric
_GAP = 2  # Columns between label, sparkline and level
_FEWEST_COLUMNS, _MOST_COLUMNS = 12, 72  # Narrowest and widest sparkline, in columns
_LEAST_RANGE = 0.08  # Least range of a sparkline on the logarithm, eight heights of 1 %, so that noise looks flat
_MOST_CHANGES = 5  # Most changes of one test in words, the last ones


class Sketch(Struct, frozen=True):
    """A course as text."""

    bars: str  # the sparkline
    marks: str  # the signs of changes to stand below it; empty if there are none


def metric_label(name: str) -> str:
    """The label of a metric; the name itself for one of a later version."""
    return metric_named(name).label if is_known_metric(name) else name


def in_order(all_series: Iterable[Series]) -> list[Series]:
    """Courses by test as they come, values before ratios, by machine, and by metric in the order of reports."""
    found = list(all_series)
    tests = {test: place for place, test in enumerate(dict.fromkeys(one.test for one in found))}
    places = {name: place for place, name in enumerate(METRICS)}

    def key(one: Series) -> tuple[int, bool, str, int, str]:
        is_ratio = one.course is Course.RATIOS
        return tests[one.test], is_ratio, one.machine, places.get(one.metric, len(places)), one.metric

    return sorted(found, key=key)


def history_lines(all_series: Sequence[Series], changes: Sequence[Change], width: int) -> list[str]:
    """The lines of a history: a paragraph for each test.

    Args:
        all_series: those to show, each with at least one point.
    """
    ordered = in_order(all_series)
    lines: list[str] = []
    for test in dict.fromkeys(one.test for one in ordered):
        lines += [*_test_lines([one for one in ordered if one.test == test], changes, width), ""]
    return [*lines, *_legend(ordered, changes, width)]


def level_text(course: Series, stretch: Level) -> str:
    """A level with half of its interval: ``4.31 ms ±0.90 %``; of ratios the difference from the first reference."""
    half = "" if stretch.half is None else f" ±{format_percent(math.expm1(stretch.half))}"
    if course.course is Course.RATIOS:
        return f"{format_percent(math.expm1(stretch.level), signed=True)}{half}"
    value = math.exp(stretch.level)
    shown = metric_named(course.metric).show(value) if is_known_metric(course.metric) else f"{value:.4g}"
    return f"{shown}{half}"


def sketch_of(course: Series, changes: Iterable[Change], columns: int) -> Sketch:
    """A course as a sparkline of a width.

    Args:
        course: with at least one point.
        columns: width of the sparkline, at least 12.
    """
    groups, is_cut = _columns_of(course, columns)
    levels = [point.level for point in course.points]
    low, high = _range_of(levels)
    bars, starts = [_CUT] if is_cut else [], []
    for group in groups:
        if group is None:
            bars.append(_BORDER)
        else:
            height = (fmean(levels[group.start : group.stop]) - low) / (high - low)
            bars.append(_BARS[min(max(round(height * len(_BARS) - 0.5), 0), len(_BARS) - 1)])
            starts.append((group, len(bars) - 1))
    marks = [" "] * len(bars)
    for change in changes_in(course, changes):
        _, place = place_of(course, change) or (0, 0)
        for group, column in starts:
            if place in group:
                marks[column] = _CONFIRMED if change.is_confirmed else _UNCONFIRMED
    return Sketch("".join(bars), "".join(marks).rstrip())


def _columns_of(course: Series, columns: int) -> tuple[list[range | None], bool]:
    """The points of each column, None for a border; and whether the oldest segments were left out for want of room."""
    segments = course.segments[-(columns // 4) :]
    room = columns - len(segments) + 1 - (len(segments) < len(course.segments))
    sizes = [segment.stop - segment.start for segment in segments]
    widths = sizes if sum(sizes) <= room else _shares(sizes, room)
    found: list[range | None] = []
    for segment, size, width in zip(segments, sizes, widths, strict=True):
        borders = [segment.start + size * column // width for column in range(width + 1)]
        found += [*([None] if found else []), *(range(first, last) for first, last in pairwise(borders))]
    return found, len(segments) < len(course.segments)


def _shares(sizes: Sequence[int], room: int) -> list[int]:
    """Columns by number of points, at least one each and never more than points; together at most ``room``."""
    total = sum(sizes)
    widths = [min(max(1, size * room // total), size) for size in sizes]
    while sum(widths) > room:
        widths[widths.index(max(widths))] -= 1
    return widths


def _range_of(levels: Sequence[float]) -> tuple[float, float]:
    """The lowest and the highest level that are drawn; single runs beyond them are drawn at the edge."""
    smooth = (
        [median(levels[max(place - 1, 0) : place + 2]) for place in range(len(levels))] if len(levels) > 2 else levels
    )
    low, high = min(smooth), max(smooth)
    room = max(_LEAST_RANGE - (high - low), 0.0) / 2
    return low - room, high + room


def _test_lines(all_series: Sequence[Series], changes: Sequence[Change], width: int) -> list[str]:
    lines = [cut(all_series[0].test, width)]
    for machine, course in dict.fromkeys((one.machine, one.course) for one in all_series):
        group = [one for one in all_series if (one.machine, one.course) == (machine, course)]
        lines += wrapped(f"{_of_what(group[0])}; {_span(group)}", width, "  ", others="    ")
        for one in group:
            lines += _course_lines(one, changes, width)
    found = sorted((one for course in all_series for one in changes_in(course, changes)), key=lambda one: one.date)
    several = len({one.machine for one in all_series if one.machine}) > 1
    for change in found[-_MOST_CHANGES:]:
        where = f", on {change.machine}" if several and change.machine else ""
        lines += wrapped(f"{change_sentence(change)}{where}", width, "  ", others="    ")
    if len(found) > _MOST_CHANGES:
        lines.append(f"  and {count(len(found) - _MOST_CHANGES, 'earlier change')}")
    return lines


def _of_what(course: Series) -> str:
    return "ratios, on any machine" if course.course is Course.RATIOS else course.machine or "values"


def _span(group: Sequence[Series]) -> str:
    """How many runs, and from when to when."""
    dates = sorted(point.date[:10] for one in group for point in one.points)
    runs = max(len(one.points) for one in group)
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    return f"{count(runs, 'run')}, {when}"


def _course_lines(course: Series, changes: Sequence[Change], width: int) -> list[str]:
    label = padded(cut(metric_label(course.metric), _LONGEST_LABEL), _LONGEST_LABEL)
    room = width - _INDENT - _LONGEST_LABEL - _LEVEL_WIDTH - 2 * _GAP
    columns = min(max(room, _FEWEST_COLUMNS), _MOST_COLUMNS)
    sketch = sketch_of(course, changes, columns)
    level = level_text(course, levels_of(course, changes)[-1])
    begin = f"{'':<{_INDENT}}{label}{'':<{_GAP}}"
    lines = [f"{begin}{sketch.bars:<{columns}}{'':<{_GAP}}{level}".rstrip()]
    return [*lines, f"{'':<{len(begin)}}{sketch.marks}"] if sketch.marks else lines


def _legend(all_series: Sequence[Series], changes: Sequence[Change], width: int) -> list[str]:
    """What the signs mean that were used."""
    found = [one for course in all_series for one in changes_in(course, changes)]
    parts = [
        f"{_CONFIRMED} changed" if any(one.is_confirmed for one in found) else "",
        f"{_UNCONFIRMED} new, unconfirmed" if any(not one.is_confirmed for one in found) else "",
        f"{_BORDER} another set-up or environment" if any(len(one.segments) > 1 for one in all_series) else "",
    ]
    used = [part for part in parts if part]
    return wrapped("; ".join(used), width) if used else []
