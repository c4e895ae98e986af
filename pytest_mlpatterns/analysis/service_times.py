"""How long a service took for each request, read off its answers, and the rate that such times allow in the long run.

Pure. A queue that serves first come, first served begins with a request when it has come and a server is free. So the
time that the request took follows from the arrivals and answers alone (Lindley, "The theory of queues with a single
server", Proceedings of the Cambridge Philosophical Society 48, 1952). A few hundred such times say far more about the
tail of the waits in the long run than the few late requests among them do.
"""

from __future__ import annotations

import bisect
import heapq
import math
from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.records.launch import LaunchValue

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["rate_by_service_times", "service_times_ns"]

_LONG_RUN = 50_000
"""Requests of a long run: the rate for p99 is known to 2 %, that for p95 to 1 %."""
_BISECTIONS = 9
"""Halvings of the range of loads, which leave a five-hundredth of it."""
_LOWEST, _HIGHEST = 0.02, 0.98
"""Loads that are tried, in shares of the capacity; beyond the highest a long run is too short."""
_MODEL_ERROR = 0.02
"""Relative error of the rate since a service is no such queue: a part of its time overlaps with the next request's."""


def service_times_ns(due_ns: NDArray[np.float64], done_ns: NDArray[np.float64], servers: int) -> NDArray[np.float64]:
    """Time of each request in service, in the order of arrival.

    A request begins when it has come and at most ``servers - 1`` of those before it are not answered yet.

    Args:
        due_ns: arrivals, ascending.
        done_ns: when each was answered.
        servers: requests that are served at a time.
    """
    begun, answered = np.array(due_ns, dtype=np.float64), list[float]()
    for number, done in enumerate(done_ns.tolist()):
        if number >= servers:
            begun[number] = max(begun[number], answered[number - servers])
        bisect.insort(answered, done)
    return np.maximum(done_ns - begun, 0.0)


def rate_by_service_times(
    takes_ns: NDArray[np.float64], servers: int, *, limit_ns: float, allowed: float
) -> LaunchValue | None:
    """The rate of random arrivals at which the latency of a share of the requests is above a limit in the long run.

    The standard error is that of the mean m and the mean square q of n times. By Kingman's heavy-traffic limit
    ``1 - load`` is proportional to q/m at the rate λ = load · servers / m, so that

        d ln λ = -dm/m - (1 - load) / load · (dq/q - dm/m)

    Args:
        takes_ns: time of each of some requests in service.
        servers: requests that are served at a time.
        limit_ns: of the latency.
        allowed: share of the requests that may be above it.

    Returns:
        None if the times say nothing: fewer than two, or a limit that too many exceed without any wait.
    """
    if takes_ns.size < 2 or takes_ns.mean() <= 0 or np.mean(takes_ns > limit_ns) >= allowed:
        return None
    rng = np.random.default_rng(0)
    gaps = rng.exponential(1.0, _LONG_RUN)
    arrivals = np.cumsum(gaps / gaps.mean())
    takes = rng.permutation(np.sort(takes_ns)[np.arange(_LONG_RUN) * takes_ns.size // _LONG_RUN])
    mean = float(takes_ns.mean())
    low, high = _LOWEST, _HIGHEST
    for _ in range(_BISECTIONS):
        load = (low + high) / 2
        latency = _latency(arrivals * mean / (load * servers), takes, servers)[_LONG_RUN // 10 :]  # it begins empty
        low, high = (load, high) if np.mean(latency > limit_ns) < allowed else (low, load)
    if low == _LOWEST:
        return None
    load = 1.0 if high == _HIGHEST else (low + high) / 2
    speed, shape = takes_ns / mean, takes_ns**2 / np.mean(takes_ns**2)
    influence = speed + (1 - load) / load * (shape - speed)
    error = float(np.std(influence)) / math.sqrt(takes_ns.size)
    return LaunchValue(load * servers * 1e9 / mean, math.hypot(error, _MODEL_ERROR))


def _latency(due: NDArray[np.float64], takes: NDArray[np.float64], servers: int) -> NDArray[np.float64]:
    """Latency of each request of a queue that serves some at a time, first come, first served."""
    if servers == 1:
        work = np.cumsum(takes)
        return np.asarray(work + np.maximum.accumulate(due - (work - takes)) - due)
    free, done = [0.0] * servers, np.empty_like(due)
    for number, (came, time) in enumerate(zip(due.tolist(), takes.tolist(), strict=True)):
        done[number] = max(came, free[0]) + time
        heapq.heapreplace(free, done[number])
    return done - due
