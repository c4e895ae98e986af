"""Does the search under a latency objective find the rate of the long run? Queues of known capacity, in simulated time.

The truth is the rate at which a million requests keep the objective. Each search has 24 of the 30 seconds; the climb
before it takes the rest, and its capacity is taken to be off by 1 %. ``uncontrolled`` is the same search whose arrivals
are random as they come.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from bench import Claim, Table

from pytest_mlpatterns.analysis.objective_search import Probe, Tally, highest_rate
from pytest_mlpatterns.analysis.typical_arrivals import SEEDS, ReferenceQueue, typical_seed
from pytest_mlpatterns.records.objective import Objective
from pytest_mlpatterns.records.samples import Window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pytest_mlpatterns.analysis.objective_search import ProbePlan

CLAIM = (
    "NMRT under an objective within 5 % of the truth for M/D/1, M/M/1 and M/D/4 at p95 and p99, variation at most 4 % "
    "for M/D/c from 100 requests/s and for M/M/1 from 500 (p95) and 2,000 (p99)"
)
SEARCHES = 40
SECONDS = 24.0
OVERHEAD_S = 0.15
LONG_RUN = 1_000_000
S = 1_000_000_000


@dataclass(frozen=True)
class Queue:
    """A first-come, first-served queue; ``claimed`` are the percentiles at which a variation of 4 % is claimed."""

    label: str
    capacity_rps: float
    limit_s: float
    servers: int = 1
    exponential: bool = False
    claimed: tuple[int, ...] = (95, 99)

    def latency_ns(self, due_ns: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
        """Latency of each request."""
        mean = S * self.servers / self.capacity_rps
        takes = rng.exponential(mean, due_ns.size) if self.exponential else np.full(due_ns.size, mean)
        if self.servers == 1:
            work = np.cumsum(takes)
            return work + np.maximum.accumulate(due_ns - (work - takes)) - due_ns
        free, done = [0.0] * self.servers, np.empty_like(due_ns)
        for number, (due, time) in enumerate(zip(due_ns.tolist(), takes.tolist(), strict=True)):
            done[number] = max(due, heapq.heappop(free)) + time
            heapq.heappush(free, done[number])
        return done - due_ns

    def truth_rps(self, percentile: int) -> float:
        """The rate of the long run, by bisection."""
        low, high = 0.05, 0.999
        for _ in range(14):
            middle = (low + high) / 2
            rng = np.random.default_rng(0)
            due = np.cumsum(rng.exponential(S / (middle * self.capacity_rps), LONG_RUN // self.servers))
            late = self.latency_ns(due, rng) > self.limit_s * S
            low, high = (middle, high) if late.mean() < 1 - percentile / 100 else (low, middle)
        return middle * self.capacity_rps


QUEUES = (
    Queue("M/D/1, 10 ms", 100, 0.05),
    Queue("M/D/1, 10 ms, wide", 100, 0.1),
    Queue("M/D/1, 2 ms", 500, 0.01),
    Queue("M/D/4, 10 ms", 400, 0.02),
    Queue("M/D/4, 10 ms, wide", 400, 0.05),
    Queue("M/M/1, 10 ms", 100, 0.1, exponential=True, claimed=()),
    Queue("M/M/1, 2 ms", 500, 0.02, exponential=True, claimed=(95,)),
    Queue("M/M/1, 0.5 ms", 2000, 0.005, exponential=True),
)


class Search:
    """One search in simulated time."""

    def __init__(self, queue: Queue, percentile: int, seed: int, *, typical: bool) -> None:
        self.queue, self.percentile, self.seed, self.typical = queue, percentile, seed, typical
        self.left_s = SECONDS
        self.capacity_rps = queue.capacity_rps * (1 + np.random.default_rng(seed).normal(0, 0.01))

    def run(self) -> float:
        objective = Objective.of(self.percentile, int(self.queue.limit_s * S))
        return highest_rate(self.probe, objective, self.capacity_rps, left_s=lambda: self.left_s)[0].value

    def due_ns(self, plan: ProbePlan, seed: int) -> NDArray[np.float64]:
        mean = plan.rate_rps * (plan.warmup_s + plan.window_s)
        draws = np.random.default_rng((self.seed, seed)).exponential(
            S / plan.rate_rps, int(mean + 8 * math.sqrt(mean) + 20)
        )
        return np.cumsum(draws)

    def probe(self, plan: ProbePlan) -> Probe:
        self.left_s -= plan.warmup_s + plan.window_s + OVERHEAD_S
        window = Window(int(plan.warmup_s * S), int((plan.warmup_s + plan.window_s) * S))
        seed = plan.number * SEEDS
        if self.typical:
            seed = typical_seed(
                lambda seed: iter(self.due_ns(plan, seed).tolist()),
                plan.rate_rps,
                ReferenceQueue(self.capacity_rps, self.queue.servers),
                window=window,
                tail=1 - self.percentile / 100,
                first_seed=seed,
            )
        due = self.due_ns(plan, seed)
        due = due[due < window.end_ns]
        latency = self.queue.latency_ns(due, np.random.default_rng((self.seed, seed, 1)))
        late = latency[due >= window.start_ns] > self.queue.limit_s * S
        return Probe((Tally(late.size, int(late.sum()), int(late.sum())),), None)


def measure() -> Iterator[Table]:
    rows, claims = [], []
    for queue in QUEUES:
        for percentile in (95, 99):
            truth = queue.truth_rps(percentile)
            found, plain = (
                np.array([Search(queue, percentile, seed, typical=typical).run() for seed in range(SEARCHES)]) / truth
                for typical in (True, False)
            )
            variation = float(found.std() / found.mean())
            objective = str(Objective.of(percentile, int(queue.limit_s * S)))
            rows.append(
                (
                    queue.label,
                    objective,
                    f"{truth:,.1f}",
                    f"{found.mean():.3f}",
                    f"{100 * variation:.1f} %",
                    f"{found.min():.2f} to {found.max():.2f}",
                    f"{100 * plain.std() / plain.mean():.1f} %",
                )
            )
            claims.append(
                Claim(f"{queue.label}, {objective}: mean over truth", found.mean(), at_least=0.95, at_most=1.05)
            )
            if percentile in queue.claimed:
                claims.append(Claim(f"{queue.label}, {objective}: variation", variation, at_most=0.04))
    yield Table(
        f"NMRT under an objective by {SEARCHES} searches",
        ("service", "objective", "truth, req/s", "found / truth", "variation", "range", "uncontrolled"),
        rows,
        claims,
    )
