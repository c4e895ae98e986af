"""A history for the terminal: courses as sparklines with their level now, changes in words, and searches for commits.

A sparkline is the course on a logarithmic scale, one column for each run, or for neighbouring runs if there are more of
them than columns. A bar separates runs whose set-up or environment differs; signs below mark the changes.

Pure; this module must not know how changes are found, nor which of them are new.
"""

import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from itertools import pairwise
from statistics import fmean, median

from msgspec import Struct

from pytest_mlpatterns.analysis.changes.findings import Level, changes_in, levels_of, place_of
from pytest_mlpatterns.analysis.changes.series import Series
from pytest_mlpatterns.analysis.metrics.definitions import METRICS, bisectable, known_metric
from pytest_mlpatterns.records.bisect import BisectResult, CommitName, SearchedCommit, SearchEnd, SearchExtent, WhyRange
from pytest_mlpatterns.records.history import Change, Course, NewChange
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.reports.text.comparison import explained, metric_label
from pytest_mlpatterns.reports.text.terminal_text import BARS, Line, Style, cut, line, padded, wrapped
from pytest_mlpatterns.units import format_duration, format_percent, format_percents
from pytest_mlpatterns.wording import count

_SUBJECT = 60  # Columns of the subject of a commit in a line
_MOST_NAMED = 8  # Most commits of a range that are named with the reason why they were not measured
_LIKE = {
    "good": "like the good end",
    "bad": "like the bad end",
    "near good": "between both ends, nearer to the good one",
    "near bad": "between both ends, nearer to the bad one",
    "undecided": "undecided",
    "": "not decided yet, measured again",
}
"""What a commit is like, in words."""


def announcement(extent: SearchExtent) -> list[str]:
    """The size of a search, and how long it may take."""
    between = count(extent.between, "commit")
    then = f"then at most {count(extent.steps, 'commit')} between them, and last what was found beside its parent"
    return [
        f"{extent.test}: {between} from {extent.good.short} to {extent.bad.short} may have changed "
        f"{metric_label(extent.metric)}",
        f"both ends are compared, {then}; each measurement takes {format_duration(extent.budget_ns)} and more, "
        f"all together at most {format_duration(extent.most_ns)}",
    ]


def searched_line(found: SearchedCommit) -> str:
    """One commit that was measured or tried."""
    left = f"{found.left:>5} left  {found.commit.short}  "
    if found.change is None:
        return f"{left}does not run: {found.skipped}"
    launches = count(found.launches, "paired launch", "paired launches")
    return f"{left}{change_text(found.change)}, {launches}: {_LIKE[found.likeness]}  {_subject(found.commit)}".rstrip()


def change_text(ratio: Estimate) -> str:
    """A ratio as a change with its interval: ``+4.2 % (+3.1 % to +5.3 %)``."""
    value, low, high = (format_percent(one - 1, signed=True) for one in astuple(ratio))
    return f"{value} ({low} to {high})"


def result_lines(result: BisectResult) -> list[str]:
    """What a search found."""
    match result.end:
        case SearchEnd.FOUND:
            return _found(result)
        case SearchEnd.NONE:
            return [_none(result)]
        case SearchEnd.RANGE:
            return _range(result)


def _found(result: BisectResult) -> list[str]:
    assert result.first is not None
    assert result.before is not None
    assert result.step is not None
    first, before = result.first, result.before
    return [
        f"{first.short} changed {_figure(result)} by {change_text(result.step)} against its parent {before.short}:",
        f"  {first.subject}",
        f"  {first.author}, {first.date[:10]}",
        *(f"  {line}" for line in result.cause.splitlines()),
        *_rest(result),
    ]


def _rest(result: BisectResult) -> list[str]:
    """That other commits have a part in the change, and how to find them."""
    if not result.is_part or result.whole is None or result.first is None or result.before is None:
        return []
    ranges = [
        f"{one.sha[:12]}..{other.sha[:12]}"
        for one, other in ((result.good, result.before), (result.first, result.bad))
        if one != other
    ]
    return [
        f"from {result.good.short} to {result.bad.short} it changed by {change_text(result.whole)}: other commits have "
        "a part in that; to find them:",
        *(f"  {_bisect(result.test, one, result.metric)}" for one in ranges),
    ]


def _none(result: BisectResult) -> str:
    assert result.whole is not None
    text = change_text(result.whole)
    if result.is_open:
        return (
            f"no change was shown: {_figure(result)} {text} from {result.good.short} to {result.bad.short}; "
            "measure longer with --budget, or in a quieter moment"
        )
    return f"no change to find: {_figure(result)} {text} from {result.good.short} to {result.bad.short}"


def _range(result: BisectResult) -> list[str]:
    assert result.first is not None
    assert result.before is not None
    before, first = result.before, result.first
    whole = "" if result.whole is None else f" by {change_text(result.whole)}"
    if result.why is WhyRange.UNCONFIRMED:
        assert result.step is not None
        return [
            f"{_figure(result)} changed{whole} from {result.good.short} to {result.bad.short}",
            f"{first.short} ({_subject(first)}) was found, but beside its parent {before.short} it changes it by "
            f"{change_text(result.step)}; search again in a quieter moment, or with a longer --budget",
        ]
    if result.why is WhyRange.TIME and not any(one.likeness for one in result.searched):
        return _open_ends(result)
    lines = [f"{_figure(result)} changed{whole} after {before.short} and up to {first.short} ({_subject(first)})"]
    match result.why:
        case WhyRange.GRADUAL:
            return [*lines, "many commits between have a part in it, each too small to be found"]
        case WhyRange.TIME:
            return [*lines, "the time of the search is over; the same command goes on where it ended"]
        case _:
            return [*lines, "the commits between could not be measured or decided:", *_not_decided(result)]


def _open_ends(result: BisectResult) -> list[str]:
    """That the time did not suffice to see whether both ends differ; the first commit of a search is its bad end."""
    ends = f"from {result.good.short} to {result.bad.short}"
    if result.whole is None:
        found = f"nothing was measured {ends}, so it is not known whether {_figure(result)} changed"
    else:
        found = f"it is not decided whether {_figure(result)} changed {ends}: {change_text(result.whole)} so far"
    return [found, "the time of the search is over; the same command with a longer --at-most goes on where it ended"]


def _not_decided(result: BisectResult) -> list[str]:
    """The commits that were tried and neither ran nor were decided, with the reason."""
    tried = [one for one in result.searched if one.skipped or one.likeness == "undecided"]
    lines = [f"  {one.commit.short}  {one.skipped or 'undecided'}" for one in tried[-_MOST_NAMED:]]
    more = len(tried) - len(lines)
    return [*lines, *([f"  and {more} more"] if more > 0 else [])]


def _figure(result: BisectResult) -> str:
    """The metric as it was compared."""
    return metric_label(result.figure or result.metric)


def _subject(commit: CommitName) -> str:
    return commit.subject if len(commit.subject) <= _SUBJECT else f"{commit.subject[: _SUBJECT - 1]}…"


_SHOWN_DIGITS = 7  # Digits of a commit's hash in a sentence, as git abbreviates it in a small repository
_USUAL = "rtm"  # The metric that a search looks for unless another is given
_GIVEN_DIGITS = 12  # Digits of a commit's hash in a command, which name one commit in any repository


def change_sentence(change: Change, *, passed: bool = False, tolerance: float | None = None) -> str:
    """A change in a sentence, without the name of its test.

    ``passed``: whether each run since the commit before it passed, which is then a part of the sentence. ``tolerance``:
    of the test, as a share; a change below it is why they passed. None if it is not known.
    """
    value, low, high = (factor - 1 for factor in change.factor)
    size = f"{format_percent(value, signed=True)} ({format_percents(low, high)})"
    found = f"{' '.join(filter(None, (metric_label(change.metric), size, _where(change))))}, {change.date[:10]}"
    beside = "beside revisions, so on any machine" if change.course is Course.RATIOS else ""
    doubt = "" if change.is_confirmed else "new, unconfirmed: too few runs are after it"
    return "; ".join(filter(None, (found, beside, doubt, _verdicts(change, tolerance) if passed else "")))


def bisect_command(change: Change, test: str = "") -> str:
    """The command that finds the commit of a change; empty if its commits are not known, or are the same.

    A metric that no two commits are compared by, such as p95, is searched for by the latency.

    ``test``: its id from where the command is to run; empty for the root of pytest.
    """
    old, new = change.old.commit, change.new.commit
    if not old or not new or old == new:
        return ""
    commits = f"{old[:_GIVEN_DIGITS]}..{new[:_GIVEN_DIGITS]}"
    return _bisect(test or change.test, commits, change.metric if change.metric in bisectable() else _USUAL)


def _bisect(test: str, commits: str, metric: str) -> str:
    of_metric = [] if metric == _USUAL else ["--metric", metric]
    return shlex.join(["python", "-m", "pytest_mlpatterns", "bisect", test, commits, *of_metric])


def new_change_lines(changes: Sequence[NewChange]) -> list[Line]:
    """The new changes of a run for the terminal, by test, each with the command that finds its commit; none if none."""
    lines: list[Line] = []
    for test in dict.fromkeys(one.change.test for one in changes):
        found = [one for one in changes if one.change.test == test]
        styles = [Style.BAD if one.change.is_worse else Style.PLAIN for one in found]
        lines += [(), line(f"{test} changed in the history", Style.BAD if Style.BAD in styles else Style.PLAIN)]
        lines += [line(f"  {one.sentence}", style) for one, style in zip(found, styles, strict=True)]
        commands = dict.fromkeys(one.command for one in found if one.command)
        lines += [line(f"  which commit it was: {command}") for command in commands]
    if any(one.fails for one in changes):
        lines.append(line("the run fails, since a change for the worse is new: --perf-history-fail new", Style.BAD))
    return lines


def _where(change: Change) -> str:
    """Between which commits it is."""
    old, new = (commit.commit[:_SHOWN_DIGITS] for commit in (change.old, change.new))
    if not new:
        return ""
    if old == new:
        return f"between two runs of {new}"
    return f"near {new} ({old}..{new})" if old else f"near {new}"


def _verdicts(change: Change, tolerance: float | None) -> str:
    """Why no run failed, if it is known that each passed."""
    is_small = tolerance is not None and abs(change.factor[0] - 1) < tolerance
    return f"each run passed{', since each step was below the tolerance' if is_small else ''}"


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
    """The lines of a history: a paragraph for each test, whose courses have at least one point each."""
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
    value, metric = math.exp(stretch.level), known_metric(course.metric)
    return f"{f'{value:.4g}' if metric is None else metric.show(value)}{half}"


def sketch_of(course: Series, changes: Iterable[Change], columns: int) -> Sketch:
    """A course of at least one point as a sparkline of a width of at least 12 columns."""
    groups, is_cut = _columns_of(course, columns)
    levels = [point.level for point in course.points]
    low, high = _range_of(levels)
    heights, bars, starts = BARS[1:], [_CUT] if is_cut else [], []
    for group in groups:
        if group is None:
            bars.append(_BORDER)
        else:
            height = (fmean(levels[group.start : group.stop]) - low) / (high - low)
            bars.append(heights[min(max(round(height * len(heights) - 0.5), 0), len(heights) - 1)])
            starts.append((group, len(bars) - 1))
    marks = [" "] * len(bars)
    for change in changes_in(course, changes):
        place = place_of(course, change)
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
        what = "ratios, on any machine" if course is Course.RATIOS else machine or "values"
        lines += wrapped(f"{what}; {_span(group)}", width, "  ", others="    ")
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
        explained(" ".join(metric_label(one.metric) for one in all_series)),
    ]
    used = [part for part in parts if part]
    return wrapped("; ".join(used), width) if used else []
