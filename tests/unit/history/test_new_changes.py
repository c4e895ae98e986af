"""Which changes the lines of a run made known: none that was known before, and each once more when it is confirmed."""

import hashlib
import math
import random
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from pytest_mlpatterns.analysis.changes.series import Segment, series_of
from pytest_mlpatterns.history.session import each_passed, latest_points, new_changes
from pytest_mlpatterns.records.history import CommitPosition, Course, HistoryLine, PairedRatio
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Kind

MACHINE, OTHER = "Test Processor 3000", "Another Processor"


def commit(number: int) -> str:
    return hashlib.sha1(str(number).encode(), usedforsecurity=False).hexdigest()


def history(
    levels: Sequence[float], *, test: str = "t.py::test_a", machine: str = MACHINE, seed: int = 4
) -> list[HistoryLine]:
    """A line at each of these levels of RTM, relative to 5 ms, scattered by 1 %."""
    draw = random.Random(seed)
    return [
        HistoryLine(
            test=test,
            machine=machine,
            date=f"2026-10-{number // 24 + 1:02}T{number % 24:02}:00:00+00:00",
            at=CommitPosition(commit(number), number + 1),
            clean=True,
            setup="0123456789",
            facts="abcdef0123",
            kind=Kind.PASSED,
            values={"rtm": tuple(LaunchValue(5e6 * level * math.exp(draw.gauss(0, 0.01)), 0.004) for _ in range(4))},
        )
        for number, level in enumerate(levels)
    ]


def found_at(lines: Sequence[HistoryLine]) -> dict[int, tuple[bool, int]]:
    """By the number of runs, whether the change that is new then is confirmed, and where it begins."""
    found = {}
    for number in range(12, len(lines) + 1):
        for change in new_changes(lines[: number - 1], lines[number - 1 : number]):
            assert number not in found
            found[number] = (change.is_confirmed, change.new.position)
    return found


def test_a_step_is_new_when_it_is_found_and_when_it_is_confirmed() -> None:
    found = found_at(history([1.0] * 20 + [1.2] * 15))
    assert [confirmed for confirmed, _ in found.values()] in ([False, True], [True])
    assert max(found) == 25  # the fifth run after the step
    assert all(position == 21 for _, position in found.values())


def test_a_flat_history_has_no_news() -> None:
    assert found_at(history([1.0] * 30)) == {}


@pytest.mark.parametrize("last", [1.44, 1.0])
def test_a_second_step_is_news_of_its_own_also_one_back(last: float) -> None:
    found = found_at(history([1.0] * 15 + [1.2] * 15 + [last] * 15))
    assert {position for confirmed, position in found.values() if confirmed} == {16, 31}


@pytest.mark.parametrize("gap", [5, 6, 9])
def test_a_second_step_close_to_a_known_one_is_news_once(gap: int) -> None:
    found = found_at(history([1.0] * 20 + [1.2] * gap + [1.44] * 20)).values()
    assert sorted(position for confirmed, position in found if confirmed) == [21, 21 + gap]
    assert len(found) == 4


@pytest.mark.parametrize("seed", [1, 5, 9, 11])
def test_two_close_steps_that_are_found_as_one_now_and_then_are_no_news_again(seed: int) -> None:
    """Small ones, of which a run may find one in the middle, and the next run both, or both one commit earlier."""
    found = found_at(history([1.0] * 20 + [1.03] * 5 + [1.0609] * 25, seed=seed)).values()
    assert [position for confirmed, position in found if confirmed] == [21, 26]


def test_only_tests_of_the_run_and_its_machine_are_reported() -> None:
    ours, theirs = history([1.0] * 20 + [1.2] * 5), history([1.0] * 20 + [1.2] * 5, test="t.py::test_b")
    assert [change.test for change in new_changes([*ours[:-1], *theirs], ours[-1:])] == ["t.py::test_a"]
    elsewhere = [replace(line, machine=OTHER) for line in ours]
    assert new_changes(elsewhere, history([1.0])) == ()


def test_a_change_of_ratios_is_reported_on_any_machine() -> None:
    first = CommitPosition(commit(0), 1)
    lines = [
        replace(
            line,
            values={"peak_memory": (LaunchValue(1e8, 0.0),)},
            ratios={"rtm": tuple(PairedRatio(math.log(one.value / 5e6), 0.004) for one in line.values["rtm"])},
            reference=first,
            machine=f"runner {number % 3}",
        )
        for number, line in enumerate(history([1.0] * 20 + [1.2] * 5))
    ]
    (change,) = new_changes(lines[:-1], lines[-1:])
    assert (change.course, change.machine, change.is_confirmed) == (Course.RATIOS, "", True)


def test_runs_on_another_branch_are_no_news() -> None:
    lines = history([1.0] * 20 + [1.2] * 5)
    on_main = [line.at.commit for line in lines[:20]]
    assert new_changes(lines[:-1], lines[-1:], on_main) == ()


def test_an_old_change_is_no_news_however_late_it_is_found() -> None:
    lines = history([1.0] * 20 + [1.2] * 230)
    assert new_changes([], lines) == ()


def test_a_long_history_is_read_from_its_end() -> None:
    lines = history([1.3] * 100 + [1.0] * 400 + [1.2] * 5)
    (change,) = new_changes(lines[:-1], lines[-1:])
    assert (change.new.position, change.is_confirmed) == (501, True)


def test_runs_passed_if_none_since_the_change_failed_or_was_not_compared() -> None:
    lines = history([1.0] * 20 + [1.2] * 5)
    (change,) = new_changes(lines[:-1], lines[-1:])
    assert each_passed(change, lines)
    for kind, passed in ((Kind.UNDECIDED, True), (Kind.REGRESSION, False), (Kind.NOT_COMPARED, False)):
        assert each_passed(change, [*lines[:-1], replace(lines[-1], kind=kind)]) is passed
        assert each_passed(change, [replace(lines[0], kind=kind), *lines[1:]])  # before the change
        assert each_passed(change, [*lines, replace(lines[-1], kind=kind, machine=OTHER)])


def test_the_latest_points_keep_their_segments() -> None:
    (whole,) = series_of(history([1.0] * 10))
    cut = latest_points(replace(whole, segments=(Segment(0, 4), Segment(4, 8, "set-up"), Segment(8, 10, "x"))), 4)
    assert [point.at.position for point in cut.points] == [7, 8, 9, 10]
    assert cut.segments == (Segment(0, 2), Segment(2, 4, "x"))
    assert latest_points(whole, 10) is whole
