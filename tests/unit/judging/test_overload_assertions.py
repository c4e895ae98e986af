"""Verdicts beyond the NMRT: what is measured for them, and what they say, on a service of known behaviour."""

from types import SimpleNamespace

import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.overloaded import NMRT_RPS, SERVICE_NS, Breakdown, offered
from support.synthetic import MS, S, capacity, even_launch

from pytest_mlpatterns import GeneratorLimitError, InvalidResultError, SettingError
from pytest_mlpatterns.analysis.capacity.overload import OfferedLoad, OverloadPlan
from pytest_mlpatterns.config.assertions import read_time_of
from pytest_mlpatterns.judging.budget import Budget, Spending
from pytest_mlpatterns.judging.overload_assertions import OverloadAssertions
from pytest_mlpatterns.judging.sequential import SequentialMeasurement
from pytest_mlpatterns.records.capacity import Behaviour
from pytest_mlpatterns.records.launch import Capacity, Launch, LaunchValue, SearchEnd
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.workload.schedule import ClosedLoop

SLO = "p95<100ms"
LOWER = capacity(NMRT_RPS, at_least=True)
BUSY = "other processes used 1.9 of the 2 cores"
BROKEN = {
    "refuses for good": (Breakdown(Failure.CONNECT, 99), "100 % of the requests fail (connection failed)"),
    "refuses for a while": (Breakdown(Failure.CONNECT, 1.5), "of the requests fail (connection failed)"),
    "closes for good": (Breakdown(Failure.CLOSED, 99), "100 % of the requests fail (connection closed)"),
    "answers 500": (Breakdown(500, 99), "100 % of the requests fail (500)"),
    "hangs": (Breakdown(Failure.TIMEOUT, 99), "100 % of the requests get no answer within their time-out"),
    "freezes": (Breakdown(Failure.TIMEOUT, 1.9), "of the requests get no answer within their time-out"),
    "rejects everything with 503": (Breakdown(503, 99), "it rejects 100 % of the requests, more than the load"),
    "rejects everything with 429": (Breakdown(429, 99), "it rejects 100 % of the requests, more than the load"),
    "queues": (None, "requests wait until their answers are too late (congestion collapse)"),
}
STAYS_BROKEN = {
    Failure.CONNECT: "failed (connection failed)",
    Failure.CLOSED: "failed (connection closed)",
    500: "failed (500)",
}


class FakeRunner:
    """A deployment that holds a number of requests, or any number; counts what is done to it."""

    def __init__(
        self,
        places: int | None = None,
        *,
        found: Capacity | None = None,
        limited_from: float = 99.0,
        busy: str | None = None,
        breaks: Breakdown | None = None,
    ) -> None:
        self.places = places
        self.breaks = breaks
        self.found = found or capacity(NMRT_RPS)
        self.limited_from = limited_from
        self.busy = busy
        self.plans: list[OverloadPlan] = []
        self.launches = self.searches = 0

    def measure(self) -> Launch:
        self.launches += 1
        return even_launch(latency_ns=SERVICE_NS)

    def search(self, *_: object) -> Capacity:
        self.searches += 1
        return self.found

    def offer_overload(self, plan: OverloadPlan, nmrt_rps: float) -> tuple[OfferedLoad, ...]:
        assert nmrt_rps == self.found.nmrt.value
        self.plans.append(plan)
        loads = [
            offered(
                ratio,
                step_s=plan.step_s,
                watched_s=plan.watched_s if ratio == plan.ratios[-1] else 0.0,
                places=self.places,
                timeout_s=2.0 if self.breaks else 10.0,
                breaks=self.breaks,
            )
            for ratio in plan.ratios
        ]
        limited = "the load generator used 90 % of a core"
        return tuple(
            replace(one, busy=self.busy, limited=limited if one.load_ratio >= self.limited_from else None)
            for one in loads
        )


def make(runner: FakeRunner, *, smoke: bool = False, budget_s: float = 60.0, launches: int = 2) -> OverloadAssertions:
    plan = SimpleNamespace(schedule=ClosedLoop(1))
    experiment = SimpleNamespace(smoke=smoke, settings=SimpleNamespace(launches=launches), plan=plan)
    measurement = SequentialMeasurement(runner, Spending(Budget(round(budget_s * S))), launches)  # type: ignore[arg-type]
    return OverloadAssertions(experiment, measurement)  # type: ignore[arg-type]


def test_one_measurement_serves_every_assertion() -> None:
    runner = FakeRunner(places=10)
    overload = make(runner)
    found = overload.measure(2.0, SLO)
    goodput, recovery = overload.decide_goodput(0.9, 1.5, read_time_of(SLO)), overload.decide_recovery(5 * S, None)
    assert found.behaviour is Behaviour.SHEDS
    assert (goodput.outcome, recovery.outcome) == (Outcome.PASS, Outcome.PASS)
    assert (runner.launches, runner.searches, len(runner.plans)) == (1, 1, 1)


def test_a_service_that_collapses_fails_in_words_that_say_so_after_a_second_launch() -> None:
    runner = FakeRunner()
    verdict = make(runner).decide_goodput(0.9, 2.0, read_time_of(SLO))
    assert verdict.outcome is Outcome.FAIL
    assert "goodput (answers within 100 ms) at 2 times the capacity (NMRT), as a share of it, 0.0 %" in verdict.reason
    assert "; 0.0 % of the requests were in time, 100 % later than 100 ms" in verdict.reason
    assert "requests wait until their answers are too late (congestion collapse)" in verdict.reason
    assert "Queued(capacity=...)" in verdict.reason
    assert (runner.launches, runner.searches, len(runner.plans)) == (2, 1, 2)


@pytest.mark.parametrize(("limit_s", "outcome"), [(13, Outcome.PASS), (10, Outcome.INCONCLUSIVE), (3, Outcome.FAIL)])
def test_the_recovery_is_watched_for_longer_than_its_limit(limit_s: int, outcome: Outcome) -> None:
    runner = FakeRunner()
    verdict = make(runner).decide_recovery(limit_s * S, read_time_of(SLO))
    assert verdict.outcome is outcome
    assert all(plan.watched_s == 1.25 * limit_s for plan in runner.plans)


def test_a_generator_at_its_limit_is_no_verdict() -> None:
    overload = make(FakeRunner(places=10, limited_from=1.5))
    assert overload.decide_goodput(0.9, 1.25, read_time_of(SLO)) is not None
    with pytest.raises(GeneratorLimitError, match=r"at 2 times the capacity \(NMRT\) the load generator used 90 %"):
        overload.decide_goodput(0.9, 2.0, read_time_of(SLO))
    with pytest.raises(GeneratorLimitError):
        overload.decide_recovery(S, read_time_of(SLO))


def test_lateness_on_a_busy_machine_is_no_verdict_and_a_pass_is_one() -> None:
    degrades, queues = make(FakeRunner(breaks=Breakdown(503, 0.2), busy=BUSY)), make(FakeRunner(busy=BUSY))
    sheds = make(FakeRunner(places=10, busy=BUSY))
    with pytest.raises(GeneratorLimitError, match=f"it rejects .*, while {BUSY}; measure again when the machine is"):
        degrades.decide_goodput(0.9, 2.0, read_time_of(SLO))
    with pytest.raises(GeneratorLimitError, match=f"has not recovered .*, while {BUSY}"):
        queues.decide_recovery(S, read_time_of(SLO))
    passed = sheds.decide_goodput(0.9, 2.0, read_time_of(SLO))
    assert passed.outcome is Outcome.PASS


@each_row("busy", [None, BUSY])
@each_row(("breaks", "said"), BROKEN.values())
def test_a_service_that_breaks_fails_in_words_of_what_happened_however_busy_the_machine_is(
    breaks: Breakdown | None, said: str, busy: str | None
) -> None:
    verdict = make(FakeRunner(breaks=breaks, busy=busy)).decide_goodput(0.9, 2.0, read_time_of(SLO))
    assert verdict.outcome is Outcome.FAIL
    assert said in verdict.reason
    assert ("congestion collapse" in verdict.reason) == (breaks is None)


@each_row(("outcome", "said"), STAYS_BROKEN.items())
def test_a_service_that_goes_on_to_fail_after_the_peak_has_not_recovered_however_busy_the_machine_is(
    outcome: int, said: str
) -> None:
    verdict = make(FakeRunner(breaks=Breakdown(outcome, 99), busy=BUSY)).decide_recovery(3 * S, read_time_of(SLO))
    assert verdict.outcome is Outcome.FAIL
    assert f"at 0.8 times the capacity (NMRT) 0.0 % of the requests were in time, 100 % {said}" in verdict.reason


@pytest.mark.parametrize("outcome", [Failure.CLOSED, 503, 500], ids=["closes", "rejects", "errors"])
def test_a_service_that_refuses_only_what_it_cannot_bear_passes(outcome: int) -> None:
    overload = make(FakeRunner(breaks=Breakdown(outcome), busy=BUSY))
    goodput, recovery = (
        overload.decide_goodput(0.9, 2.0, read_time_of(SLO)),
        overload.decide_recovery(3 * S, read_time_of(SLO)),
    )
    assert (goodput.outcome, recovery.outcome) == (Outcome.PASS, Outcome.PASS)


@each_row(
    ("found", "error", "said"),
    (replace(LOWER, end=SearchEnd.GENERATOR), GeneratorLimitError, "at least 200 req/s, but not known"),
    (LOWER, InvalidResultError, "at least 200 req/s, but not known"),
    (replace(LOWER, at_least=False, nmrt=LaunchValue(0.0, 0.0)), InvalidResultError, "0 req/s, so that no load is"),
)
def test_without_a_capacity_that_is_known_there_is_no_overload(
    found: Capacity, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=rf"^capacity \(NMRT\) is {said}"):
        make(FakeRunner(found=found)).measure(2.0, SLO)
    with pytest.raises(error):
        make(FakeRunner(found=found)).decide_goodput(0.9, 2.0, read_time_of(SLO))


def test_an_objective_that_no_answer_keeps_has_no_recovery() -> None:
    with pytest.raises(InvalidResultError, match=r"below the capacity \(NMRT\) no answer is in time either"):
        make(FakeRunner(places=10)).decide_recovery(S, read_time_of("p95<1ms"))


def test_without_an_objective_ten_times_the_median_counts() -> None:
    found = make(FakeRunner(places=10)).measure(2.0, None)
    assert found.limit_ns == pytest.approx(10 * SERVICE_NS, abs=MS)


def test_a_smoke_run_offers_no_load() -> None:
    runner = FakeRunner()
    overload = make(runner, smoke=True)
    assert overload.measure(2.0, None) is None
    assert not runner.plans


@pytest.mark.parametrize("up_to", [1.0, 0, 11, "2x"])
def test_a_peak_that_is_none_is_refused(up_to: object) -> None:
    with pytest.raises(SettingError, match=r"up_to="):
        make(FakeRunner()).measure(up_to, None)
