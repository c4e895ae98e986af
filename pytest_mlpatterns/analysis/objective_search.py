"""The highest arrival rate that keeps a latency objective: windows of open-loop load near the answer, and a fit.

Pure: the search is over a function that measures, with no clock and no socket of its own.

The share of requests over the limit x is taken to be ``P(rate) = exp(-k (capacity - rate) x)``, which is exact for
exponential service times with k = 1; for other services k differs, and near the answer the form hardly matters. Each
window is at the answer of those before it. k is fitted to all windows, with weights that fall with their distance from
the answer; the answer is where P is the share that the objective allows. The standard error is that of the answers over
resampled windows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.units import format_rate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pytest_mlpatterns.records.objective import Bound, Objective

__all__ = ["Probe", "ProbePlan", "Tally", "highest_rate", "warmup_s"]

_WINDOWS = 9
_MIN_WINDOWS, _MAX_WINDOWS = 2, 14
"""Windows that are measured even without time, and most windows."""
_ENOUGH_WINDOWS, _ENOUGH_ERROR = 8, 0.012
"""Windows and standard error with which the search ends before its time is up."""
_FIRST_WINDOW_S, _MIN_WINDOW_S, _MAX_WINDOW_S = 1.5, 0.5, 4.0
_OVERHEAD_S = 0.15
"""Start and drain of a window."""
_LARGEST_STEPS = (2.0, 2.0, 1.2)
"""Largest factor between the rates of two windows: after the first, after the second, later."""
_LOWEST, _HIGHEST = 0.05, 0.97
"""Rates that are measured, in shares of the capacity."""
_NEAR = 1.5
"""Standard deviation of the weights, on the logarithm of P."""
_FIRST_K = 1.5
_PRIOR_EVENTS = 1.5
"""What the first guess of k counts: as many requests over the limit."""
_MIN_K, _MAX_K = 1e-2, 1e3
_RESAMPLES = 100
_FEW_WINDOWS_ERROR = 0.2
_ROUNDS, _BISECTIONS = 4, 30
_LAG_CHANGES = 0.03
"""Largest part of the answer that the lag of the generator may make."""


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """One window to measure; ``number`` counts the windows from 0, so that each can have arrivals of its own."""

    rate_rps: float
    warmup_s: float
    window_s: float
    number: int


@dataclass(frozen=True, slots=True)
class Tally:
    """Values that one bound judges in a window, one for each request that was due, and those over its limit.

    ``violations_unlagged`` counts those that would be without the time by which the generator sent the requests late.
    """

    judged: int
    violations: int
    violations_unlagged: int


@dataclass(frozen=True, slots=True)
class Probe:
    """One window of an open-loop rate.

    ``tallies`` has one for each bound of the objective. ``answered_rps`` is the rate of the answers if the rate is not
    sustained, so that no higher one is either; None if it is sustained. ``limited`` is the reason why the generator was
    the limit; None if it was not.
    """

    tallies: tuple[Tally, ...]
    limited: str | None
    answered_rps: float | None = None


def warmup_s(limit_s: float, utilisation: float) -> float:
    """Two relaxation times of the queue, after which a window has forgotten that it began empty.

    In heavy traffic the number in the system decays by exp(-mθt/4), with m the capacity left over and θ the rate at
    which the tail of the latency falls; at the answer for p95 θx = 3, so the relaxation time is 4/3 of x / (1 - u).
    """
    return min(max(2.7 * limit_s / max(1 - utilisation, 0.03), 0.1), 2.0)


def highest_rate(
    probe: Callable[[ProbePlan], Probe],
    objective: Objective,
    capacity_rps: float,
    *,
    left_s: Callable[[], float],
) -> tuple[LaunchValue, str | None]:
    """The highest arrival rate that keeps the objective.

    Args:
        probe: measures one window of open-loop load.
        objective: the latency objective.
        capacity_rps: a rate that cannot be exceeded.
        left_s: seconds that are left for the search.

    Returns:
        The rate, at most the capacity and 0 if no rate keeps the objective, with its relative standard error; and why
        the load generator, not the deployment, was the limit, None if it was not.
    """
    fits = [_Fit(bound, objective.longest_ns, capacity_rps) for bound in objective.bounds]
    budget_s, answer = left_s(), LaunchValue(0.0, 0.0)
    for number in range(_MAX_WINDOWS):
        plan = min((fit.next_window(number, budget_s / _WINDOWS) for fit in fits), key=lambda one: one.rate_rps)
        if number >= _MIN_WINDOWS and (_enough(answer, number) or left_s() < plan.warmup_s + plan.window_s / 2):
            break
        window = probe(plan)
        if window.limited:
            return LaunchValue(max(answer.value, 0.0), 0.0), window.limited
        for fit, tally in zip(fits, window.tallies, strict=True):
            fit.add(plan.rate_rps, tally, window.answered_rps)
        answer = _lowest(fits, unlagged=False)
    if abs(_lowest(fits, unlagged=True).value - answer.value) > _LAG_CHANGES * capacity_rps:
        late = f"the load generator sent too late to tell whether {objective} holds at {format_rate(plan.rate_rps)}"
        return answer, late
    return answer, None


def _lowest(fits: Sequence[_Fit], *, unlagged: bool) -> LaunchValue:
    """The rate at which the first of the bounds breaks."""
    return min((fit.answer(unlagged=unlagged) for fit in fits), key=lambda found: found.value)


def _enough(answer: LaunchValue, windows: int) -> bool:
    return windows >= _ENOUGH_WINDOWS and answer.relative_error <= _ENOUGH_ERROR


class _Fit:
    """The windows so far, and the rate that they say about one bound.

    Args:
        bound: the percentile and its limit.
        longest_ns: the longest limit of the objective; the warm-up of a window grows with it.
        capacity_rps: a rate that cannot be exceeded.
    """

    def __init__(self, bound: Bound, longest_ns: int, capacity_rps: float) -> None:
        self._limit_s = bound.limit_ns / 1e9
        self._longest_s = longest_ns / 1e9
        self._allowed = bound.allowed
        self._depth = math.log(1 / self._allowed)
        self._capacity_rps = capacity_rps
        self._rate_rps = float(self._at(np.array(_FIRST_K)))
        self._rows: list[tuple[float, int, int, int]] = []

    def add(self, rate_rps: float, window: Tally, answered_rps: float | None) -> None:
        """Note a window. All requests of a rate that is not sustained count as too late."""
        if answered_rps is not None:
            self._capacity_rps = min(self._capacity_rps, answered_rps)
            window = Tally(window.judged, window.judged, window.judged)
        self._rows.append((rate_rps, window.judged, window.violations, window.violations_unlagged))

    def next_window(self, number: int, share_s: float) -> ProbePlan:
        """The next window: at the present answer, at most a factor from the last, and within the capacity."""
        rate = min(max(self._rate_rps, _LOWEST * self._capacity_rps), _HIGHEST * self._capacity_rps)
        if self._rows:
            last, step = self._rows[-1][0], _LARGEST_STEPS[min(len(self._rows), len(_LARGEST_STEPS)) - 1]
            rate = min(max(rate, last / step), last * step)
        warm_s = warmup_s(self._longest_s, rate / self._capacity_rps)
        window_s = _FIRST_WINDOW_S if number < _MIN_WINDOWS else share_s - warm_s - _OVERHEAD_S
        return ProbePlan(rate, warm_s, min(max(window_s, _MIN_WINDOW_S), _MAX_WINDOW_S), number)

    def answer(self, *, unlagged: bool) -> LaunchValue:
        """The rate that keeps the objective, and its standard error over resampled windows."""
        rows = np.array(self._rows, dtype=np.float64)[:, [0, 1, 3 if unlagged else 2]]
        count = len(rows)
        chosen = np.random.default_rng(0).integers(count, size=(_RESAMPLES, count))
        found, *resampled = self._solve(rows[np.vstack([np.arange(count), chosen])])
        if not unlagged:
            self._rate_rps = float(found)
        if found < _LOWEST * self._capacity_rps:
            return LaunchValue(0.0, 0.0)
        rate = min(float(found), self._capacity_rps)
        error = np.std(np.clip(resampled, 0.0, self._capacity_rps)) * math.sqrt(count / max(count - 1, 1))
        least = _FEW_WINDOWS_ERROR / count if count < _ENOUGH_WINDOWS else 0.0  # few windows may agree by chance
        return LaunchValue(rate, max(float(error) / rate, least))

    def _at(self, k: NDArray[np.float64]) -> NDArray[np.float64]:
        """The rates with the share that the objective allows."""
        return self._capacity_rps - self._depth / (k * self._limit_s)

    def _solve(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The rates that samples of windows say, shape ``(samples,)``: the weights and the answer, in turn.

        Args:
            rows: rate, requests and violations, shape ``(samples, windows, 3)``.
        """
        rate, requests, violations = np.moveaxis(rows, 2, 0)
        weights = np.ones_like(rate)
        for _ in range(_ROUNDS):
            k = self._fit_k(rate, weights * requests, weights * violations)
            found = self._at(k)
            weights = np.exp(-0.5 * ((rate - found) * k * self._limit_s / _NEAR) ** 2)
        return found[:, 0]

    def _fit_k(
        self, rate: NDArray[np.float64], requests: NDArray[np.float64], violations: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """k of each sample, with which as many requests are expected over the limit as were.

        By bisection on the logarithm of k. The first guess counts like a window more.
        """
        events = violations.sum(axis=1, keepdims=True) + _PRIOR_EVENTS
        room = np.maximum(self._capacity_rps - rate, 0.0) * self._limit_s
        prior_room = self._depth / _FIRST_K
        low, high = np.full_like(events, math.log(_MIN_K)), np.full_like(events, math.log(_MAX_K))
        for _ in range(_BISECTIONS):
            k = np.exp((low + high) / 2)
            expected = (requests * np.exp(-k * room)).sum(axis=1, keepdims=True)
            expected += _PRIOR_EVENTS / self._allowed * np.exp(-k * prior_room)
            too_many = expected > events
            low, high = np.where(too_many, np.log(k), low), np.where(too_many, high, np.log(k))
        return np.asarray(k)
