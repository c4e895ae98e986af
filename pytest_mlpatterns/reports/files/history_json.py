"""A history for programs: courses with their points, segments and levels, and the changes, as JSON. Pure.

Format, version 1 (2026): ``{"format": "pytest-mlpatterns-history", "version": 1, "series": [...], "changes": [...]}``.
Values are in the unit of their metric, nanoseconds, requests per second, bytes or shares; ratios are factors to the
first reference of their course. Errors are relative standard errors.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

from pytest_mlpatterns.analysis.changes.findings import Level, changes_in, levels_of
from pytest_mlpatterns.analysis.changes.series import Series
from pytest_mlpatterns.analysis.metrics.definitions import known_metric
from pytest_mlpatterns.records.history import Change
from pytest_mlpatterns.records.json_text import rounded

FORMAT = "pytest-mlpatterns-history"
VERSION = 1  # Version of the format
_DIGITS = 7  # Significant digits of a value


def history_json(all_series: Sequence[Series], changes: Sequence[Change]) -> str:
    """The text of a history for programs. ``all_series``: those to show, in their order."""
    shown = [change for course in all_series for change in changes_in(course, changes)]
    data = {
        "format": FORMAT,
        "version": VERSION,
        "series": [_course(course, changes) for course in all_series],
        "changes": [change.to_json() for change in shown],
    }
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _course(course: Series, changes: Sequence[Change]) -> dict[str, Any]:
    found = levels_of(course, changes)
    metric = known_metric(course.metric)
    return {
        "test": course.test,
        "metric": course.metric,
        "machine": course.machine,
        "course": course.course.value,
        "unit": None if metric is None else metric.unit.value,
        "better": None if metric is None else metric.better,
        "points": [
            {
                "commit": point.at.commit or None,
                "position": point.at.position or None,
                "date": point.date,
                "value": _exp(point.level),
                "error": _brief(point.error),
            }
            for point in course.points
        ],
        "segments": [{"start": one.start, "stop": one.stop, "reason": one.reason or None} for one in course.segments],
        "levels": [{"start": one.start, "stop": one.stop, "value": _interval(one)} for one in found],
        "now": _interval(found[-1]) if found else None,
    }


def _interval(stretch: Level) -> list[float | None]:
    """A level with the ends of its 95 % interval, None if they are not known."""
    if stretch.half is None:
        return [_exp(stretch.level), None, None]
    return [_exp(stretch.level + side * stretch.half) for side in (0, -1, 1)]


def _exp(level: float) -> float:
    """A value from its logarithm; the largest number in place of one that no float holds."""
    return _brief(math.exp(min(level, 700.0)))


def _brief(number: float) -> float:
    return rounded(number, _DIGITS) if math.isfinite(number) else 0.0
