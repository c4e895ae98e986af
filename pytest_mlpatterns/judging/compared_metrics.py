"""Which metrics a comparison judges, and how: primary metrics and guards.

A primary metric passes only if it is shown to be within its tolerance. A guard fails if it is surely worse beyond its
tolerance, keeps the measurement going while its estimate is, and passes otherwise: it need not be known precisely. All
metrics that are judged together share the probability of a false alarm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metric_definitions import METRICS, Metric

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_mlpatterns.analysis.tolerances import Tolerances
    from pytest_mlpatterns.config.settings import Settings

__all__ = ["ComparedMetric", "compared_by_default", "compared_metrics"]

_PRIMARY = ("rtm", "throughput")
_GUARDS = ("p95", "p99", "error_rate", "cpu_per_request", "peak_memory", "cold_start", "response_bytes")
_ALWAYS_GUARDS = frozenset({"error_rate", "peak_memory", "cold_start", "request_bytes", "response_bytes"})
_SHARES = {"cpu_per_request": 2.0}
_PRIMARY_SHARE, _GUARD_SHARE = 3.0, 0.5


@dataclass(frozen=True, slots=True)
class ComparedMetric:
    """One metric of a comparison.

    Attributes:
        metric: which one.
        tolerance: largest acceptable worsening.
        alpha: probability of a false alarm, over all interim looks.
        is_guard: whether it is a guard; otherwise it is primary.
        requested: whether the test requested it itself; then a comparison that is not possible is an error.
    """

    metric: Metric
    tolerance: float
    alpha: float
    is_guard: bool
    requested: bool


def compared_by_default(settings: Settings) -> tuple[Metric, ...]:
    """The metrics that every comparison of a test judges: those of ``compare=``, or the default ones.

    The throughput of an open loop is that of its schedule, so by default it is compared in closed loops only.
    """
    if settings.compare is not None:
        return tuple(METRICS[name] for name in settings.compare)
    names = [name for name in (*_PRIMARY, *_GUARDS) if name != "throughput" or settings.schedule.closed]
    return tuple(METRICS[name] for name in names)


def compared_metrics(
    metrics: Iterable[Metric], tolerances: Tolerances, alpha: float, *, requested: bool
) -> Sequence[ComparedMetric]:
    """Divide the probability of a false alarm among metrics that are judged together.

    A guard has a small share, since the changes that it looks for are large; CPU time per request has a larger one.

    Args:
        metrics: which ones.
        tolerances: of each metric.
        alpha: probability of a false alarm of all of them together.
        requested: whether the test requested them itself.
    """
    roles = [(metric, _is_guard(metric, requested=requested)) for metric in metrics]
    shares = [_SHARES.get(metric.name, _GUARD_SHARE) if is_guard else _PRIMARY_SHARE for metric, is_guard in roles]
    return [
        ComparedMetric(metric, tolerances.of(metric), alpha * share / sum(shares), is_guard, requested)
        for (metric, is_guard), share in zip(roles, shares, strict=True)
    ]


def _is_guard(metric: Metric, *, requested: bool) -> bool:
    if metric.name in _ALWAYS_GUARDS or (metric.percentile is not None and metric.name != "rtm"):
        return True
    return not requested and metric.name in _GUARDS
