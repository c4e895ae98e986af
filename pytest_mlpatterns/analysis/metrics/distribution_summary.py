"""What is stored and drawn of latencies and streams: distributions, and tokens over time.

Percentiles reach only as far into the tail as there are requests: the 99.9th of two hundred would be their slowest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from pytest_mlpatterns.records.latency import (
    STREAM_QUANTITIES,
    Latency,
    LatencyHistogram,
    Percentiles,
    RequestCounts,
    StreamRecord,
)

if TYPE_CHECKING:
    from pytest_mlpatterns.analysis.metrics.metrics import Metrics

STORED_PERCENTS = (1, 5, 10, 25, 50, 75, 90, 95, 97.5, 99, 99.5, 99.9, 100)  # Percentiles that a baseline entry stores
_PERCENTS = (
    *(0, 1, 2, *range(5, 95, 5), 92.5, 95, 96, 97, 97.5, 98, 98.5),
    *(99, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99, 100),
)
"""Percentiles that a result stores: a chart draws its curve through them, so they are denser in the tails."""
_BINS = 64  # Bins of a histogram, on a logarithmic scale


def latency_of(latencies_ns: NDArray[np.int64]) -> Latency | None:
    """The distribution of latencies in nanoseconds, shape ``(requests,)``; None if there are none."""
    if not latencies_ns.size:
        return None
    percents = _reached(latencies_ns.size)
    values = np.percentile(latencies_ns, percents)
    above_zero = np.maximum(latencies_ns, 1)
    low, high = float(above_zero.min()), float(above_zero.max())
    edges = np.geomspace(low, max(high, low * 1.01), _BINS + 1)
    edges[0], edges[-1] = low, max(float(edges[-1]), high)  # exact, not rounded by logarithms
    counts, _ = np.histogram(above_zero, edges)
    return Latency(
        percentiles=tuple((float(percent), float(value)) for percent, value in zip(percents, values, strict=True)),
        histogram=LatencyHistogram(tuple(map(_rounded, edges)), tuple(map(int, counts))),
        mean_ns=float(latencies_ns.mean()),
        sd_ns=float(latencies_ns.std()),
    )


def stored_percentiles(latency: Latency | None) -> Percentiles:
    """The percentiles that a baseline entry stores; empty without a distribution."""
    if latency is None:
        return ()
    known = dict(latency.percentiles)
    return tuple((float(percent), known[percent]) for percent in STORED_PERCENTS if percent in known)


def without_body(launch: RequestCounts) -> RequestCounts:
    """The counts of a launch with all latencies up to its median as one, and times of streams up to their p90, of which
    only p95 is judged; this keeps the baseline file small."""
    streams = {quantity: _tail(times, 0.9) for quantity, times in launch.streams.items()}
    return replace(launch, latencies=_tail(launch.latencies, 0.5), streams=streams)


def _tail(counts: Mapping[int, int], share: float) -> dict[int, int]:
    """The counts, with this share of the values, the lowest ones, as one."""
    body, below, kept = sum(counts.values()) * share, 0, dict[int, int]()
    for value, count in sorted(counts.items()):
        if below < body:
            below += count
            kept = {value: below}
        else:
            kept[value] = count
    return kept


def percentiles_of_counts(counts: Mapping[int, int]) -> Percentiles:
    """The percentiles of counted latencies; empty if there are none."""
    if not counts:
        return ()
    values = np.array(sorted(counts), dtype=np.float64)
    cumulated = np.cumsum([counts[int(value)] for value in values])
    total = int(cumulated[-1])
    return tuple(
        (float(percent), float(values[np.searchsorted(cumulated, max(percent / 100 * total, 1.0))]))
        for percent in _reached(total)
    )


def _reached(requests: int) -> list[float]:
    """The percentiles with at least one request beyond them, and 100."""
    return [percent for percent in _PERCENTS if percent == 100 or (100 - percent) / 100 * requests >= 1 - 1e-9]


def stream_record(metrics: Metrics) -> StreamRecord | None:
    """What reports need of the streams of these launches; None if no answer came in pieces."""
    if not metrics.streams:
        return None
    streams = [blocks.streams for blocks in metrics.by_launch if blocks.streams is not None]
    means = (metrics.input_tokens, metrics.output_tokens)
    input_tokens, output_tokens = (None if mean is None else astuple(mean) for mean in means)
    return StreamRecord(
        **{name: _pooled([one.values(name).ascending for one in streams]) for name in STREAM_QUANTITIES},
        tokens_over_time=streams[-1].tokens_over_time(),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
    )


def stream_percentiles(metrics: Metrics) -> dict[str, Percentiles]:
    """The distributions of TTFT, ITL and TPOT in a few percentiles, by name; empty if no answer came in pieces."""
    if (record := stream_record(metrics)) is None:
        return {}
    return {name: percentiles for name in STREAM_QUANTITIES if (percentiles := stored_percentiles(record.of(name)))}


def _pooled(values: Sequence[NDArray[np.int64] | NDArray[np.float64]]) -> Latency | None:
    return latency_of(np.concatenate(values).astype(np.int64))


def _rounded(edge_ns: float) -> float:
    """The same without the last digits, in which processors differ."""
    return float(f"{edge_ns:.12g}")
