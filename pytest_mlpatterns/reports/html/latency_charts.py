"""Charts of the latency distribution, together with the one that a test was compared with, and of its parts. Pure."""

from __future__ import annotations

import math
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.records.latency import SERVICE_PARTS, STREAM_QUANTITIES, LatencySplit, Percentiles, SplitMetric
from pytest_mlpatterns.reports.html.chart import Cell, Chart, Column
from pytest_mlpatterns.reports.text.comparison import LATENCY, distributions_of
from pytest_mlpatterns.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.records.result import TestResult


_MARKED = (50, 95, 99)  # Percentiles that a distribution marks
_MOST_BINS = 18  # Most bins of a chart; narrower ones cannot be seen
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


def histogram_charts(result: TestResult) -> list[Chart | None]:
    """The distribution of each time that was measured: of streams those of their tokens, and of the latency."""
    return [
        histogram_chart(result, quantity)
        for quantity in ((*STREAM_QUANTITIES, LATENCY) if result.stream else (LATENCY,))
    ]


def histogram_chart(result: TestResult, quantity: str = LATENCY) -> Chart | None:
    """The share of the requests in each bin of a time; for the reference estimated from its percentiles.

    ``quantity``: ``latency``, or a time of streams: ``ttft``, ``itl``, ``tpot``.
    """
    found = distributions_of(result, quantity)
    if found.own is None:
        return None
    present, other, own = found.present, found.other, found.own.histogram
    (title, what, axis), total = _NAMES[quantity], sum(own.counts)
    measured_beside = bool(other and found.beside)
    reached = accumulate(own.counts, initial=0)
    counted = tuple((100 * up_to / total, edge) for up_to, edge in zip(reached, own.edges_ns, strict=True))
    sides = [side for side in (present if measured_beside else counted, other) if side]
    low = max(min(side[0][1] for side in sides), 1.0)
    high = max(*(side[-1][1] for side in sides), low * 1.01)
    bins = min(len(own.counts), _MOST_BINS) if len(sides) == 1 else _MOST_BINS
    edges = [low * (high / low) ** (number / bins) for number in range(bins + 1)]
    shares = [_shares(side, edges) for side in sides]
    fullest = max(range(bins), key=shares[0].__getitem__)
    between = f"{format_duration(edges[fullest])} to {format_duration(edges[fullest + 1])}"
    of = f"{total:,} successful {what}" if what == "requests" else f"{total:,} {what}"
    names = ["this run", *([other_name(result)] if other else [])]
    return Chart(
        "histogram",
        f"{title} distribution",
        f"most often {between}; {'both measured together' if measured_beside else of}",
        (Column("from", "duration"), Column("to", "duration"), *(Column(name, "ratio") for name in names)),
        tuple((*ends, *row) for ends, row in zip(pairwise(edges), zip(*shares, strict=True), strict=True)),
        {f"p{percent:g}": value for percent, value in present if percent in _MARKED},
        axis=axis,
    )


def _shares(side: Percentiles, edges: Sequence[float]) -> list[float]:
    """The share of a distribution in each bin, interpolated between its percentiles on a log scale of latency."""
    below = [_share_below(side, edge) for edge in edges[1:-1]]
    return [high - low for low, high in pairwise([0.0, *below, 1.0])]


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
        "bars", _SPLIT_TITLES[now.metric], _split_summary(now, before), (*columns, Column("kind", "text")), tuple(rows)
    )


def _split_summary(now: LatencySplit, before: LatencySplit | None) -> str:
    largest = max(now.parts, key=lambda part: part.median_ns)
    whole = format_duration(now.median_ns)
    if before is not None:
        whole = f"{format_duration(before.median_ns)} → {whole}"
    return f"{whole}; most of it: {largest.label}, {format_duration(largest.median_ns)}"
