"""Service times that answers show, and the rate that they allow: queues whose truth is known."""

import numpy as np
import pytest
from support.queueing import Queue, served_ns
from support.synthetic import MS, S

from pytest_mlpatterns.analysis.capacity.objective_search import rate_by_service_times, service_times_ns


@pytest.mark.parametrize("servers", [1, 2, 4])
def test_the_time_of_each_request_in_service_follows_from_arrivals_and_answers(servers: int) -> None:
    queue, rng = Queue(100, servers, service="M"), np.random.default_rng(3)
    due_ns = queue.arrivals_ns(90, 10 * S, rng)
    takes_ns = queue.service_ns(due_ns.size, rng)
    found = service_times_ns(due_ns.astype(float), served_ns(due_ns, takes_ns, servers).astype(float), servers)

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

    found = service_times_ns(due_ns.astype(float), done_ns, 1)

    assert overtaken > 0.1
    assert np.allclose(np.sort(found), np.sort(takes_ns), atol=2)


@pytest.mark.parametrize(
    ("queue", "limit_ms", "allowed", "truth_rps"),
    [
        (Queue(100), 50, 0.05, 69.3),
        (Queue(94.3), 30, 0.01, 27.5),
        (Queue(400, 4), 20, 0.05, 290.0),
        (Queue(100, service="M"), 100, 0.05, 70.04),  # an exponential latency: 100 - ln(20) / 0.1 s
        (Queue(500, service="M"), 20, 0.01, 269.7),
    ],
)
def test_the_rate_is_that_of_queueing_theory(queue: Queue, limit_ms: float, allowed: float, truth_rps: float) -> None:
    takes_ns = queue.service_ns(100_000, np.random.default_rng(1)).astype(float)
    found = rate_by_service_times(takes_ns, queue.servers, limit_ns=limit_ms * MS, allowed=allowed)

    assert found is not None
    assert found.value == pytest.approx(truth_rps, rel=0.02)
    assert found.relative_error < 0.025


def test_the_error_is_the_scatter_of_few_service_times() -> None:
    queue = Queue(100, service="M")
    rates, errors = [], []
    for seed in range(40):
        takes_ns = queue.service_ns(400, np.random.default_rng(seed)).astype(float)
        found = rate_by_service_times(takes_ns, 1, limit_ns=100 * MS, allowed=0.05)
        assert found is not None
        rates.append(np.log(found.value))
        errors.append(found.relative_error)

    assert np.mean(errors) == pytest.approx(np.std(rates), rel=0.35)


@pytest.mark.parametrize(("takes_ms", "limit_ms"), [([], 50), ([10.0], 50), ([10.0, 10.0], 9)], ids=str)
def test_times_that_say_nothing_give_no_rate(takes_ms: list[float], limit_ms: float) -> None:
    takes_ns = np.array(takes_ms) * MS
    assert rate_by_service_times(takes_ns, 1, limit_ns=limit_ms * MS, allowed=0.05) is None


def test_a_limit_that_is_kept_up_to_the_capacity_gives_the_capacity() -> None:
    found = rate_by_service_times(np.full(9, 10.0 * MS), 2, limit_ns=1e6 * MS, allowed=0.05)
    assert found is not None
    assert found.value == pytest.approx(200)
