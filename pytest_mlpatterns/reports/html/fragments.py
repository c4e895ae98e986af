"""Elements that several parts of the HTML report have: a verdict, a change, a test's id, a chart. Pure."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metric_definitions import metric_named
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.reports.html.markup import Markup, data_script, tag
from pytest_mlpatterns.units import format_percent

if TYPE_CHECKING:
    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.records.verdict import Verdict
    from pytest_mlpatterns.reports.html.chart import Chart

__all__ = ["STATES", "breakable", "chart_figure", "shown_change", "state_mark", "state_of", "tone_of"]

STATES = ("failed", "undecided", "interrupted", "passed", "measured")
"""What a test can come to, the most urgent first; a measured one was compared with nothing."""
_BY_NAME = ("changes", "intervals", "parts")
"""Charts that are as high as they have rows."""


def state_of(result: TestResult) -> str:
    """One of :data:`STATES`."""
    return "measured" if result.outcome == "passed" and not result.verdicts else str(result.outcome)


def state_mark(state: str, text: str | None = None) -> Markup:
    """A verdict, told by a sign, a word and a colour."""
    return tag("span", text or state, class_=f"state {state}")


def shown_change(verdict: Verdict) -> str:
    """By how much the value changed; a verdict's own change is positive where it is worse."""
    assert verdict.change is not None
    sign = 1 if metric_named(verdict.metric).better == "lower" else -1
    return format_percent(sign * verdict.change.value, signed=True)


def tone_of(verdict: Verdict, tolerance: float) -> str | None:
    """How a change is coloured: where it fails the test, and where it is better by more than the tolerance."""
    if verdict.outcome is Outcome.FAIL:
        return "worse"
    return "better" if verdict.change is not None and verdict.change.high < -tolerance else None


def breakable(test: str) -> Markup:
    """A test's id, which narrow places break where it has parts."""
    pieces = re.split(r"(?<=[:\[|,(/_])(?=[^:])", test)
    return Markup(tag("wbr").join(escape(piece) for piece in pieces))


def chart_figure(name: str, chart: Chart) -> Markup:
    """A chart with its title, its sentence and its data; ``name`` becomes the id, and begins those of its parts."""
    return tag(
        "figure",
        tag(
            "figcaption",
            tag("span", chart.title, class_="title", id=f"{name}-title"),
            tag("span", chart.summary, class_="summary", id=f"{name}-summary"),
        ),
        tag("div", class_=f"plot {'rows' if chart.kind in _BY_NAME else ''}".strip()),
        tag("details", tag("summary", "Data"), class_="data"),
        data_script(chart.to_json()),
        class_="chart",
        id=name,
    )
