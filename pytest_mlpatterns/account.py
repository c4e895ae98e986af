"""The account of one test: from its evidence and verdicts to the plain values that reports and the baseline take.

It must not know pytest, and judges nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.catalog import METRICS, Metric, metric_named
from pytest_mlpatterns.errors import UncountableResultError
from pytest_mlpatterns.load.job import describe_failures
from pytest_mlpatterns.records import TestResult
from pytest_mlpatterns.reports.facts import describe_capacity, describe_layer
from pytest_mlpatterns.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.evidence import Evidence
    from pytest_mlpatterns.metrics import Metrics
    from pytest_mlpatterns.records import Estimate, Judgement, Setup

__all__ = ["estimate_or_none", "result_of", "searched_for"]


def result_of(  # noqa: PLR0913 - the pieces of one record, by name
    evidence: Evidence,
    *,
    test: str,
    setup: Setup,
    judgements: Sequence[Judgement],
    baseline_note: str,
    passed: bool,
) -> TestResult | None:
    """Everything for reports and the baseline; None where nothing was measured."""
    metrics = evidence.so_far
    if metrics is None:
        return None
    launches, estimates = {}, {}
    others = [metric for metric in searched_for(metrics) if metric.name not in METRICS]
    for metric in (*METRICS.values(), *others):
        if (found := estimate_or_none(metrics, metric)) is not None:
            estimates[metric.name] = (found.value, found.low, found.high)
            values = metrics.launch_values(metric)
            launches[metric.name] = tuple((value.value, value.relative_error) for value in values)
    return TestResult(
        test=test,
        passed=passed,
        setup=setup,
        metrics=estimates,
        launches=launches,
        judgements=tuple(judgements),
        requests=metrics.requests,
        failed_requests={str(code): count for code, count in metrics.failures.items()},
        blocks=metrics.blocks,
        launch_count=len(metrics.launches),
        seconds_spent=evidence.spent_s,
        baseline_note=baseline_note,
        notes=_notes(metrics, evidence, setup),
        load_over_time=tuple(metrics.load_over_time()),
        capacities=metrics.capacities,
        layers=metrics.layers,
        generator={
            "cpu_ns_per_request": metrics.generator.cpu_ns_per_request,
            "send_lag_p99_ns": metrics.generator.send_lag_ns(99) if metrics.requests else None,
            "limited": metrics.generator.limited is not None,
        },
        interrupted=evidence.interrupted,
    )


def estimate_or_none(metrics: Metrics, metric: Metric) -> Estimate | None:
    """A metric of this result, None where it does not apply or has too few samples to be told."""
    try:
        if metric.name == "error_rate":
            return metrics.error_ratio if metrics.requests else None
        if metric.percentile is not None:
            return metrics.latency_ns(metric.percentile)
    except UncountableResultError:
        return None
    return None if metrics.only_at_least(metric) else metrics.estimate(metric)


def searched_for(metrics: Metrics) -> list[Metric]:
    """NMRT as a test searched for it: alone, and under each objective."""
    objectives = dict.fromkeys(capacity.objective for capacity in metrics.capacities)
    return [metric_named("nmrt" if one is None else f"nmrt({one})") for one in objectives]


def _notes(metrics: Metrics, evidence: Evidence, setup: Setup) -> tuple[str, ...]:
    notes = []
    if any(launch.warmup.steady is False for launch in metrics.launches):
        notes.append("the warm-up ended by its time limit, not because the load was steady")
    if metrics.failures:
        failed = sum(metrics.failures.values())
        notes.append(f"{failed:,} of {metrics.requests:,} requests failed ({describe_failures(metrics.failures)})")
    if any(launch.generator.connection_limit_reached for launch in metrics.launches):
        notes.append("the load generator had all its connections in use; some requests waited for one")
    overhead = metrics.launches[-1].generator.library_overhead_ns
    if overhead is not None:
        notes.append(
            f"driven through a client library, which adds about {format_duration(overhead)} to every request here"
        )
    if metrics.generator.limited:
        notes.append(metrics.generator.limited)
    if evidence.dropped:
        notes.append(
            f"{evidence.dropped} of {evidence.dropped + len(metrics.launches)} launches were dropped "
            "and measured again, because the load generator was the limit"
        )
    replaced = sum(launch.stats.replaced for launch in metrics.launches if launch.stats)
    if replaced:
        notes.append(f"{replaced} worker process{'es' if replaced > 1 else ''} died under load and came back")
    if not setup.load.startswith(("stages", "trace")):  # a load that changes by itself has a trend
        notes += [trend for blocks in metrics.by_launch if (trend := blocks.trend())]
    notes += [describe_capacity(capacity) for capacity in metrics.capacities]
    notes += [text for layer in metrics.layers if (text := describe_layer(layer))]
    return tuple(notes)
