"""How long requests are in service, when the service pauses, and the rate that both allow.

Pure: arrivals and answers in, a rate out. A queue whose servers never rest while requests wait begins with one of them
when a server is free. So the time that the request took follows from the arrivals and answers alone (Lindley, "The
theory of queues with a single server", Proceedings of the Cambridge Philosophical Society 48, 1952). A few hundred such
times show far more of the tail of the waits in the long run than the few late requests among them do.

Times that resemble those before them, as of long and short batches of work, make longer queues than the same times in
another order. So runs of the original order are drawn, and the standard error follows from them.

A pause is a request that took much longer than others. It comes with time, not with requests: at half the rate a
service that collects garbage every five seconds still does so.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pytest_mlpatterns.records.launch import LaunchValue

_LONG_RUN, _LONGER_RUN = 50_000, 200_000
"""Requests of a long run of several servers, and of one, which takes less time: beside the exact M/M/1 the rate is 1 %
off from a load of 0.7 on, and 4 % at a quarter."""
_BISECTIONS = 9  # Halvings of the range of loads, which leave a five-hundredth of it
_LOWEST_LOAD, _HIGHEST_LOAD = 0.02, 0.98
"""Loads that are tried, in shares of the capacity; beyond the highest a long run is too short."""
_MODEL_ERROR = 0.02
"""Relative error of the rate since a service is no such queue: a part of its time overlaps with the next request's."""
_RUN = 20  # Requests of a run that keeps its order: more than wait together at a load of 0.8
_RARELY = 2.0  # Standard deviations by which chance may bring too few or too many pauses
_USUAL, _ONE_OF = 0.9, 500
"""Quantile of the times that a pause is long beside, and loads of exponential times per load with a pause."""


class Pause(Struct, frozen=True):
    """A moment in which a service answered nothing, for longer than an objective allows."""

    start_ns: float  # arrival of the request that met it
    end_ns: float  # when a server was idle again, so that no request waits for what came meanwhile
    length_ns: float


class Served(Struct, frozen=True):
    """The requests of one load in the order in which the service took them."""

    due_ns: NDArray[np.float64]
    begun_ns: NDArray[np.float64]
    done_ns: NDArray[np.float64]

    @classmethod
    def of(cls, due_ns: NDArray[np.float64], done_ns: NDArray[np.float64], servers: int) -> Served:
        """When the service began with each request.

        A request begins when it has come and at most ``servers - 1`` of those before it are not answered yet. A single
        server need not take them as they came: which of several waiting connections an event loop reads first is open.

        ``due_ns``: arrivals, ascending.
        """
        if servers == 1:
            order = np.argsort(done_ns, kind="stable")
            due_ns, done_ns = due_ns[order], done_ns[order]
            return cls(due_ns, np.maximum(due_ns, np.concatenate(([-np.inf], done_ns[:-1]))), done_ns)
        begun, answered = np.array(due_ns, dtype=np.float64), list[float]()
        for number, done in enumerate(done_ns.tolist()):
            if number >= servers:
                begun[number] = max(begun[number], answered[number - servers])
            bisect.insort(answered, done)
        return cls(due_ns, np.minimum(begun, done_ns), done_ns)

    @property
    def takes_ns(self) -> NDArray[np.float64]:
        """The time of each request in service."""
        return self.done_ns - self.begun_ns

    def longest_ns(self, limit_ns: float) -> float:
        """The longest time that is no pause: of n exponential times with the quantile 0.9 at t, t · log10(500 n)."""
        usual = float(np.quantile(self.takes_ns, _USUAL, method="lower"))
        return max(limit_ns, usual * math.log(_ONE_OF * self.due_ns.size) / -math.log(1 - _USUAL))

    def pauses(self, limit_ns: float) -> tuple[Pause, ...]:
        """The pauses; one that meets several requests at once counts once.

        The first request after a pause that found the service idle shows when it ended, not when it began: on average
        half of the time since the last answer before belongs to it.
        """
        if not self.due_ns.size:
            return ()
        takes, idle = self.takes_ns, self.due_ns[self.begun_ns <= self.due_ns]
        usual, found, until = float(np.median(takes)), list[Pause](), -math.inf
        for at in np.flatnonzero(takes > self.longest_ns(limit_ns)).tolist():
            due, begun, done = (float(of[at]) for of in (self.due_ns, self.begun_ns, self.done_ns))
            if begun < until:
                continue
            before = float(self.done_ns[:at].max(initial=due - takes[at])) if begun <= due else due
            again = idle[idle >= done]
            end = float(again.min()) if again.size else math.inf
            found.append(Pause(due, end, float(takes[at]) - usual + max(due - before, 0.0) / 2))
            until = done
        return tuple(found)


def rate_by_service_times(
    runs: Sequence[NDArray[np.float64]], servers: int, *, limit_ns: float, allowed: float
) -> LaunchValue | None:
    """The rate of random arrivals at which the latency of a share of the requests is above a limit in the long run.

    The standard error is that of the mean m and the mean square q of n times. By Kingman's heavy-traffic limit
    ``1 - load`` is proportional to q/m at the rate λ = load · servers / m, so that

        d ln λ = -dm/m - (1 - load) / load · (dq/q - dm/m)

    ``runs``: times in service, each in the order of service. ``allowed``: share of the requests that may be above the
    limit. Returns None if the times decide nothing: fewer than two, or a limit that too many exceed without any wait.
    """
    takes_ns = np.concatenate([*runs, []])
    if takes_ns.size < 2 or takes_ns.mean() <= 0 or np.mean(takes_ns > limit_ns) >= allowed:
        return None
    mean = float(takes_ns.mean())
    load = _load(_LongRun.of(takes_ns, servers), limit_ns, allowed)
    if not load:
        return None
    speed, shape = takes_ns / mean, takes_ns**2 / np.mean(takes_ns**2)
    influence = speed + (1 - load) / load * (shape - speed) - 1
    edges = np.cumsum([run.size for run in runs])[:-1]
    pieces = [one for run in np.split(influence, edges) for one in np.array_split(run, max(run.size // _RUN, 1))]
    of_pieces = sum(float(one.sum()) ** 2 for one in pieces) * len(pieces) / max(len(pieces) - 1, 1)
    error = math.sqrt(max(of_pieces, float((influence**2).sum()))) / takes_ns.size
    return LaunchValue(load * servers * 1e9 / mean, math.hypot(error, _MODEL_ERROR))


def shares_with_pauses(
    runs: Sequence[NDArray[np.float64]],
    servers: int,
    pauses_ns: Sequence[float],
    *,
    watched_ns: float,
    limit_ns: float,
    allowed: float,
) -> tuple[float, ...]:
    """The rates with pauses as shares of the rate without; 0 if no rate keeps the limit.

    The first if chance brought fewer of n pauses than usual, the second if it brought as many, the last if it brought
    more: by twice the standard deviation 1/sqrt(n) of the logarithm of their number.

    ``runs``: times in service, which give a rate without pauses. ``pauses_ns``: lengths of the pauses that were seen
    in the time ``watched_ns``.
    """
    run = _LongRun.of(np.concatenate(runs), servers)
    deviation, apart_ns = 1 / math.sqrt(len(pauses_ns)), watched_ns / len(pauses_ns)
    without = _load(run, limit_ns, allowed)
    pauses = [_Pauses(pauses_ns, apart_ns * math.exp(one * deviation)) for one in (-_RARELY, 0, _RARELY)]
    return tuple(min(_load(run, limit_ns, allowed, pauses=one) / without, 1.0) for one in pauses)


class _Pauses(Struct, frozen=True):
    """Pauses of a long run."""

    lengths_ns: Sequence[float]
    apart_ns: float  # mean time between two


class _LongRun(Struct, frozen=True):
    """Requests of a long run: the gaps between arrivals in shares of their mean, and their times in service."""

    arrivals: NDArray[np.float64]
    takes_ns: NDArray[np.float64]
    mean_ns: float
    servers: int

    @classmethod
    def of(cls, takes_ns: NDArray[np.float64], servers: int) -> _LongRun:
        """Runs of the times in random order, each of them about as often."""
        rng = np.random.default_rng(0)
        gaps = rng.exponential(1.0, _LONGER_RUN if servers == 1 else _LONG_RUN)
        runs = gaps.size // _RUN
        starts = rng.permutation(np.arange(runs) * takes_ns.size // runs)
        chosen = takes_ns[(starts[:, None] + np.arange(_RUN)).ravel() % takes_ns.size]
        return cls(np.cumsum(gaps / gaps.mean()), chosen, float(chosen.mean()), servers)

    def latency_ns(self, load: float, pauses: _Pauses | None) -> NDArray[np.float64]:
        """Latency of each request at a load, as a share of the capacity."""
        due = self.arrivals * self.mean_ns / (load * self.servers)
        if pauses is None:
            return _latency(due, self.takes_ns, self.servers)
        number = int(due[-1] / pauses.apart_ns) + 1
        at = (np.arange(number) + np.random.default_rng(1).uniform(0, 1, number)) * pauses.apart_ns
        lengths = np.resize(pauses.lengths_ns, number)
        if self.servers > 1:
            return _latency(due, self.takes_ns, self.servers, pauses=[*zip(at.tolist(), lengths.tolist(), strict=True)])
        done = due + _latency(due, self.takes_ns, 1)
        met = np.searchsorted(done, at, side="right")  # the first request that is not answered yet
        inside = met < due.size
        at, lengths, met = at[inside], lengths[inside], met[inside]
        busy = due[met] <= at
        takes = self.takes_ns.copy()
        np.add.at(takes, met[busy], lengths[busy])
        places = met[~busy]
        latency = _latency(np.insert(due, places, at[~busy]), np.insert(takes, places, lengths[~busy]), 1)
        return np.delete(latency, places + np.arange(places.size))


def _load(run: _LongRun, limit_ns: float, allowed: float, *, pauses: _Pauses | None = None) -> float:
    """The load, as a share of the capacity, up to which the limit is kept; 0 for none."""
    low, high = _LOWEST_LOAD, _HIGHEST_LOAD
    for _ in range(_BISECTIONS):
        load = (low + high) / 2
        latency = run.latency_ns(load, pauses)[run.takes_ns.size // 10 :]  # it begins empty
        low, high = (load, high) if np.mean(latency > limit_ns) < allowed else (low, load)
    if low == _LOWEST_LOAD:
        return 0.0
    return 1.0 if high == _HIGHEST_LOAD else (low + high) / 2


def _latency(
    due: NDArray[np.float64], takes: NDArray[np.float64], servers: int, *, pauses: Sequence[tuple[float, float]] = ()
) -> NDArray[np.float64]:
    """Latency of each request of a queue that serves some at a time, first come, first served."""
    if servers == 1:
        work = np.cumsum(takes)
        return np.asarray(work + np.maximum.accumulate(due - (work - takes)) - due)
    free, done, left = [0.0] * servers, np.empty_like(due), list(reversed(pauses))
    for number, (came, time) in enumerate(zip(due.tolist(), takes.tolist(), strict=True)):
        while left and left[-1][0] <= max(came, free[0]):
            at, length = left.pop()
            free = [max(one, at) + length for one in free]
        done[number] = max(came, free[0]) + time
        heapq.heapreplace(free, done[number])
    return done - due
