"""Whether a metric keeps a limit: the verdicts behind ``perf.assert_..._below`` and ``..._at_least``.

NMRT has assertions of its own, since it is searched for. This module must not know baselines or pytest.
"""

from __future__ import annotations

import functools
import math
import re
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pytest_mlpatterns.analysis.metrics.definitions import nmrt_metric
from pytest_mlpatterns.analysis.metrics.metric import LatencyPercentile, Metric, StreamPercentile, objective_of
from pytest_mlpatterns.analysis.metrics.searched_rates import describe_pauses, searches_needed
from pytest_mlpatterns.analysis.metrics.stream_metrics import form_of_answers
from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.statistics.intervals import estimate, min_samples, wilson_interval
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_limit
from pytest_mlpatterns.errors import GeneratorLimitError, InvalidResultError, SettingError
from pytest_mlpatterns.records.launch import Estimate, LaunchValue, SearchEnd
from pytest_mlpatterns.records.objective import parse_objective
from pytest_mlpatterns.records.outcomes import describe_failures
from pytest_mlpatterns.records.price import Price, parse_amount
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.units import SECOND_NS, format_percent, format_rate, parse_share
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.analysis.metrics.metrics import Metrics
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.records.launch import Capacity
    from pytest_mlpatterns.records.objective import Objective

_LIMIT_ALPHA = 0.02
"""Probability, over all interim looks, of failing a value exactly at the limit, if launches vary as the prior expects.

Up to 2.5 % if they vary by up to 8 % and a baseline entry shows it (``benchmarks/verdict_simulation.py``).
"""


def decide_limit(
    experiment: Experiment, measurement: SequentialMeasurement, metric: Metric, *, limit: float
) -> Verdict:
    """Measure until it is decided whether a metric keeps a limit, which is in the metric's unit."""
    plan = limit_plan(experiment.settings.launches)
    entry = experiment.baseline.entry
    scatter = () if entry is None else entry.metrics.get(metric.name, ())

    def judge() -> Verdict:
        measurement.require_valid(errors_count=not metric.counts_failures)
        size = measurement.sample_size(metric)
        confidence, metrics = plan.confidence(size.launches), measurement.metrics
        measured = metrics.interval_of(metric, confidence, scatter=scatter)
        if measured is None:
            raise InvalidResultError(_why_unknown(metric, experiment, metrics))
        if math.isinf(measured.high):
            return _judge_with_failures(metric, measured, limit, metrics=metrics)
        verdict = judge_limit(metric, measured, limit, size=size, modes=metrics.modes_of(metric))
        left_out = metrics.unjudged(metric)
        return _with_reason(verdict, left_out) if left_out else verdict

    why = _why_hopeless(metric, limit, measurement, plan=plan) if metric.counts_failures else ""
    return _with_reason(judge(), why) if why else measurement.decide(judge)


def _why_hopeless(metric: Metric, limit: float, measurement: SequentialMeasurement, *, plan: SequentialPlan) -> str:
    """Why no number of further launches decides an error rate, which is left open then; empty if they may.

    Without a failure so far nothing shows a high rate, and too few requests to exclude one stay too few. So
    the time is left to the other assertions.
    """
    metrics = measurement.metrics
    if not metrics.requests or metrics.failures:
        return ""
    last = measurement.reachable_launches
    requests = metrics.requests * last // len(metrics.launches)
    wanted = wilson_interval(0, requests, plan.confidence(last)).high
    if wanted < limit:
        return ""
    needed = math.ceil(requests * wanted / (1 - wanted) * (1 - limit) / limit)
    so_far_s = sum(launch.window.duration_ns for launch in metrics.launches) / SECOND_NS
    window_s = math.ceil(needed / last * so_far_s / metrics.requests)
    return (
        f"none of {metrics.requests:,} requests failed, and {needed:,} without a failure decide it; the test has "
        f'time for {requests:,}: measure longer (duration="{window_s}s")'
    )


def _why_unknown(metric: Metric, experiment: Experiment, metrics: Metrics) -> str:
    pattern = experiment.setup.pattern
    if metric.of_streams and any(launch.samples.stream for launch in metrics.launches):
        return f"the streams have no chunk with content, so there is no {metric.label}; yield at least one"
    if metric.of_streams:
        seen = form_of_answers(metrics.launches)
        return (
            f"the answers do not stream, so there is no {metric.label}{seen}; expected a model that yields, or a "
            "service that answers with server-sent events, or with JSON lines or chunks in chunked transfer"
        )
    if metric.name == "cache_hit_ratio":
        ours = experiment.system.model is not None
        use = "Cached()" if ours else 'metrics=Prometheus("/metrics", cache_hits="...", cache_misses="...")'
        return f"{pattern} has no cache that was asked, so there is no {metric.label}; use {use}"
    return f"{metric.label} is not known for {pattern}; name its process: Url(..., pid=...)"


def _with_reason(verdict: Verdict, more: str) -> Verdict:
    return replace(verdict, reason=f"{verdict.reason}; {more}")


def _judge_with_failures(metric: Metric, measured: Estimate, limit: float, *, metrics: Metrics) -> Verdict:
    """The verdict on a percentile that may have no value, because enough requests failed: they are the latest."""
    assert isinstance(metric.kind, LatencyPercentile | StreamPercentile)  # nothing else is infinite
    failed = format_percent(sum(metrics.failures.values()) / metrics.requests)
    beyond = format_percent(1 - metric.kind.percentile / 100)
    outcome = Outcome.FAIL if measured.low >= limit else Outcome.INCONCLUSIVE
    reason = (
        f"{metric.label} {outcome.verb} below {metric.show(limit)}: {failed} of the "
        f"requests failed ({describe_failures(metrics.failures)}), a failed request counts as infinitely late, and "
        f"{beyond} may take longer"
    )
    return Verdict(metric.name, "limit", outcome, reason)


_FEWEST_SEARCHES, _SEARCH_NS = 4, 10_000_000_000
"""Searches that a verdict is planned for at least, and time of the budget for each further one: a look that never
happens wastes its part of the error probability."""
_AGAIN_S = 4.0
"""Least time of a further search under an objective, which does not climb again: three windows of a second."""
_STEP_S = 5  # A budget that is advised is a multiple of it


class NmrtAssertions:
    """Searches for NMRT in one test, and judges it."""

    def __init__(self, experiment: Experiment, measurement: SequentialMeasurement) -> None:
        self._experiment = experiment
        self._measurement = measurement
        if experiment.searches:  # of a ranking, after the test
            measurement.reserve_for_search()

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

    def at_least(self, limit: float, slo: str | None) -> Callable[[], Verdict]:
        """What decides whether the deployment sustains a rate.

        ``limit``: requests per second. ``slo``: a latency objective such as ``"p95<50ms"`` that must hold at that rate.
        """
        return functools.partial(self._decide, limit, None if slo is None else parse_objective(slo))

    def _decide(self, limit: float, objective: Objective | None) -> Verdict:
        """Search until it is decided."""
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

        self._measurement.require_valid()  # what serves no launch is not worth a search
        search = functools.partial(self._measurement.search, objective, is_enough, shares=True)
        before = found()
        if before is None or judge_limit(metric, before, limit).outcome is not Outcome.PASS:
            search()
        again_s = None if objective is None else _AGAIN_S
        return self._at_the_end(self._measurement.decide(judge, search, more_s=again_s), metric)

    def _so_far(self, verdict: Verdict, metric: Metric) -> Verdict:
        """A verdict by the searches so far, with the pauses of the service.

        It is open if the generator ended them, since the next may not be held up, and if a PASS rests on too few.
        """
        if pauses := describe_pauses(self._searches(metric)):
            verdict = _with_reason(verdict, pauses)
        if verdict.outcome is Outcome.PASS:
            return replace(verdict, outcome=Outcome.INCONCLUSIVE) if self._lacks(metric) else verdict
        try:
            self._refuse_early_end(metric)
        except GeneratorLimitError:
            return replace(verdict, outcome=Outcome.INCONCLUSIVE)
        return verdict

    def _at_the_end(self, verdict: Verdict, metric: Metric) -> Verdict:
        """The last verdict, with what a second search takes if it needs one that the budget had no time for."""
        if verdict.outcome is Outcome.PASS:
            return verdict
        self._refuse_early_end(metric)
        done, lacks = len(self._searches(metric)), self._lacks(metric)
        if not lacks and (verdict.outcome is not Outcome.FAIL or done > 1):
            return verdict
        needed = done + 1
        needed_s = _STEP_S * math.ceil(needed / done * self._measurement.budget.spent_ns / SECOND_NS / _STEP_S)
        launches = f"launches={needed} and " if self._experiment.settings.launches < needed else ""
        second = f'it rests on one search; {launches}budget="{needed_s}s" has time for a second one, which confirms it'
        return _with_reason(verdict, second)

    def _lacks(self, metric: Metric) -> bool:
        """Whether a PASS needs another search."""
        objective, searches = objective_of(metric), self._searches(metric)
        return objective is not None and len(searches) < searches_needed(searches, objective)

    def _searches(self, metric: Metric) -> list[Capacity]:
        return [one for one in self._measurement.metrics.capacities if one.objective == objective_of(metric)]

    def _refuse_early_end(self, metric: Metric) -> None:
        """Raise if no search found the capacity, and one ended for another reason than a decided limit."""
        searches = self._searches(metric)
        early = [one for one in searches if one.at_least and one.end is not SearchEnd.DECIDED]
        if not early or not all(one.at_least for one in searches):
            return
        last = early[-1]
        why = f"{metric.label} is at least {format_rate(last.nmrt.value)}, but not known: {last.stopped}"
        raise (GeneratorLimitError if last.end is SearchEnd.GENERATOR else InvalidResultError)(why)


def check_percentile(percentile: object, name: str) -> None:
    """Refuse what is no percentile of a latency."""
    if not isinstance(percentile, int | float) or isinstance(percentile, bool):
        given = shown(percentile)
        number = re.search(r"[1-9]\d?(\.\d+)?", percentile) if isinstance(percentile, str) else None
        example = "95" if number is None else number[0]
        raise SettingError(f"{name}(...): percentile is {given}, expected a number; write percentile={example}")
    try:
        min_samples(percentile)
    except ValueError as error:
        raise SettingError(f"{name}(percentile={shown(percentile)}): {error}") from None


def cost_limit(limit: object, price: Price | None) -> float:
    """The limit of a cost, such as ``"0.40 USD"``, in the currency of the price."""
    name = "assert_cost_below"
    amount = parse_amount(limit, name=f"{name}(...)")
    if price is None:
        raise SettingError(
            f"{name}({shown(limit)}) without a price, expected what cores and memory cost; write for "
            f'example perf_price = "0.0425 {amount.currency} per core-hour, 0.0057 {amount.currency} per GiB-hour"'
        )
    if amount.currency != price.currency:
        raise SettingError(
            f"{name}({shown(limit)}) at a price of {price}, expected an amount in {price.currency}; "
            "convert one of the two"
        )
    return amount.value


def error_rate_limit(limit: object) -> float:
    """The limit of the error rate, a share that a run can show."""
    share = parse_share(limit, name="assert_error_rate_below(...)")
    if share in (0, 1):
        why = "more than 0, which no run can show" if share == 0 else "less than 1, which is 100 %"
        raise SettingError(f'assert_error_rate_below({shown(limit)}), expected {why}; write 0.01 or "1%"')
    return share


def limit_plan(max_launches: int) -> SequentialPlan:
    """The plan by which a limit is judged: after every launch."""
    return SequentialPlan(first=1, last=max_launches, alpha=_LIMIT_ALPHA)
