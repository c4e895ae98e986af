"""Which replica gets a request: shares and loads as the theory of each rule says, without processes."""

import random
from collections import Counter
from collections.abc import Sequence
from statistics import mean
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import FEW

from pytest_mlpatterns.patterns.replica_choice import (
    ByPrefix,
    Choice,
    LeastLatency,
    PeakLatencies,
    TwoChoices,
    beginning_of,
)

MS = 1_000_000
S = 1_000_000_000


class AtRandom:
    """A replica drawn at random, for comparison."""

    def __init__(self) -> None:
        self._random = random.Random(1)

    def choose(self, places: Sequence[int], instances: Sequence[Any]) -> int:
        return self._random.choice(places)


class LeastOutstanding:
    """The replica with the fewest requests in flight, for comparison."""

    def __init__(self, in_flight: Sequence[int]) -> None:
        self._in_flight = in_flight

    def choose(self, places: Sequence[int], instances: Sequence[Any]) -> int:
        return min(places, key=self._in_flight.__getitem__)


def longest_queues(choice: Choice, in_flight: list[int], *, arrivals: int = 4000, load: float = 0.9) -> float:
    """Mean number of requests at the fullest replica; one leaves a replica at each tick if it has some."""
    drawn = random.Random(7)
    places = range(len(in_flight))
    longest = []
    for _ in range(arrivals):
        for _ in range(sum(drawn.random() < load for _ in places)):
            in_flight[choice.choose(places, [])] += 1
        longest.append(max(in_flight))
        for place in places:
            in_flight[place] -= in_flight[place] > 0
    return mean(longest)


def test_two_choices_are_nearly_as_even_as_the_least_and_far_more_than_one() -> None:
    found = {}
    for name, make in (("random", lambda _: AtRandom()), ("two", TwoChoices), ("least", LeastOutstanding)):
        in_flight = [0] * 16
        found[name] = longest_queues(make(in_flight), in_flight)
    assert found["least"] <= found["two"] < found["random"] / 3


def test_two_choices_draw_each_pair_alike_and_never_one_twice() -> None:
    in_flight = [0, 1, 2]
    choice = TwoChoices(in_flight, seed=3)
    times = Counter(choice.choose((0, 1, 2), []) for _ in range(6000))
    assert times[2] == 0  # it loses against either
    assert times[0] / 6000 == pytest.approx(2 / 3, abs=0.03)
    assert choice.choose((2,), []) == 2
    assert choice.choose((1, 2), []) == 1


class TestLatencies:
    def test_a_latency_rises_at_once_and_falls_slowly(self) -> None:
        latencies = PeakLatencies(1)
        assert latencies.at(0, 0) is None
        latencies.answered(0, 10 * MS, S)
        assert latencies.at(0, S) == 10 * MS
        latencies.answered(0, 100 * MS, 2 * S)
        assert latencies.at(0, 2 * S) == 100 * MS
        latencies.answered(0, 10 * MS, 3 * S)
        after = latencies.at(0, 3 * S)
        assert 90 * MS < after < 92 * MS  # 10 + 90 exp(-0.1)
        later = latencies.at(0, 13 * S)
        assert later == pytest.approx(after / np.e, rel=1e-6)

    def test_waiting_in_vain_only_raises_it(self) -> None:
        latencies = PeakLatencies(2)
        latencies.outlasted(0, 5 * MS, 0)
        assert latencies.at(0, 0) == 5 * MS
        latencies.outlasted(0, 4 * MS, 0)
        assert latencies.at(0, 0) == 5 * MS

    def test_a_slow_replica_is_avoided_until_the_others_are_fuller_by_as_much(self) -> None:
        in_flight, latencies = [0, 0], PeakLatencies(2)
        choice = LeastLatency(in_flight, latencies, lambda: 0)
        latencies.answered(0, 10 * MS, 0)
        latencies.answered(1, 50 * MS, 0)
        chosen = []
        for _ in range(6):
            chosen.append(choice.choose((0, 1), []))
            in_flight[chosen[-1]] += 1
        assert chosen == [0, 0, 0, 0, 1, 0]  # 10 × 5 ties with 50 × 1, and ties are taken in turn

    def test_a_replica_without_an_answer_gets_one_request_to_show_its_latency(self) -> None:
        in_flight, latencies = [0, 0, 0], PeakLatencies(3)
        choice = LeastLatency(in_flight, latencies, lambda: 0)
        for _ in range(6):
            in_flight[choice.choose((0, 1, 2), [])] += 1
        assert in_flight == [2, 2, 2]
        latencies.answered(1, MS, 0)
        assert choice.choose((0, 1, 2), []) == 1
        in_flight[0] = 0
        assert choice.choose((0, 1, 2), []) == 0

    def test_ties_are_taken_in_turn_without_those_that_may_not_be_chosen(self) -> None:
        choice = LeastLatency([0, 0, 0], PeakLatencies(3), lambda: 0)
        assert [choice.choose((0, 1, 2), []) for _ in range(4)] == [0, 1, 2, 0]
        assert [choice.choose((0, 2), []) for _ in range(3)] == [2, 0, 2]
        assert choice.choose((1,), []) == 1

    def test_a_slow_replica_is_tried_again_after_a_while(self) -> None:
        now, in_flight, latencies = 0, [0, 0], PeakLatencies(2)
        choice = LeastLatency(in_flight, latencies, lambda: now)
        latencies.answered(1, 50 * MS, 0)
        for _ in range(40):
            latencies.answered(0, 10 * MS, now)
            chosen = choice.choose((0, 1), [])
            now += S
        assert chosen == 1


class TestPrefixes:
    @staticmethod
    def prompts(count: int) -> list[list[str]]:
        return [[f"{number}: you are a helpful assistant"] for number in range(count)]

    def test_equal_beginnings_reach_the_same_replica(self) -> None:
        counted: Counter[str] = Counter()
        choice = ByPrefix([0] * 4, 10, lambda name: counted.update([name]))
        firsts = [choice.choose(range(4), ["0123456789 and more"]) for _ in range(5)]
        assert len(set(firsts)) == 1
        assert choice.choose(range(4), ["0123456789 or other"]) == firsts[0]
        assert counted == {"prefix_misses": 1, "prefix_hits": 5}

    def test_the_shares_are_nearly_even_and_few_move_if_a_replica_comes_or_goes(self) -> None:
        def homes(replicas: int, places: Sequence[int]) -> list[int]:
            choice = ByPrefix([0] * replicas, 100, len)
            return [choice.choose(places, one) for one in self.prompts(4000)]

        four, five, without = homes(4, range(4)), homes(5, range(5)), homes(4, (0, 1, 3))
        assert all(0.15 < times / 4000 < 0.35 for times in Counter(four).values())
        moved = [new for old, new in zip(four, five, strict=True) if old != new]
        assert set(moved) == {4}
        assert len(moved) / 4000 == pytest.approx(1 / 5, abs=0.07)
        assert all(old == new for old, new in zip(four, without, strict=True) if old != 2)

    @FEW
    @given(st.lists(st.integers(0, 3), min_size=1, max_size=200), st.integers(2, 8), st.randoms(use_true_random=False))
    def test_no_replica_has_more_than_its_share(self, drawn: list[int], replicas: int, leaves: random.Random) -> None:
        in_flight = [0] * replicas
        choice = ByPrefix(in_flight, 5, len)
        for number in drawn:
            in_flight[choice.choose(range(replicas), [f"{number} is a prompt"])] += 1
            assert max(in_flight) <= int(1.25 * sum(in_flight) / replicas) + 1
            if leaves.random() < 0.4:
                in_flight[leaves.choice([place for place in range(replicas) if in_flight[place]])] -= 1

    def test_only_the_latest_beginnings_are_remembered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pytest_mlpatterns.patterns.replica_choice._REMEMBERED", 2)
        counted: Counter[str] = Counter()
        choice = ByPrefix([0], 9, lambda name: counted.update([name]))
        for prompt in ("a", "b", "a", "c", "b"):  # c pushes b out
            choice.choose((0,), [prompt])
        assert counted == {"prefix_misses": 4, "prefix_hits": 1}

    def test_a_request_without_inputs_has_a_place_too(self) -> None:
        assert ByPrefix([0, 0], 9, len).choose(range(2), []) in (0, 1)

    @each_row(
        ("given", "beginning"),
        ("a long text", b"a lon"),
        (b"bytes of it", b"bytes"),
        ({"prompt": "a long text", "n": 1}, b"a lon"),
        ({"prompt": [7, 8, 9, 10, 11, 12]}, b"[7, 8, 9, 10, 11]"),
        ({"messages": [{"role": "system", "content": "Be brief."}, "Hi"]}, b"syste"),
        ({"messages": "no list"}, b"no li"),
        ({"text": "plain text", "other": 1}, b"plain"),
        ({"age": 40}, b"{'age"),
        ([1, 2, 3, 4, 5, 6, 7], b"[1, 2, 3, 4, 5]"),
        (np.arange(9), b"[0, 1, 2, 3, 4]"),
        (123456789, b"12345"),
        ("\ud800é", "?é".encode()),
    )
    def test_the_beginning_is_that_of_the_prompt(self, given: Any, beginning: bytes) -> None:
        assert beginning_of(given, 5) == beginning

    def test_messages_of_a_chat_count_with_their_roles(self) -> None:
        system, user = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}
        assert beginning_of({"messages": [system, user]}, 100) == b"system: Be brief.\nuser: Hello"
