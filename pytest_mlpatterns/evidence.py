"""The evidence of one test: its launches and capacity searches so far, and whether more of it may be had.

A verdict that is open, and a failing one that rests on a single launch, get another launch, until decided, out of
budget, or at the largest number of launches. A launch in which the load generator was the limit is no evidence: it is
dropped and measured again while the budget allows. This module must not know limits or baselines.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_mlpatterns.measure import Interrupted
from pytest_mlpatterns.metrics import Metrics
from pytest_mlpatterns.records import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_mlpatterns.load.capacity import Objective
    from pytest_mlpatterns.measure import Bench
    from pytest_mlpatterns.records import Capacity, Judgement, Launch, LaunchValue

__all__ = ["Evidence"]


class Evidence:
    """Grows as verdicts ask for it.

    Args:
        bench: starts and measures deployments.
        budget_ns: time that all measuring may take; the first launch is measured whatever it takes.
        max_launches: most deployments that are started.

    Attributes:
        spent_s: seconds spent on measuring so far.
        paired_s: seconds spent on comparisons that measure both sides by turns.
        interrupted: Ctrl-C ended the last launch early.
        dropped: launches in which the load generator was the limit, measured again.
    """

    def __init__(self, bench: Bench, budget_ns: int, max_launches: int) -> None:
        self._bench = bench
        self._budget_ns = budget_ns
        self._max_launches = max_launches
        self._launches: list[Launch] = []
        self._capacities: list[Capacity] = []
        self._metrics: Metrics | None = None
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
            self._launches += launches
            self._metrics = Metrics(tuple(self._launches))

    def decide(self, judge: Callable[[], Judgement], more: Callable[[], None] | None = None) -> Judgement:
        """Judge, and gather more while the verdict is open or rests on one launch, and the budget allows.

        Args:
            judge: judges what there is.
            more: gathers more; another launch where None.
        """
        judgement = judge()
        while self._unsettled(judgement) and self._may_launch_again():
            (more or self._measure)()
            judgement = judge()
        return judgement

    def search(self, decided: Callable[[LaunchValue], bool], objective: Objective | None) -> None:
        """Search for what the deployment sustains; where that was found before, on a fresh deployment."""
        asked = None if objective is None else str(objective)
        if any(capacity.objective == asked and not capacity.at_least for capacity in self._capacities):
            self._measure()
        left_ns = max(self._budget_ns - round(self.spent_s * 1e9), 0)
        with self._counted_time():
            self._capacities.append(self._bench.search(decided, objective, left_ns))

    def _unsettled(self, judgement: Judgement) -> bool:
        if judgement.outcome is Outcome.INCONCLUSIVE:
            return True
        return judgement.outcome is Outcome.FAIL and len(self._launches) < 2

    def _may_launch_again(self) -> bool:
        tries = len(self._launches) + self.dropped
        per_launch = self.spent_s / max(tries, 1)
        return (self.spent_s + per_launch) * 1e9 <= self._budget_ns and tries < self._max_launches

    def _measure(self) -> None:
        with self._counted_time():
            try:
                launch = self._bench.measure()
            except Interrupted as stop:
                self.interrupted = True
                self._launches.append(stop.launch)
                raise
            while Metrics((launch,)).generator.limited and self._may_launch_again():
                self.dropped += 1
                launch = self._bench.measure()
            self._launches.append(launch)

    @contextmanager
    def _counted_time(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.spent_s += time.perf_counter() - started
            if self._launches:
                self._metrics = Metrics(tuple(self._launches), tuple(self._capacities))
