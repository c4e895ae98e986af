"""Queues of known capacity: when requests arrive, when a service of some servers has answered them.

Seeded, and without a clock: what a measurement of such a service must say is known.
"""

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pytest_mlpatterns.records.samples import Samples, Window
from support.synthetic import START_NS, S, samples


def erlang_loss(places: int, offered: float) -> float:
    """Share of the requests of a Poisson load that find all places taken, by the formula of Erlang (1917).

    ``offered`` is how many requests would be under way if all were served.
    """
    loss = 1.0
    for place in range(1, places + 1):
        loss = offered * loss / (place + offered * loss)
    return loss


@dataclass(frozen=True)
class Queue:
    """A first-come, first-served queue; ``capacity_rps`` is of all servers together.

    Arrivals and services are ``"M"`` for exponential, ``"D"`` for even, and services ``"G"`` for times that vary by 30
    %.
    """

    capacity_rps: float
    servers: int = 1
    arrivals: str = "M"
    service: str = "D"

    def arrivals_ns(self, rate_rps: float, length_ns: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Arrivals of a load, from 0."""
        mean = rate_rps * length_ns / S
        if self.arrivals == "D":
            return np.arange(int(mean)) * int(S / rate_rps)
        times = np.cumsum(rng.exponential(S / rate_rps, int(mean + 6 * mean**0.5 + 20))).astype(np.int64)
        return times[times < length_ns]

    def service_ns(self, requests: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """The service time of each request."""
        mean = S * self.servers / self.capacity_rps
        if self.service == "D":
            return np.full(requests, int(mean))
        return (rng.exponential(mean, requests) if self.service == "M" else rng.gamma(11, mean / 11, requests)).astype(
            np.int64
        )

    def run(self, rate_rps: float, warmup_s: float, window_s: float, rng: np.random.Generator) -> "Run":
        """One open loop of this rate, from an empty queue."""
        arrivals_ns = self.arrivals_ns(rate_rps, int((warmup_s + window_s) * S), rng)
        return Run.of(
            arrivals_ns, self.service_ns(arrivals_ns.size, rng), self.servers, warmup_s=warmup_s, window_s=window_s
        )


@dataclass(frozen=True)
class Run:
    """The samples of one load and its window."""

    samples: Samples
    window: Window

    @classmethod
    def of(
        cls,
        arrivals_ns: NDArray[np.int64],
        service_ns: NDArray[np.int64],
        servers: int = 1,
        *,
        warmup_s: float,
        window_s: float,
    ) -> "Run":
        """What the load generator records where these requests have these service times."""
        latency_ns = served_ns(arrivals_ns, service_ns, servers) - arrivals_ns
        start_ns = START_NS + int(warmup_s * S)
        return cls(samples(START_NS + arrivals_ns, latency_ns), Window(start_ns, start_ns + int(window_s * S)))


def served_ns(arrivals_ns: NDArray[np.int64], service_ns: NDArray[np.int64], servers: int = 1) -> NDArray[np.int64]:
    """When each request is answered by servers that take them in the order of arrival."""
    if servers == 1 or not service_ns.size:
        worked = np.cumsum(service_ns)
        return worked + np.maximum.accumulate(arrivals_ns - (worked - service_ns))
    if np.ptp(service_ns) == 0:  # each server takes every so many-th request
        done = np.empty_like(arrivals_ns)
        for number in range(servers):
            done[number::servers] = served_ns(arrivals_ns[number::servers], service_ns[number::servers])
        return done
    free = [0] * servers
    done = np.empty_like(arrivals_ns)
    for number, (arrived, takes) in enumerate(zip(arrivals_ns.tolist(), service_ns.tolist(), strict=True)):
        done[number] = max(arrived, heapq.heappop(free)) + takes
        heapq.heappush(free, int(done[number]))
    return done
