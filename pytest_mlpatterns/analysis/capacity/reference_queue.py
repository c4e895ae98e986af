"""A queue of known behaviour: what a service of constant service times would do with the arrivals that it got.

Pure. It serves ``servers`` requests at a time, first come, first served, each for the same time. Services differ from
it by the variability of their service times, and near saturation that is only another scale of time: the wait of any
such queue has an exponential tail whose rate is proportional to ``1 - load`` (Kingman, "On queues in heavy traffic",
Journal of the Royal Statistical Society B 24, 1962; for several servers the approximation of Allen and Cunneen in
Allen, Probability, Statistics, and Queueing Theory, 1990). So the share of requests that wait longer than some level
here follows the share of late requests of a real service over all loads, once the level is fitted to it.

How many requests wait long in a few seconds of random arrivals is mostly chance: whether the arrivals have one burst
more or less. Of many seeds, this module chooses one whose arrivals make as many requests wait in a reference queue as
arrivals of this rate do on average. The reference serves ``servers`` requests at a time, each for the same time. The
arrivals of each seed are random as they are; which of them is chosen depends on nothing that is measured.

The curve of a search is fitted to the same arrivals (:mod:`pytest_mlpatterns.analysis.capacity.objective_search`), so
this matters where late requests are few: for p99 of a service of 10 ms it cuts the standard error of a search of 7 s
from 5 to 2 %.
"""

import math
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pytest_mlpatterns.records.samples import Window

LOWEST_LOAD, HIGHEST_LOAD = 0.02, 0.98  # Loads whose long run is known, in shares of the capacity
_LOADS = 49  # Loads at which the queue is simulated, evenly between the lowest and the highest
_LONG_RUN = 120_000  # Requests of a long run: their 99th percentile is known to 2 % at 0.9 of the capacity
_LEAST_RISE = 1e-6  # Rise of a percentile from one load to the next, so that loads without any wait have an order too


class ReferenceQueue(Struct, frozen=True):
    """A queue that serves ``servers`` requests at a time, each for the same time, ``capacity_rps`` a second in all."""

    capacity_rps: float
    servers: int

    @property
    def takes_ns(self) -> float:
        """Time of one request in service."""
        return self.servers * 1e9 / self.capacity_rps

    def share_above(self, level: float, rate_rps: float) -> float:
        """Share of requests whose latency is above a level in the long run of random arrivals, approximately.

        With c servers and the load ρ, ``ρ^(sqrt(2(c + 1)) - 1)`` of the requests wait (Sakasegawa, Annals of the
        Institute of Statistical Mathematics 29, 1977), and a wait longer than w service times has the probability
        ``exp(-2c (1 - ρ) w)`` (Kingman).
        """
        if level < 1:
            return 1.0
        load = min(rate_rps / self.capacity_rps, HIGHEST_LOAD)
        waits = load ** (math.sqrt(2 * (self.servers + 1)) - 1)
        return float(waits * math.exp(-2 * self.servers * (1 - load) * (level - 1)))

    def latency_ns(self, due_ns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Latency of each request. With constant service times each server takes every ``servers``-th request.

        With w the work done by the n-th request of a server, that is done at w(n) + max over m <= n of
        (due(m) - w(m - 1)).

        ``due_ns``: arrivals, ascending along the last axis, shape ``(..., requests)``.
        """
        latency = np.empty_like(due_ns)
        for server in range(min(self.servers, due_ns.shape[-1])):
            due = due_ns[..., server :: self.servers]
            work = np.arange(1, due.shape[-1] + 1) * self.takes_ns
            waited = np.maximum.accumulate(due - (work - self.takes_ns), axis=-1)
            latency[..., server :: self.servers] = work + waited - due
        return latency


class LongRun(Struct, frozen=True):
    """A percentile of the latency of a reference queue over its load, in the long run of random arrivals."""

    servers: int  # of the queue
    allowed: float  # share of requests above the percentile

    def load_at(self, level: float) -> float:
        """The load, as a share of the capacity, at which the percentile is a level."""
        loads, levels = _percentiles(self.servers, self.allowed)
        return 1 - 1 / float(np.interp(level, levels, 1 / (1 - loads)))  # in which the levels are nearly straight

    def level_at(self, load: float) -> float:
        """The percentile at a load, in service times."""
        loads, levels = _percentiles(self.servers, self.allowed)
        return float(np.interp(1 / (1 - load), 1 / (1 - loads), levels))


@cache
def _percentiles(servers: int, allowed: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Loads, and the percentile at each of them in service times, ascending."""
    loads = np.linspace(LOWEST_LOAD, HIGHEST_LOAD, _LOADS)
    gaps = np.random.default_rng(0).exponential(1.0, _LONG_RUN)
    gaps /= gaps.mean()
    queue = ReferenceQueue(servers * 1e9, servers)  # a service time is 1
    first = _LONG_RUN // 10  # the queue begins empty
    levels = [
        float(np.quantile(queue.latency_ns(np.cumsum(gaps / (load * servers)))[first:], 1 - allowed)) for load in loads
    ]
    rising = np.maximum.accumulate(np.array(levels)) + _LEAST_RISE * np.arange(_LOADS)
    return loads, rising


SEEDS = 64  # Seeds that are tried; each window of a search takes those after the ones of the window before
_MOST_ARRIVALS = 150_000  # Arrivals of all simulations of a load together, which bounds their time
_LEVELS = (2.0, 1.0, 0.5)  # Tails that are compared, in shares of the one that matters


def typical_seed(
    arrivals_of: Callable[[int], Iterator[int]],
    rate_rps: float,
    reference: ReferenceQueue,
    *,
    window: Window,
    tail: float,
    first_seed: int,
) -> int:
    """The seed with the most typical arrivals.

    ``arrivals_of``: arrivals of a seed, in nanoseconds from the start, ascending and without end. ``tail``: share of
    requests whose wait matters, such as 0.05 for p95.
    """
    mean = rate_rps * window.end_ns / 1e9
    count = int(mean + 5 * math.sqrt(mean) + 10)
    seeds = min(SEEDS, max(_MOST_ARRIVALS // count, 1))
    if seeds == 1:
        return first_seed
    due = np.array(
        [
            np.fromiter(arrivals_of(seed), dtype=np.float64, count=count)
            for seed in range(first_seed, first_seed + seeds)
        ]
    )
    servers = max(1, min(reference.servers, count // 10))
    latency = ReferenceQueue(reference.capacity_rps, servers).latency_ns(due)
    inside = (due >= window.start_ns) & (due < window.end_ns)
    if not inside.any():  # of a service so slow that no arrival falls into the window, each seed is as typical
        return first_seed
    tails = np.minimum(np.array(_LEVELS) * tail, 0.9)
    limits = np.quantile(latency[inside], 1 - tails)
    over = np.array([((latency > limit) & inside).sum(axis=1) for limit in limits])
    shares = over / np.maximum(inside.sum(axis=1), 1) / tails[:, None]
    return first_seed + int(np.argmin(np.abs(shares - 1).sum(axis=0)))
