"""Whether the machine explains that present and recorded code are equally slow, and both slower than the recording.

The two sides have been measured in the same minutes, so the code is not the reason. A sign of the machine is: its
counters (neighbours, steal, throttling), the cost of the load generator beside the recorded code, and a fixed workload.
Without a sign the reason may be data, a variable or another service. This module must not know how it is measured.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.machine_speed import (
    CPU_FACTOR,
    generator_costs_ns,
    ratio_of_costs,
    ratio_of_sorting,
    sorting_times_ns,
    taken_factor,
)
from pytest_mlpatterns.analysis.metric_definitions import NOT_OF_THE_MACHINE, metric_named
from pytest_mlpatterns.analysis.noise import taken_in, why_busy
from pytest_mlpatterns.units import Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_mlpatterns.records.baseline_entry import Entry
    from pytest_mlpatterns.records.launch import Launch
    from pytest_mlpatterns.records.verdict import Verdict

__all__ = ["MachineSign"]

_SURE = 1.15
"""Ratio of generator costs or of calibrations that occurs without a change of the machine; 1.08 was observed idle."""
_SURE_SORTING = 1.06
"""The same of the fixed work at the end of the launches. It varies by 2 to 3 %, three launches against eight by 2 %."""
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
        reference: launches of the recorded code, measured now; those of the present if it is the same code.
        calibrate: measures how many times as long a fixed workload takes as when the entry was recorded; None if that
            is unknown.
    """

    entry: Entry
    launches: Sequence[Launch]
    reference: Sequence[Launch]
    calibrate: Callable[[], float | None]

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
        for ratio, sure, sign in self._signs():
            if ratio is not None and ratio >= sure and times <= ratio * _MARGIN:
                return sign
        return ""

    def _signs(self) -> Iterator[tuple[float | None, float, str]]:
        """How many times as long the same work takes, from which value that is sure, and words; the cheapest first."""
        yield self.generator_ratio, _SURE, "its load generator needs as much more time for a request"
        yield self.sorting_ratio, _SURE_SORTING, "a fixed workload takes as much longer"
        yield self.calibration, _SURE, "a fixed workload takes as much longer"

    @functools.cached_property
    def busy(self) -> str:
        """What others took in the present launches; empty if they took nothing."""
        return why_busy(self.launches) or ""

    @functools.cached_property
    def generator_ratio(self) -> float | None:
        """Ratio of the generator's cost beside the recorded code: the same answers in as many pieces."""
        now = generator_costs_ns(self.reference, self.entry.setup.load)
        return ratio_of_costs(now, self.entry.generator_costs_ns)

    @functools.cached_property
    def sorting_ratio(self) -> float | None:
        """Ratio of the times of the fixed work at the end of the launches."""
        return ratio_of_sorting(sorting_times_ns(self.launches), self.entry.sorting_ns)

    @functools.cached_property
    def calibration(self) -> float | None:
        """The ratio of the fixed workload; measured at the first access."""
        return self.calibrate()

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
