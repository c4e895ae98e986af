"""The scatter of a test's launches from its history, and what verdicts that start from it are worth."""

import functools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from msgspec.structs import replace
from support.nightly import rarer

from pytest_mlpatterns.analysis.changes.series import FEWEST_RUNS, OWN_DEGREES, USUAL_SCATTER, LaunchScatter, scatter_in
from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.metrics.metric import Metric
from pytest_mlpatterns.analysis.statistics.alpha_spending import REVISION_ALPHA, looks_beside_entry, looks_of_pairs
from pytest_mlpatterns.analysis.statistics.intervals import LAUNCH_SD
from pytest_mlpatterns.analysis.statistics.log_ratio import RATIO_SD, USUAL_PRIOR, LogRatio, RatioPrior, judge_ratio
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_change
from pytest_mlpatterns.records.history import CommitPosition, HistoryLine, PairedRatio
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Kind, Outcome

RTM = METRICS["rtm"]
ERROR = 0.004
"""Standard error within a launch."""
TOLERANCE = 0.10


def values(draw: random.Random, number: int, *, sd: float, shift: float = 0.0) -> tuple[LaunchValue, ...]:
    deviation = math.hypot(sd, ERROR)
    return tuple(LaunchValue(5e6 * math.exp(shift + draw.gauss(0, deviation)), ERROR) for _ in range(number))


def pairs(draw: random.Random, number: int, *, sd: float, level: float = 0.0) -> tuple[PairedRatio, ...]:
    error = 0.006
    return tuple(PairedRatio(level + draw.gauss(0, math.hypot(sd, error)), error) for _ in range(number))


def line(number: int = 0, launches: tuple[LaunchValue, ...] = (), ratios: tuple[PairedRatio, ...] = ()) -> HistoryLine:
    return HistoryLine(
        test="t.py::test_a",
        machine="here",
        date=f"2026-10-{number % 28 + 1:02}T12:00:00+00:00",
        at=CommitPosition("a1b2c3d4e5f6", number),
        clean=True,
        setup="0123456789",
        facts="",
        kind=Kind.PASSED,
        values={"rtm": launches} if launches else {},
        ratios={"rtm": ratios} if ratios else {},
    )


def history(sd: float, *, runs: int = 20, day: float = 0.0, seed: int = 3) -> list[HistoryLine]:
    """Runs of four launches, on days that differ."""
    draw = random.Random(seed)
    return [line(number, values(draw, 4, sd=sd, shift=draw.gauss(0, day))) for number in range(runs)]


# --- the deviation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sd", [0.004, LAUNCH_SD, 0.04])
def test_the_deviation_of_many_launches_is_found(sd: float) -> None:
    found = scatter_in(history(sd, runs=100)).launches["rtm"]
    assert found == pytest.approx(math.sqrt((4 * LAUNCH_SD**2 + 300 * sd**2) / 304), rel=0.25)


def test_few_runs_leave_the_usual_deviation() -> None:
    assert scatter_in(history(0.04, runs=FEWEST_RUNS - 1)) == USUAL_SCATTER
    assert "rtm" in scatter_in(history(0.04, runs=FEWEST_RUNS)).launches
    single = [replace(one, values={"rtm": one.values["rtm"][:1]}) for one in history(0.04, runs=40)]
    assert scatter_in(single) == USUAL_SCATTER


def test_days_that_differ_keep_the_usual_deviation_of_launches_that_are_alike() -> None:
    calm, shifting = (scatter_in(history(0.003, runs=100, day=day)).launches["rtm"] for day in (0.0, 0.03))
    assert calm < 0.5 * LAUNCH_SD
    assert shifting == pytest.approx(LAUNCH_SD)


def test_a_step_of_the_level_is_no_scatter() -> None:
    lines = history(0.004, runs=40)
    stepped = [
        replace(one, values={"rtm": tuple(LaunchValue(2 * each.value, ERROR) for each in one.values["rtm"])})
        for one in lines[20:]
    ]
    found = scatter_in([*lines[:20], *stepped]).launches["rtm"]
    assert found == pytest.approx(scatter_in(lines).launches["rtm"], rel=0.2)


def test_what_has_no_deviation_or_is_not_known_here_is_left_out() -> None:
    launches = history(0.02)[0].values["rtm"]
    lines = [
        replace(one, values={"error_rate": launches, "joules": launches, "rtm": (LaunchValue(0.0, 0.0), *launches)})
        for one in history(0.02)
    ]
    assert scatter_in(lines) == USUAL_SCATTER
    assert LaunchScatter({"error_rate": 0.1}).of_launches(METRICS["error_rate"]) == METRICS["error_rate"]


def test_paired_launches_have_a_deviation_of_their_own() -> None:
    draw = random.Random(7)
    found = scatter_in([line(number, ratios=pairs(draw, 4, sd=0.03, level=0.1 * number)) for number in range(60)])
    assert found.launches == {}
    assert found.of_ratios(RTM).sd == pytest.approx(0.03, rel=0.2)
    assert found.of_ratios(RTM).degrees == OWN_DEGREES
    assert found.of_ratios(METRICS["throughput"]) == USUAL_PRIOR
    assert USUAL_PRIOR.sd == RATIO_SD


# --- what verdicts are worth -----------------------------------------------------------------------------------------


HISTORIES = 8
"""Histories from which the scatter is taken in turn, so that none of them decides."""
CHANCE = 0.025
"""By how much shares of some hundred comparisons differ by chance."""


@dataclass(frozen=True)
class Counted:
    """Shares of simulated comparisons."""

    failed: float
    decided: float


def counted(judges: Sequence[Callable[[random.Random], Outcome]], *, runs: int) -> Counted:
    """What comes of comparisons, with each of the judges in turn."""
    draw = random.Random(1)
    found = [judges[number % len(judges)](draw) for number in range(runs)]
    return Counted(found.count(Outcome.FAIL) / runs, 1 - found.count(Outcome.INCONCLUSIVE) / runs)


def require_no_worse(usual: Callable[[float], Counted], own: Callable[[float], Counted], *, alpha: float) -> None:
    """No unchanged test fails, and neither the errors at the tolerance grow nor does the power fall."""
    assert own(0.0).failed < 0.01
    assert own(0.0).decided >= usual(0.0).decided - CHANCE
    assert own(TOLERANCE).failed <= max(usual(TOLERANCE).failed, alpha) + CHANCE
    assert own(0.20).failed >= usual(0.20).failed - CHANCE


def beside_entry(metric: Metric, change: float, *, sd: float, day: float) -> Callable[[random.Random], Outcome]:
    """A comparison with an entry of eight launches of another day, with a look after each launch."""
    looks = looks_beside_entry(8, launches=8, alpha=0.005)

    def judge(draw: random.Random) -> Outcome:
        entry = values(draw, 8, sd=sd, shift=draw.gauss(0, day))
        shift = draw.gauss(0, day) + math.log1p(change)
        present: tuple[LaunchValue, ...] = ()
        outcome = Outcome.INCONCLUSIVE
        while outcome is Outcome.INCONCLUSIVE and len(present) < looks.last:
            present = (*present, *values(draw, 1, sd=sd, shift=shift))
            outcome = judge_change(metric, present, entry, tolerance=TOLERANCE, plan=looks).outcome
        return outcome

    return judge


@pytest.mark.simulation
@pytest.mark.parametrize(
    ("sd", "day"), [(0.004, 0.0), (0.04, 0.02), *rarer((0.004, 0.01), (LAUNCH_SD, 0.0), (0.04, 0.0))]
)
def test_no_unchanged_test_fails_and_no_power_is_lost_beside_an_entry(sd: float, day: float) -> None:
    known = [scatter_in(history(sd, day=day, seed=seed)).of_launches(RTM) for seed in range(HISTORIES)]
    assert {metric.sd_degrees for metric in known} == {OWN_DEGREES}

    @functools.cache
    def own(change: float) -> Counted:
        return counted([beside_entry(metric, change, sd=sd, day=day) for metric in known], runs=400)

    @functools.cache
    def usual(change: float) -> Counted:
        return counted([beside_entry(RTM, change, sd=sd, day=day)], runs=400)

    require_no_worse(usual, own, alpha=0.01)


def paired(prior: RatioPrior, change: float, *, sd: float) -> Callable[[random.Random], Outcome]:
    """An interleaved comparison of up to six pairs."""
    looks = looks_of_pairs(TOLERANCE, REVISION_ALPHA / 2, 9_000_000_000)

    def judge(draw: random.Random) -> Outcome:
        found: list[LogRatio] = []
        outcome = Outcome.INCONCLUSIVE
        while outcome is Outcome.INCONCLUSIVE and len(found) < looks.last:
            found += [LogRatio(one.log_ratio, one.error) for one in pairs(draw, 1, sd=sd, level=math.log1p(change))]
            outcome = judge_ratio(found, 1 + TOLERANCE, "lower", plan=looks, prior=prior).outcome
        return outcome

    return judge


@pytest.mark.simulation
@pytest.mark.parametrize("sd", [0.04, *rarer(0.004, RATIO_SD)])
def test_no_unchanged_test_fails_and_no_power_is_lost_beside_a_revision(sd: float) -> None:
    draw = random.Random(4)
    known = [
        scatter_in([line(number, ratios=pairs(draw, 4, sd=sd)) for number in range(20)]).of_ratios(RTM)
        for _ in range(HISTORIES)
    ]

    @functools.cache
    def own(change: float) -> Counted:
        return counted([paired(prior, change, sd=sd) for prior in known], runs=240)

    @functools.cache
    def usual(change: float) -> Counted:
        return counted([paired(USUAL_PRIOR, change, sd=sd)], runs=240)

    require_no_worse(usual, own, alpha=REVISION_ALPHA / 2)
