"""Charts of a history: a metric of a test over many runs, with its changes and the borders of its segments. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.changes.levels import changes_in, levels_of, place_of
from pytest_mlpatterns.analysis.metrics.definitions import is_known_metric, metric_named
from pytest_mlpatterns.records.change import ChangeForm, Course
from pytest_mlpatterns.reports.html.chart import ChangeMark, Chart, Column, heading_of, unit_of
from pytest_mlpatterns.reports.text.history_text import level_text, metric_label
from pytest_mlpatterns.units import format_percent
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.analysis.changes.series import Series
    from pytest_mlpatterns.records.change import Change
    from pytest_mlpatterns.reports.html.chart import Cell, Tone, Unit

__all__ = ["MOST_RUNS", "course_chart"]

MOST_RUNS = 400
"""Most runs that a chart draws, the last ones; a point for each would not be seen with more."""
_COMMIT_DIGITS = 10
"""Digits of a commit in the data of a chart."""
_FAR = 70.0
"""Largest logarithm that is drawn, of 2.5e30; a history keeps no larger value."""


def course_chart(series: Series, changes: Sequence[Change], *, names_machine: bool = True) -> Chart:
    """The chart of one course, with the last :data:`MOST_RUNS` runs.

    Its columns are the number of the run, commit, date, value, both ends of the 95 % interval of the run, the level of
    its stretch, and what is new with the run.

    Args:
        series: with at least one point.
        changes: of any course; those of this one are marked.
        names_machine: whether the machine of a course of values is named.
    """
    own = changes_in(series, changes)
    found = levels_of(series, own)
    unit = _unit(series)
    begin = max(len(series.points) - MOST_RUNS, 0)
    is_ratio = series.course is Course.RATIOS
    name = f"{metric_label(series.metric)} against the first reference" if is_ratio else metric_label(series.metric)
    where = "holds on any machine" if is_ratio else series.machine if names_machine else ""
    return Chart(
        "course",
        _title(series),
        _summary(series, level_text(series, found[-1]), where=where, begin=begin),
        (
            Column("run", "count"),
            Column("commit", "text"),
            Column("date", "text"),
            *(Column(name, unit) for name in (name, "from", "to", "level")),
            Column("what is new", "text"),
        ),
        tuple(_rows(series, own)[begin:]),
        axis="runs in the order of their commits",
        borders=tuple((one.start + 1, one.reason or "another") for one in series.segments[1:]),
        changes=tuple(_mark(series, change) for change in own),
    )


def _title(series: Series) -> str:
    """The metric, with the unit of a rate, whose ticks have none."""
    if not is_known_metric(series.metric):
        return series.metric
    metric = metric_named(series.metric)
    if series.course is Course.RATIOS:
        return f"{heading_of(metric)} as a ratio"
    unit = metric.unit.parts(1.0)[1]
    return (
        f"{heading_of(metric)} in {unit}"
        if unit_of(series.metric) in ("rate", "count") and unit
        else heading_of(metric)
    )


def _unit(series: Series) -> Unit:
    if series.course is Course.RATIOS:
        return "change"
    return unit_of(series.metric) if is_known_metric(series.metric) else "count"


def _summary(series: Series, level: str, *, where: str, begin: int) -> str:
    runs = f"the last {MOST_RUNS} of {len(series.points):,} runs" if begin else count(len(series.points), "run")
    return "; ".join(filter(None, (f"now {level}", where, runs)))


def _rows(series: Series, changes: Sequence[Change]) -> list[tuple[Cell, ...]]:
    levels = {
        place: stretch.level for stretch in levels_of(series, changes) for place in range(stretch.start, stretch.stop)
    }
    new: dict[int, list[str]] = {one.start: [one.reason] for one in series.segments[1:] if one.reason}
    for change in changes:
        _, place = place_of(series, change) or (0, 0)
        new.setdefault(place, []).append(_words(change))
    return [
        (
            number + 1,
            point.at.commit[:_COMMIT_DIGITS],
            point.date[:10],
            *(_shown(series, level) for level in (point.level, *_ends(point.level, point.error))),
            _shown(series, levels[number]) if number in levels else None,
            "; ".join(new.get(number, ())) or None,
        )
        for number, point in enumerate(series.points)
    ]


def _ends(level: float, error: float) -> tuple[float, float] | tuple[None, None]:
    """Both ends of the 95 % interval of a run; None if its error is not known."""
    return (level - 2 * error, level + 2 * error) if error > 0 else (None, None)


def _shown(series: Series, level: float | None) -> float | None:
    """A level as the chart draws it: the value, or the difference of a ratio from one."""
    if level is None:
        return None
    inside = min(max(level, -_FAR), _FAR)
    return math.expm1(inside) if series.course is Course.RATIOS else math.exp(inside)


def _words(change: Change) -> str:
    return f"{_amount(change)}{'' if change.is_confirmed else ' (new, unconfirmed)'}"


def _amount(change: Change) -> str:
    return format_percent(change.factor[0] - 1, signed=True)


def _mark(series: Series, change: Change) -> ChangeMark:
    first, last = place_of(series, change) or (0, 0)
    if change.form is ChangeForm.STEP:
        first = last - 1
    label = f"{_amount(change)}{'' if change.is_confirmed else ' ?'}"
    return ChangeMark(first + 1, last + 1, label, _tone(change))


def _tone(change: Change) -> Tone:
    if not change.is_confirmed:
        return "open"
    return "worse" if change.is_worse else "better"
