"""Does a search under a latency objective find the rate of the long run? Queues of known capacity, in simulated time.

The truth is the rate at which a million requests keep the objective. A test has 30 s: three launches of 2.5 s, one
climb of 3 s, and searches in the rest. The launches differ in speed by 1.7 %, as the plugin expects, and the capacity
of the climb is off by 1 %. An interval is the one of 98.6 % that an assertion judges after that launch. Service times
are constant (D), vary by half of their mean (G), which the fitted curve does not know, or are exponential (M).

Other services stop regularly, or take half or one and a half times as long for 50 requests on end. Where the truth is
"none", pauses alone make too many requests late at any rate; its interval must reach down to the lowest rate.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from dataclasses import dataclass
from functools import partial
from statistics import fmean, median
from typing import TYPE_CHECKING

import numpy as np
from bench import Claim, Table

from pytest_mlpatterns.analysis.capacity.objective_search import PIECES, Probe, Tally, highest_rate
from pytest_mlpatterns.analysis.capacity.reference_queue import SEEDS, ReferenceQueue, typical_seed
from pytest_mlpatterns.analysis.metrics.searched_rates import known_rate, searches_needed
from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.statistics.intervals import LAUNCH_SD, estimate
from pytest_mlpatterns.records.launch import Capacity, Estimate
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
LOWEST = 0.05  # Lowest rate that is tried, as a share of the capacity
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
        every_s: time between two pauses; 0 for none.
        pause_s: length of a pause.
        run: requests that take as long as each other, half or one and a half times the mean.
    """

    label: str
    capacity_rps: float
    limit_s: float
    servers: int = 1
    spread: float = 0.0
    resolved: tuple[int, ...] = ()
    every_s: float = 0.0
    pause_s: float = 0.0
    run: int = 0

    def latency_ns(self, due_ns: NDArray[np.float64], rng: np.random.Generator, slow: float = 1) -> NDArray[np.float64]:
        """Latency of each request, of a launch that is so much slower."""
        mean = slow * S * self.servers / self.capacity_rps
        shape = 1 / self.spread**2 if self.spread else math.inf
        takes = rng.gamma(shape, mean / shape, due_ns.size) if self.spread else np.full(due_ns.size, mean)
        if self.run:
            takes *= np.repeat(rng.choice([0.5, 1.5], due_ns.size // self.run + 1), self.run)[: due_ns.size]
        if self.every_s:
            return self._with_pauses(due_ns, takes)
        if self.servers == 1:
            work = np.cumsum(takes)
            return work + np.maximum.accumulate(due_ns - (work - takes)) - due_ns
        free, done = [0.0] * self.servers, np.empty_like(due_ns)
        for number, (due, time) in enumerate(zip(due_ns.tolist(), takes.tolist(), strict=True)):
            done[number] = max(due, heapq.heappop(free)) + time
            heapq.heappush(free, done[number])
        return done - due_ns

    def _with_pauses(self, due_ns: NDArray[np.float64], takes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Latency of each request of one server that stops regularly from 0 on, also amid a request."""
        done, free = np.empty_like(due_ns), 0.0
        every_ns, pause_ns = self.every_s * S, self.pause_s * S
        for number, (due, time) in enumerate(zip(due_ns.tolist(), takes.tolist(), strict=True)):
            begin = max(due, free)
            since = begin % every_ns
            free = begin + time + max(pause_ns - since, 0.0)
            if pause_ns <= since and since + time > every_ns:
                free += pause_ns
            done[number] = free
        return done - due_ns

    def truth_rps(self, percentile: int) -> float | None:
        """The rate of the long run, by bisection; None if none from 5 % of the capacity on keeps it."""
        low, high = LOWEST, 0.999
        for _ in range(14):
            middle = (low + high) / 2
            rng = np.random.default_rng(0)
            requests = LONG_RUN // (4 if self.every_s else self.servers)
            due = np.cumsum(rng.exponential(S / (middle * self.capacity_rps), requests))
            late = self.latency_ns(due, rng) > self.limit_s * S
            low, high = (middle, high) if late.mean() < 1 - percentile / 100 else (low, middle)
        return middle * self.capacity_rps if low > LOWEST else None


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
    Queue("stops 30 ms each 0.5 s", 100, 0.05, every_s=0.5, pause_s=0.03),
    Queue("stops 60 ms each 1 s", 100, 0.05, every_s=1, pause_s=0.06),
    Queue("stops 0.2 s each 5 s", 100, 0.05, every_s=5, pause_s=0.2),
    Queue("times x0.5 or x1.5 for 50 requests", 100, 0.05, run=50),
)


ASKED = (
    ("stops 0.2 s each 5 s", 40.0, False),
    ("stops 0.2 s each 5 s", 50.0, False),
    ("M/D/1, 10 ms", 45.0, True),
    ("M/D/4, 10 ms", 200.0, True),
)
"""Services, rates of p99 that a test asks of them, and whether they keep these."""


class Search:
    """One search in simulated time."""

    def __init__(self, queue: Queue, percentile: int, seed: int, *, seconds: float, slow: float) -> None:
        self.queue, self.percentile, self.seed, self.slow = queue, percentile, seed, slow
        self.left_s = seconds
        self.begun_s = np.random.default_rng((seed, 5)).uniform(0, 60)  # of the next window, on the service's clock

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
        begun_s, took_s = self.begun_s, plan.warmup_s + plan.window_s + OVERHEAD_S
        self.left_s, self.begun_s = self.left_s - took_s, begun_s + took_s
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
        latency = self.queue.latency_ns(begun_s * S + due, np.random.default_rng((self.seed, seed, 1)), self.slow)
        late = latency > self.queue.limit_s * S
        edges = np.linspace(window.start_ns, window.end_ns, PIECES + 1)
        judged, counted = np.histogram(due, edges)[0], np.histogram(due[late], edges)[0]
        return Probe((Tally(judged, counted, counted),), due, window, done_ns=due + latency)


def searches(queue: Queue, percentile: int, test: int) -> list[Capacity]:
    """The searches of one test, each of a launch."""
    rng = np.random.default_rng((test, 77))
    capacity_rps, found = 0.0, list[Capacity]()
    levels: tuple[float, ...] = ()
    for launch, seconds in enumerate(SEARCHES_S):
        slow = math.exp(rng.normal(0, LAUNCH_SD))
        capacity_rps = capacity_rps or queue.capacity_rps / slow * (1 + rng.normal(0, 0.01))
        one = Search(queue, percentile, 10 * test + launch, seconds=seconds, slow=slow).run(capacity_rps, levels)
        levels = one.levels
        found.append(Capacity(one.rate, 1, (), "", at_least=False, pauses=one.pauses))
    return found


def intervals(queue: Queue, percentile: int, test: int) -> list[Estimate]:
    """The interval after each launch of one test."""
    every = searches(queue, percentile, test)
    return [interval(every[:launch]) for launch in range(1, len(every) + 1)]


def interval(so_far: list[Capacity]) -> Estimate:
    """The interval that an assertion judges by these searches."""
    found = known_rate(so_far, partial(estimate, launch_sd=LAUNCH_SD, confidence=PLAN.confidence(len(so_far))))
    return found or Estimate(0.0, 0.0, 0.0)


def outcome(every: list[Capacity], objective: Objective, asked_rps: float) -> str:
    """What ``assert_nmrt_at_least`` reports of a test."""
    for launch in range(1, len(every) + 1):
        so_far = every[:launch]
        found = interval(so_far)
        if found.low >= asked_rps and launch >= searches_needed(so_far, objective):
            return f"PASS after {launch}"
        if found.high < asked_rps and launch > 1:
            return f"FAIL after {launch}"
    return "undecided"


def _holds(interval: Estimate, truth: float | None, queue: Queue) -> bool:
    if truth is None:
        return interval.low <= LOWEST * queue.capacity_rps
    return interval.low <= truth <= interval.high


def measure() -> Iterator[Table]:
    yield _accuracy()
    yield _asked()


def _accuracy() -> Table:
    rows, claims = [], []
    for queue in QUEUES:
        for percentile in (95, 99):
            truth = queue.truth_rps(percentile)
            tests = [intervals(queue, percentile, test) for test in range(TESTS)]
            held = [fmean(_holds(one[launch], truth, queue) for one in tests) for launch in range(3)]
            wide = [median((one[at].high - one[at].low) / 2 / (one[at].value or 1) for one in tests) for at in range(3)]
            mean = fmean(one[-1].value for one in tests)
            objective = str(Objective.of(percentile, int(queue.limit_s * S)))
            rows.append(
                (
                    queue.label,
                    objective,
                    f"{truth:,.1f}" if truth else "none",
                    f"{mean / truth:.3f}" if truth else f"{mean:,.1f} req/s",
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
    return Table(
        f"NMRT under an objective in {TESTS} tests, after one, two and three launches",
        ("service", "objective", "truth, req/s", "found / truth", "±, 1", "2", "3", "held, 1", "2", "3"),
        rows,
        claims,
    )


def _asked() -> Table:
    """Assertions of p99: rates that no rate is of a service that stops, and rates just below the truth of others."""
    rows, claims = [], []
    for label, asked, right in ASKED:
        queue = next(one for one in QUEUES if one.label == label)
        objective = Objective.of(99, int(queue.limit_s * S))
        found = Counter(outcome(searches(queue, 99, test), objective, asked) for test in range(TESTS))
        shown = ", ".join(f"{name}: {number}" for name, number in sorted(found.items()))
        rows.append((label, str(objective), f"{asked:g} req/s", shown))
        passed = sum(number for name, number in found.items() if name.startswith("PASS")) / TESTS
        bound = {"at_least": 0.9} if right else {"at_most": 1 / 30}
        claims.append(Claim(f"{label}, at least {asked:g} req/s: share of tests that pass", passed, **bound))
    return Table(f"Assertions in {TESTS} tests", ("service", "objective", "asked", "outcomes"), rows, claims)
