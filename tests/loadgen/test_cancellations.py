"""Which requests are cancelled: always the same ones, as many as asked, over all generators."""

from __future__ import annotations

import pytest

from pytest_mlpatterns.loadgen.arrivals import NEVER_NS, Cancellations
from pytest_mlpatterns.loadgen.messages import Share
from pytest_mlpatterns.workload.schedule import Cancellation


def chosen(ratio: float, count: int, share: Share | None = None) -> list[bool]:
    cancellations = Cancellations(Cancellation(ratio, 5), share or Share())
    return [cancellations.choose() for _ in range(count)]


@pytest.mark.parametrize("ratio", [0.01, 0.05, 0.5, 0.9, 1.0])
def test_the_share_is_met_after_a_few_requests(ratio: float) -> None:
    found = chosen(ratio, 1000)
    assert found == chosen(ratio, 1000)
    for count in (100, 300, 1000):
        assert abs(sum(found[:count]) - ratio * count) <= 3


@pytest.mark.parametrize("cycle", [2, 3, 5, 8, 10, 20])
def test_no_cycle_of_the_inputs_meets_the_choice(cycle: int) -> None:
    found = chosen(0.1, 100 * cycle)
    for number in range(cycle):
        assert 5 <= sum(found[number::cycle]) <= 15


def test_several_generators_choose_what_one_would() -> None:
    parts = [chosen(0.2, 50, Share(number, 3)) for number in range(3)]
    assert [parts[number % 3][number // 3] for number in range(150)] == chosen(0.2, 150)


def test_requests_are_cancelled_when_their_time_is_up() -> None:
    cancellations = Cancellations(Cancellation(1, 100), Share())
    cancelled: list[str] = []
    assert cancellations.next_ns == NEVER_NS
    for name, due_ns in (("late", 30), ("early", 10), ("as early", 10)):
        cancellations.add(due_ns, lambda name=name: cancelled.append(name))  # type: ignore[misc]
    assert cancellations.next_ns == 110
    cancellations.run(109)
    assert cancelled == []
    cancellations.run(110)
    assert cancelled == ["early", "as early"]
    cancellations.run(1000)
    assert cancelled == ["early", "as early", "late"]
    assert cancellations.next_ns == NEVER_NS


def test_a_cancellation_is_shown_with_its_units() -> None:
    assert str(Cancellation(0.05, 200_000_000)) == "5.0 % after 200 ms"
