"""Failures and changes that the machine may explain, because it is busy or slower than when the baseline was recorded.

:class:`MachineDoubts` takes a failure against the baseline back, unless quiet launches alone show it, or the test is
worse than the baseline would be on such a machine: an excuse explains at most what it can do
(:mod:`pytest_mlpatterns.analysis.health.machine`).

:class:`MachineSign` names what explains that the recorded code is slower today, too: neighbours, steal, throttling, or
a fixed work that takes longer in the launches. Without a sign the reason may be data, a variable or another
service. This module must not know how launches are measured.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

from pytest_mlpatterns.analysis.health.machine import (
    CPU_FACTOR,
    slower_explains,
    sorting_times_ns,
    taken_factor,
    taken_in,
    why_busy,
)
from pytest_mlpatterns.analysis.metrics.definitions import STANDING, leading_time, metric_named, with_role
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.baseline.lookup import scaled
from pytest_mlpatterns.judging.compared_metrics import ComparedMetric, failed_by_whole_answers
from pytest_mlpatterns.records.verdict import OpenBy, Outcome, Verdict, WhyOpen
from pytest_mlpatterns.units import Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.records.baseline_entry import Entry
    from pytest_mlpatterns.records.launch import Launch

    Judge = Callable[[Sequence[ComparedMetric], Entry, Metrics], Sequence[Verdict]]

Today: TypeAlias = "Callable[[str], float | None]"
"""By the name of a metric, how much worse it is than its entry in later launches; None if that is not known."""
_QUIET_LAUNCHES = 2  # Launches on a quiet machine that a failure may rest on while the others were disturbed


class MachineDoubts(Struct, frozen=True):
    """Doubts about the failures of one look at a test."""

    entry: Entry  # the baseline entry
    metrics: Metrics  # of the launches that were measured
    judge: Judge  # compares metrics with an entry, over given launches
    standing: frozenset[str] = STANDING  # names of the metrics that no machine changes

    def leave_open(self, verdicts: Sequence[Verdict], compared: Sequence[ComparedMetric]) -> Sequence[Verdict]:
        """The verdicts, with every failure left open that the machine during the launches may explain."""
        launches = self.metrics.launches
        if not _failed(verdicts) or (busy := why_busy(launches)) is None:
            return verdicts
        usage = next(launch.usage for launch in launches if launch.usage is not None)  # else nothing is busy
        factor = taken_factor(taken_in(launches), self.entry.taken, usage.machine_cores)
        quiet = tuple(one for one in launches if why_busy([one]) is None)
        standing = self._standing(verdicts)
        if len(quiet) >= _QUIET_LAUNCHES:
            of_launches = [one for one in compared if one.metric.of is not None]
            standing |= _failed(self.judge(of_launches, self.entry, Metrics(quiet)))
        bounds = _Bounds(factor, min(factor, CPU_FACTOR))
        why = f"{busy}, which explains {factor:.2f} times"
        return self._explained(bounds, verdicts, compared, why=why, standing=standing)

    def explained_by(
        self, slowdown: float, verdicts: Sequence[Verdict], compared: Sequence[ComparedMetric]
    ) -> Sequence[Verdict]:
        """The verdicts, with every failure left open that a slower machine explains."""
        why = (
            f"this machine takes up to {slowdown:.2f} times as long for the same work as when the baseline was "
            "recorded, which explains it"
        )
        bounds = _Bounds(slowdown, slowdown)
        return self._explained(bounds, verdicts, compared, why=why, standing=self._standing(verdicts))

    def _standing(self, verdicts: Sequence[Verdict]) -> frozenset[str]:
        """Names of the metrics whose failures no machine explains."""
        return self.standing | failed_by_whole_answers(verdicts, self.entry, self.metrics)

    def _explained(
        self,
        bounds: _Bounds,
        verdicts: Sequence[Verdict],
        compared: Sequence[ComparedMetric],
        *,
        why: str,
        standing: frozenset[str],
    ) -> Sequence[Verdict]:
        of_cpu = [one for one in compared if one.metric.name == "cpu_per_request"]
        of_wall = [one for one in compared if one.metric.name != "cpu_per_request"]
        beyond = {
            *_failed(self.judge(of_wall, scaled(self.entry, bounds.wall), self.metrics)),
            *_failed(self.judge(of_cpu, scaled(self.entry, bounds.cpu), self.metrics)),
        }
        beyond -= {one.metric for one in verdicts if _counts_failures(one) and _times(one) <= bounds.wall}
        return [
            verdict.left_open(WhyOpen(OpenBy.MACHINE, why), f"but {why}")
            if verdict.outcome is Outcome.FAIL and verdict.metric not in standing | beyond
            else verdict
            for verdict in verdicts
        ]


class _Bounds(Struct, frozen=True):
    """Times as long as before that the machine explains: of the time of a request, and of its CPU time."""

    wall: float
    cpu: float


def _failed(verdicts: Sequence[Verdict]) -> frozenset[str]:
    return frozenset(verdict.metric for verdict in verdicts if verdict.outcome is Outcome.FAIL)


_SHARING = 1.5
"""Factor on what neighbours explain beyond the cores that they take: they share caches and the threads of a core."""
_SLICES_NS = 8_000_000
"""Time that a request may wait for a core beside neighbours: two time slices of Linux, one on each side of a hop."""


@dataclass(frozen=True)
class MachineSign:
    """What the machine explains of one comparison."""

    entry: Entry  # the baseline entry
    launches: Sequence[Launch]  # of the present, whose verdicts are explained
    # those that the recorded code was measured in, of both sides; they show the machine of these minutes
    beside: Sequence[Launch] = ()
    standing: frozenset[str] = STANDING  # names of the metrics that no machine changes

    def explains(self, verdict: Verdict, seen: Sequence[Verdict], today: Today | None = None) -> str:
        """The sign that explains a worse metric, in words; empty if none does."""
        if verdict.metric in self.standing or verdict.change is None:
            return ""
        judged = [verdict] if not metric_named(verdict.metric).is_tail else []
        if verdict.metric not in with_role(Role.INDEPENDENT_OF_LATENCY):  # it shows how much longer a request takes
            judged += [one for one in seen if one.metric in with_role(Role.LEADING) and one.change is not None][:1]
        if self.busy and all(_times(one, today) <= self._beside_neighbours(one) for one in judged):
            return self.busy
        times = max((_times(one, today) for one in judged), default=1.0)
        now = sorting_times_ns([*self.launches, *self.beside])
        return "a fixed workload takes as much longer" if slower_explains(times, now, self.entry.sorting_ns) else ""

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
        is_time = metric_named(verdict.metric).unit is Unit.DURATION
        name = verdict.metric if is_time else leading_time(streams=False).name
        known = self.entry.metrics.get(name, ())
        return factor + _SLICES_NS / max(known[0].value, 1.0) if known else factor


def _times(verdict: Verdict, today: Today | None = None) -> float:
    """How many times as long a request takes at least, by the better end of the interval, or today if that is less."""
    assert verdict.change is not None
    later = None if today is None else today(verdict.metric)
    worse = verdict.change.low if later is None else min(verdict.change.low, later)
    if _counts_failures(verdict):  # of a load beyond the capacity: what is not refused is served
        served = 1 - (verdict.reference_value or 0.0)
        return served / max(served - worse, 1e-9)
    if metric_named(verdict.metric).better == "lower":
        return 1 + worse
    return 1 / max(1 - worse, 1e-9)


def _counts_failures(verdict: Verdict) -> bool:
    return metric_named(verdict.metric).counts_failures
