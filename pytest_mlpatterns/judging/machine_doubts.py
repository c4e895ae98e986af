"""Failures against a stored baseline that the machine may explain, because it is busy or slower than it was.

Such a failure stays open, and more launches are measured. It stands if quiet launches alone show it, or if the test is
worse than the baseline would be on the slower machine. This module must not know how launches are measured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import geometric_mean
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.machine_speed import SLOWER, explained_slowdown, generator_costs_ns, slowdowns
from pytest_mlpatterns.analysis.metric_definitions import METRICS
from pytest_mlpatterns.analysis.metrics import Metrics
from pytest_mlpatterns.analysis.noise import why_busy
from pytest_mlpatterns.baseline.calibration import scaled
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
_NOT_OF_THE_MACHINE = frozenset({"error_rate", "peak_memory", "request_bytes", "response_bytes"})
"""Metrics that neither busy neighbours nor a slower machine change."""
_EQUAL_ANSWERS = 1.05
"""Ratio of the answers' sizes up to which the load generator's work for them is the same."""
_ADVICE = "run it again, or compare interleaved (--perf-against)"


@dataclass(frozen=True, slots=True)
class MachineDoubts:
    """Doubts about the failures of one look at a test.

    Attributes:
        entry: the baseline entry.
        metrics: of the launches that were measured.
        judge: compares metrics with an entry, over given launches.
        neighbours: whether busy neighbours count as an explanation.
    """

    entry: Entry
    metrics: Metrics
    judge: Judge
    neighbours: bool = True

    def leave_open(self, verdicts: Sequence[Verdict], compared: Sequence[ComparedMetric]) -> Sequence[Verdict]:
        """The verdicts, with every failure left open that the machine during the launches may explain.

        Args:
            verdicts: of this look.
            compared: the metrics that they judge.
        """
        if not any(verdict.outcome is Outcome.FAIL for verdict in verdicts):
            return verdicts
        launches, ratios = self.metrics.launches, self.slowdowns
        busy = why_busy(launches) if self.neighbours else None
        slow = [ratio >= SLOWER for ratio in ratios] or [False] * len(launches)
        if not busy and not any(slow):
            return verdicts
        quiet = tuple(
            one
            for one, is_slow in zip(launches, slow, strict=True)
            if not is_slow and not (self.neighbours and why_busy([one]))
        )
        standing = self._standing(verdicts)
        if len(quiet) >= _QUIET_LAUNCHES:
            of_launches = [one for one in compared if one.metric.of is not None]
            standing |= _failed(self.judge(of_launches, self.entry, Metrics(quiet)))
        if busy:
            return _doubted(verdicts, f"but {busy} while this was measured: run it again in a quieter moment", standing)
        rest = [replace(one, tolerance=0.0) for one in compared]  # anything beyond what the machine explains
        return self.explained_by(explained_slowdown(ratios), verdicts, rest, standing=standing)

    def explained_by(
        self,
        slowdown: float,
        verdicts: Sequence[Verdict],
        compared: Sequence[ComparedMetric],
        *,
        standing: frozenset[str] = frozenset(),
    ) -> Sequence[Verdict]:
        """The verdicts, with every failure left open that a slower machine explains.

        Args:
            slowdown: how many times as long the same work takes now.
            verdicts: of this look.
            compared: the metrics that they judge, with the tolerance beside a machine that is slower.
            standing: names of further metrics whose failures stand anyway.
        """
        slower = scaled(self.entry, slowdown)
        why = (
            f"but this machine takes up to {slowdown:.2f} times as long for the same work as when the baseline was "
            f"recorded, which explains it: {_ADVICE}"
        )
        standing |= self._standing(verdicts) | _failed(self.judge(compared, slower, self.metrics))
        return _doubted(verdicts, why, standing)

    def _standing(self, verdicts: Sequence[Verdict]) -> frozenset[str]:
        """Names of the metrics whose failures no machine explains."""
        return _NOT_OF_THE_MACHINE | failed_by_whole_answers(verdicts, self.entry, self.metrics)

    @property
    def slowdowns(self) -> tuple[float, ...]:
        """Ratio of the load generator's cost in each launch to that of the baseline; empty if it is not known."""
        if not self._answers_as_before():
            return ()
        costs_ns = generator_costs_ns(self.metrics.launches, self.entry.setup.load)
        return slowdowns(costs_ns, self.entry.generator_costs_ns)

    def _answers_as_before(self) -> bool:
        """Whether the answers are as large as they were, so that the load generator has the same work with them."""
        size = METRICS["response_bytes"]
        then, now = self.entry.metrics.get(size.name), self.metrics.launch_values(size)
        if not then or not now:
            return False
        before, present = (geometric_mean([max(one.value, 1.0) for one in values]) for values in (then, now))
        return max(before, present) <= _EQUAL_ANSWERS * min(before, present)


def _failed(verdicts: Sequence[Verdict]) -> frozenset[str]:
    return frozenset(verdict.metric for verdict in verdicts if verdict.outcome is Outcome.FAIL)


def _doubted(verdicts: Sequence[Verdict], why: str, standing: frozenset[str]) -> Sequence[Verdict]:
    """The verdicts with every failure left open, for the reason ``why``, except those that stand nevertheless."""
    return [
        replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=f"{verdict.reason}; {why}")
        if verdict.outcome is Outcome.FAIL and verdict.metric not in standing
        else verdict
        for verdict in verdicts
    ]
