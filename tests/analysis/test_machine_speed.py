"""The machine's speed: what others take of it, and how long the fixed work takes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support.synthetic import even_launch

from pytest_mlpatterns.analysis.health.machine import (
    ratio_of_medians,
    ratio_of_sorting,
    sorting_times_ns,
    taken_factor,
)
from pytest_mlpatterns.records.launch import Taken

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def test_the_fixed_work_is_known_only_if_each_launch_did_it() -> None:
    first, second = (replace(even_launch(), sorting_ns=found) for found in (700_000.0, 710_000.0))
    assert sorting_times_ns([first, second]) == (700_000.0, 710_000.0)
    assert sorting_times_ns([first, even_launch()]) == ()


def test_a_disturbed_moment_is_not_the_machine_s_speed() -> None:
    assert ratio_of_sorting((105.0, 72.0), (71.0, 105.0, 72.0, 73.0, 72.0)) == 1.0


def test_the_medians_include_what_disturbed_most_launches() -> None:
    now, then = (105.0, 72.0, 108.0), (70.0, 100.0, 70.0)
    assert ratio_of_sorting(now, then) == pytest.approx(72 / 70)
    assert ratio_of_medians(now, then) == 1.5


@pytest.mark.parametrize("ratio", [ratio_of_sorting, ratio_of_medians])
@pytest.mark.parametrize(("now", "then"), [((), (70.0,)), ((70.0,), ())])
def test_a_ratio_is_not_known_from_one_side_alone(
    ratio: Callable[[Sequence[float], Sequence[float]], float | None], now: Sequence[float], then: Sequence[float]
) -> None:
    assert ratio(now, then) is None


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
