"""Whether a result is fit to be compared with later, and what speaks against recording it. Pure.

What was wrong with a measurement is a reason to measure it again, and is stored beside it if it is recorded
nevertheless. A wide entry decides little by itself; the code that it was recorded from decides then.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.compared_statistic import judged_statistic
from pytest_mlpatterns.analysis.intervals import estimate
from pytest_mlpatterns.analysis.launch_kinds import Side, two_kinds, wants_more_launches
from pytest_mlpatterns.analysis.metric_definitions import METRICS
from pytest_mlpatterns.records.launch import Estimate, LaunchValue
from pytest_mlpatterns.records.outcomes import describe_failures, error_class
from pytest_mlpatterns.records.result import State
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.units import format_percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.analysis.launch_kinds import TwoKinds
    from pytest_mlpatterns.analysis.metric import Metric
    from pytest_mlpatterns.records.result import TestResult

__all__ = ["disturbances", "is_narrow", "may_be_of_two_kinds", "reasons_not_to_record"]

_JUDGED = ("rtm",)
_JUDGED_OF_STREAMS = ("ttft", "tpot")
_NARROW_SHARE = 1 / 3
"""Half the width of an entry that decides by itself, of the tolerance: beside launches of the same scatter, twice that
width is left of a change, and a third of the tolerance is room for it."""
_MAX_FAILED_SHARE = 0.001
"""Largest share of failed requests that is no disturbance."""


def reasons_not_to_record(result: TestResult) -> tuple[str, ...]:
    """Why a measurement should be repeated before it is recorded, a phrase each; empty if nothing speaks against it.

    Args:
        result: of one test; a failed test has at least one reason.
    """
    failed = ("the test failed",) if result.outcome is State.FAILED and not result.advisory else ()
    return (*failed, *disturbances(result))


def is_narrow(result: TestResult) -> bool:
    """Whether what a comparison judges first is known to a third of the tolerance, so that the entry decides by itself.

    Judged is the scatter of the launches, since a comparison knows no more of an entry.
    """
    return all(_half_width(name, result) <= _NARROW_SHARE * result.tolerance for name in _judged(result))


def may_be_of_two_kinds(result: TestResult) -> bool:
    """Whether the launches may be of two kinds, of which one has too few for a comparison."""
    known = [_launches(_statistic(name, result), result) for name in _judged(result)]
    return any(wants_more_launches(launches) for launches in known if launches)


def disturbances(result: TestResult) -> tuple[str, ...]:
    """What was wrong with a measurement that may be recorded nevertheless, a phrase each.

    These are: noise of the machine, a load that was not steady, failed requests, an interval wider than the tolerance,
    and verdicts that stayed open. They are committed with the baseline, so an error is named by its class: its text may
    quote an input.
    """
    found = (
        *(text.partition(": ")[0] for text in result.noise),
        *result.unsteady,
        *_failures(result),
        *filter(None, [_why_too_wide(result)]),
        *(f"undecided: {verdict.reason}" for verdict in result.verdicts if verdict.outcome is Outcome.INCONCLUSIVE),
    )
    if not result.first_failure:
        return found
    return tuple(text.replace(result.first_failure, _without_text(result.first_failure)) for text in found)


def _why_too_wide(result: TestResult) -> str:
    """The width of an interval that exceeds the tolerance on either side; empty if there is none.

    Judged are RTM, or TTFT and TPOT of streams, by the statistic that a comparison judges.
    """
    return next((why for name in _judged(result) if (why := _too_wide(name, result))), "")


def _judged(result: TestResult) -> list[str]:
    names = _JUDGED if result.stream is None else _JUDGED_OF_STREAMS
    return [name for name in names if name in result.metrics]


def _statistic(name: str, result: TestResult) -> Metric:
    """The statistic of a time that a comparison with its entry would judge: that of the narrower interval."""

    def width(of: Metric) -> float:
        value, low, high = result.metrics.get(of.name, (1.0, 0.0, math.inf))
        return (high - low) / value if value else 0.0

    return judged_statistic(METRICS[name], width)


def _half_width(name: str, result: TestResult) -> float:
    """Half the relative width of a metric over the launches of an entry, as a comparison with it knows them.

    It is infinite if there are none, or one has no finite value.
    """
    metric = _statistic(name, result)
    values = _launches(metric, result)
    if not values or not all(math.isfinite(one.value) for one in values):
        return math.inf
    return max(
        map(_half, _of_each_kind(metric, values, two_kinds(Side(values))) or [estimate(values, metric.launch_sd)])
    )


def _launches(metric: Metric, result: TestResult) -> list[LaunchValue]:
    return [LaunchValue(value, error) for value, error in result.launches.get(metric.name, ())]


def _of_each_kind(metric: Metric, values: Sequence[LaunchValue], kinds: TwoKinds | None) -> list[Estimate]:
    """An estimate of each kind of launches, since each is compared with itself; none if they are of one kind."""
    return [] if kinds is None else [estimate(kinds.of(values, high=high), metric.launch_sd) for high in (False, True)]


def _half(found: Estimate) -> float:
    return (found.high - found.low) / (2 * found.value) if found.value else 0.0


def _too_wide(name: str, result: TestResult) -> str:
    metric, tolerance = _statistic(name, result), result.tolerance
    values = _launches(metric, result)
    kinds = two_kinds(Side(values))
    widest = max(_of_each_kind(metric, values, kinds) or [Estimate(*result.metrics[metric.name])], key=_half)
    half, value = _half(widest), widest.value
    if half <= tolerance:
        return ""
    why = (
        f"{metric.label} {metric.show(value)} is known to ±{format_percent(half)} only, "
        f"wider than the tolerance of {format_percent(tolerance)}"
    )
    return why if kinds is None else f"{why}; {kinds.describe(metric)}"


def _without_text(first_failure: str) -> str:
    """The first failed input and the class of its error: ``perf_payload item 7 -> ValueError``."""
    name, _, error = first_failure.partition(" -> ")
    return " -> ".join(filter(None, (name, error_class(error))))


def _failures(result: TestResult) -> list[str]:
    failed = sum(result.failed_requests.values())
    if failed <= _MAX_FAILED_SHARE * result.requests:
        return []
    kinds = describe_failures(
        {int(code): count for code, count in result.failed_requests.items()}, result.first_failure
    )
    return [f"{failed:,} of {result.requests:,} requests failed ({kinds})"]
