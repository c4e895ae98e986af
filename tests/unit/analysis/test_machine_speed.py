"""The machine's speed: what others take of it, and how long the fixed work takes."""

import math
from collections.abc import Callable, Sequence

import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.synthetic import even_launch

from pytest_mlpatterns.analysis.health.machine import (
    least_ratio_of_means,
    ratio_of_means,
    ratio_of_sorting,
    slower_by,
    sorting_times_ns,
    taken_factor,
)
from pytest_mlpatterns.records.launch import Taken


def test_the_fixed_work_is_known_only_if_each_launch_did_it() -> None:
    first, second = (replace(even_launch(), sorting_ns=found) for found in ((7e5, 7.2e5), (7.1e5,)))
    assert sorting_times_ns([first, second]) == (7e5, 7.2e5, 7.1e5)
    assert sorting_times_ns([first, even_launch()]) == ()
    assert sorting_times_ns([first, replace(first, sorting_ns=(7e5, 0.0))]) == ()  # a system without such a clock


def test_a_disturbed_moment_is_not_the_machine_s_speed() -> None:
    assert ratio_of_sorting((105.0, 72.0), (71.0, 105.0, 72.0, 73.0, 72.0)) == 1.0


@each_row(
    ("now", "times"),
    ([72.0] * 12, 72 / 70),
    ([70.0, 112.0] * 6, 1.6),  # a host that has begun to change its speed: all of the load may have met the slow one
    ([70.0] * 4 + [98.0, 112.0], 1.4),  # the slowest moment may be disturbed besides
    ([70.0] * 10 + [112.0] * 2, 1.160),  # as a host that was quick by chance at most of them
    ([70.0, 112.0] * 2, 1.0),  # moments of one launch do not show it
    ([70.0] * 11 + [84.0], 1.0),  # one may be disturbed
    ([], 0.0),
)
def test_a_machine_is_slower_by_its_quiet_moments_or_at_most_its_slow_ones(now: list[float], times: float) -> None:
    assert slower_by(now, [70.0] * 16) == pytest.approx(times, rel=1e-3)


def test_the_means_include_what_disturbed_some_launches() -> None:
    now, then = (105.0, 72.0, 108.0), (70.0, 100.0, 70.0)
    assert ratio_of_sorting(now, then) == pytest.approx(72 / 70)
    assert ratio_of_means(now, then) == pytest.approx(285 / 240)


@each_row(
    ("then", "least"),
    ([100.0] * 8, 1.0),
    ([100.0, 100.0, 100.0, 100.0, 150.0] * 2, 1 / 1.1),  # one in five is disturbed
    ([100.0, 160.0] * 8, math.exp(-math.log(1.6) / 1.349 * math.sqrt(1 / 2 + 1 / 16)) / 1.3),
)
def test_a_host_that_changes_its_speed_shows_little_at_two_moments(then: list[float], least: float) -> None:
    assert least_ratio_of_means([100.0, 100.0], then) == pytest.approx(least)


@each_row("ratio", [ratio_of_sorting, ratio_of_means, least_ratio_of_means])
@each_row(("now", "then"), [((), (70.0,)), ((70.0,), ())])
def test_a_ratio_is_not_known_from_one_side_alone(
    ratio: Callable[[Sequence[float], Sequence[float]], float | None], now: Sequence[float], then: Sequence[float]
) -> None:
    assert ratio(now, then) is None


@each_row(
    ("now", "then", "times"),
    (Taken(), Taken(), 1.0),
    (Taken(others_cores=1.0), Taken(), 2.0),
    (Taken(others_cores=0.35), Taken(), 1.2121),
    (Taken(steal_ratio=0.02), Taken(), 1.0204),
    (Taken(throttled_ratio=0.5), Taken(), 2.0),
    (Taken(others_cores=1.0, steal_ratio=0.5), Taken(), 4.0),
    (Taken(throttled_ratio=0.5), Taken(throttled_ratio=0.5), 1.0),
    (Taken(), Taken(others_cores=1.0), 1.0),
    (Taken(others_cores=2.0), Taken(), 20.0),
)
def test_others_explain_what_they_leave(now: Taken, then: Taken, times: float) -> None:
    assert taken_factor(now, then, 2) == pytest.approx(times, abs=1e-4)
