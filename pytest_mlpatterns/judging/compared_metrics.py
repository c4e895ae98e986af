"""Which metrics a comparison judges, and how: primary metrics and guards.

A primary metric passes only if it is shown to be within its tolerance. A guard fails if it is surely worse beyond its
tolerance, keeps the measurement going while its estimate is, and passes otherwise: it need not be known precisely. The
primary metrics share the probability of a false alarm. A guard has a level of its own, since an unchanged one is far
from its tolerance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metric_definitions import (
    COMPARED_METRICS,
    GROWTHS,
    METRICS,
    Metric,
    metric_named,
)
from pytest_mlpatterns.analysis.tolerances import STORED_TAIL_FACTOR
from pytest_mlpatterns.analysis.verdicts import GUARD_ALPHA
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.wording import did_you_mean, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_mlpatterns.analysis.tolerances import Tolerances
    from pytest_mlpatterns.config.settings import Settings
    from pytest_mlpatterns.records.acceptance import Acceptance
    from pytest_mlpatterns.records.verdict import Verdict

__all__ = [
    "Choice",
    "ComparedMetric",
    "compared_by_default",
    "compared_metrics",
    "is_asked_for",
    "marked_accepted",
    "read_metrics",
]

Choice = Callable[[bool], "Sequence[ComparedMetric]"]
"""Which metrics to compare, given whether the answers stream, which is known after a launch."""

_PRIMARY = ("rtm", "throughput")
_STREAM_PRIMARY = ("ttft", "tpot", "output_tokens")
"""In place of those, where answers stream: their whole time follows from these and from their length."""
_OF_THE_LOAD = ("throughput", "output_tokens")
"""Metrics that the schedule of an open loop sets."""
_GUARDS = ("p95", "p99", "error_rate", "cpu_per_request", "peak_memory", *GROWTHS, "cold_start", "response_bytes")
_ALWAYS_GUARDS = frozenset({"error_rate", "peak_memory", *GROWTHS, "cold_start", "request_bytes", "response_bytes"})


@dataclass(frozen=True, slots=True)
class ComparedMetric:
    """One metric of a comparison.

    Attributes:
        metric: which one.
        tolerance: largest acceptable worsening.
        alpha: probability of failing a change exactly at the tolerance, over all interim looks.
        is_guard: whether it is a guard; otherwise it is primary.
        requested: whether the test requested it itself; then a comparison that is not possible is an error.
        is_set: whether a user set the tolerance of this very metric.
        accepted: what allows more than the usual tolerance; None if nothing does.
        usual: the tolerance without an acceptance.
    """

    metric: Metric
    tolerance: float
    alpha: float
    is_guard: bool
    requested: bool
    is_set: bool = False
    accepted: Acceptance | None = None
    usual: float = 0.0

    @property
    def stored_tolerance(self) -> float:
        """The tolerance against a stored baseline: wider for the tail, unless a user set it."""
        return self.tolerance * (STORED_TAIL_FACTOR if self.metric.is_tail and not self.is_set else 1.0)


def read_metrics(names: Sequence[str], argument: str) -> list[Metric]:
    """The metrics of a comparison, by name.

    Args:
        names: a tuple of names.
        argument: where they come from, for messages; ``...`` in it is replaced.

    Raises:
        SettingError: it is no tuple, or a name in it is unknown.
    """
    for name in names if isinstance(names, list | tuple | set | frozenset) else [names]:
        if name is names or not isinstance(name, str) or name not in COMPARED_METRICS:
            hint = did_you_mean(name, COMPARED_METRICS) if isinstance(name, str) else ""
            found = argument.replace("...", shown(names))
            raise SettingError(f"{found}, {hint}expected a tuple of {', '.join(COMPARED_METRICS)}")
    return [COMPARED_METRICS[name] for name in names]


def compared_by_default(settings: Settings, *, streams: bool) -> tuple[Metric, ...]:
    """The metrics that every comparison of a test judges: those of ``compare=``, or the default ones.

    The throughput of an open loop is that of its schedule, so by default it is compared in closed loops only.

    Args:
        settings: of the test.
        streams: whether its answers come in pieces.
    """
    if settings.compare is not None:
        return tuple(metric_named(name) for name in settings.compare)
    primary = _STREAM_PRIMARY if streams else _PRIMARY
    names = [name for name in (*primary, *_GUARDS) if name not in _OF_THE_LOAD or settings.schedule.closed]
    return tuple(METRICS[name] for name in names)


def compared_metrics(
    metrics: Iterable[Metric],
    tolerances: Tolerances,
    alpha: float,
    *,
    requested: bool,
    accepted: Sequence[Acceptance] = (),
) -> Sequence[ComparedMetric]:
    """Divide the probability of a false alarm among the primary metrics that are judged together.

    Args:
        metrics: which ones.
        tolerances: of each metric.
        alpha: probability of a false alarm of all primary ones together.
        requested: whether the test requested them itself.
        accepted: worsenings that are accepted for the test; the ceiling of one takes the place of a lower tolerance.
    """
    roles = [(metric, _is_guard(metric, requested=requested)) for metric in metrics]
    primary = alpha / max(sum(not is_guard for _, is_guard in roles), 1)
    compared = [
        ComparedMetric(
            metric,
            tolerances.of(metric),
            GUARD_ALPHA if is_guard else primary,
            is_guard,
            requested,
            is_set=tolerances.names(metric),
        )
        for metric, is_guard in roles
    ]
    return [_with_ceiling(one, accepted) for one in compared]


def marked_accepted(verdict: Verdict, compared: ComparedMetric | None) -> Verdict:
    """The verdict with the acceptance that decided it, or that it went beyond.

    Args:
        verdict: of a comparison.
        compared: how the metric was compared; None if that is not known.
    """
    if compared is None or compared.accepted is None or verdict.change is None:
        return verdict
    if verdict.outcome is Outcome.PASS and verdict.change.value > compared.usual:
        return replace(verdict, accepted=str(compared.accepted))
    if verdict.outcome is Outcome.FAIL:
        return replace(verdict, reason=f"{verdict.reason}; accepted was {compared.accepted}")
    return verdict


def is_asked_for(compared: ComparedMetric, settings: Settings) -> bool:
    """Whether the test or ``compare=`` names the metric: then it is searched for, or its absence is reported."""
    return compared.requested or compared.metric.name in (settings.compare or ())


def _with_ceiling(compared: ComparedMetric, accepted: Sequence[Acceptance]) -> ComparedMetric:
    """The metric with the highest ceiling that is accepted, if that is above its tolerance."""
    known = [(ceiling, one) for one in accepted if (ceiling := one.ceiling_of(compared.metric.name)) is not None]
    ceiling, acceptance = max(known, key=lambda pair: pair[0], default=(0.0, None))
    usual = compared.stored_tolerance
    if acceptance is None or ceiling <= usual:
        return compared
    return replace(compared, tolerance=ceiling, is_set=True, accepted=acceptance, usual=usual)


def _is_guard(metric: Metric, *, requested: bool) -> bool:
    if metric.name in _ALWAYS_GUARDS or metric.is_tail:
        return True
    return not requested and metric.name in _GUARDS
