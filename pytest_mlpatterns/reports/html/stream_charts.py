"""Charts of answers that come in pieces: times of tokens, tokens per second, some requests, goodput by load. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metrics.definitions import is_known_metric, metric_named, with_role
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.records.outcomes import describe_outcome
from pytest_mlpatterns.records.stream_record import STREAM_QUANTITIES
from pytest_mlpatterns.reports.html.chart import Cell, Chart, Column
from pytest_mlpatterns.reports.html.latency_charts import histogram_chart, percentile_chart
from pytest_mlpatterns.units import Unit, format_duration, format_rate
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.records.setup import LoadDescription
    from pytest_mlpatterns.records.stream_record import StreamedRequest

__all__ = ["goodput_charts", "is_goodput", "stream_charts"]

_OFFERED = "offered load in req/s"
_GOODPUT = ("goodput", "from", "to")


def stream_charts(result: TestResult) -> tuple[Chart, ...]:
    """The charts of one test; none if its answers do not stream."""
    if result.stream is None:
        return ()
    pictured = with_role(Role.PICTURED)
    found = [
        *(chart(result, quantity) for quantity in pictured for chart in (percentile_chart, histogram_chart)),
        *(percentile_chart(result, quantity) for quantity in STREAM_QUANTITIES if quantity not in pictured),
        _tokens_over_time(result.stream.tokens_over_time),
        _waterfall(result.stream.requests),
    ]
    return tuple(chart for chart in found if chart is not None)


def goodput_charts(results: Sequence[TestResult]) -> tuple[Chart, ...]:
    """The goodput by load, for each objective that one pattern was measured under at two loads or more.

    The tests of one function belong together; their loads are all rates, or all numbers of requests in flight.
    """
    series: dict[tuple[str, str, str, str], dict[float, tuple[float, float, float]]] = {}
    for result in results:
        what, load = _amount(result.setup.load)
        for name, found in result.metrics.items():
            if load is not None and is_goodput(name):
                key = (result.test.partition("[")[0], str(result.setup.pattern), name, what)
                series.setdefault(key, {})[load] = found
    return tuple(
        _goodput(f"{test.rpartition('::')[2]}, {pattern}", name, loads, what=what)
        for (test, pattern, name, what), loads in series.items()
        if len(loads) > 1
    )


def is_goodput(name: str) -> bool:
    """Whether a metric is a goodput under an objective."""
    return name.startswith("goodput(") and is_known_metric(name) and metric_named(name).unit is Unit.RATE


def _tokens_over_time(moments: Sequence[tuple[float, float]]) -> Chart | None:
    if len(moments) < 2:
        return None
    rates = [rate for _, rate in moments]
    return Chart(
        "tokens",
        "Output tokens per second over time",
        f"{format_rate(min(rates), 'tok')} to {format_rate(max(rates), 'tok')}, last launch",
        (Column("time", "seconds"), Column("output tokens per second", "count")),
        tuple(moments),
    )


def _waterfall(requests: Sequence[StreamedRequest]) -> Chart | None:
    """Neighbouring requests one below the other, by when they were due."""
    if not requests:
        return None
    first = requests[0].due_ns
    return Chart(
        "waterfall",
        "Some requests, one below the other",
        f"{count(len(requests), 'neighbouring request')} of the last launch, from {format_duration(first)} after its "
        "window began; a dark line is the first byte, a blue one a chunk (some, if there are many)",
        (
            Column("request", "count"),
            Column("due", "duration"),
            Column("first byte", "duration"),
            Column("wait for the first token", "duration"),
            Column("end of the answer", "duration"),
            Column("tokens", "count"),
            Column("outcome", "text"),
        ),
        tuple(_row(number, one, first) for number, one in enumerate(requests, start=1)),
        points=tuple(tuple(map(float, one.chunks_ns)) for one in requests),
    )


def _row(number: int, one: StreamedRequest, first_ns: int) -> tuple[Cell, ...]:
    succeeded = 200 <= one.outcome < 300
    return (
        float(number),
        float(one.due_ns - first_ns),
        None if one.first_byte_ns is None else float(one.first_byte_ns),
        float(one.chunks_ns[0]) if one.chunks_ns else None,
        float(one.end_ns),
        float(one.output_tokens),
        "answered" if succeeded else describe_outcome(one.outcome),
    )


def _amount(load: LoadDescription) -> tuple[str, float | None]:
    """What a load keeps constant, and how much of it; None if it has no such amount."""
    if load.in_flight is not None:
        return "requests in flight", float(load.in_flight)
    return _OFFERED, load.rate_rps


def _goodput(title: str, metric: str, loads: Mapping[float, tuple[float, float, float]], *, what: str) -> Chart:
    ordered = sorted(loads.items())
    best, (highest, _, _) = max(ordered, key=lambda one: one[1][0])
    is_rate = what == _OFFERED
    columns = [Column(what, "rate" if is_rate else "count"), *(Column(name, "rate") for name in _GOODPUT)]
    return Chart(
        "goodput",
        f"Goodput in req/s by load: {title}",
        f"{metric_named(metric).label}: at most {format_rate(highest)}, "
        f"at {format_rate(best) if is_rate else f'{best:g} requests in flight'}",
        (*columns, *([Column("all requests", "rate")] if is_rate else [])),
        tuple((load, *found, *([load] if is_rate else [])) for load, found in ordered),
    )
