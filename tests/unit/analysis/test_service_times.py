"""Service times and pauses that answers show, and the rate that they allow: queues whose truth is known."""

import numpy as np
import pytest
from support.each_row import each_row
from support.queueing import Queue, served_ns
from support.synthetic import MS, S

from pytest_mlpatterns.analysis.capacity.service_times import Served, rate_by_service_times, shares_with_pauses
from pytest_mlpatterns.records.launch import LaunchValue


@pytest.mark.parametrize("servers", [1, 2, 4])
def test_the_time_of_each_request_in_service_follows_from_arrivals_and_answers(servers: int) -> None:
    queue, rng = Queue(100, servers, service="M"), np.random.default_rng(3)
    due_ns = queue.arrivals_ns(90, 10 * S, rng)
    takes_ns = queue.service_ns(due_ns.size, rng)
    found = Served.of(due_ns.astype(float), served_ns(due_ns, takes_ns, servers).astype(float), servers).takes_ns
    assert np.allclose(found, takes_ns, atol=2)


def test_a_single_server_may_take_waiting_requests_in_any_order() -> None:
    queue, rng = Queue(100, service="M"), np.random.default_rng(3)
    due_ns = queue.arrivals_ns(90, 10 * S, rng)
    takes_ns = queue.service_ns(due_ns.size, rng)
    done_ns, waiting, now_ns = np.zeros(due_ns.size), list[int](), 0
    for number, due in enumerate([*due_ns.tolist(), np.inf]):
        while waiting and now_ns < due:
            newest = waiting.pop()
            now_ns += int(takes_ns[newest])
            done_ns[newest] = now_ns
        if number < due_ns.size:
            waiting.append(number)
            now_ns = max(now_ns, due)
    overtaken = (np.diff(done_ns) < 0).mean()
    found = Served.of(due_ns.astype(float), done_ns, 1).takes_ns
    assert overtaken > 0.1
    assert np.allclose(np.sort(found), np.sort(takes_ns), atol=2)


@each_row(
    ("queue", "limit_ms", "allowed", "truth_rps"),
    (Queue(100), 50, 0.05, 69.3),
    (Queue(94.3), 30, 0.01, 27.5),
    (Queue(400, 4), 20, 0.05, 290.0),
    (Queue(100, service="M"), 100, 0.05, 70.04),  # an exponential latency: 100 - ln(20) / 0.1 s
    (Queue(500, service="M"), 20, 0.01, 269.7),
)
def test_the_rate_is_that_of_queueing_theory(queue: Queue, limit_ms: float, allowed: float, truth_rps: float) -> None:
    takes_ns = queue.service_ns(100_000, np.random.default_rng(1)).astype(float)
    found = rate_by_service_times([takes_ns], queue.servers, limit_ns=limit_ms * MS, allowed=allowed)
    assert found.value == pytest.approx(truth_rps, rel=0.02)
    assert found.relative_error < 0.025


def test_the_error_is_the_scatter_of_few_service_times() -> None:
    queue = Queue(100, service="M")
    rates, errors = [], []
    for seed in range(40):
        takes_ns = queue.service_ns(400, np.random.default_rng(seed)).astype(float)
        found = rate_by_service_times([takes_ns], 1, limit_ns=100 * MS, allowed=0.05)
        rates.append(np.log(found.value))
        errors.append(found.relative_error)
    assert np.mean(errors) == pytest.approx(np.std(rates), rel=0.35)


@pytest.mark.parametrize(("takes_ms", "limit_ms"), [([], 50), ([10.0], 50), ([10.0, 10.0], 9)], ids=str)
def test_times_that_say_nothing_give_no_rate(takes_ms: list[float], limit_ms: float) -> None:
    takes_ns = np.array(takes_ms) * MS
    assert rate_by_service_times([takes_ns], 1, limit_ns=limit_ms * MS, allowed=0.05) is None


def test_a_limit_that_is_kept_up_to_the_capacity_gives_the_capacity() -> None:
    found = rate_by_service_times([np.full(9, 10.0 * MS)], 2, limit_ns=1e6 * MS, allowed=0.05)
    assert found.value == pytest.approx(200)


def in_turns(requests: int, seed: int = 1) -> np.ndarray:
    """Times of 10 ms on average, half or one and a half times as long for 50 requests on end."""
    turns = np.random.default_rng(seed).choice([5.0, 15.0], requests // 50 + 1)
    return np.repeat(turns, 50)[:requests] * MS


def test_times_that_resemble_those_before_them_keep_their_order_and_the_error_of_runs() -> None:
    def found(takes_ns: np.ndarray) -> LaunchValue:
        return rate_by_service_times([takes_ns], 1, limit_ns=50 * MS, allowed=0.05)

    rate = found(in_turns(100_000)).value
    assert rate == pytest.approx(43.0, rel=0.06), "by simulation; the same times in any order allow 60 a second"
    takes_ns, mixed = in_turns(1000), np.random.default_rng(2).permutation(in_turns(1000))
    assert found(takes_ns).relative_error > 4 * found(mixed).relative_error


@pytest.mark.parametrize(
    ("every_s", "pause_s", "allowed", "truth_rps"),
    [(5.0, 0.2, 0.05, 30.6), (1.0, 0.06, 0.05, 33.7), (5.0, 0.2, 0.01, 0.0), (1.0, 0.06, 0.01, 0.0)],
)
def test_pauses_come_with_time_and_leave_the_rate_of_a_long_run(
    every_s: float, pause_s: float, allowed: float, truth_rps: float
) -> None:
    runs, limit_ns = [np.full(500, 10.0 * MS)], 50.0 * MS
    calm = rate_by_service_times(runs, 1, limit_ns=limit_ns, allowed=allowed)
    more, likely, fewer = shares_with_pauses(
        runs, 1, [pause_s * S] * 4, watched_ns=4 * every_s * S, limit_ns=limit_ns, allowed=allowed
    )
    assert likely * calm.value == pytest.approx(truth_rps, rel=0.15)
    assert more <= likely <= fewer <= 1


@pytest.mark.parametrize("servers", [1, 3])
def test_a_pause_is_found_once_with_its_length_and_the_end_of_what_came_meanwhile(servers: int) -> None:
    due_ns = np.arange(100 * servers) * 10 * MS // servers
    begun_ns = np.where((due_ns >= 200 * MS) & (due_ns < 300 * MS), 300 * MS, due_ns)
    done_ns = served_ns(begun_ns, np.full(due_ns.size, 8 * MS), servers).astype(float)
    (found,) = Served.of(due_ns.astype(float), done_ns, servers).pauses(50 * MS)
    assert found.start_ns == pytest.approx(200 * MS, abs=10 * MS)
    assert found.length_ns == pytest.approx(100 * MS, abs=10 * MS)
    assert 600 * MS < found.end_ns < 850 * MS, "the service then has 2 ms to spare of every 10 ms"
