"""Drifts in courses whose truth is known, and steps that are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from msgspec.structs import replace
from support.made_series import noise, of_neighbours, of_release, of_values, stepped

from pytest_mlpatterns.analysis.changes.findings import find_changes
from pytest_mlpatterns.analysis.changes.series import Segment
from pytest_mlpatterns.records.change import ChangeForm

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_mlpatterns.analysis.changes.series import Series
    from pytest_mlpatterns.records.change import Change


def ramp(runs: int, start: int, stop: int, each: float = 0.002) -> NDArray[np.float64]:
    """A level that grows by the same amount with each run from one to another."""
    return each * np.clip(np.arange(runs) - start, 0, stop - start).astype(np.float64)


def forms(series: Series) -> list[ChangeForm]:
    return [change.form for change in find_changes([series])]


def the_drift(series: Series) -> Change:
    (found,) = find_changes([series])
    assert found.form is ChangeForm.DRIFT
    return found


@pytest.mark.parametrize("seed", range(5))
def test_a_drift_of_two_in_a_thousand_is_found_within_sixty_commits(seed: int) -> None:
    found = the_drift(of_values(ramp(110, 50, 110) + noise(seed, 110)))
    assert found.factor[1] < 1.127 < found.factor[2]
    assert abs(found.new.position - 209) <= 8
    assert abs(found.old.position - 150) <= 15
    assert (found.is_worse, found.is_confirmed) == (True, True)


def test_a_drift_that_ended_is_found_and_a_fall_is_one_for_the_better() -> None:
    found = the_drift(of_values(ramp(160, 50, 110, -0.002) + noise(6, 160)))
    assert found.factor[0] < 0.92
    assert not found.is_worse
    assert the_drift(of_release(ramp(80, 10, 70) + noise(7, 80, 0.01))).factor[0] > 1.05


@pytest.mark.parametrize("size", [0.02, 0.05, 0.2])
@pytest.mark.parametrize("place", [10, 30, 52])
def test_a_step_is_no_drift(size: float, place: int) -> None:
    for seed in range(3):
        assert ChangeForm.DRIFT not in forms(of_values(stepped(60, (place, size)) + noise(seed, 60)))


def test_a_staircase_is_steps() -> None:
    levels = stepped(100, (25, 0.06), (50, 0.06), (75, 0.06))
    assert forms(of_values(levels + noise(8, 100))) == [ChangeForm.STEP] * 3


@pytest.mark.parametrize("place", [40, 80])
def test_a_step_beside_a_drift_is_told_from_it(place: int) -> None:
    found = find_changes([of_values(ramp(160, 60, 130) + stepped(160, (place, 0.1)) + noise(9, 160))])
    assert sorted(change.form for change in found) == [ChangeForm.DRIFT, ChangeForm.STEP]
    (step,) = (change for change in found if change.form is ChangeForm.STEP)
    assert abs(step.new.position - 100 - place) <= 1
    assert step.factor[0] == pytest.approx(1.105, abs=0.03)


def test_unchanged_runs_and_short_ones_have_no_drift() -> None:
    assert not any(forms(of_values(noise(seed, 120))) for seed in range(10))
    assert ChangeForm.DRIFT not in forms(of_values(ramp(19, 0, 18, 0.01) + noise(10, 19)))


def test_a_chain_drifts_if_its_increments_do() -> None:
    found = the_drift(of_neighbours(noise(11, 80, 0.006) + 0.006))
    assert found.factor[0] == pytest.approx(np.exp(80 * 0.006), rel=0.15)
    assert not forms(of_neighbours(noise(12, 80, 0.006)))
    increments = noise(13, 80, 0.006)
    increments[40] += 0.1
    assert forms(of_neighbours(increments)) == [ChangeForm.STEP]


@pytest.mark.parametrize("off", [0.3, -0.3])
def test_a_run_that_is_far_off_hardly_changes_the_drift_of_a_chain(off: float) -> None:
    increments = noise(11, 80, 0.006) + 0.006
    increments[40] += off
    increments[41] -= off
    assert the_drift(of_neighbours(increments)).factor[0] == pytest.approx(np.exp(80 * 0.006), rel=0.15)


def test_a_chain_of_unchanged_code_has_no_drift_if_each_commit_ran_four_times() -> None:
    chain = of_neighbours(np.zeros(60))
    for seed in range(6):
        levels = noise(seed, 4 * 60, 0.02)
        points = tuple(replace(chain.points[place // 4], level=float(level)) for place, level in enumerate(levels))
        assert not forms(replace(chain, points=points, segments=(Segment(0, len(points)),)))


def test_two_drifts_of_a_long_course_are_two() -> None:
    levels = ramp(400, 50, 120) + ramp(400, 260, 330)
    assert forms(of_values(levels + noise(14, 400, 0.01))) == [ChangeForm.DRIFT] * 2
