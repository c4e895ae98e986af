"""The capacity searches: pure functions over services whose capacity is known, with and without noise."""

import itertools
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.each_row import each_row
from support.synthetic import PROPERTY

from pytest_mlpatterns.analysis.capacity.capacity_search import climb
from pytest_mlpatterns.records.launch import LaunchValue, SearchEnd, Step


def places(
    count: int, seconds: float, noise: float = 0.0, degrade: float = 0.0, seed: int = 0
) -> Callable[[int], Step]:
    """A service of so many places of a fixed time: rate is callers over time, up to the places."""
    draw = random.Random(seed)

    def measure(concurrency: int) -> Step:
        rate = min(concurrency, count) / seconds
        rate *= 1 - degrade * max(0, concurrency - count) / count
        rates = tuple(max(rate * draw.gauss(1, noise), 0.01) for _ in range(10))
        return Step(concurrency, rates, concurrency / rate * 1e9, 0.0, None)

    return measure


def forever() -> bool:
    return False


@each_row("count", [1, 2, 3, 4, 7, 15, 16, 100])
def test_the_knee_is_the_first_doubling_that_fills_every_server(count: int) -> None:
    found = climb(places(count, 0.01), out_of_time=forever)
    assert found.nmrt.value == pytest.approx(count / 0.01)
    assert found.concurrency == min(2**n for n in range(12) if 2**n >= 0.95 * count)
    assert not found.at_least
    assert "two doublings" in found.stopped
    assert [step.concurrency for step in found.ladder] == [2**n for n in range(len(found.ladder))]


def test_a_service_that_answers_once_in_seconds_has_its_knee_too() -> None:
    assert climb(places(8, 20.0), out_of_time=forever).nmrt.value == pytest.approx(0.4)


@PROPERTY
@given(count=st.integers(1, 200), noise=st.floats(0, 0.05), seed=st.integers(0, 1000))
def test_noise_does_not_lift_the_capacity_to_the_best_of_many_tries(count: int, noise: float, seed: int) -> None:
    found = climb(places(count, 0.01, noise, seed=seed), out_of_time=forever)
    assert found.nmrt.value == pytest.approx(count / 0.01, rel=0.01 + noise)
    assert found.nmrt.relative_error <= 0.01 + noise


def test_a_service_that_degrades_beyond_its_knee_is_judged_at_its_best() -> None:
    found = climb(places(8, 0.01, degrade=0.2), out_of_time=forever)
    assert found.nmrt.value == pytest.approx(800)
    assert found.concurrency == 8


def test_the_knee_and_twice_the_knee_are_measured_again_in_the_order_a_b_b_a() -> None:
    asked: list[int] = []
    service = places(4, 0.01)

    def measure(concurrency: int) -> Step:
        asked.append(concurrency)
        return service(concurrency)

    climb(measure, out_of_time=forever)
    assert asked == [1, 2, 4, 8, 16, 4, 8, 8, 4]


@pytest.mark.parametrize(
    ("ends_at", "failed", "limited", "stopped", "nmrt"),
    [(16, 0.0, "it used 90 % of a core", "it used 90 % of a core", 1600), (8, 0.02, None, "requests failed at", 400)],
)
def test_a_generator_that_is_the_limit_gives_a_lower_bound_and_failed_requests_end_the_ladder(
    ends_at: int, failed: float, limited: str | None, stopped: str, nmrt: float
) -> None:
    service = places(1000, 0.01)

    def measure(concurrency: int) -> Step:
        step = service(concurrency)
        return step if concurrency < ends_at else Step(concurrency, step.rates_rps, None, failed, limited)

    found = climb(measure, out_of_time=forever)
    assert found.at_least is (limited is not None)
    assert stopped in found.stopped
    assert f"at concurrency {ends_at}" in found.stopped
    assert found.nmrt.value == pytest.approx(nmrt)


def test_a_service_that_never_answers_sustains_nothing() -> None:
    found = climb(lambda concurrency: Step(concurrency, (), None, 1.0, None), out_of_time=forever)
    assert found.nmrt.value == 0
    assert not found.at_least


@pytest.mark.parametrize(("steps", "rate"), [(1, 100), (2, 200), (3, 400)])
def test_a_search_out_of_time_is_a_lower_bound(steps: int, rate: float) -> None:
    left = itertools.count(1)
    found = climb(places(1000, 0.01), out_of_time=lambda: next(left) >= steps)
    assert found.at_least
    assert "time was up" in found.stopped
    assert found.nmrt.value == pytest.approx(rate)


def test_so_is_one_that_knows_enough_or_has_no_larger_concurrency() -> None:
    found = climb(places(1000, 0.01), out_of_time=forever, decided=lambda rate: rate.value >= 350)
    assert (found.end, found.at_least, len(found.ladder)) == (SearchEnd.DECIDED, True, 3)
    found = climb(places(1000, 0.01), out_of_time=forever, max_concurrency=8)
    assert found.at_least
    assert "ends at concurrency 8" in found.stopped


def test_the_load_at_nmrt_is_that_of_all_steps_at_the_knee() -> None:
    service, loads = places(4, 0.01), itertools.count()

    def measure(concurrency: int) -> Step:
        return replace(service(concurrency), asl_ratio=0.1 * min(concurrency, 4) + 0.01 * (next(loads) % 2))

    found = climb(measure, out_of_time=forever)
    assert found.concurrency == 4
    assert found.asl.value == pytest.approx(0.405, abs=0.006)
    assert 0 < found.asl.relative_error < 0.02
    assert climb(service, out_of_time=forever).asl is None
    assert climb(measure, out_of_time=lambda: True).asl is None


def test_a_load_that_was_seen_once_has_no_error() -> None:
    steps = {1: 0.1, 2: 0.2}

    def measure(concurrency: int) -> Step:
        load = steps.pop(concurrency, None)
        return replace(places(2, 0.01)(concurrency), asl_ratio=load)

    assert climb(measure, out_of_time=forever).asl == LaunchValue(0.2, 0.0)
