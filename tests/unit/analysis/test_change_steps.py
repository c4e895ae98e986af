"""Steps in courses whose truth is known: of values, of ratios to a release, of ratios to the commit before."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray
from support.each_row import each_row
from support.made_series import RELEASE, commit, noise, of_neighbours, of_release, of_values, stepped

from pytest_mlpatterns.analysis.changes.series import Point, Series
from pytest_mlpatterns.analysis.changes.steps import SIGNIFICANCE, Step, corrected, layers_of_windows, steps_of
from pytest_mlpatterns.analysis.changes.stretches import (
    deviations,
    scatter_of_differences,
    scatter_of_runs,
    stretches_of,
)
from pytest_mlpatterns.analysis.statistics.intervals import PRIOR_DEGREES

RATIO_SCATTER = 0.007


def found_in(series: Series) -> list[Step]:
    return [
        step
        for segment in series.segments
        for step in steps_of(stretches_of(series.points, segment.start, segment.stop), segment.stop)
    ]


def places(series: Series) -> list[int]:
    return [step.at for step in found_in(series)]


def test_a_step_is_found_at_its_place_with_its_size() -> None:
    (step,) = found_in(of_values(stepped(80, (50, 0.06)) + noise(1, 80)))
    assert abs(step.at - 50) <= 1
    assert abs(step.size - 0.06) < 3 * step.error
    assert step.is_confirmed
    assert step.p_value < 1e-9


def test_steps_are_found_between_others_also_if_the_last_level_is_the_first() -> None:
    series = of_values(stepped(100, (30, 0.08), (45, -0.08), (70, 0.05)) + noise(2, 100))
    assert places(series) == pytest.approx([30, 45, 70], abs=1)


def test_windows_of_one_length_lie_as_evenly_as_whole_runs_allow() -> None:
    for starts, length in layers_of_windows(100):
        evenly = np.linspace(0, 100 - length, starts.size)
        assert np.abs(starts - evenly).max() <= 0.5


def test_differences_of_normal_runs_show_the_scatter_of_one() -> None:
    normal = np.array([0.01 * NormalDist().inv_cdf((place + 0.5) / 2000) for place in range(2000)])
    assert scatter_of_differences(np.cumsum(normal * math.sqrt(2))) == pytest.approx(0.01, rel=0.005)


def test_errors_of_three_times_the_lower_quartile_count_beyond_their_median() -> None:
    found = deviations(np.array([0.01] * 4 + [0.1] * 3 + [0.2] * 3), 0.01)
    assert found.tolist() == pytest.approx([0.01] * 7 + [math.sqrt(0.01**2 + 0.2**2 - 0.1**2)] * 3)


@pytest.mark.parametrize("runs", [1, 4])
def test_differences_of_neighbours_are_worth_two_thirds_of_their_number(runs: int) -> None:
    found = scatter_of_runs(np.cumsum([0.0, 0.01, -0.01, 0.01])[:runs], np.full(runs, 0.01))
    assert found.degrees == pytest.approx(PRIOR_DEGREES + (runs - 1) * 2 / 3)


@each_row("runs", [0, 1, 2, 6, 7, 12, 100])
def test_unchanged_runs_have_no_step(runs: int) -> None:
    assert not any(places(of_values(noise(seed, runs))) for seed in range(10) if runs)
    assert not places(of_values(np.zeros(runs))) or not runs


@each_row("runs", range(1, 5))
@each_row("at", [0, 20, 36])
def test_a_group_of_fewer_than_five_runs_is_no_step(runs: int, at: int) -> None:
    levels = noise(3, 40)
    levels[at : at + runs] += 0.5
    if at + runs < 40:
        assert not places(of_values(levels))


@each_row(("runs", "size"), [(60, 0.2), (100, 0.08)])  # the second shows in no split of the whole course
def test_a_group_of_five_runs_is_two_steps(runs: int, size: float) -> None:
    at = runs // 2
    assert places(of_values(stepped(runs, (at, size), (at + 5, -size)) + noise(4, runs))) == [at, at + 5]


@pytest.mark.parametrize(("gap", "seed"), [(5, 4), (5, 31), (6, 8), (6, 23)])
def test_two_close_steps_up_are_two(gap: int, seed: int) -> None:
    """Three candidates between them and beside them, each five runs from the next, could not move."""
    assert places(of_values(stepped(60, (30, 0.2), (30 + gap, 0.2)) + noise(seed, 60))) == [30, 30 + gap]


def test_spikes_hide_no_step() -> None:
    levels = stepped(80, (40, 0.06)) + noise(5, 80)
    levels[[7, 22, 38, 55, 71]] += [0.4, -0.3, 0.5, 0.6, -0.4]
    assert places(of_values(levels)) == pytest.approx([40], abs=1)


@pytest.mark.parametrize(("after", "confirmed"), [(1, None), (2, False), (4, False), (5, True)])
def test_a_step_is_new_with_two_runs_and_confirmed_with_five(after: int, confirmed: bool | None) -> None:
    found = found_in(of_values(stepped(40, (40 - after, 0.15)) + noise(6, 40)))
    assert [step.is_confirmed for step in found] == ([] if confirmed is None else [confirmed])


def test_a_step_needs_five_runs_before_it() -> None:
    assert not places(of_values(stepped(40, (4, 0.3)) + noise(7, 40)))
    assert places(of_values(stepped(40, (5, 0.3)) + noise(7, 40))) == [5]


def test_a_step_lies_between_commits_and_not_between_runs_of_one() -> None:
    levels = stepped(40, (22, 0.1)) + noise(8, 40)
    series = of_values(levels, commits=[number // 5 for number in range(40)])
    assert places(series) == [20] or places(series) == [25]


def test_runs_of_unknown_commits_are_points_of_their_own() -> None:
    series = of_values(stepped(40, (22, 0.1)) + noise(9, 40))
    unknown = tuple(replace(point, at=replace(point.at, commit="")) for point in series.points)
    assert places(replace(series, points=unknown)) == pytest.approx([22], abs=1)


def test_a_run_whose_launches_scattered_much_counts_less() -> None:
    values = of_values(stepped(30, (20, 0.1)) + noise(10, 30))
    for series, error in ((values, 0.3), (of_neighbours(increments(15, 30, (20, 0.06))), 0.05)):
        noisy = [replace(point, error=error) if place >= 20 else point for place, point in enumerate(series.points)]
        assert places(series) == [20]
        assert not places(replace(series, points=tuple(noisy)))


def test_runs_that_resemble_their_neighbours_are_less_sure() -> None:
    levels = stepped(60, (30, 0.02))
    wandering = noise(11, 60, 0.006)
    for place in range(1, 60):
        wandering[place] += 0.8 * wandering[place - 1]
    (independent,) = found_in(of_values(levels + noise(12, 60, 0.006)))
    correlated = found_in(of_values(levels + wandering))
    assert all(step.p_value > independent.p_value for step in correlated)


def test_a_step_of_constant_values_is_sure_and_below_a_tenth_of_a_percent_none() -> None:
    (step,) = found_in(of_values(stepped(40, (20, 0.05)), error=0.0))
    assert (step.at, round(step.size, 6)) == (20, 0.05)
    assert not found_in(of_values(stepped(40, (20, 0.0002)), error=0.0))


def test_a_ratio_to_a_release_shows_a_step_without_the_level_before_the_first_run() -> None:
    assert places(of_release(0.3 + stepped(40, (25, 0.03)) + noise(13, 40, RATIO_SCATTER))) == pytest.approx(
        [25], abs=1
    )
    assert not places(of_release(0.3 + noise(14, 40, RATIO_SCATTER)))


def increments(seed: int, runs: int, *steps: tuple[int, float]) -> NDArray[np.float64]:
    found = noise(seed, runs, RATIO_SCATTER)
    for place, size in steps:
        found[place] += size
    return found


def test_a_step_of_a_chain_is_one_increment_and_its_walk_is_none() -> None:
    found = found_in(of_neighbours(increments(15, 40, (25, 0.06))))
    assert [step.at for step in found] == [25]
    assert found[0].is_confirmed
    assert not any(places(of_neighbours(increments(seed, 100))) for seed in range(20))


def test_an_increment_that_is_taken_back_is_no_step_and_one_that_is_half_taken_back_is() -> None:
    assert not places(of_neighbours(increments(16, 40, (25, 0.08), (26, -0.08))))
    (step,) = found_in(of_neighbours(increments(16, 40, (25, 0.16), (28, -0.08))))
    assert step.at == 25
    assert abs(step.size - 0.08) < 3 * step.error


def test_the_last_increment_waits_for_another_run() -> None:
    assert not places(of_neighbours(increments(17, 40, (39, 0.1))))
    (step,) = found_in(of_neighbours(increments(17, 40, (38, 0.1))))
    assert not step.is_confirmed


def test_the_end_of_one_step_is_the_next_one() -> None:
    first, second = found_in(of_neighbours(increments(18, 40, (20, 0.08), (26, 0.08))))
    assert (first.after, second.after) == (6, 14)


@pytest.mark.parametrize("values", [(0.1, 0.0), (0.0, 0.1, 0.0), (0.1, 0.09, 0.0, 0.0)])
def test_several_runs_of_one_increment_count_as_their_median(values: tuple[float, ...]) -> None:
    series = of_neighbours(increments(19, 30))
    again = [replace(series.points[15], level=series.points[15].origin + value) for value in values]
    points = (*series.points[:15], *again, *series.points[16:])
    length = len(points)
    assert not places(replace(series, points=points, segments=(replace(series.segments[0], stop=length),)))


def moved_on(levels: NDArray[np.float64], at: int) -> Series:
    """Ratios to a release, and from one run on to the commit before that."""
    series = of_release(levels)
    reference = commit(at - 1)
    moved = [
        replace(point, reference=reference, level=point.level + levels[at - 1], origin=float(levels[at - 1]))
        for point in of_release(levels - stepped(levels.size, (0, 0.0))).points[at:]
    ]
    return replace(series, points=(*series.points[:at], *moved))


def test_a_reference_that_moves_on_makes_no_step_although_its_own_error_moves_the_levels() -> None:
    ratios = noise(20, 40, RATIO_SCATTER)
    ratios[19] += 0.03  # the level of the new reference was measured badly
    assert not places(moved_on(ratios, 20))


def test_a_step_right_after_the_reference_moved_on_is_found() -> None:
    ratios = noise(21, 40, RATIO_SCATTER)
    ratios[20:] += 0.05  # against the new reference
    assert places(moved_on(ratios, 20)) == [20]
    ratios[20:23] -= 0.05
    assert places(moved_on(ratios, 20)) == [23]


def test_a_new_reference_with_few_runs_is_compared_as_a_whole() -> None:
    ratios = noise(22, 23, RATIO_SCATTER)
    ratios[20:] += 0.08
    (step,) = found_in(moved_on(ratios, 20))
    assert (step.at, step.is_confirmed) == (20, False)


def test_a_step_that_two_references_show_is_one() -> None:
    """The runs before and after the step have an older reference; the later ones refer to a commit before it."""
    ratios = stepped(40, (24, 0.08)) + noise(23, 40, RATIO_SCATTER)
    points: list[Point] = list(of_release(ratios).points)
    for place in range(30, 40):
        points[place] = replace(points[place], reference=commit(19), origin=float(ratios[19]))
        points[place] = replace(points[place], level=points[place].origin + 0.08 + float(noise(place, 1, 0.007)[0]))
    series = replace(of_release(ratios), points=tuple(points))
    assert places(series) == [24]
    assert {point.reference for point in series.points} == {RELEASE, commit(19)}


def test_the_correction_grows_with_the_number_of_places_and_is_a_probability() -> None:
    alone = corrected(5.0, 100.0, runs=10, side=5)
    assert SIGNIFICANCE > corrected(5.0, 100.0, runs=100, side=50) > alone
    assert corrected(5.0, 100.0, runs=100, side=5) > corrected(5.0, 100.0, runs=100, side=50)
    assert corrected(0.0, 100.0, runs=100, side=5) == 1.0
    assert corrected(1e6, 100.0, runs=100, side=5) > 0
    assert corrected(5.0, 3.0, runs=10, side=5) > alone
