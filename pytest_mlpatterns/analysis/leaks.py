"""Whether a growth is a leak: PASS, FAIL or INCONCLUSIVE against a limit, with the reason in words.

Pure. It must not know how the growth was measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.growth import requests_to_decide
from pytest_mlpatterns.records.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from pytest_mlpatterns.analysis.metric import Metric
    from pytest_mlpatterns.records.launch import Estimate
    from pytest_mlpatterns.records.resource_track import Growth

__all__ = ["describe_growth", "is_leak", "judge_leak"]

_NOTHING = 0.05
"""Bytes or pieces that print as 0."""
_NAMES = {"rss_bytes": "resident memory grows", "descriptors": "open descriptors grow", "threads": "threads grow"}


def is_leak(metric: Metric, growth: Growth, limit: float) -> bool:
    """Whether a resource surely leaks more than a limit.

    Args:
        metric: of the growth of a resource.
        growth: what was found.
        limit: in the metric's unit.
    """
    return growth.exceeds(limit / metric.per, metric.least_gain)


def judge_leak(metric: Metric, growth: Growth, limit: float, *, is_whole: bool) -> Verdict:
    """Compare a growth with a limit.

    PASS if the growth is surely below the limit in the second half or in the last quarter of the requests. FAIL if
    the load had its whole length, and the growth is surely above the limit, large enough, and does not level off.

    Args:
        metric: of the growth of a resource.
        growth: what was found.
        limit: in the metric's unit.
        is_whole: whether the load had its whole length, or must not go on; else a growth is not judged as a leak yet.
    """
    low_enough = growth.stays_below(limit / metric.per)
    if low_enough:
        outcome = Outcome.PASS
    else:
        outcome = Outcome.FAIL if is_whole and is_leak(metric, growth, limit) else Outcome.INCONCLUSIVE
    recent = low_enough and growth.slope.high >= limit / metric.per
    reason = f"{describe_growth(metric, growth, recent=recent)}; the limit is {_amount(metric, limit)}"
    if outcome is Outcome.INCONCLUSIVE:
        reason += f", and that is open{_what_decides(metric, growth, limit)}"
    return Verdict(metric.name, "limit", outcome, reason)


def describe_growth(metric: Metric, growth: Growth, *, recent: bool = False) -> str:
    """A growth in words: ``resident memory grows by 1.02 KiB (±0.10 KiB) per request over 5,000 requests, …``.

    Args:
        metric: of the growth of a resource.
        growth: what was found.
        recent: whether the growth in the last quarter is given, and not that in the second half.
    """
    found = growth.recent if recent else growth.slope
    each = "request" if metric.per == 1 else f"{metric.per:,} requests"
    text = f"{_NAMES[metric.resource]} by {_with_error(metric, found)} per {each} over {growth.requests:,} requests"
    if recent:
        return f"{text}, in their last quarter"
    if found.low <= 0:
        return text
    return f"{text}, {'levelling off' if growth.levels_off else 'not levelling off in the second half'}"


def _with_error(metric: Metric, found: Estimate) -> str:
    half = (found.high - found.low) / 2
    return f"{_amount(metric, metric.per * found.value)} (±{_amount(metric, metric.per * half)})"


def _amount(metric: Metric, value: float) -> str:
    return metric.show(0.0 if abs(value) < _NOTHING else value)


def _what_decides(metric: Metric, growth: Growth, limit: float) -> str:
    """The requests that would decide, as the end of a sentence; empty if they cannot be said."""
    needed = requests_to_decide(growth, limit / metric.per, metric.least_gain)
    if needed is None or needed <= growth.requests:
        return ""
    return f"; about {_rounded(needed):,} requests would decide, measure longer (duration=)"


def _rounded(number: int) -> int:
    """A number to two digits."""
    return int(float(f"{number:.1e}"))
