"""Charts of the latency distribution, together with the one that a test was compared with; and those of streams. Pure.

Of answers that come in pieces: times of tokens, tokens per second, some requests, and goodput by load.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metrics.definitions import METRICS, is_known_metric, metric_named, with_role
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.records.latency import SERVICE_PARTS, STREAM_QUANTITIES
from pytest_mlpatterns.records.outcomes import describe_outcome
from pytest_mlpatterns.reports.html.chart import Cell, Chart, Column
from pytest_mlpatterns.reports.text.comparison import LATENCY, distributions_of
from pytest_mlpatterns.units import Unit, format_duration, format_rate
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.records.latency import LatencySplit, Percentiles, SplitMetric, StreamedRequest
    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.records.setup import LoadDescription


__all__ = [
    "goodput_charts",
    "histogram_chart",
    "is_goodput",
    "other_name",
    "split_charts",
    "stream_charts",
]


_MARKED = (50, 95, 99)
"""Percentiles that a distribution marks."""
_MOST_BINS = 28
"""Most bins of a chart; narrower ones cannot be seen."""
_NAMES = {
    LATENCY: ("Latency", "requests", "latency"),
    "ttft": ("Time to first token", "requests", "time to first token"),
    "itl": ("Inter-token latency", "gaps between tokens", "gap between tokens"),
    "tpot": ("Time per output token", "requests", "time per output token"),
}
"""Title, what is counted, and the axis of each time."""


def other_name(result: TestResult) -> str:
    """The name of the reference in a legend: ``baseline``, or the name of the revision."""
    assert result.reference is not None
    return "baseline" if result.reference.kind == "baseline" else result.reference.name


def histogram_chart(result: TestResult, quantity: str = LATENCY) -> Chart | None:
    """The share of the requests in each bin of a time; for the reference estimated from its percentiles.

    Args:
        result: of one test.
        quantity: ``latency``, or a time of streams: ``ttft``, ``itl``, ``tpot``.
    """
    found = distributions_of(result, quantity)
    if found.own is None:
        return None
    present, other, own = found.present, found.other, found.own.histogram
    edges, counts = list(own.edges_ns), own.counts
    measured_beside = bool(other and found.beside)
    if other:
        edges = _widened(edges, other)
    while len(edges) > _MOST_BINS + 1:
        edges = edges[::2] if len(edges) % 2 else [*edges[:-1:2], edges[-1]]
    total, (title, what, axis) = sum(counts), _NAMES[quantity]
    of = f"successful {what}" if what == "requests" else what
    if measured_beside:
        shares = _shares(present, edges)
    else:
        reached = dict(zip(own.edges_ns, _cumulated(counts), strict=True))
        shares = [(_at(reached, high) - _at(reached, low)) / total for low, high in pairwise(edges)]
    other_shares = _shares(other, edges) if other else []
    fullest = max(range(len(shares)), key=shares.__getitem__)
    between = f"{format_duration(edges[fullest])} to {format_duration(edges[fullest + 1])}"
    columns = [Column("from", "duration"), Column("to", "duration"), Column("this run", "ratio")]
    if other_shares:
        columns.append(Column(other_name(result), "ratio"))
    return Chart(
        "histogram",
        f"{title} distribution",
        f"most often {between}; " + ("both measured together" if measured_beside else f"{total:,} {of}"),
        tuple(columns),
        tuple(
            (low, high, share, *other_shares[number : number + 1])
            for number, ((low, high), share) in enumerate(zip(pairwise(edges), shares, strict=True))
        ),
        {f"p{percent:g}": value for percent, value in present if percent in _MARKED},
        axis=axis,
    )


def _widened(edges: list[float], other: Percentiles) -> list[float]:
    """Edges continued in equal steps on a log scale until they contain the other distribution too."""
    step = (edges[-1] / edges[0]) ** (1 / (len(edges) - 1))
    low, high = max(other[0][1], 1.0), other[-1][1]
    before = max(0, math.ceil(math.log(edges[0] / low) / math.log(step))) if low < edges[0] else 0
    after = max(0, math.ceil(math.log(high / edges[-1]) / math.log(step))) if high > edges[-1] else 0
    return [
        *(edges[0] / step**number for number in range(before, 0, -1)),
        *edges,
        *(edges[-1] * step**number for number in range(1, after + 1)),
    ]


def _cumulated(counts: Sequence[int]) -> list[float]:
    sums = [0.0]
    for number in counts:
        sums.append(sums[-1] + number)
    return sums


def _at(reached: Mapping[float, float], edge: float) -> float:
    """The number of requests up to this latency; none or all of them at edges outside the histogram."""
    if edge in reached:
        return reached[edge]
    return 0.0 if edge < next(iter(reached)) else max(reached.values())


def _shares(percentiles: Percentiles, edges: Sequence[float]) -> list[float]:
    """The share of a distribution in each bin, interpolated between its percentiles on a log scale of latency."""
    below = [_share_below(percentiles, edge) for edge in edges[:-1]]
    return [high - low for low, high in pairwise([*below, 1.0])]


def _share_below(percentiles: Percentiles, latency_ns: float) -> float:
    if latency_ns <= percentiles[0][1]:
        return 0.0
    for (low, low_ns), (high, high_ns) in pairwise(percentiles):
        if latency_ns <= high_ns:
            part = math.log(latency_ns / max(low_ns, 1.0)) / math.log(high_ns / max(low_ns, 1.0))
            return (low + (high - low) * part) / 100
    return 1.0


_SPLIT_TITLES: Mapping[SplitMetric, str] = {
    "rtm": "Where the time of a median request goes",
    "ttft": "Where the time to a median first token goes",
    "tpot": "Where the time of a median token goes",
}


def split_charts(result: TestResult) -> tuple[Chart, ...]:
    """A chart of the median latency, or of streams of their first and further tokens; none of what is not known."""
    reference = result.reference
    now = result.causes.split if reference is None or not reference.present.split else reference.present.split
    before = {} if reference is None else reference.split
    return tuple(
        _split_chart(result, now[metric], before.get(metric))
        for metric in _SPLIT_TITLES
        if METRICS[metric].of_streams is (result.stream is not None) and metric in now and now[metric].parts
    )


def _split_chart(result: TestResult, now: LatencySplit, before: LatencySplit | None) -> Chart:
    parts = {(part.name, part.of): part.label for split in (now, before) if split is not None for part in split.parts}
    rows: list[tuple[Cell, ...]] = []
    for (name, of), label in parts.items():
        sides = [split and split.part(name, of) for split in ((now,) if before is None else (now, before))]
        times = [part.median_ns if part else 0.0 for part in sides]
        rows.append((label, *times, "worked on" if name in SERVICE_PARTS else "waits"))
    columns = [Column("part", "text"), Column("this run", "duration")]
    if before is not None:
        columns.append(Column(other_name(result), "duration"))
    return Chart(
        "bars",
        _SPLIT_TITLES[now.metric],
        _split_summary(now, before),
        (*columns, Column("kind", "text")),
        tuple(rows),
    )


def _split_summary(now: LatencySplit, before: LatencySplit | None) -> str:
    largest = max(now.parts, key=lambda part: part.median_ns)
    whole = format_duration(now.median_ns)
    if before is not None:
        whole = f"{format_duration(before.median_ns)} → {whole}"
    return f"{whole}; most of it: {largest.label}, {format_duration(largest.median_ns)}"


_OFFERED = "offered load in req/s"
_GOODPUT = ("goodput", "from", "to")


def stream_charts(result: TestResult) -> tuple[Chart, ...]:
    """The charts of one test; none if its answers do not stream."""
    if result.stream is None:
        return ()
    pictured = with_role(Role.PICTURED)
    found = [
        *(histogram_chart(result, quantity) for quantity in dict.fromkeys((*pictured, *STREAM_QUANTITIES))),
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
        "spark",
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
        "window began: grey is the wait for the first token, a dark line the first byte, a blue one a chunk",
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
        "ranges",
        f"Goodput in req/s by load: {title}",
        f"{metric_named(metric).label}: at most {format_rate(highest)}, "
        f"at {format_rate(best) if is_rate else f'{best:g} requests in flight'}",
        (*columns, *([Column("all requests", "rate")] if is_rate else [])),
        tuple((load, *found, *([load] if is_rate else [])) for load, found in ordered),
    )
