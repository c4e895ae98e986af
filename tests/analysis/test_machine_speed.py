"""The machine's speed: what others take of it, and the load generator's cost per request."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.synthetic import US, S, even_launch

from pytest_mlpatterns.analysis.machine_speed import (
    generator_costs_ns,
    ratio_of_costs,
    ratio_of_sorting,
    sorting_times_ns,
    taken_factor,
)
from pytest_mlpatterns.records.launch import Taken
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate

if TYPE_CHECKING:
    from pytest_mlpatterns.records.launch import Launch

CLOSED = ClosedLoop(8).describe()


def launch_of(**report: Any) -> Launch:
    """A launch of 3 s with 600 requests, 80 µs of the generator for each."""
    launch = even_launch()
    usual = {"cpu_ns": 600 * 80 * US, "wall_ns": 3 * S, "completed": 600, "connections": 8}
    return replace(launch, generator=replace(launch.generator, **{**usual, **report}))


def test_the_cost_is_the_generator_s_cpu_time_per_request_of_each_launch_without_its_ticks() -> None:
    other = launch_of(cpu_ns=600 * 90 * US, ticks_cpu_ns=600 * 5 * US)
    assert generator_costs_ns([launch_of(), other], CLOSED) == (80 * US, 85 * US)


@pytest.mark.parametrize(
    "report",
    [
        {"completed": 149},
        {"completed": 19, "wall_ns": S // 10},
        {"connections": 61},
        {"cpu_ns": 0},
    ],
    ids=["49.7 requests/s", "19 requests", "new connections", "no clock of CPU time"],
)
def test_a_launch_whose_cost_is_not_that_of_requests_leaves_all_unknown(report: dict[str, int]) -> None:
    assert generator_costs_ns([launch_of(), launch_of(**report)], CLOSED) == ()


@pytest.mark.parametrize("load", [ConstantRate(200), ClosedLoop(8, think_time="5ms")], ids=str)
def test_a_generator_that_waits_for_a_moment_tells_nothing(load: ClosedLoop | ConstantRate) -> None:
    assert generator_costs_ns([launch_of()], load.describe()) == ()


def test_the_fixed_work_is_known_only_if_each_launch_did_it() -> None:
    first, second = (replace(even_launch(), sorting_ns=found) for found in (700_000.0, 710_000.0))
    assert sorting_times_ns([first, second]) == (700_000.0, 710_000.0)
    assert sorting_times_ns([first, even_launch()]) == ()


def test_a_disturbed_moment_is_not_the_machine_s_speed() -> None:
    assert ratio_of_sorting((105.0, 72.0), (71.0, 105.0, 72.0, 73.0, 72.0)) == 1.0
    assert ratio_of_sorting((), (70.0,)) is None
    assert ratio_of_sorting((70.0,), ()) is None


def test_the_ratio_is_that_of_the_geometric_means() -> None:
    assert ratio_of_costs((90.0, 180.0), (45.0, 180.0)) == pytest.approx(2.0**0.5)


@pytest.mark.parametrize(("now", "then"), [((), (1.0,)), ((1.0,), ())])
def test_a_ratio_is_not_known_from_one_side_alone(now: tuple[float, ...], then: tuple[float, ...]) -> None:
    assert ratio_of_costs(now, then) is None


@pytest.mark.parametrize(
    ("now", "then", "times"),
    [
        (Taken(), Taken(), 1.0),
        (Taken(others_cores=1.0), Taken(), 2.0),
        (Taken(others_cores=0.35), Taken(), 1.2121),
        (Taken(steal_ratio=0.02), Taken(), 1.0204),
        (Taken(throttled_ratio=0.5), Taken(), 2.0),
        (Taken(others_cores=1.0, steal_ratio=0.5), Taken(), 4.0),
        (Taken(throttled_ratio=0.5), Taken(throttled_ratio=0.5), 1.0),
        (Taken(), Taken(others_cores=1.0), 1.0),
        (Taken(others_cores=2.0), Taken(), 20.0),
    ],
)
def test_others_explain_what_they_leave(now: Taken, then: Taken, times: float) -> None:
    assert taken_factor(now, then, 2) == pytest.approx(times, abs=1e-4)
