import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import PROPERTY

from pytest_mlpatterns.records.addressing import Balance, Balancer


class TestBalancer:
    @each_row("balance", list(Balance))
    @each_row("replicas", [1, 2, 3])
    def test_one_caller_reaches_every_replica_in_turn(self, balance: Balance, replicas: int) -> None:
        balancer = Balancer(replicas, balance)
        chosen = [balancer.choose() for _ in range(2 * replicas)]  # each request ends before the next one
        assert chosen == [*range(replicas)] * 2

    def test_least_outstanding_takes_the_next_of_those_with_the_fewest(self) -> None:
        balancer = Balancer(4, Balance.LEAST_OUTSTANDING)
        balancer.in_flight[:] = [2, 1, 3, 1]
        assert [balancer.choose() for _ in range(4)] == [1, 3, 1, 3]

    def test_round_robin_does_not_look_at_the_requests_in_flight(self) -> None:
        balancer = Balancer(2, Balance.ROUND_ROBIN)
        balancer.in_flight[:] = [9, 0]
        assert [balancer.choose() for _ in range(4)] == [0, 1, 0, 1]

    def test_a_replica_that_is_added_has_its_turn(self) -> None:
        balancer = Balancer(1, Balance.ROUND_ROBIN)
        balancer.choose()
        balancer.in_flight.append(0)
        assert [balancer.choose() for _ in range(2)] == [1, 0]

    @pytest.mark.parametrize("balance", [Balance.ROUND_ROBIN, Balance.LEAST_OUTSTANDING])
    def test_a_replica_that_is_removed_gets_no_more_however_idle_it_is(self, balance: Balance) -> None:
        balancer = Balancer(3, balance)
        balancer.in_flight[:] = [1, 0, 1]
        balancer.removed.add(1)
        assert [balancer.choose() for _ in range(4)] == [0, 2, 0, 2]

    @PROPERTY
    @given(st.lists(st.integers(0, 5), min_size=1, max_size=8))
    def test_no_replica_has_fewer_requests_in_flight_than_the_chosen_one(self, in_flight: list[int]) -> None:
        balancer = Balancer(len(in_flight), Balance.LEAST_OUTSTANDING)
        balancer.in_flight[:] = in_flight
        assert in_flight[balancer.choose()] == min(in_flight)
