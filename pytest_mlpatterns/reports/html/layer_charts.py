"""Charts of the statistics of a pattern's layers. Pure."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from pytest_mlpatterns.records.telemetry import straggler_shares
from pytest_mlpatterns.reports.html.chart import Chart, Column, thinned
from pytest_mlpatterns.units import format_count, format_duration, format_percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.records.telemetry import LayerStats

__all__ = ["layer_charts"]


def layer_charts(layers: Sequence[LayerStats]) -> tuple[Chart, ...]:
    """The counters of each layer, from the outermost inwards, and all the times that they measured."""
    found = [chart for layer in layers for chart in (_answers(layer), _batches(layer), _depth(layer), _last(layer))]
    return tuple(chart for chart in (*found, _times(layers)) if chart is not None)


def _answers(layer: LayerStats) -> Chart | None:
    """The share of the inputs that a cache answered."""
    named = (("hits", "hit"), ("coalesced", "shared a running call"), ("misses", "miss"))
    counts = {label: layer.counters.get(name, 0) for name, label in named}
    total = sum(counts.values())
    if layer.layer != "cached" or not total:
        return None
    hit = (total - counts["miss"]) / total
    return Chart(
        "parts",
        "Cache hits and misses",
        f"{format_percent(hit)} of {total:,} inputs without a model call of their own",
        (Column("answer", "text"), Column("share of inputs", "ratio"), Column("inputs", "count")),
        tuple((label, count / total, count) for label, count in counts.items() if count or label != named[1][1]),
    )


def _batches(layer: LayerStats) -> Chart | None:
    sizes, mean = layer.histograms.get("size", {}), layer.mean("size")
    named = {"batched": ("inputs", "calls"), "continuous": ("sequences", "steps")}.get(layer.layer)
    if named is None or mean is None or not sizes:  # other servers may report only the mean
        return None
    what, when = named
    calls = sum(sizes.values())
    return Chart(
        "sizes",
        "Batch sizes",
        f"{format_count(mean)} {what} per {when.removesuffix('s')} on average, {calls:,} {when}",
        (Column(f"{what} in the batch", "count"), Column(f"share of {when}", "ratio"), Column(when, "count")),
        tuple((size, sizes[size] / calls, sizes[size]) for size in sorted(sizes)),
    )


def _depth(layer: LayerStats) -> Chart | None:
    series = layer.series.get("depth", ())
    if layer.layer != "queued" or len(series) < 2:
        return None
    began = series[0][0]
    deepest = max(depth for _, depth in series)
    observed = layer.counters.get("observed_ns", 0)
    mean = f"{format_count(layer.counters.get('depth_ns', 0) / observed)} on average, " if observed else ""
    moments = [((time - began) / 1e9, float(depth)) for time, depth in series]
    if observed / 1e9 > moments[-1][0]:
        moments.append((observed / 1e9, moments[-1][1]))  # the last depth lasts until the window ends
    return Chart(
        "depth",
        "Queue depth over time",
        f"{mean}at most {deepest:,} waiting",
        (Column("time", "seconds"), Column("waiting", "count")),
        tuple(thinned(moments)),
    )


def _last(layer: LayerStats) -> Chart | None:
    """The share of the requests for which each model of an ensemble answered last."""
    shares = straggler_shares(layer)
    if len(shares) < 2:
        return None
    slowest = max(shares, key=shares.__getitem__)
    return Chart(
        "parts",
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
        "intervals",
        "Times in the layers",
        f"median of each, and from p5 to p95; longest: {longest[0]}, {format_duration(longest[1])}",
        (Column("what", "text"), *(Column(name, "duration") for name in ("median", "p5", "p95"))),
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
