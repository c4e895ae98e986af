"""Lines of a history as courses: what counts, in which order, at which level, and where segments begin."""

import math
from itertools import pairwise

import pytest
from msgspec.structs import replace
from support.each_row import each_row

from pytest_mlpatterns.analysis.changes.series import Series, series_of
from pytest_mlpatterns.records.history import CommitPosition, Course, HistoryLine, PairedRatio
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Kind

RELEASE = CommitPosition("a" * 40, 1)


def commit(number: int) -> CommitPosition:
    return CommitPosition(f"{number:040x}"[::-1], number)


def line(number: int, *values: float, metric: str = "rtm", day: int | None = None) -> HistoryLine:
    """A run of a commit that measured these values, one for each launch, on the day of its number."""
    return HistoryLine(
        test="t.py::test",
        machine="here",
        date=f"2026-10-{number if day is None else day:02d}T12:00:00Z",
        at=commit(number),
        clean=True,
        setup="setup",
        facts="facts",
        kind=Kind.PASSED,
        values={metric: tuple(LaunchValue(value, 0.01) for value in values)},
    )


def ratio(number: int, size: float, reference: CommitPosition, day: int | None = None) -> HistoryLine:
    """A run of a commit whose two launches took ``exp(size)`` times as long as those of the reference."""
    ratios = {"rtm": (PairedRatio(size, 0.004), PairedRatio(size, 0.004))}
    return replace(line(number, day=day), values={}, ratios=ratios, reference=reference)


def only(lines: list[HistoryLine], order: tuple[str, ...] = ()) -> Series:
    (found,) = series_of(lines, order)
    return found


def positions(series: Series) -> list[int]:
    return [point.at.position for point in series.points]


def segments(series: Series) -> list[tuple[int, int, str]]:
    return [(one.start, one.stop, one.reason) for one in series.segments]


def test_a_course_has_the_values_of_one_machine_in_the_order_of_the_commits() -> None:
    lines = [line(3, 30e6), line(1, 10e6), line(2, 20e6, 20e6), replace(line(4, 40e6), machine="there")]
    here, there = series_of(lines)
    assert (here.test, here.metric, here.machine, here.course) == ("t.py::test", "rtm", "here", Course.VALUES)
    assert [math.exp(point.level) / 1e6 for point in here.points] == pytest.approx([10, 20, 30])
    assert [point.at for point in there.points] == [commit(4)]
    assert segments(here) == [(0, 3, "")]


def test_more_launches_make_a_smaller_error_and_one_that_scattered_much_counts_less() -> None:
    errors = [point.error for point in only([line(1, 10.0), line(2, 10.0, 10.0), line(3, *[10.0] * 8)]).points]
    assert all(after < before for before, after in pairwise(errors))
    noisy = replace(line(1, 10.0), values={"rtm": (LaunchValue(10.0, 0.01), LaunchValue(20.0, 0.5))})
    assert math.exp(only([noisy]).points[0].level) < 10.1


@each_row(
    "left_out",
    replace(line(2, 20.0), clean=False),
    replace(line(2, 20.0), kind=Kind.INVALID),
    replace(line(2, 20.0), kind=Kind.TEST_ERROR),
    replace(line(2, 20.0), values={}),
    line(2),
    line(2, math.inf),
)
def test_a_line_without_a_measured_value_of_a_commit_does_not_count(left_out: HistoryLine) -> None:
    assert positions(only([line(1, 10.0), left_out, line(3, 10.0)])) == [1, 3]


@each_row("kind", [Kind.REGRESSION, Kind.LIMIT, Kind.UNDECIDED, Kind.NOT_COMPARED, Kind.ACCEPTED])
def test_a_run_counts_whatever_its_verdict(kind: Kind) -> None:
    assert positions(only([line(1, 10.0), replace(line(2, 10.0), kind=kind)])) == [1, 2]


def test_no_line_makes_no_course() -> None:
    assert series_of([]) == ()
    assert series_of([line(1)]) == ()


def test_a_given_order_counts_alone_and_knows_a_commit_by_twelve_digits() -> None:
    order = tuple(commit(number).commit for number in (3, 1))
    short = replace(line(1, 10.0), at=CommitPosition(commit(1).commit[:12], 1))
    outside = replace(line(9, 10.0), at=CommitPosition())
    assert positions(only([short, line(2, 10.0), line(3, 10.0), outside], order)) == [3, 1]


def test_several_runs_of_a_commit_are_points_in_the_order_of_their_dates() -> None:
    found = only([line(1, 12.0, day=9), line(2, 20.0, day=4), line(1, 11.0, day=3)])
    assert [round(math.exp(point.level)) for point in found.points] == [11, 12, 20]


def test_a_run_without_a_position_follows_the_last_one_that_has_one() -> None:
    unknown = replace(line(1, 15.0, day=3), at=CommitPosition())
    found = only([line(1, 10.0, day=1), line(2, 20.0, day=2), unknown, line(3, 30.0, day=4)])
    assert [round(math.exp(point.level)) for point in found.points] == [10, 20, 15, 30]


@pytest.mark.parametrize(("member", "reason"), [("setup", "set-up"), ("facts", "environment")])
def test_another_set_up_or_environment_begins_a_segment_and_an_unknown_one_does_not(member: str, reason: str) -> None:
    lines = [line(number, 10.0) for number in range(1, 7)]
    lines[1] = replace(lines[1], **{member: ""})
    lines[3:] = [replace(one, **{member: "other"}) for one in lines[3:]]
    assert segments(only(lines)) == [(0, 3, ""), (3, 6, reason)]


@each_row(
    ("metric", "values", "levels"),
    ("error_rate", [0, 0, 0.0002, 0.02], [0.001, 0.001, 0.001, 0.02]),
    ("memory_growth", [-50.0, 10.0, 1024.0], [256, 256, 1024]),
    ("of_later", [0.0, 4.0], [0.01, 4.0]),  # which this version does not know
)
def test_a_course_is_flat_at_the_least_value_that_counts(metric: str, values: list[float], levels: list[float]) -> None:
    found = only([line(number, value, metric=metric) for number, value in enumerate(values, 1)])
    assert [math.exp(point.level) for point in found.points] == pytest.approx(levels)


def test_equal_values_of_a_metric_that_does_not_vary_have_the_error_of_five_digits() -> None:
    same = replace(line(1), values={"request_bytes": (LaunchValue(1000.0, 0.0),)})
    assert only([same]).points[0].error == pytest.approx(1e-4)


def test_ratios_to_one_release_are_levels_whatever_machine_they_are_from() -> None:
    lines = [replace(ratio(number, 0.01 * number, RELEASE), machine=f"m{number}") for number in range(1, 5)]
    found = only([replace(one, facts=f"facts of {one.machine}") for one in lines])
    assert (found.machine, found.course) == ("", Course.RATIOS)
    assert [point.level for point in found.points] == pytest.approx([0.01, 0.02, 0.03, 0.04])
    assert {point.reference for point in found.points} == {RELEASE}
    assert segments(found) == [(0, 4, "")]


def test_an_environment_that_changes_on_one_machine_begins_a_segment_of_ratios() -> None:
    lines = [replace(ratio(number, 0.0, RELEASE), machine=f"m{number % 2}") for number in range(1, 7)]
    lines[4:] = [replace(one, facts="other") for one in lines[4:]]
    assert segments(only(lines)) == [(0, 4, ""), (4, 5, "environment"), (5, 6, "environment")]


def test_ratios_to_the_commit_before_add_up() -> None:
    found = only([ratio(number, 0.01, commit(number - 1)) for number in range(1, 5)])
    assert [point.level for point in found.points] == pytest.approx([0.01, 0.02, 0.03, 0.04])
    assert [point.level - point.origin for point in found.points] == pytest.approx([0.01] * 4)
    assert len(found.segments) == 1


def test_a_reference_that_moves_on_has_the_level_that_it_was_measured_at() -> None:
    lines = [ratio(1, 0.01, RELEASE), ratio(2, 0.02, RELEASE, day=2), ratio(2, 0.04, RELEASE, day=3)]
    lines += [ratio(3, 0.0, commit(2)), ratio(4, 0.05, commit(2)), ratio(5, 0.02, RELEASE)]
    found = only(lines)
    assert [point.level for point in found.points] == pytest.approx([0.01, 0.02, 0.04, 0.03, 0.08, 0.02])
    assert segments(found) == [(0, 6, "")]


def test_a_reference_without_a_level_begins_a_segment_at_its_own_level() -> None:
    found = only([ratio(1, 0.01, RELEASE), ratio(4, 0.05, commit(3)), ratio(5, 0.0, commit(4)), ratio(6, 0.1, RELEASE)])
    assert [point.level for point in found.points] == pytest.approx([0.01, 0.05, 0.05, 0.1])
    assert segments(found) == [(0, 1, ""), (1, 3, "reference"), (3, 4, "reference")]


def test_lines_without_a_ratio_make_no_course_of_ratios() -> None:
    assert series_of([replace(ratio(1, 0.0, RELEASE), reference=None)]) == ()
    assert series_of([replace(ratio(1, 0.0, RELEASE), ratios={"rtm": ()})]) == ()
    assert series_of([ratio(1, math.nan, RELEASE)]) == ()
