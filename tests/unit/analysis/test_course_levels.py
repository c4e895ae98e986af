"""The level of each stretch of a course, and where changes lie in it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.histories import change_of, position, series_from
from support.synthetic import PROPERTY

from pytest_mlpatterns.analysis.changes.findings import changes_in, levels_of, place_of
from pytest_mlpatterns.records.history import Course

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
