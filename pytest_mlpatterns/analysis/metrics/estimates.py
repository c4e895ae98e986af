"""Every metric that launches give, as results have them: value and interval, and the value of each launch.

Pure. This module must not know which metrics are judged, nor how they are shown.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple

from pytest_mlpatterns.analysis.metrics.definitions import (
    LOCATIONS,
    METRICS,
    is_known_metric,
    metric_named,
    nmrt_metric,
    own_metrics,
)
from pytest_mlpatterns.analysis.metrics.metric import FigureOfAnswers, Goodput, Metric, Role
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.errors import InvalidResultError
from pytest_mlpatterns.records.launch import Estimate

_RANKS = (50, 95, 99)  # Percentiles of a figure of answers that a result has


def estimated(
    metrics: Metrics, judged: Sequence[str] = ()
) -> tuple[dict[str, tuple[float, float, float]], dict[str, tuple[tuple[float, float], ...]]]:
    """Every metric that the launches give, and its ``(value, relative_error)`` of each launch, both by its name."""
    estimates = estimates_of(metrics, judged)
    return (
        plain({metric.name: found for metric, found in estimates}),
        {
            metric.name: tuple((one.value, one.relative_error) for one in metrics.launch_values(metric))
            for metric, _ in estimates
        },
    )


def estimate_or_none(metrics: Metrics, metric: Metric) -> Estimate | None:
    """A metric of this result; None if it does not apply or has too few samples.

    If every request failed, the rate and the CPU time of successful answers would be those of requests from before the
    window, and are None.
    """
    if Role.OF_ANSWERS in metric.roles and 0 < metrics.requests == sum(metrics.failures.values()):
        return None
    try:
        return None if metrics.only_at_least(metric) else metrics.interval_of(metric)
    except InvalidResultError:
        return None


def searched_for(metrics: Metrics | None) -> list[Metric]:
    """The NMRT metrics that the test searched for: without an objective, and under each."""
    capacities = () if metrics is None else metrics.capacities
    return [nmrt_metric(one) for one in dict.fromkeys(capacity.objective for capacity in capacities)]


def estimates_of(metrics: Metrics, judged: Sequence[str] = ()) -> list[tuple[Metric, Estimate]]:
    """Every metric that the launches give, and the goodput and the percentiles of figures that were judged."""
    own, figures = own_metrics(), [name for name in metrics.by_launch[0].figures if is_known_metric(name)]
    others = [metric for metric in searched_for(metrics) if metric.name not in METRICS]
    names = [*(f"{name}:p{rank}" for name in figures for rank in _RANKS), *judged]
    wanted = [metric_named(name) for name in dict.fromkeys(names) if is_known_metric(name) and name not in own]
    others += [metric for metric in wanted if isinstance(metric.kind, Goodput | FigureOfAnswers)]
    known = (*METRICS.values(), *own.values(), *LOCATIONS.values(), *others)
    found = [(metric, estimate_or_none(metrics, metric)) for metric in known]
    return [(metric, value) for metric, value in found if value is not None and math.isfinite(value.high)]


def plain(estimates: Mapping[str, Estimate]) -> dict[str, tuple[float, float, float]]:
    """Estimates as plain values: the value and both ends of the interval."""
    return {name: astuple(found) for name, found in estimates.items()}
