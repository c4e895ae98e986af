"""What is promised to be seen, against the verdicts themselves: the scatter is known, and so is the change."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pytest_mlpatterns.analysis.changes.visibility import (
    Levels,
    Scatter,
    SimulatedRuns,
    differs_less,
    fewest_launches,
    room_of,
    runs_beside_entry,
    runs_of_pairs,
    runs_of_sides,
    scatter_of,
    seen_change,
    seen_tolerance,
)
from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.statistics.intervals import LAUNCH_SD, PRIOR_DEGREES, log_ratio_of
from pytest_mlpatterns.analysis.statistics.log_ratio import LogRatio, judge_ratio
from pytest_mlpatterns.analysis.statistics.looks import (
    CONFIRMING_LAUNCHES,
    CONFIRMING_PAIRS,
    looks_beside_entry,
    looks_of_pairs,
    looks_that_fit,
)
from pytest_mlpatterns.analysis.verdicts.verdicts import GUARD_ALPHA, judge_change, judge_guard
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Outcome

if TYPE_CHECKING:
    from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan

RUNS = 150
TOLERANCE = 0.10
ERROR = 0.01
"""Standard error within each launch."""
RECORDED, LAUNCHES, PAIRS = 8, 8, 6
ALPHA = 0.005


def levels_of(draw: np.random.Generator, count: int, *, sd: float, shift: float = 0.0) -> list[float]:
    return [float(one) for one in shift + draw.normal(0, math.hypot(sd, ERROR), count)]


def values(levels: list[float]) -> list[LaunchValue]:
    return [LaunchValue(1e6 * math.exp(level), ERROR) for level in levels]


def assumed(sd: float, *, seed: int = 5, launches: int = 16) -> Scatter:
    """The scatter as that many launches show it."""
    found = scatter_of(
        [tuple((level, ERROR) for level in levels_of(np.random.default_rng(seed), launches, sd=sd))],
        LAUNCH_SD,
        PRIOR_DEGREES,
    )
    assert found is not None
    return found


def plan() -> SequentialPlan:
    return looks_beside_entry(RECORDED, launches=LAUNCHES, alpha=ALPHA)


def fails_beside_entry(draw: np.random.Generator, name: str, change: float, *, sd: float) -> bool:
    """Whether a run fails as :meth:`SequentialMeasurement.decide_all` measures it."""
    metric = METRICS[name]
    shift = math.log1p(change) if metric.better == "lower" else math.log1p(-change)
    entry, run = values(levels_of(draw, RECORDED, sd=sd)), values(levels_of(draw, LAUNCHES, sd=sd, shift=shift))
    for number in range(1, LAUNCHES + 1):
        if name == "cpu_per_request":
            outcome = judge_guard(metric, run[:number], entry, tolerance=TOLERANCE).outcome
        else:
            outcome = judge_change(metric, run[:number], entry, tolerance=TOLERANCE, plan=plan()).outcome
        if outcome is Outcome.PASS or (outcome is Outcome.FAIL and number >= CONFIRMING_LAUNCHES):
            return outcome is Outcome.FAIL
    return False


def looks_of_run() -> SequentialPlan:
    looks = looks_that_fit(looks_of_pairs(TOLERANCE, ALPHA, 30 * 10**9), PAIRS * 10**9, 1.0)
    return replace(looks, pass_alpha=0.025)


def fails_beside_revision(draw: np.random.Generator, change: float, *, sd: float) -> bool:
    """Whether a run of pairs fails as the judge of a revision measures it."""
    run = [LogRatio(level, ERROR) for level in levels_of(draw, PAIRS, sd=sd, shift=math.log1p(change))]
    for number in range(3, PAIRS + 1):
        since = 1 if number < CONFIRMING_PAIRS else CONFIRMING_PAIRS
        verdict = judge_ratio(run[:number], 1 + TOLERANCE, "lower", plan=looks_of_run())
        if verdict.outcome is Outcome.FAIL and verdict.launches < CONFIRMING_PAIRS:
            verdict = judge_ratio(run[:number], 1 + TOLERANCE, "lower", plan=replace(looks_of_run(), since=since))
            if number < CONFIRMING_PAIRS:
                continue
        if verdict.outcome is not Outcome.INCONCLUSIVE:
            return verdict.outcome is Outcome.FAIL
    return False


def promised_beside_entry(name: str, scatter: Scatter) -> float:
    runs = runs_beside_entry(scatter, recorded=RECORDED, launches=LAUNCHES, prior_sd=METRICS[name].launch_sd)
    levels = Levels.of_plan(plan(), LAUNCHES, confirmed=CONFIRMING_LAUNCHES)
    if name == "cpu_per_request":
        levels = Levels.of_guard(GUARD_ALPHA, LAUNCHES, first=1, confirmed=CONFIRMING_LAUNCHES)
    found = seen_change(runs.margin(levels), TOLERANCE, METRICS[name].better)
    assert found is not None
    return found


@pytest.mark.simulation
@pytest.mark.parametrize("sd", [0.003, 0.017, 0.05])
@pytest.mark.parametrize("name", ["rtm", "throughput", "cpu_per_request"])
def test_a_promised_change_fails_beside_an_entry(name: str, sd: float) -> None:
    promised = promised_beside_entry(name, assumed(sd))
    caught, half = (
        sum(fails_beside_entry(draw, name, change, sd=sd) for _ in range(RUNS)) / RUNS
        for draw, change in ((np.random.default_rng(7), promised), (np.random.default_rng(8), promised / 2))
    )
    assert caught >= 0.90
    assert half <= 0.50


@pytest.mark.simulation
@pytest.mark.parametrize("sd", [0.003, 0.017, 0.04])
def test_a_promised_change_fails_beside_a_revision(sd: float) -> None:
    runs = runs_of_pairs(assumed(sd), launches=PAIRS)
    levels = Levels.of_plan(looks_of_run(), PAIRS, confirmed=CONFIRMING_PAIRS)
    promised = seen_change(runs.margin(levels), TOLERANCE, "lower")
    assert promised is not None
    caught, half = (
        sum(fails_beside_revision(draw, change, sd=sd) for _ in range(RUNS)) / RUNS
        for draw, change in ((np.random.default_rng(7), promised), (np.random.default_rng(8), promised / 2))
    )
    assert caught >= 0.90
    assert half <= 0.50


def test_each_simulated_run_fails_where_its_verdict_does() -> None:
    draw = np.random.default_rng(3)
    metric, looks = METRICS["rtm"], plan()
    levels = Levels.of_plan(looks, LAUNCHES, confirmed=CONFIRMING_LAUNCHES)
    for _ in range(20):
        entry, run = levels_of(draw, RECORDED, sd=0.02), levels_of(draw, LAUNCHES, sd=0.02)
        means = [
            log_ratio_of(values(run[:number]), values(entry), metric.launch_sd) for number in range(1, LAUNCHES + 1)
        ]
        runs = SimulatedRuns(
            *(np.array([[getattr(one, part) for one in means]]) for part in ("mean", "error", "degrees"))
        )
        (margin,) = runs.margins(levels).tolist()
        for further, expected in ((1e-6, True), (-1e-6, False)):
            moved = [level + margin + further + math.log1p(TOLERANCE) for level in run]
            outcomes = [
                judge_change(metric, values(moved[:number]), values(entry), tolerance=TOLERANCE, plan=looks).outcome
                for number in range(1, LAUNCHES + 1)
            ]
            outcomes[0] = Outcome.INCONCLUSIVE if outcomes[0] is Outcome.FAIL else outcomes[0]
            decided = next((one for one in outcomes if one is not Outcome.INCONCLUSIVE), None)
            assert (decided is Outcome.FAIL) is expected


def test_more_scatter_and_fewer_launches_see_less() -> None:
    def margin(sd: float, launches: int) -> float:
        runs = runs_beside_entry(assumed(sd), recorded=RECORDED, launches=LAUNCHES, prior_sd=LAUNCH_SD)
        return runs.margin(Levels.of_plan(plan(), launches, confirmed=CONFIRMING_LAUNCHES))

    assert margin(0.01, 8) < margin(0.03, 8) < margin(0.03, 3)


def test_a_guard_of_two_sides_sees_more_with_more_launches() -> None:
    runs = runs_of_sides(assumed(0.01), launches=12, prior_sd=0.01)
    found = [runs.margin(Levels.of_guard(GUARD_ALPHA, launches, first=3, confirmed=3)) for launches in (3, 6, 12)]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1]


def test_the_same_launches_give_the_same_answer() -> None:
    runs = [runs_of_pairs(assumed(0.02), launches=4) for _ in range(2)]
    assert (runs[0].means == runs[1].means).all()
    assert runs[0].launches == 4


def test_what_is_too_wide_is_not_seen() -> None:
    wide = Scatter(3.0, 3.0, 0.0, (0.5,), 8)
    runs = runs_beside_entry(wide, recorded=2, launches=2, prior_sd=LAUNCH_SD)
    margin = runs.margin(Levels.of_plan(plan(), 2, confirmed=CONFIRMING_LAUNCHES))
    assert math.isinf(margin)
    assert seen_change(margin, TOLERANCE, "lower") is None
    assert seen_tolerance(margin, "lower") is None


# --- the scatter ------------------------------------------------------------------------------------------------------


def test_the_scatter_is_assumed_at_its_upper_quantile() -> None:
    above = 0
    for seed in range(200):
        found = assumed(0.05, seed=seed, launches=8)
        above += found.assumed >= math.hypot(0.05, ERROR)
    assert 0.84 <= above / 200 <= 0.96


def test_few_launches_are_trusted_less() -> None:
    few, many = assumed(0.02, launches=4), assumed(0.02, launches=64)
    assert few.assumed / few.found > many.assumed / many.found
    assert many.launches == 64
    assert many.within == pytest.approx(ERROR)


def test_launches_that_differ_less_than_by_chance_are_noticed() -> None:
    draw = np.random.default_rng(3)
    alike, few, usual = (
        [tuple((level, 0.001) for level in levels_of(draw, count, sd=sd)) for _ in range(3)]
        for count, sd in ((6, 0.001), (2, 0.02), (6, 0.05))
    )
    assert differs_less(alike, 0.05)
    assert not differs_less(few, 0.05)
    assert not differs_less(usual, 0.05)
    assert not differs_less([((0.0, 0.01),)], 0.05)


def test_one_launch_of_a_sitting_has_no_scatter_and_two_have_one() -> None:
    assert scatter_of([((0.0, 0.01),), ((0.1, 0.01),)], LAUNCH_SD, PRIOR_DEGREES) is None
    found = scatter_of([((0.0, 0.01), (0.1, 0.01))], LAUNCH_SD, PRIOR_DEGREES)
    assert found is not None
    assert found.found == pytest.approx(0.1 / math.sqrt(2))


def test_sittings_that_differ_widen_what_a_file_sees_and_not_what_a_revision_sees() -> None:
    draw = np.random.default_rng(1)
    shifts = draw.normal(0, 0.08, 12)
    apart = scatter_of(
        [tuple((level, ERROR) for level in levels_of(draw, 8, sd=0.01, shift=shift)) for shift in shifts],
        LAUNCH_SD,
        PRIOR_DEGREES,
    )
    assert apart is not None
    assert apart.between == pytest.approx(0.08, rel=0.5)
    alike = replace(apart, between=0.0)
    levels = Levels.of_plan(plan(), LAUNCHES, confirmed=CONFIRMING_LAUNCHES)
    file = [
        runs_beside_entry(one, recorded=RECORDED, launches=LAUNCHES, prior_sd=LAUNCH_SD).margin(levels)
        for one in (apart, alike)
    ]
    assert file[0] > 2 * file[1]
    assert apart.side_by_side().between == 0
    assert apart.side_by_side().assumed == pytest.approx(math.sqrt(2) * apart.assumed)


def test_a_step_in_a_history_is_no_scatter_between_sittings() -> None:
    draw = np.random.default_rng(2)
    sittings = [
        tuple((level, ERROR) for level in levels_of(draw, 4, sd=0.01, shift=0.3 * (number >= 10)))
        for number in range(20)
    ]
    found = scatter_of(sittings, LAUNCH_SD, PRIOR_DEGREES)
    assert found is not None
    assert found.between < 0.02


# --- from margins to changes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("better", ["lower", "higher"])
@pytest.mark.parametrize("margin", [0.01, 0.05, 0.2])
def test_the_seen_tolerance_sees_twice_itself(margin: float, better: str) -> None:
    tolerance = seen_tolerance(margin, better)  # type: ignore[arg-type]
    assert tolerance is not None
    assert seen_change(margin, tolerance, better) == pytest.approx(2 * tolerance)  # type: ignore[arg-type]
    assert room_of(tolerance, 2 * tolerance, better) == pytest.approx(margin)  # type: ignore[arg-type]


def test_no_rate_falls_by_more_than_it_is() -> None:
    assert seen_change(0.5, 0.10, "higher") == pytest.approx(1 - 0.9 * math.exp(-0.5))
    assert seen_change(0.5, 1.0, "higher") is None
    assert math.isinf(room_of(0.5, 1.0, "higher"))
    assert seen_tolerance(0.8, "lower") is None


def test_the_fewest_launches_that_suffice_are_found() -> None:
    assert fewest_launches(lambda launches: 1 / launches, 0.26, range(2, 25)) == 4
    assert fewest_launches(lambda launches: 1 / launches, 0.5, range(2, 25)) == 2
    assert fewest_launches(lambda launches: 1 / launches, 0.01, range(2, 25)) is None
