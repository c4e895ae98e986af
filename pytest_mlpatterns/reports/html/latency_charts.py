"""Charts of the latency distribution, together with the one that a test was compared with. Pure."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.records.latency import SERVICE_PARTS
from pytest_mlpatterns.reports.html.chart import Cell, Chart, Column
from pytest_mlpatterns.reports.text.comparison import LATENCY, distributions_of
from pytest_mlpatterns.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.records.latency import LatencySplit, Percentiles, SplitMetric
    from pytest_mlpatterns.records.result import TestResult

__all__ = ["histogram_chart", "other_name", "percentile_chart", "split_charts"]


_MOST_BINS = 96
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


def percentile_chart(result: TestResult, quantity: str = LATENCY) -> Chart | None:
    """A time by percentile, with that of the reference; None if no request has it.

    Args:
        result: of one test.
        quantity: ``latency``, or a time of streams: ``ttft``, ``itl``, ``tpot``.
    """
    found = distributions_of(result, quantity)
    if not found.present:
        return None
    series = [("this run", dict(found.present))]
    if found.other_points:
        series.append((other_name(result), dict(found.other_points)))
    percents = sorted({percent for _, values in series for percent in values})
    medians = (
        f"{name}: " + ", ".join(f"{_percent(p)} {format_duration(values[p])}" for p in (50, 95, 99) if p in values)
        for name, values in series
    )
    return Chart(
        "percentiles",
        f"{_NAMES[quantity][0]} by percentile",
        "; ".join(medians),
        (Column("percentile", "percentile"), *(Column(name, "duration") for name, _ in series)),
        tuple((percent, *(values.get(percent) for _, values in series)) for percent in percents),
        axis=f"percentile of the {_NAMES[quantity][1]}",
    )


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
        columns.append(Column(f"{other_name(result)}, from its percentiles", "ratio"))
    return Chart(
        "histogram",
        f"{title} distribution",
        f"most often {between}; " + ("both measured together" if measured_beside else f"{total:,} {of}"),
        tuple(columns),
        tuple(
            (low, high, share, *other_shares[number : number + 1])
            for number, ((low, high), share) in enumerate(zip(pairwise(edges), shares, strict=True))
        ),
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
    for count in counts:
        sums.append(sums[-1] + count)
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


def _percent(percent: float) -> str:
    return f"p{percent:.10g}"


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
        "stacked",
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
