"""Charts of results: the measurement and the verdict of one test, and the comparison of several.

The steps of the function beside the load are marks on all that goes over time. Without data there is no chart. Pure.
"""

from __future__ import annotations

from itertools import accumulate
from statistics import median
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pytest_mlpatterns.analysis.capacity.step_impact import describe_impact
from pytest_mlpatterns.analysis.metrics.definitions import leading_time, metric_named
from pytest_mlpatterns.records.layer_description import LevelChart, PartsChart, SizesChart
from pytest_mlpatterns.records.layer_kinds import layer_kind
from pytest_mlpatterns.records.telemetry import straggler_shares
from pytest_mlpatterns.reports.html.chart import Cell, Chart, Column, heading_of, thinned
from pytest_mlpatterns.reports.html.latency_charts import (
    histogram_chart,
    split_charts,
    stream_charts,
)
from pytest_mlpatterns.reports.text.comparison import comparisons_of
from pytest_mlpatterns.reports.text.notes import describe_capacity
from pytest_mlpatterns.units import SECOND_NS, format_count, format_duration, format_percent, format_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.records.launch import Capacity
    from pytest_mlpatterns.records.resource_track import GrowthRecord
    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.records.telemetry import LayerStats


__all__ = ["charts_of", "growth_chart", "layer_charts"]


def charts_of(result: TestResult) -> tuple[Chart, ...]:
    """The charts of everything that was measured: the launches, where the time goes, streams, the latency, the rest."""
    found = [_launches(result), *split_charts(result), *stream_charts(result), histogram_chart(result)]
    found += [
        *map(_ladder, result.limits.capacities),
        growth_chart(result),
        latency_course(result),
        _load(result),
        _memory(result),
        _replicas(result),
        *layer_charts(result.measured.layers),
    ]
    return tuple(with_steps(chart, result) for chart in found if chart is not None)


# --- the verdict -----------------------------------------------------------------------------------------------------


def _launches(result: TestResult) -> Chart | None:
    """RTM of each launch, or TTFT of streams, by the statistic that was judged, so that an outlier is visible."""
    usual = leading_time(streams=result.stream is not None).name
    name = next((one.figure for one in comparisons_of(result) if one.metric == usual), usual)
    label, launches = metric_named(name).label, result.measured.launches.get(name, ())
    if len(launches) < 2:
        return None
    low, high = (of(value for value, _ in launches) for of in (min, max))
    return Chart(
        "ranges",
        f"{heading_of(metric_named(name))} by launch",
        f"{format_duration(low)} to {format_duration(high)}; each with twice its standard error",
        (Column("launch", "text"), *(Column(name, "duration") for name in (label, "from", "to"))),
        tuple(
            (f"launch {number}", value, max(value * (1 - 2 * error), 0.0), value * (1 + 2 * error))
            for number, (value, error) in enumerate(launches, start=1)
        ),
    )


# --- capacity --------------------------------------------------------------------------------------------------------


def _ladder(capacity: Capacity) -> Chart | None:
    """Throughput and median latency by concurrency; None of a search of one step."""
    steps = sorted((step for step in capacity.ladder if step.rates_rps), key=lambda step: step.concurrency)
    if len(steps) < 2:
        return None
    names = ("throughput", "slowest window", "fastest window")
    return Chart(
        "ranges",
        f"Throughput by concurrency{_under(capacity)}",
        describe_capacity(capacity),
        (
            Column("requests in flight", "text"),
            *(Column(f"{name}, req/s", "rate") for name in names),
            Column("median latency", "duration"),
            Column("failed", "ratio"),
            Column("limited by", "text"),
        ),
        tuple(
            (
                f"{step.concurrency:,}{' (NMRT)' if step.concurrency == capacity.concurrency else ''}",
                step.rate_rps,
                min(step.rates_rps),
                max(step.rates_rps),
                step.median_ns,
                step.error_ratio,
                step.limited,
            )
            for step in steps
        ),
    )


def _under(capacity: Capacity) -> str:
    return f" with {capacity.objective}" if capacity.objective else ""


# --- over time -------------------------------------------------------------------------------------------------------


def _load(result: TestResult) -> Chart | None:
    if len(result.conditions.load_over_time) < 2:
        return None
    own, whole = ([row[side] for row in result.conditions.load_over_time] for side in (1, 2))
    return Chart(
        "spark",
        "System load over time",
        f"deployment {format_percent(min(own))} to {format_percent(max(own))} of the machine's cores, all processes "
        f"{format_percent(min(whole))} to {format_percent(max(whole))}, last launch",
        (Column("time", "seconds"), Column("deployment", "ratio"), Column("whole machine", "ratio")),
        tuple(thinned(result.conditions.load_over_time)),
    )


def _replicas(result: TestResult) -> Chart | None:
    """The share of the requests that each replica answered."""
    if not result.measured.replica_share:
        return None
    shares = [mean for mean, _, _ in result.measured.replica_share]
    even = format_percent(1 / len(shares))
    return Chart(
        "ranges",
        "Share of requests per replica",
        f"{format_percent(min(shares))} to {format_percent(max(shares))}; an equal share is {even}",
        (Column("replica", "text"), *(Column(name, "ratio") for name in ("share", "lowest of a launch", "highest"))),
        tuple((f"replica {number}", *share) for number, share in enumerate(result.measured.replica_share, start=1)),
    )


def _memory(result: TestResult) -> Chart | None:
    if len(result.conditions.memory_over_time) < 2:
        return None
    sizes = [size for _, size in result.conditions.memory_over_time]
    return Chart(
        "spark",
        "Memory over time",
        f"resident {format_size(min(sizes))} to {format_size(max(sizes))}, last launch",
        (Column("time", "seconds"), Column("resident memory", "size")),
        tuple(thinned(result.conditions.memory_over_time)),
    )


def growth_chart(result: TestResult) -> Chart | None:
    """Memory over the requests; None if the test had no long load."""
    growth = result.causes.growth
    if growth is None or len(growth.requests) < 2:
        return None
    rows: list[tuple[Cell, ...]] = [
        (float(requests), float(size)) for requests, size in zip(growth.requests, growth.rss_bytes, strict=True)
    ]
    columns = [Column("requests", "count"), Column("resident memory", "size")]
    if growth.slope is not None:
        columns.append(Column("growth of the second half", "size"))
        rows = [(*row, level) for row, level in zip(rows, _levels(growth, growth.slope[0]), strict=True)]
    return Chart("lines", "Memory over requests", _growth_summary(growth), tuple(columns), tuple(rows))


def _growth_summary(growth: GrowthRecord) -> str:
    first, last = growth.rss_bytes[0], growth.rss_bytes[-1]
    text = f"resident {format_size(first)} to {format_size(last)}"
    if growth.slope is None:
        return text
    value, low, high = growth.slope
    text += f"; {format_size(value)} (±{format_size((high - low) / 2)}) per request in the second half"
    if low <= 0:
        return text
    return f"{text}, {'levelling off' if growth.levels_off else 'not levelling off'}"


def _levels(growth: GrowthRecord, slope: float) -> list[float | None]:
    """The line of the growth at each reading of the second half; None before."""
    middle = (growth.requests[0] + growth.requests[-1]) / 2
    second = [place for place, requests in enumerate(growth.requests) if requests >= middle]
    base = median(growth.rss_bytes[place] - slope * growth.requests[place] for place in second)
    return [base + slope * requests if requests >= middle else None for requests in growth.requests]


def layer_charts(layers: Sequence[LayerStats]) -> tuple[Chart, ...]:
    """The counters of each layer, from the outermost inwards, and all the times that they measured."""
    found: list[Chart | None] = []
    for layer in layers:
        found += [_described(chart, layer) for chart in layer_kind(layer.layer).charts]
        found.append(_last(layer))
    return tuple(chart for chart in (*found, _times(layers)) if chart is not None)


def _described(chart: PartsChart | SizesChart | LevelChart, layer: LayerStats) -> Chart | None:
    """A chart that the description of a layer asks for; None if the layer has not counted it."""
    match chart:
        case PartsChart():
            return _parts(chart, layer)
        case SizesChart():
            return _sizes(chart, layer)
        case LevelChart():
            return _level(chart, layer)


def _parts(chart: PartsChart, layer: LayerStats) -> Chart | None:
    """Shares of counters."""
    counts = {name: layer.counters.get(name, 0) for name in chart.parts}
    total = sum(counts.values())
    if not total:
        return None
    share = (total - [*counts.values()][-1]) / total
    return Chart(
        "bars",
        chart.title,
        f"{format_percent(share)} of {total:,} {chart.what} {chart.summary}",
        (Column(chart.part, "text"), Column(f"share of {chart.what}", "ratio"), Column(chart.what, "count")),
        tuple(
            (chart.parts[name], count / total, count)
            for name, count in counts.items()
            if count or name not in chart.optional
        ),
    )


def _sizes(chart: SizesChart, layer: LayerStats) -> Chart | None:
    """How often each whole number was observed."""
    sizes, mean = layer.histograms.get(chart.histogram, {}), layer.mean(chart.histogram)
    if mean is None or not sizes:  # other servers may report only the mean
        return None
    what, when = chart.what, chart.when
    times = sum(sizes.values())
    return Chart(
        "bars",
        chart.title,
        f"{format_count(mean)} {what} per {when.removesuffix('s')} on average, {times:,} {when}",
        (Column(f"{what} in the {chart.group}", "count"), Column(f"share of {when}", "ratio"), Column(when, "count")),
        tuple((size, sizes[size] / times, sizes[size]) for size in sorted(sizes)),
    )


def _level(chart: LevelChart, layer: LayerStats) -> Chart | None:
    """A level over time."""
    series = layer.series.get(chart.level, ())
    if len(series) < 2:
        return None
    began = series[0][0]
    highest = max(value for _, value in series)
    observed = layer.counters.get("observed_ns", 0)
    integral = layer.counters.get(f"{chart.level}_ns", 0)
    mean = f"{format_count(integral / observed)} on average, " if observed else ""
    moments = [((time - began) / 1e9, float(value)) for time, value in series]
    if observed / 1e9 > moments[-1][0]:
        moments.append((observed / 1e9, moments[-1][1]))  # the last level lasts until the window ends
    return Chart(
        "steps",
        chart.title,
        f"{mean}at most {highest:,} {chart.what}",
        (Column("time", "seconds"), Column(chart.what, "count")),
        tuple(thinned(moments)),
    )


def _last(layer: LayerStats) -> Chart | None:
    """The share of the requests for which each model of an ensemble answered last."""
    shares = straggler_shares(layer)
    if len(shares) < 2:
        return None
    slowest = max(shares, key=shares.__getitem__)
    return Chart(
        "bars",
        "Which model answered last",
        f"most often {slowest}",
        (Column("model", "text"), Column("share of requests", "ratio")),
        tuple(shares.items()),
    )


def _times(layers: Sequence[LayerStats]) -> Chart | None:
    """Every time that the layers measured, from the outermost layer inwards."""
    rows = [
        (_timed(layer, name), _quantile(histogram, 0.5), _quantile(histogram, 0.05), _quantile(histogram, 0.95))
        for layer in layers
        for name, histogram in layer.histograms.items()
        if histogram and (name.endswith("_ns") or ":" in name)
    ]
    if not rows:
        return None
    longest = max(rows, key=lambda row: row[1])
    return Chart(
        "ranges",
        "Times in the layers",
        f"median of each, and from p5 to p95; longest: {longest[0]}, {format_duration(longest[1])}",
        (Column("part", "text"), *(Column(name, "duration") for name in ("median", "p5", "p95"))),
        tuple(rows),
    )


def _timed(layer: LayerStats, histogram: str) -> str:
    kind, _, name = histogram.partition(":")
    if name:
        return f"{kind} {name}"
    what = histogram.removesuffix("_ns").replace("_", " ")
    return what if what == layer.layer else f"{layer.layer}: {what}"


def _quantile(histogram: Mapping[int, int], share: float) -> float:
    """The lowest value that this share of the observations does not exceed; the histogram is not empty."""
    ordered = sorted(histogram)
    wanted = sum(histogram.values()) * share
    reached = accumulate(histogram[value] for value in ordered)
    return float(next((value for value, count in zip(ordered, reached, strict=True) if count >= wanted), ordered[-1]))


def with_steps(chart: Chart, result: TestResult) -> Chart:
    """A chart over time with the steps of the last launch marked on it; any other chart as it is."""
    steps = [one for one in result.causes.steps if one.launch == result.measured.launch_count]
    if not steps or chart.columns[0].unit != "seconds":
        return chart
    spans = tuple((one.begin_ns / SECOND_NS, one.end_ns / SECOND_NS, one.name) for one in steps)
    return replace(chart, kind="steps" if chart.kind == "steps" else "lines", spans=spans)


def latency_course(result: TestResult) -> Chart | None:
    """The latency through the window of the last launch; None if it had no steps."""
    moments = result.causes.latency_over_time
    if len(moments) < 2:
        return None
    steps = [one for one in result.causes.steps if one.launch == result.measured.launch_count]
    return Chart(
        "lines",
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
