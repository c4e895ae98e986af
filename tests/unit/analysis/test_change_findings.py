"""The changes of many courses: what is reported, for the better or the worse, and how many of none."""

import numpy as np
import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.made_series import commit, date, noise, of_neighbours, of_release, of_values, stepped

from pytest_mlpatterns.analysis.changes.findings import LEAST_CHANGE, find_changes
from pytest_mlpatterns.analysis.changes.series import Segment
from pytest_mlpatterns.analysis.changes.steps import SIGNIFICANCE
from pytest_mlpatterns.records.history import Change, Course


def only(found: tuple[Change, ...]) -> Change:
    (change,) = found
    return change


def test_a_change_names_its_metric_its_factor_and_the_commits_around_it() -> None:
    change = only(find_changes([of_values(stepped(60, (40, 0.1)) + noise(1, 60))]))
    assert (change.test, change.metric, change.machine) == ("t.py::test", "rtm", "machine")
    assert (change.course, change.is_worse) == (Course.VALUES, True)
    assert (change.old, change.new, change.date) == (commit(39), commit(40), date(40))
    assert change.factor[1] < np.exp(0.1) < change.factor[2]
    assert change.is_confirmed
    assert change.p_value < SIGNIFICANCE


@each_row(
    ("metric", "size", "is_worse"),
    ("rtm", -0.1, False),
    ("throughput", 0.1, False),
    ("throughput", -0.1, True),
    ("latency_mean", 0.1, True),
    ("ttft:p95", 0.1, True),
    ("of_a_later_version", 0.1, False),
)
def test_the_direction_is_that_of_the_metric(metric: str, size: float, is_worse: bool) -> None:
    series = of_values(stepped(60, (40, size)) + noise(2, 60), metric=metric)
    assert only(find_changes([series])).is_worse is is_worse


def test_a_change_of_ratios_holds_on_any_machine() -> None:
    change = only(find_changes([of_release(stepped(40, (25, 0.05)) + noise(3, 40, 0.007))]))
    assert (change.machine, change.course, change.new) == ("", Course.RATIOS, commit(25))


def test_a_chain_whose_first_increment_is_the_step_has_it_after_the_reference() -> None:
    increments = noise(4, 40, 0.007)
    increments[1] += 0.1
    change = only(find_changes([of_neighbours(increments)]))
    assert (change.old, change.new) == (commit(0), commit(1))


def test_changes_come_in_the_order_of_the_course() -> None:
    found = find_changes([of_values(stepped(90, (30, 0.1), (60, -0.1)) + noise(5, 90))])
    assert [change.new.position for change in found] == [130, 160]
    assert [change.is_worse for change in found] == [True, False]


def test_a_change_within_a_segment_is_found_and_one_between_segments_is_none() -> None:
    series = of_values(stepped(80, (40, 0.3), (60, 0.1)) + noise(6, 80))
    cut = replace(series, segments=(Segment(0, 40), Segment(40, 80, "environment")))
    assert [change.new.position for change in find_changes([series])] == [140, 160]
    assert only(find_changes([cut])).new == commit(60)


def test_a_change_below_half_a_percent_or_the_floor_of_its_metric_is_not_reported() -> None:
    small = stepped(400, (200, LEAST_CHANGE * 0.6)) + noise(7, 400, 0.001)
    assert not find_changes([of_values(small, error=0.001)])
    levels = stepped(60, (30, 0.03)) + noise(8, 60, 0.001)
    short = of_values(levels, error=0.001)
    microseconds = tuple(replace(point, level=point.level - np.log(100.0)) for point in short.points)
    assert find_changes([short])
    assert not find_changes([replace(short, points=microseconds)])  # 3 µs of 100 µs; the floor is 5 µs
    assert find_changes([of_release(levels, error=0.001)])  # the values are not known


def test_the_more_courses_are_looked_at_the_surer_a_change_must_be() -> None:
    series = of_values(stepped(40, (20, 0.023)) + noise(39, 40))
    p_value = only(find_changes([series])).p_value
    assert SIGNIFICANCE / 15 < p_value < SIGNIFICANCE
    others = [of_values(noise(seed, 40), test=f"other{seed}") for seed in range(20)]
    assert not find_changes([series, *others])
    sure = [of_values(stepped(40, (20, 0.2)) + noise(seed, 40), test=f"sure{seed}") for seed in range(100, 120)]
    assert len(find_changes([series, *others, *sure])) == 21


def test_no_course_and_no_run_have_no_change() -> None:
    assert find_changes([]) == ()
    assert find_changes([of_values(noise(10, 1))]) == ()


@pytest.mark.simulation
def test_hardly_any_unchanged_course_has_a_change() -> None:
    """Each looked at alone, so that the correction over all does not help; disturbed runs in half of them."""
    random = np.random.default_rng(11)
    found = 0
    for number in range(100):
        levels = random.normal(0, 0.017, 60)
        if number % 2:
            levels[random.random(60) < 0.05] += 0.3
            levels[-2:] = 0
        found += len(find_changes([of_values(levels)]))
    assert found <= 1
