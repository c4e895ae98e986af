"""Error rates of all default metrics together, at a small size; ``benchmarks/verdict_simulation.py`` counts thousands.

Every run is seeded, so the counts are the same each time.
"""

import importlib
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from support import ROOT
from support.each_row import each_row

from pytest_mlpatterns.records.verdict import Outcome

pytestmark = pytest.mark.simulation

STORED, PAIRED = "stored baseline, 10 %", "against a revision, 5 %"


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("verdict_simulation")


@pytest.mark.parametrize("design", [STORED, PAIRED])
@pytest.mark.parametrize("service", [0, 3, 7])
def test_without_a_change_no_metric_fails(simulation: ModuleType, design: str, service: int) -> None:
    runs = simulation.trials(simulation.DESIGNS[design], simulation.SERVICES[service], simulation.UNCHANGED, count=8)
    assert simulation.share(runs, Outcome.FAIL) == 0
    assert simulation.share(runs, Outcome.PASS) >= 0.8


@each_row("design", [STORED, PAIRED])
@each_row(
    ("change", "metric"),
    [(0, "p99"), (1, "error_rate"), (2, "peak_memory"), (3, "cold_start"), (4, "cpu_per_request"), (6, "rtm")],
)
def test_what_became_worse_fails_by_its_metric(simulation: ModuleType, design: str, change: int, metric: str) -> None:
    worse, _ = simulation.CHANGES[change]
    runs = simulation.trials(simulation.DESIGNS[design], simulation.USUAL, worse, count=12)
    assert simulation.share(runs, Outcome.FAIL) >= 0.9
    assert simulation.share(runs, Outcome.PASS) == 0, "0.5 % of thousands"
    assert sum(metric in run.failed for run in runs) >= 0.6 * len(runs)


class TestWhichStatisticIsJudged:
    @pytest.fixture
    def by_statistic(self, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
        module = importlib.import_module("location_simulation")
        monkeypatch.setattr(module, "TRIALS", 40)
        return module

    @pytest.mark.parametrize("mode", ["of_file", "of_revision"])
    def test_two_modes_are_compared_by_their_location(self, by_statistic: ModuleType, mode: str) -> None:
        runs = getattr(by_statistic, mode)(by_statistic.IN_TURNS, 60)
        assert runs.share("judged", 0.5) == 1
        assert runs.share("judged", passed=True) >= 0.9
        assert runs.share("median", passed=True) <= 0.7

    @pytest.mark.parametrize("mode", ["of_file", "of_revision"])
    def test_on_a_busy_machine_the_reference_gains_as_the_median(self, by_statistic: ModuleType, mode: str) -> None:
        for family in by_statistic.BUSY:
            runs = getattr(by_statistic, mode)(family, 60)
            assert runs.share("judged") == 0
            for changed, passed in ((0.0, True), (0.2, False)):
                median, location, judged = (
                    runs.share(name, changed, passed=passed) for name in by_statistic.STATISTICS
                )
                assert judged >= max(location, median - 0.1)

    def test_a_mode_that_only_the_present_has_does_not_choose_the_median(self, by_statistic: ModuleType) -> None:
        new, one = by_statistic.NEW_MODES[2], by_statistic.ONE
        then, now = (by_statistic.pool_of(one, 60, seed=seed, change=what) for seed, what in ((3, None), (4, new)))
        pairs = by_statistic.paired_pool(one, 15, by_statistic.PAIRS, seed=3, change=new)
        for runs in (by_statistic.stored(then, now), by_statistic.interleaved(pairs)):
            assert runs.share("judged") >= 0.7
            assert runs.share("judged", passed=True) == 0

    def test_a_change_of_one_mode_alone_fails(self, by_statistic: ModuleType) -> None:
        change = by_statistic.Change("the slow mode", slow_mode=0.73)
        then, now = (
            by_statistic.pool_of(by_statistic.IN_TURNS, 60, seed=seed, change=one)
            for seed, one in ((3, None), (4, change))
        )
        runs = by_statistic.stored(then, now)
        assert runs.share("judged") >= 0.95
        assert runs.share("median") <= 0.5


class TestTwoCallersOnTwoSlots:
    @pytest.fixture
    def slots(self, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
        return importlib.import_module("slot_simulation")

    def test_callers_that_begin_apart_make_a_paired_launch_scatter_less_than_half(self, slots: ModuleType) -> None:
        before, after = (
            np.std([one.value for run in _runs(slots, design, 1.0) for one in run.ratios["tpot_mean"]])
            for design in (slots.BEFORE, slots.AFTER)
        )
        assert after < before / 2

    def test_thirty_seconds_decide_what_they_left_open(self, slots: ModuleType) -> None:
        before, after = (
            [slots.of_pairs(run, 0.15, design).value for run in _runs(slots, design, 1.0)]
            for design in (slots.BEFORE, slots.AFTER)
        )
        assert before.count("pass") <= 0.4 * len(before)
        assert after.count("pass") >= 0.9 * len(after)

    def test_a_prompt_three_times_as_long_fails(self, slots: ModuleType) -> None:
        runs = _runs(slots, slots.AFTER, slots.LONGEST)
        assert {slots.of_pairs(run, 0.25, slots.AFTER) for run in runs} == {Outcome.FAIL}


def _runs(slots: ModuleType, design: object, change: float) -> list[Any]:
    rng = np.random.default_rng(1)
    sides = slots.QUIET, replace(slots.QUIET, prompt=change)
    return [slots.paired_run(rng, sides, design=design, budget_s=30) for _ in range(20)]
