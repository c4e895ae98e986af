"""The highest arrival rate that keeps a latency objective: windows of open-loop load, and one curve through all.

Pure: the search is over a function that measures, with no clock and no socket of its own.

The curve is the share of late requests over the rate. Its form is that of a queue with constant service times and the
measured capacity (:mod:`pytest_mlpatterns.analysis.capacity.reference_queue`), which gets the very arrivals that the
service got: what chance brought in a window of a few seconds it brings to both. One number is fitted, the level of
its latency above which as many requests are as were late; by Kingman's heavy-traffic limit services with other
service times differ from it by that scale. The answer is the rate at which the long run of the queue has the share
above the level that the objective allows. The standard error is that of what is left between the two in pieces of the
windows.

Service times that vary leave few late requests to fit. So the times that the requests took in service are read off
the answers too, and give a rate of their own. If both agree, the one that is known better counts; if they do not, the
service is no such queue, and the curve counts.

A service that stops for a moment, for reasons of its own or of the machine, makes all requests late that wait
meanwhile, and a lower rate does not help. So pauses are taken out of the windows and counted by themselves, and the
queue is simulated with as many. A search that meets one has two answers, the rate with pauses and the rate without.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from pytest_mlpatterns.analysis.capacity.reference_queue import HIGHEST_LOAD, LOWEST_LOAD, LongRun, ReferenceQueue
from pytest_mlpatterns.analysis.capacity.service_times import Pause, Served, rate_by_service_times, shares_with_pauses
from pytest_mlpatterns.records.launch import LaunchValue, Pauses
from pytest_mlpatterns.records.objective import Bound, Objective
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.units import format_rate

PIECES = 4  # Pieces of a window whose scatter gives the standard error: few, so that bursts of late requests stay whole
MAX_WINDOWS = 14  # Most windows of a search
_MIN_WINDOWS = 3  # Windows that are measured even without time
_ENOUGH_WINDOWS, _ENOUGH_ERROR = 6, 0.008  # Windows and standard error with which the search ends before its time is up
_WINDOW_S, _MIN_WINDOW_S = 1.5, 0.5  # Usual length of a window, and the shortest one if time is short
_OVERHEAD_S = 0.15  # Start and drain of a window
_LARGEST_STEPS = (2.0, 2.0, 1.4)
"""Largest factor between the rates of two windows: after the first, after the second, later."""
_LOWEST, _HIGHEST = 0.05, 0.97  # Rates that are measured, in shares of the capacity
_NEAR = 1.5  # Standard deviation of the weights of the windows, on the logarithm of the share of late requests
_BEYOND = 0.85
"""Windows of an objective of latency or TTFT, which wait in a queue, are at the rate whose share of late requests is
this power of the allowed one: seconds hold too few late ones. The curve of another quantity may be steeper."""
_FIRST_SCALE = 0.75
"""First guess of the level, as a share of the limit on the wait: 1 for constant service times, 0.5 for exponential."""
_FIRST_LOAD = 0.5  # Load of the first window of an objective whose times need not be times of a queue, such as TPOT
_OF_THEORY = 2.0  # Requests that the long run of the queue counts beside a window's, which may have hardly any
_PRIOR_EVENTS = 0.3  # What the first guess of the level counts: as many late requests
_MIN_EVENTS = 0.5  # Least standard deviation of the number of late requests, in requests
_SERVED_TOGETHER = 1.5
"""Service times from which on a limit on the latency is about the wait for one of several servers."""
_TABLE_ERROR = 0.005  # Relative standard error of the long run of the reference queue
_ROUNDS, _BISECTIONS = 4, 40
_STEP = 0.1  # Half of the step, on the logarithm of the level, over which the slope of the curve is taken
_LAG_CHANGES = 0.03  # Largest part of the answer that the lag of the generator may make
_CALM_WINDOWS = 10  # Windows without a pause beside which a single one with a pause does not count
_SURE = 0.25  # Relative standard error up to which a further search begins where this one ended
_AGREE = 2.5
"""Standard errors by which two accounts of one rate may differ, that of the windows doubled: a handful of late requests
shows half of its own scatter."""


class ProbePlan(Struct, frozen=True):
    """One window to measure; ``number`` counts the windows from 0, so that each can have arrivals of its own."""

    rate_rps: float
    warmup_s: float
    window_s: float
    number: int


@dataclass(frozen=True, slots=True)
class Tally:
    """What one bound judges in each piece of a window, three numbers of shape ``(PIECES,)`` each.

    ``late_unlagged`` counts those that would be late without the time by which the generator sent the requests late.
    """

    judged: NDArray[np.int64]
    late: NDArray[np.int64]
    late_unlagged: NDArray[np.int64]


class Probe(Struct, frozen=True):
    """One window of an open-loop rate."""

    tallies: tuple[Tally, ...]  # one for each bound of the objective
    due_ns: NDArray[np.float64]  # arrivals of the load up to the end of the window, ascending, shape ``(requests,)``
    window: Window  # the measured part, on the same clock
    limited: str | None = None  # why the load generator was the limit; None if it was not
    # the rate of the answers if the rate is not sustained, so that no higher one is either; else None
    answered_rps: float | None = None
    done_ns: NDArray[np.float64] | None = None  # when each of these requests was answered; None if one of them failed


class Found(Struct, frozen=True):
    """What a search found."""

    # with the pauses; at most the capacity, and 0 if no rate keeps the objective, with its relative standard error
    rate: LaunchValue
    limited: str | None  # why the load generator, not the deployment, was the limit; None if it was not
    levels: tuple[float, ...]  # of each bound, where a further search of the same service begins
    pauses: Pauses | None = None  # of the service; None if it made none that counts


def warmup_s(limit_s: float, utilisation: float) -> float:
    """Two relaxation times of the queue, after which a window has forgotten that it began empty.

    In heavy traffic the number in the system decays by exp(-mθt/4), with m the capacity left over and θ the rate at
    which the tail of the latency falls; at the answer for p95 θx = 3, so the relaxation time is 4/3 of x / (1 - u).
    """
    return min(max(2.7 * limit_s / max(1 - utilisation, 0.03), 0.1), 2.0)


def highest_rate(
    probe: Callable[[ProbePlan], Probe],
    objective: Objective,
    reference: ReferenceQueue,
    *,
    left_s: Callable[[], float],
    levels: Sequence[float] = (),
) -> Found:
    """The highest arrival rate that keeps the objective.

    ``left_s``: seconds that are left for the search. ``levels``: what an earlier search of the same service found;
    empty for none.
    """
    starts = levels or [math.nan] * len(objective.bounds)
    fits = [_Fit(bound, reference, level) for bound, level in zip(objective.bounds, starts, strict=True)]
    longest_s, answer, last, watched = objective.longest_ns / 1e9, LaunchValue(0.0, 0.0), 0.0, list[_Watched]()
    for number in range(MAX_WINDOWS):
        rate = min(fit.next_rate for fit in fits)
        if last:
            step = _LARGEST_STEPS[min(number, len(_LARGEST_STEPS)) - 1]
            rate = min(max(rate, last / step), last * step)
        warm_s = warmup_s(longest_s, rate / min(fit.capacity_rps for fit in fits))
        window_s = min(max(left_s() - warm_s - _OVERHEAD_S, _MIN_WINDOW_S), max(_WINDOW_S, 3 * warm_s))
        done = number - any(one.pauses for one in watched)  # the first one with a pause is measured again
        if done >= _MIN_WINDOWS and (_enough(answer, done) or left_s() < warm_s + window_s / 2):
            break
        window = probe(ProbePlan(rate, warm_s, window_s, number))
        if window.limited:
            return Found(answer, window.limited, ())
        watched.append(_Watched.of(window, reference.servers, rate_rps=rate, limit_ns=objective.longest_ns))
        for fit, tally in zip(fits, window.tallies, strict=True):
            fit.add(watched[-1], tally)
        answer, last = _lowest(fits, unlagged=False), rate
    late = None
    capacity_rps = min(fit.capacity_rps for fit in fits)
    if abs(_lowest(fits, unlagged=True).value - answer.value) > _LAG_CHANGES * capacity_rps:
        late = f"the load generator sent too late to tell whether {objective} holds at {format_rate(last)}"
    both = min((fit.both for fit in fits), key=lambda found: found.value)
    is_sure = both.value > 0 and both.relative_error <= _SURE
    found = Found(both, late, tuple(fit.level for fit in fits) if is_sure else ())
    return _with_pauses(found, fits, watched)


def _with_pauses(found: Found, fits: Sequence[_Fit], watched: Sequence[_Watched]) -> Found:
    """What was found without the pauses of the service, with them; as it is if none count."""
    paused = [one for one in watched if one.pauses]
    if not paused or (len(paused) == 1 and len(watched) > _CALM_WINDOWS):
        return found
    of_bounds = zip(*(fit.answers_with_pauses() for fit in fits), strict=True)
    least, rate, most = (min(rates, key=lambda one: one.value) for rates in of_bounds)
    longest_ns = round(max(pause.length_ns for one in paused for pause in one.pauses))
    pauses = Pauses(len(paused), len(watched), longest_ns, least=least, most=most, without=found.rate)
    return replace(found, rate=rate, pauses=pauses)


def _agreed(windows: LaunchValue, times: LaunchValue | None) -> LaunchValue:
    """One rate of two accounts of the same windows: the one that is known better, unless they contradict each other."""
    doubled = 2 * windows.relative_error
    if times is None or windows.value <= 0 or doubled <= times.relative_error:
        return windows
    apart = abs(math.log(times.value / windows.value))
    return LaunchValue(windows.value, doubled) if apart > _AGREE * math.hypot(doubled, times.relative_error) else times


def _lowest(fits: Sequence[_Fit], *, unlagged: bool) -> LaunchValue:
    """The rate at which the first of the bounds breaks."""
    return min((fit.answer(unlagged=unlagged) for fit in fits), key=lambda found: found.value)


def _enough(answer: LaunchValue, windows: int) -> bool:
    return windows >= _ENOUGH_WINDOWS and 0 < answer.relative_error <= _ENOUGH_ERROR


class _Fit:
    """The windows so far, and the rate that they give for one bound."""

    def __init__(self, bound: Bound, reference: ReferenceQueue, level: float) -> None:
        together = bound.quantity == "latency" and bound.limit_ns >= _SERVED_TOGETHER * reference.takes_ns
        self._bound, self._reference, self._servers = bound, reference, reference.servers
        self._queue = reference if together else ReferenceQueue(reference.capacity_rps, 1)
        self._allowed = bound.allowed
        self._long_run = LongRun(self._queue.servers, self._allowed)
        self._measured = self._allowed ** (_BEYOND if bound.quantity in ("latency", "ttft") else 1)
        self._beyond = LongRun(self._queue.servers, self._measured)
        wait = bound.limit_ns / self._queue.takes_ns - 1
        self.level = level
        if math.isnan(level):
            queues = bound.quantity == "latency" and wait > 0
            self.level = 1 + _FIRST_SCALE * wait if queues else self._beyond.level_at(_FIRST_LOAD)
        self._first = self.level
        self._windows: list[_Window] = []

    @property
    def capacity_rps(self) -> float:
        """The rate that cannot be exceeded."""
        return self._queue.capacity_rps

    @property
    def next_rate(self) -> float:
        """The rate of the next window."""
        return min(max(self._beyond.load_at(self.level), _LOWEST), _HIGHEST) * self.capacity_rps

    def add(self, watched: _Watched, tally: Tally) -> None:
        """Note a window. All requests of a rate that is not sustained count as late."""
        probe = watched.probe
        if probe.answered_rps is not None and probe.answered_rps < self.capacity_rps:
            self._queue = ReferenceQueue(probe.answered_rps, self._queue.servers)
            self._windows = [_Window.of(one.watched, one.whole, self._queue) for one in self._windows]
        if probe.answered_rps is not None:
            tally = Tally(tally.judged, tally.judged, tally.judged)
        self._windows.append(_Window.of(watched, tally, self._queue))

    def answer(self, *, unlagged: bool) -> LaunchValue:
        """The rate that keeps the objective, and its standard error."""
        level, weights = self._solve(unlagged=unlagged)
        if not unlagged:
            self.level = level
        load = self._long_run.load_at(level)
        if load <= max(_LOWEST, LOWEST_LOAD):
            return LaunchValue(kept, 1.0) if (kept := self._kept(unlagged=unlagged)) else LaunchValue(0.0, 0.0)
        sd = self._level_error(level, weights, unlagged=unlagged)
        low, high = (self._long_run.load_at(level * math.exp(sign * sd)) for sign in (-1, 1))
        rate = self.capacity_rps * (1.0 if load >= HIGHEST_LOAD else load)
        return LaunchValue(rate, math.hypot((high - low) / 2 / load, _TABLE_ERROR))

    def _kept(self, *, unlagged: bool) -> float:
        """The highest rate of a window that kept the objective, with as many requests as show that; 0 for none."""
        kept = [
            one.watched.rate_rps
            for one in self._windows
            if (allowed := self._allowed * one.tally.judged.sum()) >= 1 and one.late(unlagged=unlagged).sum() <= allowed
        ]
        return max(kept, default=0.0)

    @functools.cached_property
    def both(self) -> LaunchValue:
        """The rate by the late requests and by the service times together, without the pauses, after all windows."""
        found = self.answer(unlagged=False)
        if not self._service_times_ns:
            return found
        both = _agreed(found, self._by_times)
        return LaunchValue(min(both.value, self.capacity_rps), both.relative_error)

    @functools.cached_property
    def _by_times(self) -> LaunchValue | None:
        """The rate by the service times of all windows, which takes a simulation; None if they decide nothing."""
        runs, limit_ns = self._service_times_ns, self._bound.limit_ns
        return rate_by_service_times(runs, self._servers, limit_ns=limit_ns, allowed=self._allowed) if runs else None

    def answers_with_pauses(self) -> tuple[LaunchValue, ...]:
        """The rates with more pauses than were met, with as many and with fewer."""
        without = self.both
        if self._by_times is not None:
            shares = shares_with_pauses(
                self._service_times_ns,
                self._servers,
                [pause.length_ns for one in self._windows for pause in one.watched.pauses],
                watched_ns=sum(one.watched.length_ns for one in self._windows),
                limit_ns=self._bound.limit_ns,
                allowed=self._allowed,
            )
            return tuple(LaunchValue(share * without.value, without.relative_error * (share > 0)) for share in shares)
        whole = _Fit(self._bound, self._reference, math.nan)
        for one in self._windows:
            whole.add(replace(one.watched, pauses=()), one.whole)
        return (whole.answer(unlagged=False), whole.answer(unlagged=False), without)

    @property
    def _service_times_ns(self) -> list[NDArray[np.float64]]:
        """The times in service of each window; empty if they are not known, or the bound is of another."""
        known = [one.watched.takes_ns for one in self._windows if one.watched.takes_ns is not None]
        return known if self._bound.quantity == "latency" and len(known) == len(self._windows) else []

    def _solve(self, *, unlagged: bool) -> tuple[float, NDArray[np.float64]]:
        """The level above which the queue has as many requests as were late, and the weights of the windows."""
        late = np.array([one.late(unlagged=unlagged).sum() for one in self._windows], dtype=np.float64)
        level = self.level
        for _ in range(_ROUNDS):
            weights = self._weights(level)
            low, high = math.log(1.0), math.log(1e3)
            for _ in range(_BISECTIONS):
                middle = (low + high) / 2
                expected = float(weights @ self._expected(math.exp(middle))) + self._prior(math.exp(middle))
                low, high = (middle, high) if expected > weights @ late + _PRIOR_EVENTS else (low, middle)
            level = math.exp((low + high) / 2)
        return level, weights

    def _expected(self, level: float) -> NDArray[np.float64]:
        return np.array([one.expected(level).sum() for one in self._windows])

    def _prior(self, level: float) -> float:
        """Late requests that the first guess has at another level, by an exponential tail."""
        depth = math.log(1 / self._allowed)
        return _PRIOR_EVENTS * math.exp(min(-depth * ((level - 1) / max(self._first - 1, 0.1) - 1), depth))

    def _weights(self, level: float) -> NDArray[np.float64]:
        judged = np.array([max(one.tally.judged.sum(), 1) for one in self._windows])
        share = np.maximum(self._expected(level) / judged, 0.1 / judged)
        wanted = math.sqrt(self._allowed * self._measured)
        weights: NDArray[np.float64] = np.exp(-0.5 * (np.log(share / wanted) / _NEAR) ** 2)
        return weights

    def _level_error(self, level: float, weights: NDArray[np.float64], *, unlagged: bool) -> float:
        """Standard error of the logarithm of the level: the late requests' error over the slope of the curve."""
        left = np.array([one.late(unlagged=unlagged) - one.expected(level) for one in self._windows])
        pieces = left.size
        variance = float(((weights[:, None] * left) ** 2).sum()) * pieces / max(pieces - 1, 1)
        step = math.exp(_STEP)
        slope = float(weights @ (self._expected(level / step) - self._expected(level * step))) / (2 * _STEP)
        return min(math.sqrt(max(variance, _MIN_EVENTS**2)) / max(slope, 1e-3), 2.0)


class _Watched(Struct, frozen=True):
    """One window, and what it shows of the service."""

    probe: Probe
    rate_rps: float
    takes_ns: NDArray[np.float64] | None  # of each request that met no pause; None if one of them failed
    pauses: tuple[Pause, ...]

    @classmethod
    def of(cls, probe: Probe, servers: int, *, rate_rps: float, limit_ns: float) -> _Watched:
        if probe.done_ns is None or not probe.due_ns.size:
            return cls(probe, rate_rps, None, ())
        served = Served.of(probe.due_ns, probe.done_ns, servers)
        takes_ns = served.takes_ns
        return cls(probe, rate_rps, takes_ns[takes_ns <= served.longest_ns(limit_ns)], served.pauses(limit_ns))

    @property
    def length_ns(self) -> float:
        """How long the service was watched, also while it warmed up."""
        return self.probe.window.end_ns - float(self.probe.due_ns[0])

    def calm(self, tally: Tally) -> Tally:
        """What was judged in the pieces in which no request waited for a pause."""
        edges = np.linspace(self.probe.window.start_ns, self.probe.window.end_ns, PIECES + 1)
        meets = [(edges[:-1] <= pause.end_ns) & (edges[1:] >= pause.start_ns) for pause in self.pauses]
        calm = ~np.any([*meets, np.zeros(PIECES, dtype=bool)], axis=0)
        return Tally(tally.judged * calm, tally.late * calm, tally.late_unlagged * calm)


class _Window(Struct, frozen=True):
    """One window, with the latencies of the queue under its arrivals, sorted in each piece, in service times."""

    watched: _Watched
    tally: Tally  # of the pieces without a pause
    whole: Tally
    queue: ReferenceQueue
    latencies: tuple[NDArray[np.float64], ...]

    @classmethod
    def of(cls, watched: _Watched, tally: Tally, queue: ReferenceQueue) -> _Window:
        probe = watched.probe
        latency = queue.latency_ns(probe.due_ns) / queue.takes_ns
        edges = np.searchsorted(probe.due_ns, np.linspace(probe.window.start_ns, probe.window.end_ns, PIECES + 1))
        pieces = tuple(np.sort(latency[first:end]) for first, end in pairwise(edges))
        return cls(watched, watched.calm(tally), tally, queue, pieces)

    def late(self, *, unlagged: bool) -> NDArray[np.int64]:
        """Late requests in each piece."""
        return self.tally.late_unlagged if unlagged else self.tally.late

    def expected(self, level: float) -> NDArray[np.float64]:
        """How many of the judged would be late in each piece if the queue's latency were judged by a level."""
        theory = _OF_THEORY / PIECES * self.queue.share_above(level, self.watched.rate_rps)
        shares = [
            (one.size - np.searchsorted(one, level, side="right") + theory) / (one.size + _OF_THEORY / PIECES)
            for one in self.latencies
        ]
        return np.asarray(self.tally.judged * np.array(shares))
