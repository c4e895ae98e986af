"""A distribution of times in a few numbers: of the latency, and of what streams have instead. Plain values."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Latency", "LatencyHistogram", "Percentiles", "interpolated", "read_percentiles"]

Percentiles = tuple[tuple[float, float], ...]
"""``(percent, nanoseconds)``, both ascending; empty if no request succeeded."""


@dataclass(frozen=True, slots=True)
class LatencyHistogram:
    """Counts of the successful requests by latency: ``counts[i]`` from ``edges_ns[i]`` to ``edges_ns[i + 1]``.

    There is one edge more than counts. The edges are evenly spaced on a logarithmic scale; the last interval includes
    both of its edges.
    """

    edges_ns: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency distribution of the successful requests, pooled over all launches; also that of another time of theirs.

    Attributes:
        percentiles: from 0 to 100, as far into the tail as the number of requests allows; observed values, not bounds.
        histogram: the same requests, counted by latency.
        mean_ns: arithmetic mean, for formats that require one; reports show the median.
        sd_ns: standard deviation, likewise.
    """

    percentiles: Percentiles
    histogram: LatencyHistogram
    mean_ns: float
    sd_ns: float

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Latency:
        """The inverse of ``dataclasses.asdict``, also after a trip through JSON."""
        histogram = LatencyHistogram(tuple(data["histogram"]["edges_ns"]), tuple(data["histogram"]["counts"]))
        return cls(**{**data, "percentiles": read_percentiles(data["percentiles"]), "histogram": histogram})


def read_percentiles(data: Any) -> Percentiles:
    """Percentiles as JSON has them."""
    return tuple((percent, value) for percent, value in data)


def interpolated(percentiles: Percentiles, percent: float) -> float:
    """The latency at a percentile, interpolated linearly between the two nearest known ones.

    Args:
        percentiles: at least one; outside their range the nearest one is returned.
        percent: from 0 to 100.
    """
    above = bisect_left(percentiles, (percent,))
    if above in (0, len(percentiles)):
        return percentiles[min(above, len(percentiles) - 1)][1]
    (before, low), (after, high) = percentiles[above - 1], percentiles[above]
    return low + (high - low) * (percent - before) / (after - before)
