"""The metrics of a result: which ones its launches give, and what each comes to."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metric_definitions import (
    LOCATIONS,
    METRICS,
    Metric,
    is_known_metric,
    metric_named,
    nmrt_metric,
)
from pytest_mlpatterns.errors import InvalidResultError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.analysis.metrics import Metrics
    from pytest_mlpatterns.records.launch import Estimate

__all__ = ["estimate_or_none", "estimates_of", "launch_values_of", "searched_for"]

_OF_SUCCESSES = ("throughput", "cpu_per_request", "cost", "given_cost", "energy_per_request")


def estimate_or_none(metrics: Metrics, metric: Metric) -> Estimate | None:
    """A metric of this result; None if it does not apply or has too few samples.

    If every request failed, the rate and the CPU time of successful answers would be those of requests from before the
    window, and are None.
    """
    if metric.name in _OF_SUCCESSES and 0 < metrics.requests == sum(metrics.failures.values()):
        return None
    try:
        if metric.name == "error_rate":
            return metrics.error_ratio if metrics.requests else None
        return None if metrics.only_at_least(metric) else metrics.interval_of(metric)
    except InvalidResultError:
        return None


def searched_for(metrics: Metrics) -> list[Metric]:
    """The NMRT metrics that the test searched for: without an objective, and under each."""
    return [nmrt_metric(one) for one in dict.fromkeys(capacity.objective for capacity in metrics.capacities)]


def estimates_of(metrics: Metrics, judged: Sequence[str] = ()) -> list[tuple[Metric, Estimate]]:
    """Every metric that the launches give, and the goodput under the objectives that were judged."""
    others = [metric for metric in searched_for(metrics) if metric.name not in METRICS]
    others += [
        metric_named(name) for name in dict.fromkeys(judged) if name.startswith("goodput(") and is_known_metric(name)
    ]
    found = [
        (metric, estimate_or_none(metrics, metric)) for metric in (*METRICS.values(), *LOCATIONS.values(), *others)
    ]
    return [(metric, value) for metric, value in found if value is not None and math.isfinite(value.high)]


def launch_values_of(metrics: Metrics, metric: Metric) -> tuple[tuple[float, float], ...]:
    """The value of each launch, and its relative error."""
    return tuple((value.value, value.relative_error) for value in metrics.launch_values(metric))
