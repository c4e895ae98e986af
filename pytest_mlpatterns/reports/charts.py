"""What is drawn of results: each chart as a table with a title, a sentence, and how it is to be drawn. Pure.

A chart's table is all that the page needs to draw it, and what it shows to who cannot see or would rather read. What
has no data has no chart. It must not know HTML, nor how a chart looks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from pytest_mlpatterns.catalog import metric_named
from pytest_mlpatterns.records import Outcome
from pytest_mlpatterns.reports.facts import describe_capacity
from pytest_mlpatterns.units import format_count, format_duration, format_percent, format_rate, format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pytest_mlpatterns.catalog import Metric
    from pytest_mlpatterns.insight import LayerStats
    from pytest_mlpatterns.records import Capacity
    from pytest_mlpatterns.result import Percentiles, TestResult

__all__ = ["Chart", "Column", "charts_of", "deciding_charts", "heading_of", "interval_chart", "unit_of"]

Unit = Literal["duration", "rate", "ratio", "change", "size", "count", "percentile", "seconds", "text"]
Cell = float | str | None
_UNITS: Mapping[Callable[[float], str], Unit] = {
    format_duration: "duration",
    format_rate: "rate",
    format_percent: "ratio",
    format_size: "size",
    format_count: "count",
}
_WORDS = {Outcome.PASS: "passed", Outcome.FAIL: "failed", Outcome.INCONCLUSIVE: "undecided"}
_MOST_MOMENTS = 240
"""Of a course over time; more than a chart has room for says nothing more."""
_MOST_BINS = 96
_DIGITS = 5


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a chart's table; ``unit`` says how its numbers are printed."""

    name: str
    unit: Unit


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart. ``marks`` are single values of the first column that it points out, by what they are."""

    kind: str
    title: str
    summary: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    marks: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values, numbers to five digits."""
        return {
            "kind": self.kind,
            "columns": [[column.name, column.unit] for column in self.columns],
            "rows": [[_brief(cell) for cell in row] for row in self.rows],
            **({"marks": {name: _brief(value) for name, value in self.marks.items()}} if self.marks else {}),
        }


def charts_of(result: TestResult) -> tuple[Chart, ...]:
    """Everything that was measured and can be drawn, the latency first."""
    found = [_percentiles(result), _histogram(result)]
    for capacity in result.capacities:
        found += _ladder(capacity)
    found += [_load(result), _memory(result)]
    found += [chart for layer in result.layers for chart in (_answers(layer), _batches(layer), _depth(layer))]
    found.append(_times(result.layers))
    return tuple(chart for chart in found if chart is not None)


def deciding_charts(result: TestResult) -> tuple[Chart, ...]:
    """What the verdict stands on: the changes that were judged, and how far the launches agree."""
    found = (_changes(result), _launches(result))
    return tuple(chart for chart in found if chart is not None)


def interval_chart(name: str, rows: Iterable[tuple[str, TestResult]]) -> Chart | None:
    """One metric of several results side by side, each with its interval; None where fewer than two know it.

    Args:
        name: of the metric.
        rows: what each result is called, and the result.
    """
    known = [(label, *result.metrics[name]) for label, result in rows if name in result.metrics]
    if len(known) < 2:
        return None
    metric = metric_named(name)
    best = (min if metric.better == "lower" else max)(known, key=lambda row: row[1])
    return Chart(
        "intervals",
        heading_of(metric),
        f"{'lowest' if metric.better == 'lower' else 'highest'}: {best[0]}, {metric.show(best[1])}",
        (Column("pattern", "text"), *(Column(what, unit_of(name)) for what in (metric.label, "from", "to"))),
        tuple(known),
    )


def heading_of(metric: Metric) -> str:
    """Its label as a heading: ``Throughput``, but ``p95 latency``."""
    return metric.label if metric.percentile else metric.label[0].upper() + metric.label[1:]


def unit_of(metric: str) -> Unit:
    """How a metric's numbers are printed."""
    return _UNITS[metric_named(metric).show]


# --- what decided ----------------------------------------------------------------------------------------------------


def _changes(result: TestResult) -> Chart | None:
    """Every change against a baseline or revision that was judged, with its interval, beside what is tolerated."""
    judged = [
        (judgement, judgement.change)
        for judgement in result.judgements
        if judgement.change is not None and judgement.against in ("baseline", "revision")
    ]
    if not judged:
        return None
    beyond = [change.low > result.tolerance for _, change in judged]
    is_measure = all((one.outcome is Outcome.FAIL) == far for (one, _), far in zip(judged, beyond, strict=True))
    return Chart(
        "changes",
        f"Change against {_other_name(result) if result.reference else f'the {judged[0][0].against}'}",
        "worse is to the right; 99 % intervals",
        (
            Column("metric", "text"),
            *(Column(name, "change") for name in ("change, worse is positive", "from", "to")),
            Column("verdict", "text"),
        ),
        tuple(
            (metric_named(one.metric).label, change.value, change.low, change.high, _WORDS[one.outcome])
            for one, change in judged
        ),
        {"tolerance": result.tolerance} if is_measure else {},  # where an assertion was tighter, it is not the line
    )


def _launches(result: TestResult) -> Chart | None:
    """The median latency of each launch, the unit of evidence, so that an odd one is seen."""
    launches = result.launches.get("rtm", ())
    if len(launches) < 2:
        return None
    low, high = (of(value for value, _ in launches) for of in (min, max))
    return Chart(
        "intervals",
        "RTM by launch",
        f"{format_duration(low)} to {format_duration(high)}; each with twice its standard error",
        (Column("launch", "text"), *(Column(name, "duration") for name in ("RTM", "from", "to"))),
        tuple(
            (f"launch {number}", value, max(value * (1 - 2 * error), 0.0), value * (1 + 2 * error))
            for number, (value, error) in enumerate(launches, start=1)
        ),
    )


# --- latency ---------------------------------------------------------------------------------------------------------


def _sides(result: TestResult) -> tuple[Percentiles, Percentiles]:
    """The percentiles of the present, and those that belong beside them: measured beside it, or stored."""
    present = result.latency.percentiles if result.latency else ()
    if result.reference is None or not result.reference.latency_percentiles:
        return present, ()
    return result.reference.present_latency_percentiles or present, result.reference.latency_percentiles


def _other_name(result: TestResult) -> str:
    """What the other side is called in a legend; there is one baseline, and a revision has a name."""
    assert result.reference is not None
    return "baseline" if result.reference.kind == "baseline" else result.reference.name


def _percentiles(result: TestResult) -> Chart | None:
    present, other = _sides(result)
    if not present:
        return None
    sides = [("this run", dict(present))]
    if other:
        sides.append((_other_name(result), dict(other)))
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


def _histogram(result: TestResult) -> Chart | None:
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
        columns.append(Column(f"{_other_name(result)}, from its percentiles", "ratio"))
    return Chart(
        "histogram",
        "Latency distribution",
        f"{total:,} successful requests; most often {between}",
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


# --- capacity --------------------------------------------------------------------------------------------------------


def _ladder(capacity: Capacity) -> list[Chart | None]:
    """Throughput and latency against concurrency."""
    steps = sorted((step for step in capacity.ladder if step.rates_rps), key=lambda step: step.concurrency)
    if len(steps) < 2:
        return []
    objective = f" with {capacity.objective}" if capacity.objective else ""
    marks = {"NMRT": float(capacity.concurrency), "NMRT_rps": capacity.nmrt.value}
    at = Column("requests in flight", "count")
    rates = Chart(
        "ladder",
        f"Throughput in req/s by concurrency{objective}",
        describe_capacity(capacity),
        (
            at,
            Column("throughput", "rate"),
            Column("slowest window", "rate"),
            Column("fastest window", "rate"),
            Column("failed", "ratio"),
            Column("limited by", "text"),
        ),
        tuple(
            (
                float(step.concurrency),
                step.rate_rps,
                min(step.rates_rps),
                max(step.rates_rps),
                step.error_ratio,
                step.limited,
            )
            for step in steps
        ),
        marks,
    )
    timed = [(float(step.concurrency), step.median_ns) for step in steps if step.median_ns is not None]
    if len(timed) < 2:
        return [rates]
    knee = dict(timed).get(float(capacity.concurrency))
    return [
        rates,
        Chart(
            "latencies",
            f"Median latency by concurrency{objective}",
            f"{format_duration(timed[0][1])} at {timed[0][0]:.0f} in flight"
            + (f", {format_duration(knee)} at the knee" if knee is not None else ""),
            (at, Column("median latency", "duration")),
            tuple(timed),
            {"NMRT": float(capacity.concurrency)},
        ),
    ]


# --- over time -------------------------------------------------------------------------------------------------------


def _load(result: TestResult) -> Chart | None:
    if len(result.load_over_time) < 2:
        return None
    own = [own for _, own, _ in result.load_over_time]
    return Chart(
        "load",
        "System load over time",
        f"deployment {format_percent(min(own))} to {format_percent(max(own))} of the machine's cores, last launch",
        (Column("time", "seconds"), Column("deployment", "ratio"), Column("whole machine", "ratio")),
        tuple(_thinned(result.load_over_time)),
    )


def _memory(result: TestResult) -> Chart | None:
    if len(result.memory_over_time) < 2:
        return None
    sizes = [size for _, size in result.memory_over_time]
    return Chart(
        "memory",
        "Memory over time",
        f"resident {format_size(min(sizes))} to {format_size(max(sizes))}, last launch",
        (Column("time", "seconds"), Column("resident memory", "size")),
        tuple(_thinned(result.memory_over_time)),
    )


def _thinned(moments: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """At most so many moments as a chart has room for; of those left out the highest values stay."""
    each = math.ceil(len(moments) / _MOST_MOMENTS)
    parts = (moments[start : start + each] for start in range(0, len(moments), each))
    return [(part[-1][0], *(max(values) for values in list(zip(*part, strict=True))[1:])) for part in parts]


# --- what a pattern knows of itself ----------------------------------------------------------------------------------


def _answers(layer: LayerStats) -> Chart | None:
    """Where a cache's answers came from."""
    named = (("hits", "remembered"), ("coalesced", "joined a call under way"), ("misses", "asked the model"))
    counts = {label: layer.counters.get(name, 0) for name, label in named}
    total = sum(counts.values())
    if layer.layer != "cached" or not total:
        return None
    hit = (total - counts["asked the model"]) / total
    return Chart(
        "parts",
        "Where answers came from",
        f"{format_percent(hit)} of {total:,} inputs without a model call of their own",
        (Column("answer", "text"), Column("share of inputs", "ratio"), Column("inputs", "count")),
        tuple((label, count / total, count) for label, count in counts.items() if count or label != named[1][1]),
    )


def _batches(layer: LayerStats) -> Chart | None:
    sizes, mean = layer.spreads.get("size", {}), layer.mean("size")
    if layer.layer != "batched" or mean is None:
        return None
    calls = sum(sizes.values())
    return Chart(
        "sizes",
        "Batch sizes",
        f"{format_count(mean)} inputs a call on average, {calls:,} calls",
        (Column("inputs in the batch", "count"), Column("share of calls", "ratio"), Column("calls", "count")),
        tuple((size, sizes[size] / calls, sizes[size]) for size in sorted(sizes)),
    )


def _depth(layer: LayerStats) -> Chart | None:
    course = layer.courses.get("depth", ())
    if layer.layer != "queued" or len(course) < 2:
        return None
    began = course[0][0]
    deepest = max(depth for _, depth in course)
    observed = layer.counters.get("observed_ns", 0)
    mean = f"{format_count(layer.counters.get('depth_ns', 0) / observed)} on average, " if observed else ""
    moments = [((time - began) / 1e9, float(depth)) for time, depth in course]
    if observed / 1e9 > moments[-1][0]:
        moments.append((observed / 1e9, moments[-1][1]))  # the last depth lasts until the window ends
    return Chart(
        "depth",
        "Queue depth over time",
        f"{mean}at most {deepest:,} waiting",
        (Column("time", "seconds"), Column("waiting", "count")),
        tuple(_thinned(moments)),
    )


def _times(layers: Sequence[LayerStats]) -> Chart | None:
    """How long each thing took that the layers timed, from the outermost inwards."""
    rows = [
        (_timed(layer, name), _quantile(spread, 0.5), _quantile(spread, 0.05), _quantile(spread, 0.95))
        for layer in layers
        for name, spread in layer.spreads.items()
        if spread and (name.endswith("_ns") or ":" in name)
    ]
    if not rows:
        return None
    longest = max(rows, key=lambda row: row[1])
    return Chart(
        "intervals",
        "Where the time goes",
        f"median of each, and from p5 to p95; longest: {longest[0]}, {format_duration(longest[1])}",
        (Column("what", "text"), *(Column(name, "duration") for name in ("median", "p5", "p95"))),
        tuple(rows),
    )


def _timed(layer: LayerStats, spread: str) -> str:
    kind, _, name = spread.partition(":")
    if name:
        return f"{kind} {name}"
    what = spread.removesuffix("_ns").replace("_", " ")
    return what if what == layer.layer else f"{layer.layer}: {what}"


def _quantile(spread: Mapping[int, int], share: float) -> float:
    left = sum(spread.values()) * share
    for value in sorted(spread):
        left -= spread[value]
        if left <= 0:
            return float(value)
    return float(max(spread))


def _percent(percent: float) -> str:
    return f"p{percent:.10g}"


def _brief(cell: Cell) -> Cell | int:
    if not isinstance(cell, float):
        return cell
    if not math.isfinite(cell):
        return None
    short = float(f"{cell:.{_DIGITS}g}")
    return int(short) if short.is_integer() else short
