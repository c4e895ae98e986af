"""Failures against a stored baseline that the machine may explain, because it is busy or slower than it was.

They stand if quiet launches alone show them, or if the test is worse than the baseline would be on such a machine:
an excuse explains at most what it can do (:mod:`pytest_mlpatterns.analysis.machine_speed`). This module must not know
how launches are measured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.machine_speed import CPU_FACTOR, taken_factor
from pytest_mlpatterns.analysis.metric_definitions import NOT_OF_THE_MACHINE
from pytest_mlpatterns.analysis.metrics import Metrics
from pytest_mlpatterns.analysis.noise import taken_in, why_busy
from pytest_mlpatterns.baseline.scaled_entry import scaled
from pytest_mlpatterns.judging.stopped_streams import failed_by_whole_answers
from pytest_mlpatterns.records.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.judging.compared_metrics import ComparedMetric
    from pytest_mlpatterns.records.baseline_entry import Entry

    Judge = Callable[[Sequence[ComparedMetric], Entry, Metrics], Sequence[Verdict]]

__all__ = ["MachineDoubts"]

_QUIET_LAUNCHES = 2
"""Launches on a quiet machine that a failure may rest on while the others were disturbed."""
_ADVICE = "run it again in a quieter moment, or compare interleaved (--perf-against)"


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Times as long as before that the machine explains: of the time of a request, and of its CPU time."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class MachineDoubts:
    """Doubts about the failures of one look at a test.

    Attributes:
        entry: the baseline entry.
        metrics: of the launches that were measured.
        judge: compares metrics with an entry, over given launches.
    """

    entry: Entry
    metrics: Metrics
    judge: Judge

    def leave_open(self, verdicts: Sequence[Verdict], compared: Sequence[ComparedMetric]) -> Sequence[Verdict]:
        """The verdicts, with every failure left open that the machine during the launches may explain.

        Args:
            verdicts: of this look.
            compared: the metrics that they judge.
        """
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
        """The verdicts, with every failure left open that a slower machine explains.

        Args:
            slowdown: how many times as long the same work takes now.
            verdicts: of this look.
            compared: the metrics that they judge, with the tolerance beside a machine that is slower.
        """
        why = (
            f"this machine takes up to {slowdown:.2f} times as long for the same work as when the baseline was "
            "recorded, which explains it"
        )
        bounds = _Bounds(slowdown, slowdown)
        return self._explained(bounds, verdicts, compared, why=why, standing=self._standing(verdicts))

    def _standing(self, verdicts: Sequence[Verdict]) -> frozenset[str]:
        """Names of the metrics whose failures no machine explains."""
        return NOT_OF_THE_MACHINE | failed_by_whole_answers(verdicts, self.entry, self.metrics)

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
        return [
            replace(
                verdict,
                outcome=Outcome.INCONCLUSIVE,
                reason=f"{verdict.reason}; but {why}: {_ADVICE}",
                why_open=why,
                by_machine=True,
            )
            if verdict.outcome is Outcome.FAIL and verdict.metric not in standing | beyond
            else verdict
            for verdict in verdicts
        ]


def _failed(verdicts: Sequence[Verdict]) -> frozenset[str]:
    return frozenset(verdict.metric for verdict in verdicts if verdict.outcome is Outcome.FAIL)
