"""What a deployment held while it answered requests, and how that grew.

numpy appears in annotations only, so that importing this module costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from pytest_mlpatterns.records.codec import Count, Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from pytest_mlpatterns.records.launch import Estimate

__all__ = ["HELD_LAYER", "Growth", "GrowthRecord", "HeldMemory", "HeldRecord", "MemorySite", "ResourceTrack"]


class ResourceTrack(Struct, frozen=True):
    """Readings of one deployment, arrays of shape ``(readings,)``.

    Attributes:
        requests: requests answered until the reading; it never falls.
        rss_bytes: resident memory of the process tree.
        descriptors: open file descriptors of the process tree; None if the system does not show them.
        threads: threads of the process tree; None as for descriptors.
    """

    requests: NDArray[np.int64]
    rss_bytes: NDArray[np.int64]
    descriptors: NDArray[np.int64] | None = None
    threads: NDArray[np.int64] | None = None


class Growth(Struct, frozen=True):
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


class GrowthRecord(Record, frozen=True):
    """The memory of a deployment over one long load, for reports.

    Attributes:
        requests: requests answered until each reading.
        rss_bytes: resident memory at each reading.
        slope: growth in bytes per request over the second half, ``(value, low, high)``; None if too little was read.
        levels_off: whether that growth need not go on.
    """

    requests: tuple[Count, ...]
    rss_bytes: tuple[Count, ...]
    slope: tuple[float, float, float] | None
    levels_off: bool


HELD_LAYER = "held memory"
"""Name of the layer of the telemetry with which the processes of a deployment report what their lines hold.

Its counters are bytes by ``LINE:FILE``, and ``total`` for all of them.
"""


class HeldMemory(Struct, frozen=True):
    """What the processes of one side held, by the line that allocated it.

    Attributes:
        sites: bytes by file and line: the innermost line of the user's code, or of any code if there is none.
        total_bytes: of all lines, also those that are not among the largest.
        requests: answered between the two readings whose difference this is; 0 for a reading since the start.
    """

    sites: Mapping[tuple[str, int], float]
    total_bytes: float
    requests: int = 0


class MemorySite(Struct, frozen=True):
    """A function that holds memory.

    Attributes:
        function: qualified name; ``<module>`` for the code of a module itself.
        file: relative to pytest's root directory, to site-packages or to the standard library.
        line: the one that holds most at present.
        source: its text; empty if unknown.
        before: bytes at the reference, or bytes per request for a growth.
        now: the same at present.
    """

    function: str
    file: str
    line: Count
    source: str
    before: float
    now: float

    @property
    def change(self) -> float:
        """Now less before."""
        return self.now - self.before


class HeldRecord(Record, frozen=True):
    """Where the memory of a test went that holds more, or leaks, at present.

    Attributes:
        note: why that is not known; empty if it is.
        per_request: whether the figures are bytes per request instead of bytes.
        before: held by all lines at the reference.
        now: the same at present.
        sites: functions that hold more, the largest first.
    """

    note: str = ""
    per_request: bool = False
    before: float = 0.0
    now: float = 0.0
    sites: tuple[MemorySite, ...] = ()
