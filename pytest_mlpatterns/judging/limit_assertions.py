"""Whether a metric keeps a limit: the verdict behind ``perf.assert_..._below`` and ``..._at_least``."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.intervals import min_samples, wilson_interval
from pytest_mlpatterns.analysis.stream_metrics import form_of_answers
from pytest_mlpatterns.analysis.verdicts import judge_limit
from pytest_mlpatterns.errors import InvalidResultError, SettingError
from pytest_mlpatterns.records.outcomes import describe_failures
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.units import SECOND_NS, format_percent
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.analysis.metric_definitions import Metric
    from pytest_mlpatterns.analysis.metrics import Metrics
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.records.launch import Estimate, LaunchValue

    ReadMetric = Callable[[Metrics, float, Sequence[LaunchValue]], Estimate | None]

__all__ = ["LimitAssertions", "check_percentile", "limit_plan"]

_LIMIT_ALPHA = 0.02
"""Probability, over all interim looks, of failing a value exactly at the limit, if launches vary as the prior expects.

Up to 2.5 % if they vary by up to 8 % and a baseline entry shows it (``benchmarks/verdict_simulation.py``).
"""


def check_percentile(percentile: object, name: str) -> None:
    """Refuse what is no percentile of a latency.

    Args:
        percentile: what was given.
        name: of the assertion, for the message.

    Raises:
        SettingError: not a number, or below 1, or not below 100.
    """
    if not isinstance(percentile, int | float) or isinstance(percentile, bool):
        given = shown(percentile)
        number = re.sub(r"[^\d.]", "", given)[:9] or "95"
        raise SettingError(f"{name}(...): percentile is {given}, expected a number; write percentile={number}")
    try:
        min_samples(percentile)
    except ValueError as error:
        raise SettingError(f"{name}(percentile={shown(percentile)}): {error}") from None


def limit_plan(max_launches: int) -> SequentialPlan:
    """The plan by which a limit is judged: after every launch."""
    return SequentialPlan(first=1, last=max_launches, alpha=_LIMIT_ALPHA)


class LimitAssertions:
    """Judges limits of one test.

    Args:
        experiment: what is measured.
        measurement: what was measured so far; grows as verdicts need it.
    """

    def __init__(self, experiment: Experiment, measurement: SequentialMeasurement) -> None:
        self._experiment = experiment
        self._measurement = measurement

    def decide(
        self,
        metric: Metric,
        limit: float,
        read: ReadMetric | None = None,
    ) -> Verdict | None:
        """Measure until it is decided whether a metric keeps a limit.

        Args:
            metric: which one.
            limit: in the metric's unit.
            read: reads the metric at a confidence, with the scatter of the launches of a baseline entry; by default
                :meth:`Metrics.interval_of` does.

        Returns:
            The verdict; None in a smoke run.

        Raises:
            DeploymentError: the deployment did not start, or died.
            InvalidResultError: the measurement supports no verdict, or does not know the metric.
        """
        plan = limit_plan(self._experiment.settings.launches)
        entry = self._experiment.baseline.entry
        scatter = () if entry is None else entry.metrics.get(metric.name, ())

        def judge() -> Verdict:
            self._measurement.require_valid(errors_count=metric.name != "error_rate")
            size = self._measurement.sample_size(metric)
            confidence, metrics = plan.confidence(size.launches), self._measurement.metrics
            measured = (
                read(metrics, confidence, scatter) if read else metrics.interval_of(metric, confidence, scatter=scatter)
            )
            if measured is None:
                raise InvalidResultError(self._why_unknown(metric))
            if math.isinf(measured.high):
                return _judge_with_failures(metric, measured, limit, metrics=metrics)
            verdict = judge_limit(metric, measured, limit, size=size, modes=metrics.modes_of(metric))
            left_out = metrics.unjudged(metric)
            return _with_reason(verdict, left_out) if left_out else verdict

        self._measurement.measure_at_least(1)
        if self._experiment.smoke:
            return None
        why = self._why_hopeless(metric, limit, plan)
        return _with_reason(judge(), why) if why else self._measurement.decide(judge)

    def _why_hopeless(self, metric: Metric, limit: float, plan: SequentialPlan) -> str:
        """Why no number of further launches decides an error rate, which is left open then; empty if they may.

        Without a failure so far nothing speaks for a high rate, and too few requests to exclude one stay too few. So
        the time is left to the other assertions.
        """
        metrics = self._measurement.metrics
        if metric.name != "error_rate" or not metrics.requests or metrics.failures:
            return ""
        last = self._measurement.reachable_launches
        requests = metrics.requests * last // len(metrics.launches)
        wanted = wilson_interval(0, requests, plan.confidence(last)).high
        if wanted < limit:
            return ""
        needed = math.ceil(requests * wanted / (1 - wanted) * (1 - limit) / limit)
        return (
            f"none of {metrics.requests:,} requests failed, and {needed:,} without a failure decide it; the test has "
            f'time for {requests:,}: measure longer (duration="{self._duration_s(needed, last)}s")'
        )

    def _duration_s(self, requests: int, launches: int) -> int:
        """Seconds of a window with which the launches have so many requests together."""
        metrics = self._measurement.metrics
        seconds = sum(launch.window.duration_ns for launch in metrics.launches) / SECOND_NS
        return math.ceil(requests / launches * seconds / metrics.requests)

    def _why_unknown(self, metric: Metric) -> str:
        pattern = self._experiment.setup.pattern
        if metric.of_streams and any(launch.samples.stream for launch in self._measurement.metrics.launches):
            return f"the streams have no chunk with content, so there is no {metric.label}; yield at least one"
        if metric.of_streams:
            seen = form_of_answers(self._measurement.metrics.launches)
            return (
                f"the answers do not stream, so there is no {metric.label}{seen}; expected a model that yields, or a "
                "service that answers with server-sent events, or with JSON lines or chunks in chunked transfer"
            )
        if metric.name == "cache_hit_ratio":
            ours = self._experiment.system.model is not None
            use = "Cached()" if ours else 'metrics=Prometheus("/metrics", cache_hits="...", cache_misses="...")'
            return f"{pattern} has no cache that was asked, so there is no {metric.label}; use {use}"
        return f"{metric.label} is not known for {pattern}; name its process: Url(..., pid=...)"


def _with_reason(verdict: Verdict, more: str) -> Verdict:
    return replace(verdict, reason=f"{verdict.reason}; {more}")


def _judge_with_failures(metric: Metric, measured: Estimate, limit: float, *, metrics: Metrics) -> Verdict:
    """The verdict on a percentile that so many requests failed for that it may have no value: they are the latest."""
    _, percentile = metric.stream or ("latency", metric.percentile)
    assert percentile is not None  # nothing else is infinite
    failed = format_percent(sum(metrics.failures.values()) / metrics.requests)
    beyond = format_percent(1 - percentile / 100)
    fails = measured.low >= limit
    reason = (
        f"{metric.label} {'is not' if fails else 'may or may not be'} below {metric.show(limit)}: {failed} of the "
        f"requests failed ({describe_failures(metrics.failures)}), a failed request counts as infinitely late, and "
        f"{beyond} may take longer"
    )
    return Verdict(metric.name, "limit", Outcome.FAIL if fails else Outcome.INCONCLUSIVE, reason)
