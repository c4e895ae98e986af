"""The search for the highest rate that keeps a latency objective, over queues whose answer is known."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from support.queueing import Queue, served_ns
from support.synthetic import S

from pytest_mlpatterns.analysis.objective_search import Probe, ProbePlan, Tally, highest_rate
from pytest_mlpatterns.analysis.typical_arrivals import SEEDS, ReferenceQueue, typical_seed
from pytest_mlpatterns.records.objective import Objective
from pytest_mlpatterns.records.samples import Window

SEARCHES = 8


@dataclass
class SimulatedService:
    """A queue as the deployment of a search, with a clock that windows move."""

    queue: Queue
    limit_s: float
    percentile: float
    seed: int
    left_s: float = 24.0
    plans: list[ProbePlan] = field(default_factory=list)

    def arrivals_ns(self, rate_rps: float, length_ns: int, seed: int) -> np.ndarray:
        return self.queue.arrivals_ns(rate_rps, length_ns, np.random.default_rng((self.seed, seed)))

    def probe(self, plan: ProbePlan) -> Probe:
        self.plans.append(plan)
        self.left_s -= plan.warmup_s + plan.window_s + 0.15
        start_ns, end_ns = (int(seconds * S) for seconds in (plan.warmup_s, plan.warmup_s + plan.window_s))
        seed = typical_seed(
            lambda seed: iter(self.arrivals_ns(plan.rate_rps, 2 * end_ns + S, seed).tolist()),
            plan.rate_rps,
            ReferenceQueue(self.queue.capacity_rps, self.queue.servers),
            window=Window(start_ns, end_ns),
            tail=1 - self.percentile / 100,
            first_seed=plan.number * SEEDS,
        )
        arrivals_ns = self.arrivals_ns(plan.rate_rps, 2 * end_ns + S, seed)
        arrivals_ns = arrivals_ns[arrivals_ns < end_ns]
        service_ns = self.queue.service_ns(arrivals_ns.size, np.random.default_rng((self.seed, seed, 1)))
        latency_ns = served_ns(arrivals_ns, service_ns, self.queue.servers) - arrivals_ns
        late = latency_ns[arrivals_ns >= start_ns] > self.limit_s * S
        return Probe((Tally(late.size, int(late.sum()), int(late.sum())),), None)

    def search(self) -> float:
        objective = Objective.of(self.percentile, int(self.limit_s * S))
        capacity_rps = self.queue.capacity_rps * (1 + np.random.default_rng(self.seed).normal(0, 0.01))
        rate, limited = highest_rate(self.probe, objective, capacity_rps, left_s=lambda: self.left_s)
        assert limited is None
        return rate.value


@pytest.mark.parametrize(
    ("queue", "limit_s", "percentile", "truth_rps", "most_variation"),
    [
        (Queue(100), 0.05, 95, 69.3, 0.03),
        (Queue(100), 0.05, 99, 56.0, 0.04),
        (Queue(400, 4), 0.02, 95, 290.3, 0.03),
        (Queue(400, 4), 0.02, 99, 241.0, 0.03),
        (Queue(500, service="M"), 0.02, 95, 350.2, 0.05),
    ],
)
def test_the_answer_is_the_rate_of_the_long_run(
    queue: Queue, limit_s: float, percentile: float, truth_rps: float, most_variation: float
) -> None:
    found = [SimulatedService(queue, limit_s, percentile, seed).search() for seed in range(SEARCHES)]

    assert np.mean(found) == pytest.approx(truth_rps, rel=0.02)
    assert np.std(found) / np.mean(found) < most_variation


def test_each_window_has_arrivals_of_its_own_and_a_warm_up_that_forgets_the_empty_queue() -> None:
    service = SimulatedService(Queue(100), 0.05, 95, seed=1)
    service.search()

    assert [plan.number for plan in service.plans] == list(range(len(service.plans)))
    assert len(service.plans) >= 8
    assert all(plan.warmup_s > 0.3 for plan in service.plans if plan.rate_rps > 60)
    assert service.left_s > -1


def search(probe: object, capacity_rps: float = 400.0, limit_ns: int = 10_000_000) -> tuple[float, str | None]:
    rate, limited = highest_rate(probe, Objective.of(95, limit_ns), capacity_rps, left_s=lambda: 20.0)  # type: ignore[arg-type]
    return rate.value, limited


def test_nothing_is_found_above_the_capacity() -> None:
    assert search(lambda _plan: Probe((Tally(1000, 0, 0),), None))[0] <= 400.0


def test_a_rate_that_is_not_sustained_is_the_end_of_the_search_whatever_its_latency() -> None:
    rate, limited = search(
        lambda plan: Probe((Tally(1000, 0, 0),), None, answered_rps=300.0 if plan.rate_rps > 300 else None),
        limit_ns=1_000_000_000,
    )

    assert limited is None
    assert 240 < rate <= 300


def test_an_objective_that_no_rate_keeps_gives_nothing() -> None:
    assert search(lambda _plan: Probe((Tally(1000, 1000, 1000),), None)) == (0.0, None)


def test_a_probe_limited_by_the_generator_ends_the_search_and_says_so() -> None:
    assert search(lambda _plan: Probe((Tally(10, 0, 0),), "behind")) == (0.0, "behind")


def test_requests_that_were_sent_late_decide_nothing_by_their_lateness() -> None:
    _, limited = search(lambda _plan: Probe((Tally(1000, 500, 0),), None))

    assert limited is not None
    assert "the load generator sent too late to tell whether p95<10.0ms holds at " in limited


def test_without_time_two_windows_are_measured() -> None:
    service = SimulatedService(Queue(100), 0.05, 95, seed=1, left_s=0.0)
    service.search()

    assert len(service.plans) == 2


def test_an_answer_of_few_windows_that_agree_is_not_taken_for_exact() -> None:
    service = SimulatedService(Queue(400, 4), 0.02, 95, seed=1, left_s=4.0)
    objective = Objective.of(95, 20_000_000)
    rate, _ = highest_rate(service.probe, objective, 400.0, left_s=lambda: service.left_s)

    assert len(service.plans) < 8
    assert rate.relative_error >= 0.2 / len(service.plans)


def test_typical_arrivals_have_the_tail_of_the_long_run() -> None:
    queue, rng = Queue(100), np.random.default_rng(0)
    streams = [queue.arrivals_ns(80, 8 * S, rng) for _ in range(3 * SEEDS)]

    def share(arrivals_ns: np.ndarray) -> float:
        latency_ns = served_ns(arrivals_ns, np.full(arrivals_ns.size, S // 100)) - arrivals_ns
        return float((latency_ns[arrivals_ns >= S] > 0.075 * S).mean())

    chosen = [
        typical_seed(
            lambda seed: iter(streams[seed].tolist()),
            80,
            ReferenceQueue(100, 1),
            window=Window(S, 3 * S),
            tail=0.05,
            first_seed=first,
        )
        for first in range(0, 3 * SEEDS, SEEDS)
    ]

    assert [first <= seed < first + SEEDS for first, seed in zip(range(0, 3 * SEEDS, SEEDS), chosen, strict=True)]
    short = [stream[stream < 3 * S] for stream in streams]
    assert np.std([share(short[seed]) for seed in chosen]) < np.std([share(stream) for stream in short]) / 2


def test_arrivals_of_a_high_rate_are_taken_as_they_come() -> None:
    def never(_seed: int) -> object:
        raise AssertionError("no arrivals need to be compared")

    assert (
        typical_seed(never, 100_000, ReferenceQueue(2e5, 1), window=Window(0, 2 * S), tail=0.05, first_seed=7)  # type: ignore[arg-type]
        == 7
    )
