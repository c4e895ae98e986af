"""What a deployment held while it answered requests, and how that grew.

numpy appears in annotations only, so that importing this module costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from pytest_mlpatterns.records.launch import Estimate

__all__ = ["Growth", "GrowthRecord", "ResourceTrack"]


@dataclass(frozen=True, slots=True)
class ResourceTrack:
    """Readings of one deployment, arrays of shape ``(readings,)``.

    Attributes:
        requests: requests answered until the reading; it never falls.
        rss_bytes: resident memory of the process tree.
        descriptors: open file descriptors of the process tree; None if the system does not tell them.
        threads: threads of the process tree; None likewise.
    """

    requests: NDArray[np.int64]
    rss_bytes: NDArray[np.int64]
    descriptors: NDArray[np.int64] | None = None
    threads: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class Growth:
    """How one resource grew per request, over one track.

    Attributes:
        requests: requests from the first reading to the last one.
        slope: growth per request over the second half of the track.
        recent: the same over the last quarter.
        gained: growth over the second half.
        levels_off: whether the growth slows down, stops or comes in single steps, so that it need not go on.
    """

    requests: int
    slope: Estimate
    recent: Estimate
    gained: float
    levels_off: bool

    def exceeds(self, limit: float, least: float) -> bool:
        """Whether it is a leak: growth per request surely above a limit, large enough, and not levelling off."""
        return self.slope.low > limit and self.gained >= least and not self.levels_off

    def stays_below(self, limit: float) -> bool:
        """Whether it is surely below a limit, in the second half or at least in the last quarter."""
        return min(self.slope.high, self.recent.high) < limit


@dataclass(frozen=True, slots=True)
class GrowthRecord:
    """The memory of a deployment over one long load, for reports.

    Attributes:
        requests: requests answered until each reading.
        rss_bytes: resident memory at each reading.
        slope: growth in bytes per request over the second half, ``(value, low, high)``; None if too little was read.
        levels_off: whether that growth need not go on.
    """

    requests: tuple[int, ...]
    rss_bytes: tuple[int, ...]
    slope: tuple[float, float, float] | None
    levels_off: bool

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> GrowthRecord:
        """The inverse of ``dataclasses.asdict``, also after a trip through JSON."""
        slope = data["slope"]
        return cls(
            tuple(data["requests"]),
            tuple(data["rss_bytes"]),
            None if slope is None else (slope[0], slope[1], slope[2]),
            data["levels_off"],
        )
