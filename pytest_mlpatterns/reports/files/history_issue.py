"""The Markdown body of an issue about changes of a history: what, how much, near which commit, and what to do. Pure.

One issue can be about several changes, since one commit often moves several metrics and tests.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.changes.levels import levels_of, place_of
from pytest_mlpatterns.analysis.metrics.definitions import is_known_metric, metric_named
from pytest_mlpatterns.records.change import Course
from pytest_mlpatterns.reports.files.ci_reports import escaped
from pytest_mlpatterns.reports.text.change_sentence import bisect_command
from pytest_mlpatterns.units import format_percent, format_percents
from pytest_mlpatterns.wording import count, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.analysis.changes.series import Series
    from pytest_mlpatterns.records.change import Change

__all__ = ["issue_text"]

_AROUND = 4
"""Runs before and after a change in its table."""
_MOST_CHANGES = 30
"""Most changes with a table; an issue of GitHub has at most 65,536 letters."""
_DIGITS = 12
"""Digits of a commit in a command."""


def issue_text(changes: Sequence[Change], all_series: Sequence[Series]) -> str:
    """The body of an issue, with a section for each change; the worst first.

    Args:
        changes: those to report; empty for an empty text.
        all_series: of the whole history; those of the changes are in them.
    """
    if not changes:
        return ""
    ordered = sorted(changes, key=lambda one: (not one.is_worse, one.date, one.test, one.metric))
    parts = [_summary(ordered)]
    for change in ordered[:_MOST_CHANGES]:
        course = next((one for one in all_series if _is_of(change, one)), None)
        parts += _section(change, course)
    if len(ordered) > _MOST_CHANGES:
        parts.append(f"And {count(len(ordered) - _MOST_CHANGES, 'more change')}.")
    return visible("\n\n".join(parts) + "\n")


def _is_of(change: Change, course: Series) -> bool:
    own = (course.test, course.metric, course.machine, course.course)
    return (change.test, change.metric, change.machine, change.course) == own


def _summary(changes: Sequence[Change]) -> str:
    worse = sum(change.is_worse for change in changes)
    parts = [
        f"{count(worse, 'change')} for the worse" if worse else "",
        f"{count(len(changes) - worse, 'change')} for the better" if len(changes) > worse else "",
    ]
    tests = count(len({change.test for change in changes}), "test")
    return f"The history of the performance tests shows {' and '.join(filter(None, parts))} in {tests}."


def _section(change: Change, course: Series | None) -> list[str]:
    """One change: the sentence, where it was seen, the command that finds its commit, and the runs around it."""
    value = format_percent(change.factor[0] - 1, signed=True)
    interval = format_percents(change.factor[1] - 1, change.factor[2] - 1)
    where = (
        "in ratios to revisions that were measured in the same minutes, which hold on any machine"
        if change.course is Course.RATIOS
        else f"on {change.machine}"
    )
    old, new = (f"`{at.commit[:_DIGITS]}`" for at in (change.old, change.new))
    facts = [
        f"- **how much:** {_levels(change, course)}{value} ({interval} with 99 % confidence), "
        f"{'worse' if change.is_worse else 'better'}",
        f"- **where:** near {new}; the runs before it end with {old}, {change.date[:10]}",
        f"- **seen:** {escaped(where)}",
    ]
    if not change.is_confirmed:
        facts.append("- **new, unconfirmed:** there are few runs after it; more of them may withdraw it")
    parts = [f"### {escaped(change.test)}: {escaped(_label(change.metric))} {value}", "\n".join(facts)]
    command = bisect_command(change)
    if command:
        parts.append(f"To find the commit:\n\n{_fenced(command)}")
    return [*parts, *([] if course is None else _table(change, course))]


def _fenced(command: str) -> str:
    """A block of code with a fence that no text in it closes."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall(r"`+", command)), 3)
    return f"{fence}bash\n{command}\n{fence}"


def _levels(change: Change, course: Series | None) -> str:
    """The levels before and after a change of values, where both are known."""
    if course is None or course.course is Course.RATIOS or (places := place_of(course, change)) is None:
        return ""
    found = levels_of(course, [change])
    before = [one for one in found if one.stop == places[1]]
    after = [one for one in found if one.start == places[1]]
    if not before or not after:
        return ""
    return f"{_shown(course, before[0].level)} → {_shown(course, after[0].level)}: "


def _table(change: Change, course: Series) -> list[str]:
    """The runs around a change."""
    places = place_of(course, change)
    if places is None:
        return []
    first, last = places
    around = {*range(first - _AROUND + 1, first + 1), *range(last, last + _AROUND)}
    rows = [f"| run | commit | {escaped(_label(change.metric))} | ± |", "|---|---|--:|--:|"]
    shown = sorted(place for place in around if 0 <= place < len(course.points))
    for number, place in enumerate(shown):
        if number and place != shown[number - 1] + 1:
            rows.append("| … | | | |")
        point = course.points[place]
        mark = "**" if place >= last else ""
        error = format_percent(math.expm1(2 * point.error)) if point.error > 0 else ""
        value = f"{mark}{escaped(_shown(course, point.level))}{mark}"
        rows.append(f"| {point.date[:10]} | `{point.at.commit[:_DIGITS]}` | {value} | {error} |")
    return ["\n".join(rows)]


def _label(metric: str) -> str:
    return metric_named(metric).label if is_known_metric(metric) else metric


def _shown(course: Series, level: float) -> str:
    if course.course is Course.RATIOS:
        return format_percent(math.expm1(level), signed=True)
    value = math.exp(level)
    return metric_named(course.metric).show(value) if is_known_metric(course.metric) else f"{value:.4g}"
