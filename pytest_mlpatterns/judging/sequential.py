"""The evidence of one test: its launches and capacity searches so far, and whether more of it may be had.

A verdict that is open gets another launch, until decided, out of budget, or at the largest number of launches. A
failing one that rests on a single launch gets a second, whatever the budget. A launch in which the load generator was
the limit is no evidence: it is measured again while the budget allows, and dropped where there are others. This module
must not know limits or baselines.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metrics import Metrics
from pytest_mlpatterns.errors import TooFewSamplesError
from pytest_mlpatterns.measurement.launch import Interrupted
from pytest_mlpatterns.records.verdict import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_mlpatterns.measurement.launch import LaunchRunner
    from pytest_mlpatterns.records.launch import Capacity, Launch, LaunchValue
    from pytest_mlpatterns.records.objective import Objective
    from pytest_mlpatterns.records.verdict import Verdict

__all__ = ["SequentialMeasurement"]

_CONFIRMED = 2
"""Launches that a failing verdict rests on, where so many are allowed."""


class SequentialMeasurement:
    """Grows as verdicts ask for it.

    Args:
        bench: starts and measures deployments.
        budget_ns: time that all measuring may take; the first launch is measured whatever it takes, and so is one that
            confirms a failing verdict.
        max_launches: most deployments that are started.

    Attributes:
        spent_s: seconds spent on measuring so far.
        paired_s: seconds spent on comparisons that measure both sides by turns.
        interrupted: Ctrl-C ended the last launch early.
        dropped: launches in which the load generator was the limit, which count for nothing.
    """

    def __init__(self, bench: LaunchRunner, budget_ns: int, max_launches: int) -> None:
        self._bench = bench
        self._budget_ns = budget_ns
        self._max_launches = max_launches
        self._launches: list[Launch] = []
        self._capacities: list[Capacity] = []
        self._metrics: Metrics | None = None
        self._tries = 0
        self.spent_s = 0.0
        self.paired_s = 0.0
        self.interrupted = False
        self.dropped = 0

    @property
    def metrics(self) -> Metrics:
        """The metrics over everything so far; the first access measures a launch."""
        self.measure_at_least(1)
        assert self._metrics is not None
        return self._metrics

    @property
    def so_far(self) -> Metrics | None:
        """The metrics over everything so far, None before the first launch."""
        return self._metrics

    def measure_at_least(self, launches: int) -> None:
        """Measure until there are so many launches, or the budget is spent; one in any case."""
        while not self._launches or (len(self._launches) < launches and self._may_launch_again()):
            self._measure()

    def take(self, launches: Sequence[Launch]) -> None:
        """Take launches that a comparison has measured, where there are none yet: nothing is measured twice."""
        if not self._launches and launches:
            self._tries += len(launches)
            self._keep(*launches)

    def decide(self, judge: Callable[[], Verdict], more: Callable[[], None] | None = None) -> Verdict:
        """Judge, and gather more while the verdict is open or rests on one launch, and the budget allows.

        Args:
            judge: judges what there is.
            more: gathers more; another launch where None.

        Raises:
            TooFewSamplesError: still too few when there may be no other launch.
        """
        while True:
            try:
                verdict = judge()
            except TooFewSamplesError:
                if not self._may_launch_again():
                    raise
            else:
                unconfirmed = verdict.outcome is Outcome.FAIL and len(self._launches) < _CONFIRMED
                if verdict.outcome is not Outcome.INCONCLUSIVE and not unconfirmed:
                    return verdict
                confirms = unconfirmed and more is None and self._tries < min(_CONFIRMED, self._max_launches)
                if not confirms and not self._may_launch_again():
                    return verdict
            (more or self._measure)()

    def search(self, decided: Callable[[LaunchValue], bool], objective: Objective | None) -> None:
        """Search for what the deployment sustains; where that was found before, on a fresh deployment."""
        asked = None if objective is None else str(objective)
        if any(capacity.objective == asked and not capacity.at_least for capacity in self._capacities):
            self._measure()
        left_ns = max(self._budget_ns - round(self.spent_s * 1e9), 0)
        with self._counted_time():
            self._capacities.append(self._bench.search(decided, objective, left_ns))
        self._keep()

    def _may_launch_again(self) -> bool:
        per_launch = self.spent_s / max(self._tries, 1)
        return (self.spent_s + per_launch) * 1e9 <= self._budget_ns and self._tries < self._max_launches

    def _measure(self) -> None:
        launch = self._launch()
        while (limited := Metrics((launch,)).generator.limited) and self._may_launch_again():
            self.dropped += 1
            launch = self._launch()
        if limited and self._launches:
            self.dropped += 1
        else:
            self._keep(launch)

    def _launch(self) -> Launch:
        self._tries += 1
        with self._counted_time():
            try:
                return self._bench.measure()
            except Interrupted as stop:
                self.interrupted = True
                self._keep(stop.launch)
                raise

    def _keep(self, *launches: Launch) -> None:
        self._launches += launches
        self._metrics = Metrics(tuple(self._launches), tuple(self._capacities))

    @contextmanager
    def _counted_time(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.spent_s += time.perf_counter() - started
