"""The rule by which replicas follow the load, shown by simulated services: ramps, steps, targets that oscillate."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic import FEW

from pytest_mlpatterns.patterns.replica_rule import TOLERANCE, ReplicaRule

MS = 1_000_000
S = 1000 * MS
STEP_NS = 10 * MS


@dataclass
class Service:
    """Replicas that take one request of 20 ms at a time; requests beyond them wait. Time goes on by 10 ms."""

    rule: ReplicaRule
    replicas: int = 1
    start_ns: int = S
    service_s: float = 0.02
    now_ns: int = 0
    waiting: float = 0.0
    starting: list[int] = field(default_factory=list)
    course: list[int] = field(default_factory=list)
    wanted: int = 1

    def offer(self, rps: float, seconds: float) -> Service:
        """Offer this many requests a second for some time."""
        for _ in range(round(seconds * S / STEP_NS)):
            self.now_ns += STEP_NS
            self.replicas += sum(ready_ns <= self.now_ns for ready_ns in self.starting)
            self.starting = [ready_ns for ready_ns in self.starting if ready_ns > self.now_ns]
            arrived, could = rps * STEP_NS / S, self.replicas / self.service_s * STEP_NS / S
            busy = min(self.replicas, rps * self.service_s + self.waiting)
            self.waiting = max(self.waiting + arrived - could, 0.0)
            self.rule.observe(self.now_ns, self.waiting + busy)
            if self.now_ns % (100 * MS) == 0:
                self._scale(self.rule.wanted(self.now_ns, self.wanted))
            self.course.append(self.wanted)
        return self

    def _scale(self, wanted: int) -> None:
        self.wanted = wanted
        missing = wanted - self.replicas - len(self.starting)
        self.starting += [self.now_ns + self.start_ns] * max(missing, 0)
        self.replicas = min(self.replicas, wanted)

    @property
    def turns(self) -> int:
        """How often a scale-in was followed by a scale-out."""
        changes = [now - before for before, now in pairwise(self.course) if now != before]
        return sum(now > 0 > before for before, now in pairwise(changes))


def rule(
    *, least: int = 1, most: int = 8, target: float = 0.7, window_ns: int = S, stable_ns: int = 10 * S
) -> ReplicaRule:
    return ReplicaRule(least=least, most=most, target=target, window_ns=window_ns, stable_ns=stable_ns)


def decided(one: ReplicaRule, in_flight: int, *, replicas: int, now_ns: int = 0) -> int:
    """What is wanted after this many requests were in flight for two seconds."""
    one.observe(now_ns, in_flight)
    for tenth in range(1, 20):
        one.wanted(now_ns + tenth * 100 * MS, replicas)
    return one.wanted(now_ns + 2 * S, replicas)


@pytest.mark.parametrize(
    ("in_flight", "target", "replicas", "wanted"),
    [
        (7, 0.7, 1, 8),  # 7 / 0.7 = 10, of which 8 are allowed
        (2, 0.7, 1, 3),
        (4, 2.0, 1, 2),
        (4, 4.0, 1, 1),
        (0, 0.7, 1, 1),
        (21, 10.0, 2, 2),  # 5 % above the target: within the tolerance
        (23, 10.0, 2, 3),
        (19, 10.0, 2, 2),
    ],
)
def test_replicas_are_the_demand_by_the_target(in_flight: int, target: float, replicas: int, wanted: int) -> None:
    assert decided(rule(target=target), in_flight, replicas=replicas) == wanted


def test_the_demand_is_averaged_over_the_window() -> None:
    one = rule(window_ns=S)
    one.observe(0, 0)
    assert one.wanted(2 * S, 1) == 1
    one.observe(2 * S, 4)
    assert one.wanted(2 * S + 100 * MS, 1) == 1  # a tenth of the window with four: 0.4 on average
    assert one.wanted(2 * S + 500 * MS, 1) == 3
    assert one.wanted(3 * S, 1) == 6


def test_fewer_replicas_are_wanted_only_after_the_stable_period() -> None:
    one = rule(stable_ns=5 * S)
    assert decided(one, 4, replicas=1) == 6
    one.observe(2 * S, 1)
    course = {tenth: one.wanted(2 * S + tenth * 100 * MS, 6) for tenth in range(1, 80)}
    assert {wanted for tenth, wanted in course.items() if tenth < 50} == {6}
    assert course[79] == 2


def test_without_a_stable_period_a_replica_ends_at_once() -> None:
    one = rule(stable_ns=0)
    assert decided(one, 4, replicas=1) == 6
    one.observe(2 * S, 0)
    assert one.wanted(3 * S, 6) == 1


def test_the_first_request_asks_for_a_replica_where_there_is_none_and_the_last_one_keeps_it() -> None:
    one = rule(least=0, stable_ns=0)
    one.observe(0, 0)
    assert one.wanted(S, 0) == 0
    one.observe(S, 1)
    assert one.wanted(S, 0) == 1
    one.observe(S + MS, 0)
    assert one.wanted(S + 2 * MS, 1) == 1  # there was some demand within the window
    assert one.wanted(3 * S, 1) == 0


def test_a_ramp_is_followed_without_an_oscillation() -> None:
    service = Service(rule())
    for rps in (*range(10, 200, 5), *range(200, 10, -5)):
        service.offer(rps, 1)
    assert max(service.course) == 6  # 200 requests a second of 20 ms are 4 in flight: 4 / 0.7
    assert service.turns == 0
    assert service.offer(10, 15).course[-1] == 1


def test_a_step_overshoots_while_replicas_start_and_settles() -> None:
    service = Service(rule()).offer(10, 5).offer(150, 40)
    assert max(service.course) == 8
    assert service.course[-1] == 5  # 3 / 0.7
    assert service.turns == 0


@pytest.mark.parametrize("target", [1.5, 2.0, 3.0])
@pytest.mark.parametrize("stable_ns", [0, S])
def test_a_target_above_what_a_replica_takes_oscillates(target: float, stable_ns: int) -> None:
    service = Service(rule(target=target, stable_ns=stable_ns, window_ns=500 * MS)).offer(70, 60)
    assert service.turns > 4


@pytest.mark.parametrize("rps", [20, 33, 70, 104, 140])
def test_the_default_target_does_not_oscillate(rps: int) -> None:
    assert Service(rule()).offer(rps, 60).turns == 0


def test_noise_within_the_tolerance_changes_nothing() -> None:
    one = rule(target=10, stable_ns=0)
    assert decided(one, 20, replicas=1) == 2
    for second in range(2, 60):
        one.observe(second * S, 20 + second % 2)
        assert one.wanted(second * S + 900 * MS, 2) == 2
    assert TOLERANCE > 1 / 20


@FEW
@given(
    st.integers(0, 4),
    st.integers(4, 12),
    st.floats(0.05, 20),
    st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 200)), max_size=40),
)
def test_the_number_stays_in_its_range(least: int, most: int, target: float, changes: list[tuple[int, int]]) -> None:
    one = rule(least=least, most=most, target=target)
    now_ns, wanted = 0, least
    for pause_ms, in_flight in changes:
        now_ns += pause_ms * MS
        one.observe(now_ns, in_flight)
        wanted = one.wanted(now_ns, wanted)
        assert max(least, in_flight > 0) <= wanted <= most


@FEW
@given(st.floats(0.05, 20), st.integers(0, 100), st.integers(0, 100))
def test_more_demand_never_asks_for_fewer(target: float, some: int, more: int) -> None:
    less, much = (decided(rule(target=target), one, replicas=1) for one in sorted((some, more)))
    assert less <= much
