"""The limit that follows the latency, on simulated services whose knee is known."""

from __future__ import annotations

import heapq
import random
from statistics import median

import pytest

from pytest_mlpatterns.patterns.adaptive_limit import AdaptiveLimit

SERVICE_NS = 10_000_000


class Service:
    """Servers that answer in the order of arrival, under a closed load of many callers; time is simulated."""

    def __init__(self, servers: int, *, scatter: float = 0.0, slower: float = 1.0, callers: int = 0) -> None:
        self.limit = AdaptiveLimit()
        self.slower = slower
        self._random = random.Random(servers)
        self._scatter = scatter
        self._free_ns = [0.0] * servers
        self._ends: list[tuple[float, float]] = []
        self._now_ns = 0.0
        self._waiting = callers or 4 * servers

    def answer(self, requests: int) -> list[int]:
        """The limit after each answer."""
        found = []
        for _ in range(requests):
            while self._waiting and len(self._ends) < self.limit.value:
                self._admit()
            end_ns, began_ns = heapq.heappop(self._ends)
            self._now_ns = end_ns
            self.limit.answered(round(end_ns - began_ns), len(self._ends) + 1)
            self._waiting += 1
            found.append(self.limit.value)
        return found

    def _admit(self) -> None:
        self._waiting -= 1
        needs_ns = self.slower * SERVICE_NS * self._random.lognormvariate(0, self._scatter)
        end_ns = max(self._now_ns, heapq.heappop(self._free_ns)) + needs_ns
        heapq.heappush(self._free_ns, end_ns)
        heapq.heappush(self._ends, (end_ns, self._now_ns))


@pytest.mark.parametrize("scatter", [0.0, 0.3])
@pytest.mark.parametrize("servers", [1, 2, 4, 8, 16, 32])
def test_the_limit_settles_near_the_knee(servers: int, scatter: float) -> None:
    settled = Service(servers, scatter=scatter).answer(15_000)[5_000:]
    assert servers - 0.5 <= median(settled) <= 1.3 * servers


def test_the_limit_is_there_soon() -> None:
    assert max(Service(16).answer(400)) >= 0.8 * 16


def test_the_limit_does_not_grow_where_the_load_does_not_reach_it() -> None:
    assert max(Service(32, callers=2).answer(10_000)) <= 3


def test_a_service_that_becomes_slower_gets_its_limit_back() -> None:
    """The latency without a queue is measured again, else twice the time would be taken for a queue."""
    service = Service(8)
    service.answer(10_000)
    service.slower = 2.0
    assert median(service.answer(20_000)[10_000:]) >= 8


def test_the_limit_follows_a_service_that_loses_half_of_its_servers() -> None:
    service = Service(16)
    service.answer(10_000)
    service._free_ns = service._free_ns[:8]
    heapq.heapify(service._free_ns)
    service._ends = service._ends[:8]
    heapq.heapify(service._ends)
    assert median(service.answer(15_000)[8_000:]) <= 1.3 * 8
