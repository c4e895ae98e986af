"""The steps of the function beside the load in charts: marks on all that goes over time, and the course of latency.

Pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.capacity.step_impact import describe_impact
from pytest_mlpatterns.reports.html.chart import Chart, Column
from pytest_mlpatterns.units import SECOND_NS

if TYPE_CHECKING:
    from pytest_mlpatterns.records.result import TestResult

__all__ = ["latency_course", "with_steps"]

_OVER_TIME = ("course_of_latency", "depth", "load", "memory", "tokens")
"""Kinds of charts over the time of the last launch's window."""


def with_steps(chart: Chart, result: TestResult) -> Chart:
    """A chart over time with the steps of the last launch marked on it; any other chart as it is."""
    if chart.kind not in _OVER_TIME:
        return chart
    steps = [one for one in result.causes.steps if one.launch == result.measured.launch_count]
    return replace(chart, spans=tuple((one.begin_ns / SECOND_NS, one.end_ns / SECOND_NS, one.name) for one in steps))


def latency_course(result: TestResult) -> Chart | None:
    """The latency through the window of the last launch; None if it had no steps."""
    moments = result.causes.latency_over_time
    if len(moments) < 2:
        return None
    steps = [one for one in result.causes.steps if one.launch == result.measured.launch_count]
    return Chart(
        "course_of_latency",
        "Latency over time",
        "; ".join(f"{one.name}: {describe_impact(one)}" for one in steps),
        (
            Column("time", "seconds"),
            Column("median latency", "duration"),
            Column("longest latency", "duration"),
            Column("failed requests", "count"),
        ),
        tuple((one.seconds, one.median_ns, one.worst_ns, one.failed) for one in moments),
    )
