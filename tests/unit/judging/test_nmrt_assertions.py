"""Verdicts on the capacity: from declared searches, and what a search that ended early says."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from support.synthetic import S, capacity, even_launch

from pytest_mlpatterns import GeneratorLimitError, InvalidResultError
from pytest_mlpatterns.config.settings import NoisePolicy
from pytest_mlpatterns.judging.budget import Budget, Spending
from pytest_mlpatterns.judging.limit_assertions import decide_nmrt
from pytest_mlpatterns.judging.sequential import SequentialMeasurement
from pytest_mlpatterns.records.launch import Capacity, Launch, LaunchValue, Pauses, SearchEnd
from pytest_mlpatterns.records.objective import parse_objective
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.workload.schedule import ClosedLoop

SLO = "p95<50ms"


class FakeRunner:
    """A deployment whose searches find what is declared, in this order; the last one for ever."""

    def __init__(self, *found: Capacity, seconds: float = 0.0) -> None:
        self.found = list(found)
        self.seconds = seconds
        self.launches = self.searches = 0
        self.given_ns: list[int] = []

    def measure(self) -> Launch:
        self.launches += 1
        time.sleep(self.seconds)
        return even_launch()

    def search(self, decided: Callable[[LaunchValue], bool], _objective: object, budget_ns: int) -> Capacity:
        self.searches += 1
        self.decided = decided
        self.given_ns.append(budget_ns)
        return self.found.pop(0) if len(self.found) > 1 else self.found[0]


@dataclass
class Asked:
    """A test that asks for NMRT."""

    experiment: Any
    measurement: SequentialMeasurement

    def at_least(self, limit: float, slo: str | None) -> Verdict:
        objective = None if slo is None else parse_objective(slo)
        return decide_nmrt(self.experiment, self.measurement, limit, objective=objective)


def make(runner: FakeRunner, *, launches: int = 1, budget_s: float = 60.0) -> Asked:
    settings = SimpleNamespace(
        launches=launches, noise=NoisePolicy.DOUBT, budget_ns=round(budget_s * S), planned_ns=round(budget_s * S)
    )
    plan = SimpleNamespace(schedule=ClosedLoop(1))
    experiment = SimpleNamespace(smoke=False, settings=settings, searches=(), plan=plan)
    measurement = SequentialMeasurement(runner, Spending(Budget(round(budget_s * S))), launches)  # type: ignore[arg-type]
    return Asked(experiment, measurement)


def ended(end: SearchEnd, rate: float = 18.3, *, objective: str | None = SLO) -> Capacity:
    return replace(capacity(rate, at_least=True, objective=objective), end=end, stopped=f"of {end}")


def found(rate: float, error: float = 0.01, objective: str | None = SLO) -> Capacity:
    return replace(capacity(rate, objective=objective), nmrt=LaunchValue(rate, error))


def test_a_search_that_the_generator_ended_is_no_verdict_but_its_lower_bound_passes() -> None:
    late = ended(SearchEnd.GENERATOR)
    with pytest.raises(GeneratorLimitError, match=r"is at least 18\.3 req/s, but not known: of generator"):
        make(FakeRunner(late)).at_least(60, SLO)
    verdict = make(FakeRunner(late)).at_least(10, SLO)
    assert verdict.outcome is Outcome.PASS


def test_a_search_that_the_generator_ended_is_made_again() -> None:
    runner = FakeRunner(ended(SearchEnd.GENERATOR), found(80), found(81))
    verdict = make(runner, launches=8).at_least(60, SLO)
    assert verdict.outcome is Outcome.PASS
    assert runner.launches == runner.searches >= 2, "each on a service of its own"


@pytest.mark.parametrize("end", [SearchEnd.TIME, SearchEnd.TOP])
def test_a_search_that_ended_early_for_another_reason_fails(end: SearchEnd) -> None:
    with pytest.raises(InvalidResultError, match=f"but not known: of {end}") as caught:
        make(FakeRunner(ended(end))).at_least(60, SLO)
    assert not isinstance(caught.value, GeneratorLimitError)


def test_how_a_search_for_another_objective_ended_does_not_matter() -> None:
    runner = FakeRunner(ended(SearchEnd.TIME, objective=None), capacity(40, objective=SLO))
    assertions = make(runner)
    assertions.measurement.measure_at_least(1)
    assertions.measurement.search(None)
    verdict = assertions.at_least(60, SLO)
    assert verdict.outcome is Outcome.FAIL


@pytest.mark.parametrize(("slo", "ends"), [(None, True), (SLO, False)])
def test_a_rate_above_the_limit_ends_a_search_unless_it_has_an_objective(slo: str | None, ends: bool) -> None:
    runner = FakeRunner(found(80, objective=slo))
    make(runner).at_least(60, slo)
    assert runner.decided(LaunchValue(80, 0.01)) is ends
    assert not runner.decided(LaunchValue(40, 0.01))


def test_three_searches_share_the_budget_and_know_the_rate_to_ten_percent() -> None:
    runner = FakeRunner(found(69.5, 0.015), found(68.5, 0.015), found(70.0, 0.015))
    verdict = make(runner, launches=8, budget_s=30).at_least(65, SLO)

    assert verdict.outcome is Outcome.PASS
    assert (runner.launches, runner.searches) == (3, 3)
    assert [round(each / S, 1) for each in runner.given_ns] == [11.5, 14.2, 14.2]  # no launch takes any time here


def test_a_capacity_that_fails_is_confirmed_by_a_second_search_if_the_budget_has_time_for_it() -> None:
    runner = FakeRunner(found(40), found(41))
    verdict = make(runner, launches=8, budget_s=30).at_least(62, SLO)
    assert (verdict.outcome, runner.launches, runner.searches) == (Outcome.FAIL, 2, 2)
    assert "rests on" not in verdict.reason
    runner = FakeRunner(found(40))
    make(runner, launches=8, budget_s=7).at_least(62, SLO)
    assert runner.given_ns[0] / S == pytest.approx(7, abs=0.1)


P99 = "p99<50ms"


def paused(rate: float = 0.0, most: float = 60.0, windows: int = 2) -> Capacity:
    """A search that met pauses: with them this rate, with fewer the other, and without any 60 req/s."""
    rates = (LaunchValue(0.0, 0.0), LaunchValue(most, 0.01), LaunchValue(60, 0.01))
    return replace(found(rate, objective=P99), ladder=(), pauses=Pauses(windows, 6, 203_000_000, *rates))


@pytest.mark.parametrize(("slo", "searches"), [(SLO, 1), (P99, 2)])
def test_a_pass_of_p99_rests_on_two_searches(slo: str, searches: int) -> None:
    runner = FakeRunner(found(80, objective=slo))
    verdict = make(runner, launches=8).at_least(40, slo)
    assert (verdict.outcome, runner.searches) == (Outcome.PASS, searches)


def test_a_pass_of_p99_without_time_for_a_second_search_is_open_and_says_what_one_takes() -> None:
    verdict = make(FakeRunner(found(80, objective=P99))).at_least(40, P99)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert 'it rests on one search; launches=2 and budget="5s" has time for a second one' in verdict.reason


def test_a_pause_that_no_further_search_meets_does_not_count() -> None:
    runner = FakeRunner(paused(20, windows=1), found(60, objective=P99))
    verdict = make(runner, launches=8).at_least(40, P99)
    assert (verdict.outcome, runner.searches) == (Outcome.PASS, 3), "two without a pause"
    assert "1 of 6 windows had a pause of up to 203 ms, and a further search none" in verdict.reason


@pytest.mark.parametrize(
    ("most", "outcome", "searches"), [(60.0, Outcome.INCONCLUSIVE, 8), (30.0, Outcome.FAIL, 2), (0.0, Outcome.FAIL, 2)]
)
def test_a_service_that_stops_in_each_search_never_passes(most: float, outcome: Outcome, searches: int) -> None:
    runner = FakeRunner(paused(most=most))
    verdict = make(runner, launches=8).at_least(40, P99)
    assert (verdict.outcome, runner.searches) == (outcome, searches)
    assert (
        f"{2 * searches} of {6 * searches} windows had a pause of up to 203 ms: with pauses no rate" in verdict.reason
    )


@pytest.mark.parametrize(
    ("launches", "said"),
    [(8, '; it rests on one search; budget="5s" has time for a second one, which confirms it'), (1, "")],
)
def test_a_failure_by_one_search_says_what_a_second_one_takes_unless_one_was_asked_for(
    launches: int, said: str
) -> None:
    verdict = make(FakeRunner(found(40)), launches=launches, budget_s=2.0).at_least(100, SLO)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.reason.endswith(f"is not at least 100 req/s{said}")


def test_the_search_of_a_ranking_keeps_half_of_the_budget_from_assertions_before_it() -> None:
    runner = FakeRunner(found(40), seconds=0.2)
    measurement = SequentialMeasurement(runner, Spending(Budget(2 * S, reserved_ns=S)), 99)  # type: ignore[arg-type]
    measurement.measure_at_least(50)
    assert 1 <= runner.launches <= 5
    before = runner.launches
    measurement.search(None)
    measurement.measure_at_least(50)
    assert runner.launches > before
