"""A noisy bisection ends at the commit that changed the metric, says when none did, and errs as rarely as it says."""

import math
from collections.abc import Callable, Collection, Sequence

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray
from support.each_row import each_row

from pytest_mlpatterns.analysis.changes.bisection import (
    Bisection,
    Bracket,
    Decided,
    Likeness,
    Measure,
    NoChange,
    SearchRules,
    StepCheck,
    check_step,
    most_steps,
)
from pytest_mlpatterns.analysis.statistics.log_ratio import LogRatio, ratio_estimate

LAUNCHES = 8
"""Paired launches of one measurement: what a budget of 30 s gives."""
SCATTER = 0.017
"""Standard deviation of the log ratio from launch to launch."""
EXACT = LogRatio(0.0, 0.0001)


def exact(level: float, launches: int = 40) -> list[LogRatio]:
    return [LogRatio(level, 0.0001)] * launches


def steps(last: int, **changes: float) -> NDArray[np.float64]:
    """Levels of commits 0 to last; ``at7=0.05`` is a step of 5 % at number 7."""
    numbers = np.arange(last + 1)
    found = np.zeros(last + 1)
    for name, size in changes.items():
        found += np.where(numbers >= int(name.removeprefix("at")), math.log1p(size), 0)
    return found


class Kept(Bisection):
    """A search that keeps what it has decided."""

    def __init__(self, last: int) -> None:
        super().__init__(last)
        self.decided: list[Decided] = []

    def add_run(self, launches: Sequence[LogRatio]) -> Decided:
        found = super().add_run(launches)
        self.decided += [found] if found.likeness is not None else []
        return found


def searched(
    levels: Sequence[float] | NDArray[np.float64],
    launches_at: Callable[[float], Sequence[LogRatio]] = exact,
    broken: Collection[int] = (),
) -> Kept:
    """A search among commits of these levels, some of which do not run."""
    search = Kept(len(levels) - 1)
    while isinstance(step := search.step, Measure):
        if step.position in broken:
            search.skip()
        else:
            search.add_run(launches_at(float(levels[step.position] - levels[0])))
    return search


def noisy(rng: np.random.Generator, scatter: float = SCATTER) -> Callable[[float], list[LogRatio]]:
    return lambda level: [LogRatio(value, 0.004) for value in rng.normal(level, scatter, LAUNCHES)]


def checked(levels: NDArray[np.float64], bracket: Bracket, launches_at: Callable[[float], list[LogRatio]]) -> StepCheck:
    runs: list[list[LogRatio]] = []
    while True:
        runs.append(launches_at(float(levels[bracket.bad] - levels[bracket.good])))
        found = check_step(runs, bracket, SearchRules())
        if found.is_confirmed is not None:
            return found


def ended(search: Bisection) -> Bracket:
    assert isinstance(search.step, Bracket)
    return search.step


@each_row("size", [-0.3, -0.02, 0.02, 1.0])
@each_row("last", [1, 2, 3, 7, 8, 40])
def test_every_place_of_a_step_is_found(last: int, size: float) -> None:
    for at in range(1, last + 1):
        search = searched(steps(last, **{f"at{at}": size}))
        bracket = ended(search)
        assert (bracket.good, bracket.bad) == (at - 1, at)
        assert bracket.is_one_commit
        assert bracket.jump == pytest.approx(1 + size, rel=1e-3)
        assert len(search.decided) <= most_steps(last) + 1


def test_the_ends_are_compared_first_and_the_middle_next() -> None:
    search = Bisection(40)
    assert search.step == Measure(40, 1, 0, 40)
    assert search.add_run(exact(0.1)).likeness is Likeness.BAD
    assert search.step == Measure(20, 1, 0, 40)
    assert search.add_run(exact(0.0)).likeness is Likeness.GOOD
    assert search.step == Measure(30, 1, 20, 40)


def test_a_commit_is_measured_again_until_it_is_decided() -> None:
    search = Bisection(4)
    search.add_run(exact(0.02))
    wide = [LogRatio(0.0, 0.03), LogRatio(0.02, 0.03)]
    found = search.add_run(wide)
    assert found.likeness is None
    assert search.step == Measure(2, 2, 0, 4)
    assert search.add_run(exact(0.0)).launches == 42


@each_row(("last", "parts"), [(1, 2), (8, 5)])
@each_row(("halves", "likeness"), [(1.98, None), (2.02, Likeness.BAD)])
def test_the_ends_differ_from_twice_a_half_interval_that_errs_to_either_side(
    last: int, parts: int, halves: float, likeness: Likeness | None
) -> None:
    """Of an error of 5 % the ends have as much as each step and the check after them; the first look has half of it."""
    apart = [LogRatio(-0.02, 0.004), LogRatio(0.02, 0.004)]
    half = math.log(ratio_estimate(apart, confidence=1 - 0.05 / parts / 2).high)
    moved = [LogRatio(launch.value + halves * half, launch.error) for launch in apart]
    assert Bisection(last).add_run(moved).likeness is likeness


def test_ends_that_scatter_too_much_leave_it_open() -> None:
    search = Bisection(8, SearchRules(most_runs=2))
    for _ in range(2):
        found = search.add_run([LogRatio(-0.4, 0.3), LogRatio(0.4, 0.3)])
    assert isinstance(search.step, NoChange)
    assert search.step.is_open
    assert found.likeness is Likeness.UNDECIDED


def test_commits_that_do_not_run_elsewhere_are_passed_over() -> None:
    search = searched(steps(40, at7=0.1), broken=(20, 10, 21, 19))
    assert ended(search).bad == 7


def test_the_next_candidate_is_far_from_one_that_does_not_run() -> None:
    search = Bisection(40)
    search.add_run(exact(0.1))
    search.skip()
    assert search.step == Measure(10, 1, 0, 40)


def test_two_steps_lead_to_one_of_them_and_the_check_says_that_it_is_a_part() -> None:
    levels = steps(40, at11=0.05, at30=0.05)
    search = searched(levels)
    bracket = ended(search)
    assert bracket.bad in (11, 30)
    assert search.decided[1].likeness in (Likeness.NEAR_GOOD, Likeness.NEAR_BAD)
    found = check_step([exact(float(levels[bracket.bad] - levels[bracket.good]))], bracket, SearchRules())
    assert found.is_confirmed
    assert found.is_part


def test_a_commit_that_stays_undecided_is_left_out() -> None:
    search = Bisection(2, SearchRules(most_runs=2))
    search.add_run(exact(0.1))
    for _ in range(2):
        found = search.add_run([LogRatio(-0.5, 0.3), LogRatio(0.6, 0.3)])
    assert found.likeness is Likeness.UNDECIDED
    assert ended(search).bad - ended(search).good == 2


@each_row(
    ("wrong", "why"),
    (lambda: searched(np.zeros(3)).add_run([EXACT]), "has ended"),
    (lambda: Bisection(0), "at least 1"),
    (lambda: Bisection(2).add_run([]), "no launches"),
    (lambda: Bisection(3).skip(), "the bad end"),
)
def test_what_no_search_can_do_is_refused(wrong: Callable[[], object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        wrong()


def test_a_step_that_is_none_is_not_confirmed() -> None:
    bracket = ended(searched(steps(4, at2=0.05)))
    assert check_step([exact(0.0)], bracket, SearchRules()).is_confirmed is False
    assert check_step([exact(-0.05)], bracket, SearchRules()).is_confirmed is False
    assert check_step([exact(0.04, 2)], bracket, SearchRules()).is_confirmed is True
    wide = [LogRatio(-0.3, 0.2), LogRatio(0.5, 0.2)]
    assert check_step([wide], bracket, SearchRules()).is_confirmed is None
    assert check_step([wide] * 12, bracket, SearchRules()).is_confirmed is False


def test_few_launches_that_agree_confirm_no_step_on_a_machine_whose_launches_scatter() -> None:
    quiet = ended(searched(steps(4, at2=0.05)))
    busy = replace(quiet, launches=tuple(LogRatio(value, 0.004) for value in (-0.01, 0.11) * 4))
    pair = [LogRatio(0.05, 0.004)] * 2
    assert check_step([pair], quiet, SearchRules()).is_confirmed is True
    assert check_step([pair], busy, SearchRules()).is_confirmed is None


@each_row(("last", "steps_needed"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (40, 6)])
def test_the_steps_of_a_range_are_its_halvings(last: int, steps_needed: int) -> None:
    assert most_steps(last) == steps_needed


@pytest.mark.simulation
@pytest.mark.parametrize("size", [0.03, 0.05, 0.08])
def test_the_right_commit_is_found_in_95_of_100(size: float) -> None:
    rng = np.random.default_rng(31)
    launches_at, right, wrong = noisy(rng), 0, 0
    for _ in range(100):
        at = int(rng.integers(1, 41))
        levels = steps(40, **{f"at{at}": size})
        bracket = ended(searched(levels, launches_at))
        if bracket.is_one_commit:
            is_confirmed = checked(levels, bracket, launches_at).is_confirmed
            right += bool(is_confirmed) and bracket.bad == at
            wrong += bool(is_confirmed) and bracket.bad != at
    assert right >= 95
    assert wrong <= 2


@pytest.mark.simulation
def test_few_launches_of_a_busy_machine_name_no_wrong_commit() -> None:
    rng = np.random.default_rng(34)
    wrong = 0
    for _ in range(30):
        at = int(rng.integers(1, 41))
        levels = steps(40, **{f"at{at}": 0.08})
        search = searched(levels, lambda level: [LogRatio(one, 0.004) for one in rng.normal(level, 0.06, 3)])
        wrong += isinstance(search.step, Bracket) and search.step.is_one_commit and search.step.bad != at
    assert wrong <= 2


@pytest.mark.simulation
def test_unchanged_ends_are_searched_in_5_of_100_at_most() -> None:
    launches_at = noisy(np.random.default_rng(32))
    searches = [searched(np.zeros(9), launches_at) for _ in range(100)]
    assert sum(not isinstance(search.step, NoChange) for search in searches) <= 5


@pytest.mark.simulation
def test_a_drift_beside_a_step_leads_to_the_step() -> None:
    rng = np.random.default_rng(33)
    launches_at, right = noisy(rng), 0
    for _ in range(50):
        at = int(rng.integers(1, 41))
        right += ended(searched(steps(40, **{f"at{at}": 0.05}) + np.arange(41) * 0.001, launches_at)).bad == at
    assert right >= 45
