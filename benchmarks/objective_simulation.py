"""Does a search under a latency objective find the rate of the long run? Queues of known capacity, in simulated time.

The truth is the rate at which a million requests keep the objective. A test has 30 s: three launches of 2.5 s, one
climb of 3 s, and searches in the rest. The launches differ in speed by 1.7 %, as the plugin expects, and the capacity
of the climb is off by 1 %. An interval is the one of 98.6 % that an assertion judges after that launch. Service times
are constant (D), vary by half of their mean (G), which the fitted curve does not know, or are exponential (M).
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING

import numpy as np
from bench import Claim, Table

from pytest_mlpatterns.analysis.capacity.objective_search import PIECES, Probe, Tally, highest_rate
from pytest_mlpatterns.analysis.capacity.reference_queue import SEEDS, ReferenceQueue, typical_seed
from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.statistics.intervals import LAUNCH_SD, estimate
from pytest_mlpatterns.records.launch import Estimate, LaunchValue
from pytest_mlpatterns.records.objective import Objective
from pytest_mlpatterns.records.samples import Window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pytest_mlpatterns.analysis.capacity.objective_search import Found, ProbePlan

CLAIM = (
    "NMRT under an objective is known to ±10 % within 30 s for constant service times, and for any service times its "
    "intervals hold the truth in 90 % of the tests"
)
TESTS = 100
SEARCHES_S = (5.0, 7.0, 7.0)
OVERHEAD_S = 0.15
LONG_RUN = 1_000_000
S = 1_000_000_000
PLAN = SequentialPlan(first=1, last=4, alpha=0.02)


@dataclass(frozen=True)
class Queue:
    """A first-come, first-served queue.

    Attributes:
        label: its name.
        capacity_rps: requests per second of all servers together.
        limit_s: of the objective.
        servers: requests that are served at once.
        spread: standard deviation of the service times over their mean.
        resolved: percentiles that are known to 10 % in 30 s.
    """

    label: str
    capacity_rps: float
    limit_s: float
    servers: int = 1
    spread: float = 0.0
    resolved: tuple[int, ...] = ()

    def latency_ns(self, due_ns: NDArray[np.float64], rng: np.random.Generator, slow: float = 1) -> NDArray[np.float64]:
        """Latency of each request, of a launch that is so much slower."""
        mean = slow * S * self.servers / self.capacity_rps
        shape = 1 / self.spread**2 if self.spread else math.inf
        takes = rng.gamma(shape, mean / shape, due_ns.size) if self.spread else np.full(due_ns.size, mean)
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
    Queue("M/D/1, 10.6 ms", 94.3, 0.03, resolved=(95,)),
    Queue("M/D/1, 10 ms", 100, 0.05, resolved=(95, 99)),
    Queue("M/D/1, 2 ms", 500, 0.01, resolved=(95, 99)),
    Queue("M/D/4, 10 ms", 400, 0.02, 4, resolved=(95, 99)),
    Queue("M/G/1, 10 ms", 100, 0.05, spread=0.5),
    Queue("M/G/1, 2 ms", 500, 0.01, spread=0.5),
    Queue("M/M/1, 10 ms", 100, 0.1, spread=1.0),
    Queue("M/M/1, 2 ms", 500, 0.02, spread=1.0),
    Queue("M/M/1, 0.5 ms", 2000, 0.005, spread=1.0),
)


class Search:
    """One search in simulated time."""

    def __init__(self, queue: Queue, percentile: int, seed: int, *, seconds: float, slow: float) -> None:
        self.queue, self.percentile, self.seed, self.slow = queue, percentile, seed, slow
        self.left_s = seconds

    def run(self, capacity_rps: float, levels: tuple[float, ...]) -> Found:
        objective = Objective.of(self.percentile, int(self.queue.limit_s * S))
        self.reference = ReferenceQueue(capacity_rps, self.queue.servers)
        return highest_rate(self.probe, objective, self.reference, left_s=lambda: self.left_s, levels=levels)

    def due_ns(self, plan: ProbePlan, seed: int) -> NDArray[np.float64]:
        mean = plan.rate_rps * (plan.warmup_s + plan.window_s)
        draws = np.random.default_rng((self.seed, seed)).exponential(
            S / plan.rate_rps, int(mean + 8 * math.sqrt(mean) + 20)
        )
        return np.cumsum(draws)

    def probe(self, plan: ProbePlan) -> Probe:
        self.left_s -= plan.warmup_s + plan.window_s + OVERHEAD_S
        window = Window(int(plan.warmup_s * S), int((plan.warmup_s + plan.window_s) * S))
        seed = typical_seed(
            lambda seed: iter(self.due_ns(plan, seed).tolist()),
            plan.rate_rps,
            self.reference,
            window=window,
            tail=1 - self.percentile / 100,
            first_seed=plan.number * SEEDS,
        )
        due = self.due_ns(plan, seed)
        due = due[due < window.end_ns]
        latency = self.queue.latency_ns(due, np.random.default_rng((self.seed, seed, 1)), self.slow)
        late = latency > self.queue.limit_s * S
        edges = np.linspace(window.start_ns, window.end_ns, PIECES + 1)
        judged, counted = np.histogram(due, edges)[0], np.histogram(due[late], edges)[0]
        return Probe((Tally(judged, counted, counted),), due, window, done_ns=due + latency)


def intervals(queue: Queue, percentile: int, test: int) -> list[Estimate]:
    """The interval after each launch of one test."""
    rng = np.random.default_rng((test, 77))
    capacity_rps, values, found = 0.0, list[LaunchValue](), list[Estimate]()
    levels: tuple[float, ...] = ()
    for launch, seconds in enumerate(SEARCHES_S):
        slow = math.exp(rng.normal(0, LAUNCH_SD))
        capacity_rps = capacity_rps or queue.capacity_rps / slow * (1 + rng.normal(0, 0.01))
        one = Search(queue, percentile, 10 * test + launch, seconds=seconds, slow=slow).run(capacity_rps, levels)
        levels = one.levels
        values.append(one.rate)
        found.append(estimate(values, LAUNCH_SD, PLAN.confidence(launch + 1)))
    return found


def measure() -> Iterator[Table]:
    rows, claims = [], []
    for queue in QUEUES:
        for percentile in (95, 99):
            truth = queue.truth_rps(percentile)
            tests = [intervals(queue, percentile, test) for test in range(TESTS)]
            held = [fmean(one[launch].low <= truth <= one[launch].high for one in tests) for launch in range(3)]
            wide = [median((one[at].high - one[at].low) / 2 / one[at].value for one in tests) for at in range(3)]
            mean = fmean(one[-1].value for one in tests) / truth
            objective = str(Objective.of(percentile, int(queue.limit_s * S)))
            rows.append(
                (
                    queue.label,
                    objective,
                    f"{truth:,.1f}",
                    f"{mean:.3f}",
                    *(f"±{100 * share:.1f} %" for share in wide),
                    *(f"{100 * share:.1f} %" for share in held),
                )
            )
            claims += [
                Claim(f"{queue.label}, {objective}: intervals that hold the truth", min(held), at_least=0.9),
                *(
                    [Claim(f"{queue.label}, {objective}: half width after 30 s", wide[-1], at_most=0.1)]
                    if percentile in queue.resolved
                    else []
                ),
            ]
    yield Table(
        f"NMRT under an objective in {TESTS} tests, after one, two and three launches",
        ("service", "objective", "truth, req/s", "found / truth", "±, 1", "2", "3", "held, 1", "2", "3"),
        rows,
        claims,
    )
