"""What is compared if the answers of only one side stream.

A service that no longer streams has a time to first token nevertheless: that of the whole answer, which is the first
content that its callers see. So TTFT is judged, beside the metrics of whole answers. This module must not know how
launches are measured.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import geometric_mean
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metric_definitions import LOCATIONS, metric_named, percentile_metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.analysis.metric_definitions import Metric
    from pytest_mlpatterns.analysis.metrics import Metrics
    from pytest_mlpatterns.judging.compared_metrics import Choice, ComparedMetric
    from pytest_mlpatterns.records.baseline_entry import Entry
    from pytest_mlpatterns.records.launch import LaunchValue
    from pytest_mlpatterns.records.verdict import Verdict

__all__ = ["choose", "failed_by_whole_answers", "noted", "present_values", "why_left_out"]

_FIRST = "ttft"


def choose(choice: Choice, *, before: bool, now: bool) -> Sequence[ComparedMetric]:
    """The metrics to compare: those of streams if both sides stream, and TTFT too if the present no longer does.

    Args:
        choice: the metrics, given whether answers stream.
        before: whether the answers of the reference stream.
        now: whether those of the present do.
    """
    whole = choice(before and now)
    if not before or now:
        return whole
    names = {one.metric.name for one in whole}
    further = [one for one in choice(True) if one.metric.name == _FIRST and one.metric.name not in names]
    primary = sum(not one.is_guard for one in whole)
    if not further or not primary:
        return [*whole, *further]
    divided = primary / (primary + len(further))  # the primary metrics share the probability of a false alarm
    shared = [one if one.is_guard else replace(one, alpha=one.alpha * divided) for one in whole]
    alpha = next(one.alpha for one in shared if not one.is_guard)
    return [*(replace(one, alpha=alpha) for one in further), *shared]


def why_left_out(choice: Choice, *, before: bool, now: bool) -> dict[str, str]:
    """Why the metrics of streams are not compared, by label, if only one side streams; arguments as above."""
    if before == now:
        return {}
    why = "is not known: the answers no longer stream" if before else "is not known before: the answers stream now only"
    whole = {one.metric.name for one in choice(False)} | ({_FIRST} if before else set())
    return {one.metric.label: why for one in choice(True) if one.metric.name not in whole}


def present_values(present: Metrics, metric: Metric, before: Sequence[LaunchValue]) -> Sequence[LaunchValue]:
    """A metric in each launch of the present; of a service that no longer streams, TTFT is that of whole answers.

    Args:
        present: what was measured.
        metric: which one.
        before: the metric in the launches of the reference; empty if it is not known.
    """
    found = present.launch_values(metric)
    whole = _of_whole_answers(metric)
    return present.launch_values(whole) if not found and before and whole is not None else found


def noted(verdict: Verdict, metric: Metric, present: Metrics) -> Verdict:
    """A verdict that says so if it judges the TTFT of a service that no longer streams."""
    if present.streams or _of_whole_answers(metric) is None:
        return verdict
    why = "the answers no longer stream, so the first content is the whole answer"
    return replace(verdict, reason=f"{verdict.reason}; {why}")


def failed_by_whole_answers(verdicts: Sequence[Verdict], entry: Entry, present: Metrics) -> frozenset[str]:
    """Names of the metrics that fail on any machine, since the answers no longer stream.

    These are the TTFT verdicts for which the whole answers of the baseline itself took too long.
    """
    if present.streams:
        return frozenset()
    return frozenset(
        verdict.metric
        for verdict in verdicts
        if verdict.metric == _FIRST
        and (whole := _of_whole_answers(metric_named(verdict.figure))) is not None
        and (values := [one.value for one in entry.metrics.get(whole.name, ()) if one.value > 0])
        and geometric_mean(values) > (verdict.reference_value or 0.0) * (1 + (verdict.tolerance or 0.0))
    )


def _of_whole_answers(metric: Metric) -> Metric | None:
    """The same figure of whole answers, if it is one of TTFT; None for other metrics."""
    if metric.stands_for == _FIRST:
        return LOCATIONS["rtm"]
    return percentile_metric(metric.stream[1]) if metric.stream is not None and metric.stream[0] == _FIRST else None
