"""What a deployment held over the requests that it had answered: from readings over time and times of answers.

Pure. It must not know limits, nor whether a growth goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.analysis.growth import growth_of
from pytest_mlpatterns.records.resource_track import GrowthRecord, ResourceTrack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pytest_mlpatterns.records.launch import Usage
    from pytest_mlpatterns.records.samples import Window

__all__ = ["growth_rate", "growth_record", "track_of"]

_FEWEST_REQUESTS = 100
"""Requests below which a growth per request is not given."""
_MOST_RECORDED = 120
"""Readings that reports have room for."""
_MOST_POINTS = 60
"""Readings between which slopes are taken; more would not change their median."""


def track_of(usage: Usage | None, done_ns: NDArray[np.int64], windows: Sequence[Window]) -> ResourceTrack | None:
    """The readings in some windows; None if the processes are not known or no reading is in a window.

    Args:
        usage: readings over time.
        done_ns: when each request was answered, ascending, shape ``(requests,)``.
        windows: on the same clock.
    """
    if usage is None:
        return None
    inside = np.zeros(usage.time_ns.shape, dtype=np.bool_)
    for window in windows:
        inside |= window.covers(usage.time_ns)
    if not inside.any():
        return None
    return ResourceTrack(
        requests=np.searchsorted(done_ns, usage.time_ns[inside], side="right").astype(np.int64),
        rss_bytes=usage.rss_bytes[inside],
        descriptors=None if usage.descriptors is None else usage.descriptors[inside],
        threads=None if usage.threads is None else usage.threads[inside],
    )


def growth_record(track: ResourceTrack | None) -> GrowthRecord | None:
    """The memory of a track, for reports; None without a track."""
    if track is None:
        return None
    chosen = np.unique(np.linspace(0, track.requests.size - 1, _MOST_RECORDED).round().astype(np.int64))
    growth = growth_of(track.requests, track.rss_bytes)
    slope = None if growth is None else (growth.slope.value, growth.slope.low, growth.slope.high)
    return GrowthRecord(
        tuple(track.requests[chosen].tolist()),
        tuple(track.rss_bytes[chosen].tolist()),
        slope,
        levels_off=growth is not None and growth.levels_off,
    )


def growth_rate(track: ResourceTrack | None, resource: str) -> float | None:
    """Growth of one resource per request over a whole track, at least 0; None if it is not known.

    It is Theil and Sen's slope, the median of the slopes between all pairs of readings, which no few peaks change.

    Args:
        track: of one launch.
        resource: name of its attribute, such as ``rss_bytes``.
    """
    amounts = None if track is None else getattr(track, resource)
    if track is None or amounts is None or track.requests[-1] - track.requests[0] < _FEWEST_REQUESTS:
        return None
    chosen = np.unique(np.linspace(0, amounts.size - 1, min(amounts.size, _MOST_POINTS)).round().astype(np.int64))
    requests, held = track.requests[chosen], amounts[chosen]
    first, second = np.triu_indices(chosen.size, k=1)
    apart = requests[second] - requests[first]
    slopes = (held[second] - held[first])[apart > 0] / apart[apart > 0]
    return max(float(np.median(slopes)), 0.0)
