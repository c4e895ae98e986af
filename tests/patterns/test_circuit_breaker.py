"""A circuit breaker with a clock that the test sets: when it opens, whom it admits as a probe, when it closes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic import PROPERTY

from pytest_mlpatterns.patterns.circuit_breaker import BreakerRule, BreakerState, CircuitBreaker

if TYPE_CHECKING:
    from collections.abc import Sequence

S = 1_000_000_000
MS = 1_000_000
RULE = BreakerRule(failed_share=0.5, least_calls=4, window_ns=S, rest_ns=2 * S)
CLOSED, HALF_OPEN, OPEN = BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN


class Course:
    """A breaker, its clock, and the states that it reported."""

    def __init__(self, rule: BreakerRule = RULE) -> None:
        self.now_ns = 5 * S
        self.states: list[BreakerState] = []
        self.breaker = CircuitBreaker(rule, lambda: self.now_ns, self.states.append)

    def call(self, *, failed: bool, after_ns: int = 10 * MS) -> bool:
        """Whether a call was admitted, which ended as it says."""
        self.now_ns += after_ns
        permit = self.breaker.admit()
        if permit is not None:
            self.breaker.end(permit, failed=failed)
        return permit is not None

    def opened(self) -> Course:
        """The same after as many failures as open it."""
        for _ in range(RULE.least_calls):
            self.call(failed=True)
        assert self.states == [OPEN]
        return self


def test_it_opens_when_enough_calls_failed_within_the_window() -> None:
    course = Course()
    assert [course.call(failed=failed) for failed in (False, True, False, True)] == [True] * 4
    assert course.states == [OPEN]
    assert not course.call(failed=False)


def test_it_stays_closed_below_the_share_and_below_the_number_of_calls() -> None:
    course = Course()
    for _ in range(100):
        course.call(failed=False)
        course.call(failed=True)
        course.call(failed=False)
    few = Course()
    for _ in range(100):
        few.call(failed=True, after_ns=400 * MS)  # no window has four of them
    assert course.states == few.states == []


def test_what_failed_before_the_window_is_forgotten() -> None:
    course = Course()
    for _ in range(3):
        course.call(failed=True)
    course.call(failed=False, after_ns=2 * S)
    for failed in (False, True, False, True):
        course.call(failed=failed)
    assert course.states == []
    course.call(failed=True)  # three of six
    assert course.states == [OPEN]


def test_after_its_rest_it_admits_one_probe_at_a_time_and_closes_if_that_succeeds() -> None:
    course = Course().opened()
    course.now_ns += RULE.rest_ns - 1
    assert course.breaker.admit() is None
    course.now_ns += 1
    probe = course.breaker.admit()
    assert probe is not None
    assert course.breaker.state is HALF_OPEN
    assert course.breaker.admit() is None
    course.breaker.end(probe, failed=False)
    assert course.states == [OPEN, HALF_OPEN, CLOSED]
    for _ in range(RULE.least_calls - 1):  # nothing of before counts any more
        assert course.call(failed=True)
    assert course.breaker.state is CLOSED


def test_a_probe_that_fails_means_another_rest() -> None:
    course = Course().opened()
    course.now_ns += RULE.rest_ns
    assert course.call(failed=True, after_ns=0)
    assert course.states == [OPEN, HALF_OPEN, OPEN]
    assert not course.call(failed=False, after_ns=RULE.rest_ns - 1)
    assert course.call(failed=False, after_ns=1)
    assert course.states[-2:] == [HALF_OPEN, CLOSED]


def test_a_probe_whose_caller_goes_makes_room_for_the_next() -> None:
    course = Course().opened()
    course.now_ns += RULE.rest_ns
    probe = course.breaker.admit()
    assert probe is not None
    course.breaker.forget(probe)
    assert course.call(failed=False)
    assert course.states[-1] is CLOSED


@pytest.mark.parametrize("failed", [False, True])
def test_a_call_that_began_before_the_breaker_opened_says_nothing_about_the_model_now(failed: bool) -> None:
    course = Course()
    early = course.breaker.admit()
    assert early is not None
    course.opened()
    course.breaker.end(early, failed=failed)
    course.now_ns += RULE.rest_ns
    probe = course.breaker.admit()
    assert probe is not None
    course.breaker.end(early, failed=failed)
    course.breaker.forget(early)
    assert course.breaker.state is HALF_OPEN
    assert course.breaker.admit() is None


@PROPERTY
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 300 * MS)), max_size=60))
def test_it_opens_for_failures_of_the_window_alone_and_for_enough_of_them_always(
    calls: Sequence[tuple[bool, int]],
) -> None:
    """The window is counted in tenths, so what counts are at least nine tenths of it and at most the whole."""
    course = Course()
    ended: list[tuple[int, bool]] = []
    for failed, after_ns in calls:
        course.call(failed=failed, after_ns=after_ns)
        ended.append((course.now_ns, failed))
        whole, most = (
            [one for at, one in ended if at > course.now_ns - length]
            for length in (RULE.window_ns, RULE.window_ns * 9 // 10)
        )
        if course.states:
            assert failed
            assert len(whole) >= RULE.least_calls
            assert sum(whole) >= RULE.failed_share * RULE.least_calls
            return
        assert not (failed and all(whole) and len(most) >= RULE.least_calls)
