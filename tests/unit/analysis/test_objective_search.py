"""The search for the highest rate that keeps a latency objective, over queues whose answer is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from support.each_row import each_row
from support.nightly import rarer
from support.queueing import Queue, served_ns
from support.synthetic import S, capacity

from pytest_mlpatterns.analysis.capacity.objective_search import PIECES, Found, Probe, ProbePlan, Tally, highest_rate
from pytest_mlpatterns.analysis.capacity.reference_queue import SEEDS, LongRun, ReferenceQueue, typical_seed
from pytest_mlpatterns.analysis.metrics.searched_rates import describe_pauses, known_rate
from pytest_mlpatterns.records.launch import Capacity, Estimate, LaunchValue, Pauses
from pytest_mlpatterns.records.objective import Objective, parse_objective
from pytest_mlpatterns.records.samples import Window

SEARCHES = 3
FULL = 7.0
"""Seconds of a search when three share the usual budget."""


@dataclass
class SimulatedService:
    """A queue as the deployment of a search, with a clock that windows move."""

    queue: Queue
    limit_s: float
    percentile: float
    seed: int
    left_s: float = FULL
    plans: list[ProbePlan] = field(default_factory=list)
    pauses_s: dict[int, float] = field(default_factory=dict)  # for how long the service stops once, by window

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
        if plan.number in self.pauses_s:
            service_ns[np.searchsorted(arrivals_ns, start_ns + S // 4)] += int(self.pauses_s[plan.number] * S)
        latency_ns = served_ns(arrivals_ns, service_ns, self.queue.servers) - arrivals_ns
        done_ns = (arrivals_ns + latency_ns).astype(float)
        return probe_of(arrivals_ns, latency_ns > self.limit_s * S, Window(start_ns, end_ns), done_ns=done_ns)

    def search(self, levels: tuple[float, ...] = ()) -> Found:
        objective = Objective.of(self.percentile, int(self.limit_s * S))
        capacity_rps = self.queue.capacity_rps * (1 + np.random.default_rng(self.seed).normal(0, 0.01))
        reference = ReferenceQueue(capacity_rps, self.queue.servers)
        found = highest_rate(self.probe, objective, reference, left_s=lambda: self.left_s, levels=levels)
        assert found.limited is None
        return found


def probe_of(due_ns: np.ndarray, late: np.ndarray, window: Window, **more: Any) -> Probe:
    edges = np.linspace(window.start_ns, window.end_ns, PIECES + 1)
    judged, counted = np.histogram(due_ns, edges)[0], np.histogram(due_ns[late], edges)[0]
    return Probe((Tally(judged, counted, counted),), due_ns.astype(float), window, **more)


@pytest.mark.simulation
@pytest.mark.parametrize(
    ("queue", "limit_s", "percentile", "truth_rps", "most_variation"),
    [
        (Queue(100), 0.05, 95, 69.3, 0.02),
        (Queue(400, 4), 0.02, 95, 290.3, 0.02),
        (Queue(500, service="G"), 0.01, 95, 333.6, 0.04),
        (Queue(100, service="M"), 0.1, 95, 70.0, 0.09),
        *rarer(
            (Queue(100), 0.05, 99, 56.2, 0.03),
            (Queue(94.3), 0.03, 95, 43.6, 0.03),
            (Queue(400, 4), 0.02, 99, 241.0, 0.02),
            (Queue(2000, service="M"), 0.005, 95, 1401, 0.03),
        ),
    ],
)
def test_the_answer_is_the_rate_of_the_long_run_and_its_error_is_stated(
    queue: Queue, limit_s: float, percentile: float, truth_rps: float, most_variation: float
) -> None:
    found = [SimulatedService(queue, limit_s, percentile, seed).search().rate for seed in range(SEARCHES)]
    rates = np.array([one.value for one in found])
    errors = np.array([one.relative_error for one in found])
    assert rates.mean() == pytest.approx(truth_rps, rel=0.03)
    assert rates.std() / rates.mean() < most_variation
    assert np.all(np.abs(np.log(rates / truth_rps)) < 4 * np.hypot(errors, 0.01))


def test_each_window_has_arrivals_of_its_own_and_a_warm_up_that_forgets_the_empty_queue() -> None:
    service, hurried = (SimulatedService(Queue(100), 0.05, 95, seed=1, left_s=left_s) for left_s in (FULL, 0.0))
    service.search()
    assert [plan.number for plan in service.plans] == list(range(len(service.plans)))
    assert len(service.plans) >= 3
    assert all(plan.warmup_s > 0.3 for plan in service.plans if plan.rate_rps > 60)
    assert service.left_s > -1
    hurried.search()
    assert len(hurried.plans) == 3, "without time"


def test_a_further_search_begins_where_the_last_one_ended() -> None:
    first = SimulatedService(Queue(2000, service="M"), 0.005, 95, seed=1)
    second = SimulatedService(Queue(2000, service="M"), 0.005, 95, seed=2)
    levels = first.search().levels
    second.search(levels)
    assert abs(second.plans[0].rate_rps - second.plans[-1].rate_rps) < 0.1 * second.plans[-1].rate_rps
    assert abs(first.plans[0].rate_rps - first.plans[-1].rate_rps) > 0.1 * first.plans[-1].rate_rps


@pytest.mark.parametrize("servers", [1, 4])
def test_service_times_that_contradict_the_late_requests_do_not_count(servers: int) -> None:
    fair = SimulatedService(Queue(100), 0.05, 95, seed=1).search().rate

    def make(plan: ProbePlan) -> Probe:
        probe = service.probe(plan)
        done_ns = probe.due_ns + S / 1000
        return structs.replace(probe, done_ns=done_ns)

    service = SimulatedService(Queue(100), 0.05, 95, seed=1)
    objective = Objective.of(95, 50_000_000)
    found = highest_rate(make, objective, ReferenceQueue(100, servers), left_s=lambda: service.left_s).rate
    assert found.value == pytest.approx(fair.value, rel=0.05)
    assert found.relative_error < 0.05


def test_with_a_failed_request_in_a_window_the_late_requests_count_alone() -> None:
    def found(*failed: int) -> float:
        service = SimulatedService(Queue(100, service="M"), 0.1, 95, seed=1)

        def make(plan: ProbePlan) -> Probe:
            probe = service.probe(plan)
            return structs.replace(probe, done_ns=None) if plan.number in failed else probe

        reference = ReferenceQueue(100, 1)
        return highest_rate(make, Objective.of(95, 100_000_000), reference, left_s=lambda: service.left_s).rate.value

    assert found(1) == found(*range(99)) != found()


@each_row("window", [0, 1, 2])
@each_row("pause_s", [0.1, 0.5])
def test_a_pause_is_taken_out_of_the_windows_and_counted_by_itself(window: int, pause_s: float) -> None:
    service = SimulatedService(Queue(400), 0.01, 95, seed=1, pauses_s={window: pause_s})
    found = service.search()
    assert (found.pauses.windows, found.pauses.of) == (1, len(service.plans))
    assert found.pauses.longest_ns == pytest.approx(pause_s * S, rel=0.1)
    assert found.pauses.without.value == pytest.approx(247, rel=0.03)
    assert found.pauses.least.value <= found.rate.value <= found.pauses.most.value <= found.pauses.without.value
    assert found.pauses.least.value < 0.9 * 247
    assert len(found.levels) == 1


def test_pauses_that_make_too_many_requests_late_at_any_rate_leave_none() -> None:
    service = SimulatedService(Queue(400), 0.01, 95, seed=1, pauses_s={0: 0.5, 1: 0.5})
    assert service.search().rate == LaunchValue(0.0, 0.0)


def one_long(longest_s: float, left_s: float, made: list[ProbePlan]) -> Found:
    """A search over a service that takes 2.5 ms, and this long for one request of the first window."""

    def make(plan: ProbePlan) -> Probe:
        made.append(plan)
        probe = constant(0.0)(plan)
        takes_ns = np.full(probe.due_ns.size, S // 400)
        takes_ns[5] = longest_s * S if plan.number == 0 else S // 400
        return structs.replace(probe, done_ns=served_ns(probe.due_ns.astype(int), takes_ns).astype(float))

    return highest_rate(make, Objective.of(95, 10_000_000), ReferenceQueue(400.0, 1), left_s=lambda: left_s)


@each_row(
    ("longest_s", "left_s", "is_pause", "windows"),
    [(0.015, 0.0, True, 4), (0.011, 0.0, False, 3), (0.5, 99.0, False, 11)],
)
def test_a_request_that_takes_five_times_as_long_as_nine_in_ten_is_a_pause_but_one_beside_ten_windows_is_chance(
    longest_s: float, left_s: float, is_pause: bool, windows: int
) -> None:
    made = list[ProbePlan]()
    assert (one_long(longest_s, left_s, made).pauses is not None) is is_pause
    assert len(made) >= windows if left_s else len(made) == windows, "the window is measured again"


def searched(rate: float, windows: int = 0) -> Capacity:
    """A search that found this rate, with a pause in that many windows; without pauses it is 60 req/s."""
    least, most, without = (LaunchValue(one, 0.01) for one in (0.0, 60.0, 60.0))
    pauses = Pauses(windows, 6, 203_000_000, least, most, without) if windows else None
    return structs.replace(capacity(rate, objective="p99<50ms"), ladder=(), pauses=pauses)


@each_row(
    ("searches", "low", "high", "said"),
    ([searched(60), searched(60)], 60, 60, ""),
    ([searched(20, 2)], 0, 60, "2 of 6 windows had a pause of up to 203 ms: with pauses 20.0 req/s keeps"),
    ([searched(0, 2)], 0, 60, "with pauses no rate keeps the objective, without them 60.0 req/s"),
    ([searched(20, 1), searched(61)], 60, 61, "and a further search none, so it does not count"),
    ([searched(61), searched(20, 1)], 0, 61, "1 of 6 windows"),
    ([searched(20, 2), searched(61)], 0, 61, "2 of 6 windows"),
    ([searched(20, 1), searched(61), searched(20, 1)], 0, 61, "2 of 12 windows"),
)
def test_pauses_count_until_a_further_search_shows_none(
    searches: list[Capacity], low: float, high: float, said: str
) -> None:
    def rate_of(rates: Sequence[LaunchValue]) -> Estimate:
        values = [one.value for one in rates]
        return Estimate(sum(values) / len(values), min(values), max(values))

    found = known_rate(searches, rate_of)
    assert (found.low, found.high) == (low, high)
    assert said in describe_pauses(searches)


def test_the_interval_ends_at_the_capacity_of_the_climb() -> None:
    climbed = structs.replace(searched(40), ladder=capacity(100).ladder)
    found = known_rate([climbed, searched(40)], lambda _rates: Estimate(40, 1, 1600))
    assert (found.low, found.high) == (1, pytest.approx(110))


def test_a_window_that_kept_the_objective_contradicts_that_no_rate_does() -> None:
    def make(plan: ProbePlan) -> Probe:
        rates.append(plan.rate_rps)
        return constant(0.0 if plan.number else 1.0)(plan)

    rates = list[float]()
    found = highest_rate(make, Objective.of(95, 10_000_000), ReferenceQueue(400.0, 1), left_s=lambda: 0.0)
    assert (found.rate.value, found.rate.relative_error) == (max(rates[1:]), 1.0)
    assert found.levels == ()


def search(make: Callable[[ProbePlan], Probe], limit_ns: int = 10_000_000) -> Found:
    return highest_rate(make, Objective.of(95, limit_ns), ReferenceQueue(400.0, 1), left_s=lambda: 6.0)


def constant(share: float, **more: Any) -> Callable[[ProbePlan], Probe]:
    """Even arrivals of which this share is late at any rate."""

    def make(plan: ProbePlan) -> Probe:
        window = Window(int(plan.warmup_s * S), int((plan.warmup_s + plan.window_s) * S))
        due_ns = np.arange(0, window.end_ns, int(S / plan.rate_rps))
        chosen = {name: value(plan) if callable(value) else value for name, value in more.items()}
        return probe_of(due_ns, np.arange(due_ns.size) % 100 < 100 * share, window, **chosen)

    return make


def test_nothing_is_found_above_the_capacity_or_a_rate_that_is_sustained_whatever_its_latency() -> None:
    assert search(constant(0.0), limit_ns=S).rate.value <= 400.0
    found = search(constant(0.0, answered_rps=lambda plan: 300.0 if plan.rate_rps > 300 else None), limit_ns=S)
    assert found.limited is None
    assert 240 < found.rate.value <= 300


@each_row(("share", "limited"), [(1.0, None), (0.0, "behind")])
def test_an_objective_that_no_rate_keeps_or_a_generator_that_is_the_limit_gives_nothing(
    share: float, limited: str | None
) -> None:
    found = search(constant(share, limited=limited))
    assert (found.rate.value, found.limited) == (0.0, limited)


def test_requests_that_were_sent_late_decide_nothing_by_their_lateness() -> None:
    def make(plan: ProbePlan) -> Probe:
        probe = constant(0.5)(plan)
        (tally,) = probe.tallies
        return structs.replace(probe, tallies=(replace(tally, late_unlagged=0 * tally.late),))

    limited = search(make).limited
    assert "the load generator sent too late to tell whether p95<10.0ms holds at " in limited


def test_an_objective_of_streams_needs_no_relation_between_its_time_and_the_service_time() -> None:
    objective = parse_objective("tpot:p95<40ms")  # of a service that takes 2 s for an answer, 8 at a time

    def make(plan: ProbePlan) -> Probe:
        window = Window(int(plan.warmup_s * S), int((plan.warmup_s + plan.window_s) * S))
        due_ns = np.sort(
            np.random.default_rng(plan.number).uniform(0, window.end_ns, int(plan.rate_rps * window.end_ns / S))
        )
        judged = np.full(PIECES, 100)
        late = np.full(PIECES, round(100 / (1 + np.exp(3 - 8 * (plan.rate_rps - 2)))))  # 5 % at 2 requests a second
        return Probe((Tally(judged, late, late),), due_ns, window)

    found = highest_rate(make, objective, ReferenceQueue(4.0, 8), left_s=lambda: 20.0)
    assert found.rate.value == pytest.approx(2.0, rel=0.15)


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


@each_row(
    ("servers", "allowed", "level", "load"),
    [(1, 0.05, 5, 0.693), (1, 0.01, 5, 0.562), (4, 0.05, 2, 0.725), (1, 0.05, 30 / 10.6, 0.462), (1, 0.01, 10, 0.774)],
)
def test_the_long_run_is_that_of_queueing_theory(servers: int, allowed: float, level: float, load: float) -> None:
    long_run = LongRun(servers, allowed)
    assert long_run.load_at(level) == pytest.approx(load, rel=0.012)
    assert long_run.level_at(load) == pytest.approx(level, rel=0.05)


@pytest.mark.parametrize(("servers", "waiting"), [(1, 0.5), (7, 0.5**3)])
def test_of_random_arrivals_fewer_wait_the_more_servers_there_are(servers: int, waiting: float) -> None:
    assert ReferenceQueue(100, servers).share_above(1, 50) == pytest.approx(waiting)
