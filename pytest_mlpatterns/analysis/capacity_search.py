"""NMRT: the most requests per second that a deployment sustains, and the concurrency that reaches it.

Pure: two searches over functions that measure, with no clock and no socket of their own.

:func:`climb` is a closed-loop ladder, since every concurrency has a steady state while an arrival rate above capacity
measures only its own backlog. :func:`highest_rate` looks for the highest open-loop rate that keeps a latency objective,
by bisection; each of its probes stops as soon as a binomial interval of the violations is on one side.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.intervals import median_error, wilson_interval
from pytest_mlpatterns.records.launch import Capacity, LaunchValue, Step
from pytest_mlpatterns.units import MAX_CONCURRENCY, format_rate

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.records.objective import Objective

__all__ = ["DECIDED", "MAX_STEP_ERROR_RATIO", "Probe", "climb", "highest_rate"]

MAX_STEP_ERROR_RATIO = 0.01
"""Largest share of failed requests that a step may have and still count as sustained."""
DECIDED = "decided"
"""Reason of a search that ended because the caller's question was decided."""
_GAIN = 1.10
_FLAT_DOUBLINGS = 2
_PLATEAU = 0.95
_RESOLUTION = 0.03
_MAX_PROBES = 12
_PROBE_WINDOWS = 6
_PROBE_CONFIDENCE = 0.90


@dataclass(frozen=True, slots=True)
class Probe:
    """One window of an open-loop rate: requests due, and those over the objective or failed.

    ``violations_unlagged`` counts those that would be without the time by which the generator sent them late;
    ``limited`` is the reason why the generator was the limit; None if it was not.
    """

    requests: int
    violations: int
    violations_unlagged: int
    limited: str | None


def climb(
    measure: Callable[[int], Step],
    *,
    out_of_time: Callable[[], bool],
    decided: Callable[[LaunchValue], bool] = lambda _value: False,
    max_concurrency: int = MAX_CONCURRENCY,
) -> Capacity:
    """Double the concurrency until throughput stops growing, then confirm the knee.

    The ladder ends at two doublings in a row with under 10 % gain, at over 1 % of failed requests, if the generator is
    the limit, if time is up, or if ``decided`` is true. The plateau is made of the steps within 5 % of the best
    one; NMRT is the median over all short windows of the plateau, not their maximum, which would grow with the number
    of tries. Knee and twice the knee are then measured again in the order A B B A. The knee is the smallest concurrency
    with 95 % of NMRT.

    Args:
        measure: throughput at a concurrency, in several short windows.
        out_of_time: whether the search has to end.
        decided: whether the throughput of a step already decides the caller's question.
        max_concurrency: last concurrency of the ladder.

    Returns:
        The capacity; ``at_least`` is set if the search ended before the deployment degraded.
    """
    ladder: list[Step] = []
    concurrency, best, flat = 1, 0.0, 0
    while True:
        ladder.append(step := measure(concurrency))
        if step.limited:
            return _open_end(ladder, f"the load generator was the limit at concurrency {concurrency}: {step.limited}")
        if step.error_ratio > MAX_STEP_ERROR_RATIO or not step.rates_rps:
            stopped = f"requests failed at concurrency {concurrency}"
            break
        if decided(_value(step.rates_rps)):
            return _open_end(ladder, DECIDED)
        flat, best = flat + 1 if best and step.rate_rps < best * _GAIN else 0, max(best, step.rate_rps)
        if flat == _FLAT_DOUBLINGS:
            stopped = "two doublings of the concurrency gained less than 10 %"
            break
        if out_of_time():
            return _open_end(ladder, f"the time was up at concurrency {concurrency}")
        if concurrency * 2 > max_concurrency:
            return _open_end(ladder, f"the ladder ends at concurrency {concurrency}")
        concurrency *= 2
    return _confirm(measure, ladder, stopped, out_of_time=out_of_time)


def highest_rate(
    probe: Callable[[float], Probe],
    objective: Objective,
    capacity_rps: float,
    *,
    out_of_time: Callable[[], bool],
) -> tuple[LaunchValue, str | None]:
    """The highest arrival rate that meets the objective, by bisection between zero and the capacity.

    Args:
        probe: one window of open-loop load at a rate.
        objective: the latency objective.
        capacity_rps: a rate that cannot be exceeded.
        out_of_time: whether the search has to end.

    Returns:
        The rate, with half the final interval of the bisection as its relative error; and why the load generator, not
        the deployment, was the limit, None if it was not.
    """
    low, high = 0.0, capacity_rps * 1.05
    rate = capacity_rps * 0.9
    for _ in range(_MAX_PROBES):
        holds = _holds(probe, rate, objective)
        if isinstance(holds, str):
            return LaunchValue(low, 0.0), holds
        low, high = (rate, high) if holds else (low, rate)
        if high - low <= _RESOLUTION * high or out_of_time():
            break
        rate = (low + high) / 2 if low else high / 2
    return LaunchValue(low, (high - low) / (2 * high)), None


def _holds(probe: Callable[[float], Probe], rate: float, objective: Objective) -> bool | str:
    """Whether the objective holds at this rate; the reason as text if the generator was the limit.

    It holds if it does so although some requests were sent late; it fails if it would fail even without their lag.
    """
    allowed = 1 - objective.percentile / 100
    requests = violations = unlagged = 0
    for _ in range(_PROBE_WINDOWS):
        window = probe(rate)
        if window.limited:
            return window.limited
        requests, violations = requests + window.requests, violations + window.violations
        unlagged += window.violations_unlagged
        if requests:
            if wilson_interval(violations, requests, _PROBE_CONFIDENCE).high < allowed:
                return True
            if wilson_interval(unlagged, requests, _PROBE_CONFIDENCE).low > allowed:
                return False
    if unlagged <= allowed * requests < violations:
        return f"the load generator sent too late to tell whether {objective} holds at {format_rate(rate)}"
    return requests > 0 and violations <= allowed * requests


def _confirm(
    measure: Callable[[int], Step], ladder: list[Step], stopped: str, *, out_of_time: Callable[[], bool]
) -> Capacity:
    """Measure the knee and twice the knee again, in the order A B B A, and pool them with the ladder."""
    good = [step for step in ladder if step.rates_rps and step.error_ratio <= MAX_STEP_ERROR_RATIO]
    if not good:
        return Capacity(LaunchValue(0.0, 0.0), 1, tuple(ladder), stopped, at_least=False)
    knee = _knee(good, _plateau_rate(good))
    for factor in (1, 2, 2, 1):
        if out_of_time():
            break
        step = measure(knee * factor)
        if step.limited is None and step.error_ratio <= MAX_STEP_ERROR_RATIO and step.rates_rps:
            good.append(step)
    rates = _plateau_rates(good)
    value = _value(rates)
    return Capacity(value, _knee(good, value.value), tuple(ladder), stopped, at_least=False)


def _plateau_rates(steps: list[Step]) -> tuple[float, ...]:
    best = max(step.rate_rps for step in steps)
    return tuple(rate for step in steps if step.rate_rps >= _PLATEAU * best for rate in step.rates_rps)


def _plateau_rate(steps: list[Step]) -> float:
    return median(_plateau_rates(steps))


def _knee(steps: list[Step], plateau_rps: float) -> int:
    """The smallest concurrency whose windows, over all its steps, have a median of 95 % of the plateau."""
    pooled: dict[int, list[float]] = {}
    for step in steps:
        pooled.setdefault(step.concurrency, []).extend(step.rates_rps)
    reached = [concurrency for concurrency, rates in pooled.items() if median(rates) >= _PLATEAU * plateau_rps]
    return min(reached, default=max(pooled))


def _open_end(ladder: list[Step], stopped: str) -> Capacity:
    """A search that ended before the deployment degraded: the best step is a lower bound."""
    reached = [step for step in ladder if step.rates_rps and step.error_ratio <= MAX_STEP_ERROR_RATIO]
    best = max(reached, key=lambda step: step.rate_rps, default=None)
    if best is None:
        return Capacity(LaunchValue(0.0, 0.0), 1, tuple(ladder), stopped, at_least=True)
    return Capacity(_value(best.rates_rps), best.concurrency, tuple(ladder), stopped, at_least=True)


def _value(rates: tuple[float, ...]) -> LaunchValue:
    return LaunchValue(median(rates), median_error(rates))
