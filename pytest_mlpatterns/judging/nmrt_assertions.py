"""Whether a deployment sustains a rate: searches for NMRT, and verdicts on it."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.intervals import estimate
from pytest_mlpatterns.analysis.metric_definitions import nmrt_metric
from pytest_mlpatterns.analysis.verdicts import judge_limit
from pytest_mlpatterns.errors import GeneratorLimitError, InvalidResultError
from pytest_mlpatterns.judging.limit_assertions import limit_plan
from pytest_mlpatterns.records.launch import Estimate, SearchEnd
from pytest_mlpatterns.records.objective import parse_objective
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.units import format_rate

if TYPE_CHECKING:
    from pytest_mlpatterns.analysis.metric_definitions import Metric
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.records.launch import LaunchValue
    from pytest_mlpatterns.records.verdict import Verdict

__all__ = ["NmrtAssertions"]

_FEWEST_SEARCHES, _SEARCH_NS = 4, 10_000_000_000
"""Searches that a verdict is planned for at least, and time of the budget for each further one: a look that never
happens wastes its part of the error probability."""
_AGAIN_S = 4.0
"""Least time of a further search under an objective, which does not climb again: three windows of a second."""
_STEP_S = 5
"""A budget that is advised is a multiple of it."""


class NmrtAssertions:
    """Searches for NMRT in one test, and judges it.

    Args:
        experiment: what is measured.
        measurement: what was measured so far; grows as verdicts need it.
    """

    def __init__(self, experiment: Experiment, measurement: SequentialMeasurement) -> None:
        self._experiment = experiment
        self._measurement = measurement
        if experiment.searches:  # of a ranking, after the test
            measurement.reserve_for_search()

    def search(self, slo: str | None) -> None:
        """Search to the end, after a launch under the test's own load; a smoke run does not search.

        Args:
            slo: a latency objective such as ``"p95<50ms"``; None for throughput alone.
        """
        objective = None if slo is None else parse_objective(slo)
        self._measurement.measure_at_least(1)
        if not self._experiment.smoke:
            self._measurement.search(objective)

    def search_for_ranking(self) -> None:
        """Do the searches that a ranking needs and the test did not do, or stopped when its own limit was decided."""
        if not self._experiment.searches:
            return
        self._measurement.measure_at_least(1)
        self._measurement.require_valid()
        for objective in self._experiment.searches:
            capacities = self._measurement.metrics.capacities
            if not any(one.objective == objective and one.end is not SearchEnd.DECIDED for one in capacities):
                self._measurement.search(objective)

    def decide_at_least(self, limit: float, slo: str | None) -> Verdict | None:
        """Search until it is decided whether the deployment sustains a rate.

        Args:
            limit: requests per second.
            slo: a latency objective such as ``"p95<50ms"`` that must hold at that rate.

        Returns:
            The verdict; None in a smoke run.

        Raises:
            GeneratorLimitError: the load generator ended the search, before the limit was decided.
            InvalidResultError: it ended early for another reason.
        """
        objective = None if slo is None else parse_objective(slo)
        metric = nmrt_metric(objective)
        settings = self._experiment.settings
        plan = limit_plan(min(settings.launches, max(settings.budget_ns // _SEARCH_NS, _FEWEST_SEARCHES)))

        def is_enough(value: LaunchValue) -> bool:
            measured = estimate([value], metric.launch_sd, plan.confidence(1))
            return objective is None and judge_limit(metric, measured, limit).outcome is Outcome.PASS

        def found() -> Estimate | None:
            metrics = self._measurement.metrics
            return metrics.estimate(metric, plan.confidence(len(metrics.launch_values(metric))))

        def judge() -> Verdict:
            self._measurement.require_valid()
            size = self._measurement.sample_size(metric)
            return self._so_far(judge_limit(metric, found() or Estimate(0.0, 0.0, 0.0), limit, size=size), metric)

        self._measurement.measure_at_least(1)
        if self._experiment.smoke:
            return None
        self._measurement.require_valid()  # what serves no launch is not worth a search
        search = functools.partial(self._measurement.search, objective, is_enough, shares=True)
        before = found()
        if before is None or judge_limit(metric, before, limit).outcome is not Outcome.PASS:
            search()
        again_s = None if objective is None else _AGAIN_S
        return self._at_the_end(self._measurement.decide(judge, search, more_s=again_s), metric)

    def _so_far(self, verdict: Verdict, metric: Metric) -> Verdict:
        """A verdict by the searches so far; open if the generator ended them, since the next may not be held up."""
        if verdict.outcome is not Outcome.PASS:
            try:
                self._refuse_early_end(metric)
            except GeneratorLimitError:
                return replace(verdict, outcome=Outcome.INCONCLUSIVE)
        return verdict

    def _at_the_end(self, verdict: Verdict, metric: Metric) -> Verdict:
        """The last verdict; a failing one with what a second search takes, if the budget had no time for it."""
        if verdict.outcome is not Outcome.PASS:
            self._refuse_early_end(metric)
        searches = [one for one in self._measurement.metrics.capacities if one.objective == metric.objective]
        if verdict.outcome is not Outcome.FAIL or len(searches) > 1:
            return verdict
        needed_s = _STEP_S * math.ceil(2 * self._measurement.spent_s / _STEP_S)
        launches = "launches=2 and " if self._experiment.settings.launches < 2 else ""
        second = f'it rests on one search; {launches}budget="{needed_s}s" has time for a second one, which confirms it'
        return replace(verdict, reason=f"{verdict.reason}; {second}")

    def _refuse_early_end(self, metric: Metric) -> None:
        """Raise if no search found the capacity, and one ended for another reason than a decided limit."""
        searches = [one for one in self._measurement.metrics.capacities if one.objective == metric.objective]
        early = [one for one in searches if one.at_least and one.end is not SearchEnd.DECIDED]
        if not early or not all(one.at_least for one in searches):
            return
        last = early[-1]
        why = f"{metric.label} is at least {format_rate(last.nmrt.value)}, but not known: {last.stopped}"
        raise (GeneratorLimitError if last.end is SearchEnd.GENERATOR else InvalidResultError)(why)
