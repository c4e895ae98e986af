"""The changes of many courses: what is reported, for the better or the worse, and how many of none."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.each_row import each_row
from support.histories import change_of, position, series_from
from support.made_series import commit, date, noise, of_neighbours, of_release, of_values, stepped
from support.synthetic import PROPERTY

from pytest_mlpatterns.analysis.changes.findings import LEAST_CHANGE, changes_in, find_changes, levels_of, place_of
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


FLAT = series_from("rtm", [1.0] * 10)
STEP = series_from("rtm", [1.0] * 6 + [2.0] * 4)


def test_a_step_and_a_border_end_stretches() -> None:
    series = series_from("rtm", [1.0] * 4 + [3.0] * 3 + [6.0] * 3, borders=[(4, "environment")])
    levels = levels_of(series, [change_of(series, 7, (2, 1.9, 2.1))])
    assert [(one.start, one.stop) for one in levels] == [(0, 4), (4, 7), (7, 10)]
    assert [math.exp(one.level) for one in levels] == pytest.approx([1, 3, 6])


def test_a_stray_run_changes_neither_the_level_nor_its_interval() -> None:
    levels = [1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.01, 0.99, 1.0]
    (calm,), (stray,) = (levels_of(series_from("rtm", [*levels, last]), ()) for last in (1.0, 8.0))
    assert stray.level == pytest.approx(calm.level, abs=0.01)
    assert stray.half < 2 * calm.half


def test_few_runs_have_the_interval_of_their_launches_and_none_without_errors() -> None:
    (known,) = levels_of(series_from("rtm", [1.0, 1.5], error=0.02), ())
    (unknown,) = levels_of(series_from("rtm", [1.0, 1.5], error=0.0), ())
    assert known.half == pytest.approx(2 * 0.02 / math.sqrt(2))
    assert unknown.half is None


def test_equal_runs_have_the_interval_of_their_launches() -> None:
    (level,) = levels_of(FLAT, ())
    assert level.half == pytest.approx(2 * 0.006 / math.sqrt(10))


def test_changes_of_other_courses_do_not_count() -> None:
    own = change_of(STEP, 6, (2, 1.9, 2.1))
    others = [
        replace(own, metric="p95"),
        replace(own, test="t.py::other"),
        replace(own, machine="another"),
        replace(own, course=Course.RATIOS),
        replace(own, new=position(99)),
    ]
    assert changes_in(STEP, [*others, own]) == (own,)
    assert len(levels_of(STEP, others)) == 1


def test_a_change_lies_between_two_runs_whatever_its_first_commit_is() -> None:
    change = change_of(STEP, 6, (2, 1.9, 2.1))
    assert place_of(STEP, change) == 6
    assert place_of(STEP, replace(change, old=position(99))) == 6
    assert place_of(STEP, replace(change, old=position(99), new=STEP.points[0].at)) == 0
    assert place_of(STEP, replace(change, new=position(99))) == -1


def test_of_several_runs_of_a_commit_the_first_is_after_the_change() -> None:
    points = list(STEP.points)
    points[7] = replace(points[7], at=points[6].at)
    twice = replace(STEP, points=tuple(points))
    assert place_of(twice, change_of(twice, 6, (2, 1.9, 2.1))) == 6


def test_a_course_without_points_has_no_level() -> None:
    assert levels_of(replace(FLAT, points=(), segments=()), ()) == ()


@PROPERTY
@given(
    levels=st.lists(st.floats(0.1, 1e6), min_size=2, max_size=30),
    places=st.lists(st.integers(1, 29), max_size=4),
    border=st.integers(1, 29),
)
def test_stretches_are_all_runs_in_order(levels: list[float], places: list[int], border: int) -> None:
    series = series_from("rtm", levels, borders=[(border, "set-up")] if border < len(levels) else [])
    found = levels_of(series, [change_of(series, place, (2, 1.9, 2.1)) for place in places if place < len(levels)])
    assert [place for one in found for place in range(one.start, one.stop)] == list(range(len(levels)))
    assert all(min(levels) * 0.999 <= math.exp(one.level) <= max(levels) * 1.001 for one in found)
