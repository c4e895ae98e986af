"""Charts of what a pattern's layers know of themselves. Pure."""

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
    """What each layer counted, from the outermost inwards, and how long everything took that any of them timed."""
    found = [chart for layer in layers for chart in (_answers(layer), _batches(layer), _depth(layer), _last(layer))]
    return tuple(chart for chart in (*found, _times(layers)) if chart is not None)


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
    sizes, mean = layer.histograms.get("size", {}), layer.mean("size")
    if layer.layer != "batched" or mean is None or not sizes:  # other servers may tell no more than the mean
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
    course = layer.series.get("depth", ())
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
        tuple(thinned(moments)),
    )


def _last(layer: LayerStats) -> Chart | None:
    """Which model of an ensemble kept the others waiting."""
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
    """How long each thing took that the layers timed, from the outermost inwards."""
    rows = [
        (_timed(layer, name), _quantile(spread, 0.5), _quantile(spread, 0.05), _quantile(spread, 0.95))
        for layer in layers
        for name, spread in layer.histograms.items()
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
    """The lowest value that this share of those seen do not exceed; of a spread that is not empty."""
    ordered = sorted(spread)
    wanted = sum(spread.values()) * share
    reached = accumulate(spread[value] for value in ordered)
    return float(next((value for value, count in zip(ordered, reached, strict=True) if count >= wanted), ordered[-1]))
