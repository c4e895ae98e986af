"""From estimates to PASS, FAIL or INCONCLUSIVE, with the reason in words.

Pure. A verdict compares an interval with a limit, or an interval of a change with a tolerance; never one number with
another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.load.job import describe_failures
from pytest_mlpatterns.records import Estimate, Judgement, Outcome
from pytest_mlpatterns.statistics import estimate, ratio_of
from pytest_mlpatterns.units import format_percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.catalog import Metric
    from pytest_mlpatterns.metrics import Metrics
    from pytest_mlpatterns.records import LaunchValue

__all__ = ["MAX_ERROR_RATIO", "describe_estimate", "judge_change", "judge_limit", "why_uncountable"]


_ROUNDING = 1e-12
"""110 against 100 is 10 % more, not 10.000000000000009 %."""
MAX_ERROR_RATIO = 0.05
"""With a larger share of failed requests, the latency of the others says nothing about the service."""


def why_uncountable(metrics: Metrics, *, errors_count: bool = True) -> str | None:
    """Why what was measured supports no verdict; None where it does.

    Args:
        metrics: what was measured.
        errors_count: whether too many failed requests are such a reason; they are not for a verdict on the error rate.
    """
    if not metrics.requests:
        return "no request was due in the measured window; measure longer (duration=) or with more load"
    kinds = describe_failures(metrics.failures)
    failed = sum(metrics.failures.values())
    if failed == metrics.requests:
        return f"none of {failed:,} requests succeeded ({kinds})"
    if errors_count and failed > MAX_ERROR_RATIO * metrics.requests:
        return (
            f"{failed:,} of {metrics.requests:,} requests failed ({kinds}); "
            f"over {format_percent(MAX_ERROR_RATIO)} the others say nothing about the service"
        )
    return metrics.generator.limited


def describe_estimate(metric: Metric, value: Estimate) -> str:
    """An estimate as text: ``RTM 4.12 ms (4.05 ms to 4.19 ms)``."""
    if value.low == value.high:
        return f"{metric.label} {metric.show(value.value)}"
    return f"{metric.label} {metric.show(value.value)} ({metric.show(value.low)} to {metric.show(value.high)})"


def judge_limit(metric: Metric, measured: Estimate, limit: float) -> Judgement:
    """Compare with a limit that the test asserts.

    PASS when the whole interval is on the good side (the limit itself included for metrics where higher is better, not
    for the others), FAIL when it is wholly on the bad side.
    """
    below = metric.better == "lower"
    if measured.high < limit if below else measured.low >= limit:
        outcome, verb = Outcome.PASS, "is"
    elif measured.low >= limit if below else measured.high < limit:
        outcome, verb = Outcome.FAIL, "is not"
    else:
        outcome, verb = Outcome.INCONCLUSIVE, "may or may not be"
    wanted = f"{'below' if below else 'at least'} {metric.show(limit)}"
    return Judgement(metric.name, "limit", outcome, f"{describe_estimate(metric, measured)} {verb} {wanted}")


def judge_change(
    metric: Metric, present: Sequence[LaunchValue], baseline: Sequence[LaunchValue], tolerance: float
) -> Judgement:
    """Compare with a baseline.

    The change is present/baseline - 1, turned so that worse is positive where higher is better. FAIL when the whole
    99 % interval of the change is beyond the tolerance and the change is larger than the metric's absolute floor; PASS
    when the whole interval is within the tolerance, or the change is below the floor.

    Args:
        metric: what is compared.
        present: one value per launch, at least one.
        baseline: likewise, as recorded.
        tolerance: largest acceptable worsening, 0.10 for 10 %.
    """
    now, then = estimate(present, metric.launch_sd), estimate(baseline, metric.launch_sd)
    change = _change(metric, present, baseline)
    small = abs(now.value - then.value) <= metric.floor
    if change.high <= tolerance + _ROUNDING or small:
        outcome = Outcome.PASS
    elif change.low > tolerance + _ROUNDING:
        outcome = Outcome.FAIL
    else:
        outcome = Outcome.INCONCLUSIVE
    word, low, high = ("worse", change.low, change.high) if change.value >= 0 else ("better", -change.high, -change.low)
    spread = (
        ""
        if change.low == change.high
        else (f", 99 % interval {format_percent(low, signed=True)} to {format_percent(high, signed=True)}")
    )
    floor = f"; changes up to {metric.show(metric.floor)} do not count" if small and change.high > tolerance else ""
    reason = (
        f"{metric.label} {metric.show(then.value)} → {metric.show(now.value)}: "
        f"{format_percent(abs(change.value))} {word}{spread}; tolerance {format_percent(tolerance)}{floor}"
    )
    return Judgement(metric.name, "baseline", outcome, reason, change)


def _change(metric: Metric, present: Sequence[LaunchValue], baseline: Sequence[LaunchValue]) -> Estimate:
    if metric.launch_sd == 0 or any(launch.value <= 0 for launch in (*present, *baseline)):
        smallest = max(metric.floor, 1e-9)
        now, then = (max(estimate(side, 0.0).value, smallest) for side in (present, baseline))
        ratio = Estimate(now / then, now / then, now / then)
    else:
        ratio = ratio_of(present, baseline, metric.launch_sd)
    if metric.better == "lower":
        return Estimate(ratio.value - 1, ratio.low - 1, ratio.high - 1)
    return Estimate(1 - ratio.value, 1 - ratio.high, 1 - ratio.low)
