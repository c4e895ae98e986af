"""Whether the machine explains that present and recorded code are equally slow, and both slower than the recording.

The two sides have been measured in the same minutes, so the code is not the reason. A sign of the machine is: its
counters (neighbours, steal, throttling), and a fixed work at the end of the launches. Without a sign the reason may be
data, a variable or another service. This module must not know how it is measured.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.machine_speed import (
    CPU_FACTOR,
    SLOWER,
    ratio_of_medians,
    sorting_times_ns,
    taken_factor,
)
from pytest_mlpatterns.analysis.metric_definitions import NOT_OF_THE_MACHINE, metric_named
from pytest_mlpatterns.analysis.noise import taken_in, why_busy
from pytest_mlpatterns.units import Unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.records.baseline_entry import Entry
    from pytest_mlpatterns.records.launch import Launch
    from pytest_mlpatterns.records.verdict import Verdict

__all__ = ["MachineSign"]

_MARGIN = 1.1
"""Factor on what a sign explains, since a service and the sign do not slow down by exactly the same."""
_SHARING = 1.5
"""Factor on what neighbours explain beyond the cores that they take: they share caches and the threads of a core."""
_SLICES_NS = 8_000_000
"""Time that a request may wait for a core beside neighbours: two time slices of Linux, one on each side of a hop."""
_LOCATIONS = ("ttft", "rtm")
"""Metrics whose change shows how much longer a request takes; the first that was judged counts."""
_OF_ITS_OWN = ("cpu_per_request", "cold_start")
"""Metrics that may get worse while the time of a request does not."""


@dataclass(frozen=True)
class MachineSign:
    """What the machine explains of one comparison.

    Attributes:
        entry: the baseline entry.
        launches: of the present, whose verdicts are explained.
    """

    entry: Entry
    launches: Sequence[Launch]

    def explains(self, verdict: Verdict, seen: Sequence[Verdict]) -> str:
        """The sign that explains a worse metric, in words; empty if none does.

        Args:
            verdict: that the metric is worse than the entry.
            seen: all verdicts of that look; the latency shows how much longer requests take.
        """
        if verdict.metric in NOT_OF_THE_MACHINE or verdict.change is None:
            return ""
        judged = [verdict] if not metric_named(verdict.metric).is_tail else []
        if verdict.metric not in _OF_ITS_OWN:
            judged += [one for one in seen if one.metric in _LOCATIONS and one.change is not None][:1]
        if self.busy and all(_times(one) <= self._beside_neighbours(one) for one in judged):
            return self.busy
        times = max((_times(one) for one in judged), default=1.0)
        ratio = ratio_of_medians(sorting_times_ns(self.launches), self.entry.sorting_ns)
        explains = ratio is not None and ratio >= SLOWER and times <= ratio * _MARGIN
        return "a fixed workload takes as much longer" if explains else ""

    @functools.cached_property
    def busy(self) -> str:
        """What others took in the present launches; empty if they took nothing."""
        return why_busy(self.launches) or ""

    def _beside_neighbours(self, verdict: Verdict) -> float:
        """Times as long as before that what others took explains, for one metric."""
        usage = next((launch.usage for launch in self.launches if launch.usage is not None), None)
        if verdict.metric == "cpu_per_request" or usage is None:
            return CPU_FACTOR
        factor = taken_factor(taken_in(self.launches), self.entry.taken, usage.machine_cores) * _SHARING
        name = verdict.metric if metric_named(verdict.metric).unit is Unit.DURATION else "rtm"
        known = self.entry.metrics.get(name, ())
        return factor + _SLICES_NS / max(known[0].value, 1.0) if known else factor


def _times(verdict: Verdict) -> float:
    """How many times as long a request takes at least, by the better end of the interval."""
    assert verdict.change is not None
    low = verdict.change.low
    if metric_named(verdict.metric).better == "lower":
        return 1 + low
    return 1 / max(1 - low, 1e-9)
