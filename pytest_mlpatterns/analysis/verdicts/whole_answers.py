"""A service that no longer streams: its TTFT is the whole answer's, the first content that its callers see.

So TTFT is judged beside the metrics of whole answers. This module must not know how launches are measured.
"""

from __future__ import annotations

from statistics import geometric_mean
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metrics.definitions import LOCATIONS, leading_time, metric_named
from pytest_mlpatterns.analysis.metrics.metric import Location, Metric, StreamPercentile
from pytest_mlpatterns.analysis.metrics.metric_makers import percentile_metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.analysis.metrics.metrics import Metrics
    from pytest_mlpatterns.records.baseline_entry import Entry
    from pytest_mlpatterns.records.launch import LaunchValue
    from pytest_mlpatterns.records.verdict import Verdict


def present_values(present: Metrics, metric: Metric, before: Sequence[LaunchValue]) -> Sequence[LaunchValue]:
    """A metric in the launches of the present; of a service that no longer streams, TTFT is whole answers'.

    ``before``: the metric in the launches of the reference; empty if it is not known.
    """
    found = present.comparable_values(metric)
    whole = _of_whole_answers(metric)
    return present.comparable_values(whole) if not found and before and whole is not None else found


def noted(verdict: Verdict, metric: Metric, present: Metrics) -> Verdict:
    """A verdict with a note if it judges the TTFT of a service that no longer streams."""
    if present.streams or _of_whole_answers(metric) is None:
        return verdict
    return verdict.saying("the answers no longer stream, so the first content is the whole answer")


def failed_by_whole_answers(verdicts: Sequence[Verdict], entry: Entry, present: Metrics) -> frozenset[str]:
    """Names of the metrics that fail on any machine, since the answers no longer stream.

    These are the TTFT verdicts for which the whole answers of the baseline itself took too long.
    """
    if present.streams:
        return frozenset()
    return frozenset(
        verdict.metric
        for verdict in verdicts
        if verdict.metric == leading_time(streams=True).name
        and (whole := _of_whole_answers(metric_named(verdict.figure))) is not None
        and (values := [one.value for one in entry.metrics.get(whole.name, ()) if one.value > 0])
        and geometric_mean(values) > (verdict.reference_value or 0.0) * (1 + (verdict.tolerance or 0.0))
    )


def _of_whole_answers(metric: Metric) -> Metric | None:
    """The same figure of whole answers, if it is one of TTFT; None for other metrics."""
    first = leading_time(streams=True).name
    match metric.kind:
        case Location(stands_for) if stands_for == first:
            return LOCATIONS[leading_time(streams=False).name]
        case StreamPercentile(quantity, percentile) if quantity == first:
            return percentile_metric(percentile)
    return None
