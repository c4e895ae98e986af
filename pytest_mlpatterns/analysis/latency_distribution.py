"""The latency distribution in a few numbers that can be stored, pooled and drawn. Pure; it judges nothing.

Percentiles reach only as far into the tail as there are requests: the 99.9th of two hundred would be the slowest of
them under another name.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.records.latency import Latency, LatencyHistogram

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pytest_mlpatterns.records.latency import Percentiles
    from pytest_mlpatterns.records.request_counts import RequestCounts

__all__ = ["STORED_PERCENTS", "counted", "latency_of", "percentiles_of_counts", "stored_percentiles", "without_body"]

STORED_PERCENTS = (1, 5, 10, 25, 50, 75, 90, 95, 97.5, 99, 99.5, 99.9, 100)
"""Percentiles that a baseline entry stores."""
_PERCENTS = (0, 1, 2, *range(5, 95, 5), 92.5, *range(95, 100), 97.5, 98.5, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99, 100)
_BINS = 64
_SIGNIFICANT_BITS = 7


def latency_of(latencies_ns: NDArray[np.int64]) -> Latency | None:
    """The distribution of latencies in nanoseconds, shape ``(requests,)``; None if there are none."""
    if not latencies_ns.size:
        return None
    percents = _reached(sorted(_PERCENTS), latencies_ns.size)
    values = np.percentile(latencies_ns, percents)
    above_zero = np.maximum(latencies_ns, 1)
    low, high = float(above_zero.min()), float(above_zero.max())
    edges = np.geomspace(low, max(high, low * 1.01), _BINS + 1)
    edges[0], edges[-1] = low, max(float(edges[-1]), high)  # exact, not rounded by logarithms
    counts, _ = np.histogram(above_zero, edges)
    return Latency(
        percentiles=tuple((float(percent), float(value)) for percent, value in zip(percents, values, strict=True)),
        histogram=LatencyHistogram(tuple(map(float, edges)), tuple(map(int, counts))),
        mean_ns=float(latencies_ns.mean()),
        sd_ns=float(latencies_ns.std()),
    )


def stored_percentiles(latency: Latency | None) -> Percentiles:
    """The percentiles that a baseline entry stores; empty without a distribution."""
    if latency is None:
        return ()
    known = dict(latency.percentiles)
    return tuple((float(percent), known[percent]) for percent in STORED_PERCENTS if percent in known)


def counted(latencies_ns: NDArray[np.int64]) -> dict[int, int]:
    """Count of each latency, rounded to its seven leading bits (0.8 %), so that counts can be pooled."""
    spare = np.maximum(np.frexp(latencies_ns.astype(np.float64))[1] - _SIGNIFICANT_BITS, 0)
    half = np.where(spare > 0, np.left_shift(1, np.maximum(spare - 1, 0)), 0)
    rounded = np.left_shift(np.right_shift(latencies_ns, spare), spare) + half
    values, counts = np.unique(rounded, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


def without_body(launch: RequestCounts) -> RequestCounts:
    """The counts of a launch with all latencies up to its median as one, which keeps the baseline file small."""
    half, below, kept = sum(launch.latencies.values()) / 2, 0, dict[int, int]()
    for latency_ns, count in sorted(launch.latencies.items()):
        if below < half:
            below += count
            kept = {latency_ns: below}
        else:
            kept[latency_ns] = count
    return replace(launch, latencies=kept)


def percentiles_of_counts(counts: Mapping[int, int]) -> Percentiles:
    """The percentiles of counted latencies; empty if there are none."""
    if not counts:
        return ()
    values = np.array(sorted(counts), dtype=np.float64)
    cumulated = np.cumsum([counts[int(value)] for value in values])
    total = int(cumulated[-1])
    return tuple(
        (float(percent), float(values[np.searchsorted(cumulated, max(percent / 100 * total, 1.0))]))
        for percent in _reached(sorted(_PERCENTS), total)
    )


def _reached(percents: Sequence[float], requests: int) -> list[float]:
    """The percentiles with at least one request beyond them, and 100."""
    return [percent for percent in percents if percent == 100 or (100 - percent) / 100 * requests >= 1 - 1e-9]
