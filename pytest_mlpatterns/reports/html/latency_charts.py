"""Charts of how latency is distributed, beside that of what a test was compared with. Pure."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from pytest_mlpatterns.reports.html.chart import Chart, Column
from pytest_mlpatterns.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.records.result import Percentiles, TestResult

__all__ = ["histogram_chart", "other_name", "percentile_chart"]

_MOST_BINS = 96


def _sides(result: TestResult) -> tuple[Percentiles, Percentiles]:
    """The percentiles of the present, and those that belong beside them: measured beside it, or stored."""
    present = result.latency.percentiles if result.latency else ()
    if result.reference is None or not result.reference.latency_percentiles:
        return present, ()
    return result.reference.present_latency_percentiles or present, result.reference.latency_percentiles


def other_name(result: TestResult) -> str:
    """What the other side is called in a legend; there is one baseline, and a revision has a name."""
    assert result.reference is not None
    return "baseline" if result.reference.kind == "baseline" else result.reference.name


def percentile_chart(result: TestResult) -> Chart | None:
    """Latency by percentile, beside that of the other side; None where nothing succeeded."""
    present, other = _sides(result)
    if not present:
        return None
    sides = [("this run", dict(present))]
    if other:
        sides.append((other_name(result), dict(other)))
    percents = sorted({percent for _, values in sides for percent in values})
    told = (
        f"{name}: " + ", ".join(f"{_percent(p)} {format_duration(values[p])}" for p in (50, 95, 99) if p in values)
        for name, values in sides
    )
    return Chart(
        "percentiles",
        "Latency by percentile",
        "; ".join(told),
        (Column("percentile", "percentile"), *(Column(name, "duration") for name, _ in sides)),
        tuple((percent, *(values.get(percent) for _, values in sides)) for percent in percents),
    )


def histogram_chart(result: TestResult) -> Chart | None:
    """Which share of the requests took how long; of the other side as far as its percentiles tell."""
    if result.latency is None:
        return None
    present, other = _sides(result)
    edges = list(result.latency.histogram.edges_ns)
    counts = result.latency.histogram.counts
    measured_beside = result.reference is not None and bool(other and result.reference.present_latency_percentiles)
    if other:
        edges = _widened(edges, other)
    while len(edges) > _MOST_BINS + 1:
        edges = edges[::2] if len(edges) % 2 else [*edges[:-1:2], edges[-1]]
    total = sum(counts)
    if measured_beside:
        shares = _shares(present, edges)
    else:
        reached = dict(zip(result.latency.histogram.edges_ns, _cumulated(counts), strict=True))
        shares = [(_at(reached, high) - _at(reached, low)) / total for low, high in pairwise(edges)]
    beside = _shares(other, edges) if other else []
    fullest = max(range(len(shares)), key=shares.__getitem__)
    between = f"{format_duration(edges[fullest])} to {format_duration(edges[fullest + 1])}"
    columns = [Column("from", "duration"), Column("to", "duration"), Column("this run", "ratio")]
    if beside:
        columns.append(Column(f"{other_name(result)}, from its percentiles", "ratio"))
    return Chart(
        "histogram",
        "Latency distribution",
        f"most often {between}; " + ("both measured together" if measured_beside else f"{total:,} successful requests"),
        tuple(columns),
        tuple(
            (low, high, share, *beside[number : number + 1])
            for number, ((low, high), share) in enumerate(zip(pairwise(edges), shares, strict=True))
        ),
    )


def _widened(edges: list[float], other: Percentiles) -> list[float]:
    """Edges that go on, as wide as they are, until they hold the other distribution too."""
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
    """How many requests were at most so slow; edges outside of the histogram have none or all below them."""
    if edge in reached:
        return reached[edge]
    return 0.0 if edge < next(iter(reached)) else max(reached.values())


def _shares(percentiles: Percentiles, edges: Sequence[float]) -> list[float]:
    """How much of a distribution that is known by its percentiles is in each bin, even on a log scale between them."""
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
