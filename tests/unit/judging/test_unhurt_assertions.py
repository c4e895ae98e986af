"""Verdicts on the steps beside a load: what an assertion asks, what is measured for it, and what it then says."""

from collections.abc import Sequence
from inspect import signature
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.stepped import SECONDS, Step, stepped_launch
from support.synthetic import MS, S, usage

from pytest_mlpatterns.analysis.capacity.step_impact import USUAL_LIMIT, HurtLimit
from pytest_mlpatterns.config.assertions import UnhurtLimits, read_unhurt_limits
from pytest_mlpatterns.errors import GeneratorLimitError, InvalidResultError, SettingError
from pytest_mlpatterns.judging.budget import Budget, Spending
from pytest_mlpatterns.judging.overload_assertions import UnhurtAssertions
from pytest_mlpatterns.judging.perf import Perf
from pytest_mlpatterns.judging.sequential import SequentialMeasurement
from pytest_mlpatterns.records.launch import Launch
from pytest_mlpatterns.records.verdict import OpenBy, Outcome, Verdict


class FakeRunner:
    """Each launch has these steps; busy neighbours use as many cores."""

    def __init__(self, *steps: Step, others_cores: float = 0.0, silence: str = "", lag_ns: int = 0) -> None:
        self.steps = steps
        self.others_cores = others_cores
        self.silence = silence
        self.lag_ns = lag_ns
        self.launches = 0

    def measure(self) -> Launch:
        self.launches += 1
        launch = stepped_launch(*self.steps, seed=self.launches, lag_ns=self.lag_ns)
        used = usage(machine_cores=0.5 + self.others_cores, others_cores=self.others_cores, seconds=SECONDS)
        return replace(launch, usage=used, silence=self.silence)


def make(runner: FakeRunner, *, smoke: bool = False, launches: int = 8, during: Any = len) -> UnhurtAssertions:
    settings = SimpleNamespace(launches=launches, during=during)
    experiment = SimpleNamespace(smoke=smoke, settings=settings)
    measurement = SequentialMeasurement(runner, Spending(Budget(60 * S)), launches)  # type: ignore[arg-type]
    return UnhurtAssertions(experiment, measurement)  # type: ignore[arg-type]


def verdicts_of(unhurt: UnhurtAssertions, limits: UnhurtLimits) -> Sequence[Verdict]:
    """The verdicts, after the first launch that each assertion has."""
    decide = unhurt.kept(limits)
    unhurt._measurement.measure_at_least(1)
    return decide()


def limits(**given: Any) -> UnhurtLimits:
    parameters = signature(Perf.assert_unhurt).parameters
    usual = {name: parameters[name].default for name in ("step", "errors", "within")}
    asked = {name: given.pop(name, value) for name, value in usual.items()}
    return read_unhurt_limits(asked["step"], given, errors=asked["errors"], within=asked["within"])


def outcomes(verdicts: Sequence[Verdict]) -> list[Outcome]:
    return [verdict.outcome for verdict in verdicts]


class TestArguments:
    @pytest.mark.parametrize(
        ("given", "hurt"),
        [
            ({}, USUAL_LIMIT),
            ({"p99": "2x"}, USUAL_LIMIT),
            ({"p95": "1.5 x"}, HurtLimit(95, 1.5)),
            ({"p50": "200ms"}, HurtLimit(50, None, 0.2 * S)),
        ],
    )
    def test_a_percentile_is_limited_by_a_multiple_or_a_time(self, given: dict[str, Any], hurt: HurtLimit) -> None:
        assert limits(**given) == UnhurtLimits(None, hurt, errors=0, within_ns=None)

    @each_row(("given", "errors"), [(0, 0), (3, 3), ("1%", 0.01), (0.05, 0.05), (None, None)])
    def test_errors_are_a_number_or_a_share(self, given: Any, errors: float | None) -> None:
        found = limits(errors=given, within="5s")
        assert (found.errors, found.within_ns) == (errors, 5 * S)

    @each_row(
        ("given", "message"),
        [
            ({"step": 5}, r"assert_unhurt\(step=5\), expected the name of a step"),
            ({"p99": "2x", "p95": "2x"}, r"assert_unhurt\(p99=..., p95=...\), expected one percentile"),
            ({"p9": "2x"}, r"assert_unhurt\(p9='2x'\), .*expected p50=, p90=, p95= or p99="),
            ({"error": 0}, r"did you mean errors="),
            (
                {"p99": 2},
                r"assert_unhurt\(p99=2\), expected \"2x\" for a multiple of the p99 before the step, or a time",
            ),
            ({"p99": "1x"}, r"expected a multiple above 1 of the p99 before the step; write \"2x\""),
            ({"p99": "fastx"}, r"assert_unhurt\(p99='fastx'\) is 'fast', expected a number"),
            ({"p99": "soon"}, r"assert_unhurt\(p99='soon'\)"),
            ({"errors": -1}, r"expected a whole number of failed requests, or a share of them such as \"1%\""),
            ({"errors": "0%"}, r"expected a share above 0 and below 100 %, or errors=0"),
            ({"errors": "many"}, r"assert_unhurt\(errors='many'\)"),
            ({"within": 5}, r"assert_unhurt\(within=...\)"),
        ],
    )
    def test_others_are_refused(self, given: dict[str, Any], message: str) -> None:
        with pytest.raises(SettingError, match=message):
            limits(**given)


class TestDecisions:
    def test_a_harmless_step_passes_with_as_many_launches_as_it_needs(self) -> None:
        runner = FakeRunner(Step())
        unhurt = make(runner)
        assert outcomes(verdicts_of(unhurt, limits())) == [Outcome.PASS, Outcome.PASS]
        assert 2 <= runner.launches <= 4
        assert [one.launch for one in unhurt.impacts] == list(range(1, runner.launches + 1))
        assert len(unhurt.course) == 80

    def test_one_that_hurts_fails_and_is_confirmed_by_a_second_launch(self) -> None:
        runner = FakeRunner(Step(blocked_s=0.5))
        hurt, errors = verdicts_of(make(runner), limits(step="reload"))
        assert (hurt.outcome, errors.outcome) == (Outcome.FAIL, Outcome.PASS)
        assert 2 <= runner.launches <= 3

    def test_lost_requests_fail(self) -> None:
        found = verdicts_of(make(FakeRunner(Step(blocked_s=0.1, lost=0.5))), limits(p99="1min", errors=0))
        assert found[1].outcome is Outcome.FAIL
        assert outcomes(verdicts_of(make(FakeRunner(Step(blocked_s=0.05))), limits(errors=None, p50="2x"))) == [
            Outcome.PASS
        ]

    def test_requests_that_a_judged_step_lost_make_no_other_verdict_invalid(self) -> None:
        unhurt = make(FakeRunner(Step(blocked_s=1.0, lost=0.9)))
        measurement = unhurt._measurement
        measurement.measure_at_least(1)
        with pytest.raises(InvalidResultError, match=r"at most 5.0 %"):
            measurement.require_valid()
        verdicts_of(unhurt, limits(errors="90%", within="5s"))
        measurement.require_valid()

    def test_the_time_until_it_is_well_again(self) -> None:
        unhurt = make(FakeRunner(Step(blocked_s=0.5)))
        recovery, errors = verdicts_of(unhurt, limits(within="2s"))
        assert (recovery.metric, recovery.outcome, errors.outcome) == ("recovery", Outcome.PASS, Outcome.PASS)
        assert verdicts_of(unhurt, limits(within="200ms"))[0].outcome is Outcome.FAIL

    def test_each_step_is_judged_unless_one_is_named(self) -> None:
        runner = FakeRunner(Step(blocked_s=0.5), Step(begin_s=2.5, name="kill"))
        unhurt = make(runner)
        assert outcomes(verdicts_of(unhurt, limits(step="kill", errors=None))) == [Outcome.PASS]
        assert outcomes(verdicts_of(unhurt, limits(errors=None))) == [Outcome.FAIL, Outcome.PASS]

    def test_impacts_have_the_limit_of_the_latest_assertion(self) -> None:
        unhurt = make(FakeRunner(Step()))
        assert unhurt.impacts == ()
        assert unhurt.course == ()
        verdicts_of(unhurt, limits(p95="500ms", errors=None))
        assert {one.limit_ns for one in unhurt.impacts} == {0.5 * S}

    def test_busy_neighbours_leave_lateness_open_but_neither_long_blocks_nor_lost_requests(self) -> None:
        late = verdicts_of(make(FakeRunner(Step(slower=3.0), others_cores=1.4)), limits(errors=None))
        assert late[0].outcome is Outcome.INCONCLUSIVE
        assert late[0].why_open is not None
        assert late[0].why_open.by is OpenBy.MACHINE
        assert "; meanwhile other processes used 1.4 of the 2 cores" in late[0].reason
        lost = FakeRunner(Step(blocked_s=0.5, lost=0.5), others_cores=1.4)
        assert outcomes(verdicts_of(make(lost), limits())) == [Outcome.FAIL, Outcome.FAIL]

    @pytest.mark.parametrize(
        ("limit", "lag_ns", "decided"),
        [("100ms", 9 * MS, True), ("100ms", 11 * MS, False), ("10x", 9 * MS, True), ("2x", 9 * MS, False)],
    )
    def test_a_late_generator_matters_beside_the_limit(self, limit: str, lag_ns: int, decided: bool) -> None:
        runner = FakeRunner(Step(blocked_s=0.5), lag_ns=lag_ns)
        unhurt = make(runner)
        if decided:
            assert outcomes(verdicts_of(unhurt, limits(p95=limit, errors=None))) == [Outcome.FAIL]
        else:
            with pytest.raises(GeneratorLimitError, match=r"behind its schedule: .* allowed are"):
                verdicts_of(unhurt, limits(p95=limit, errors=None))

    def test_what_a_late_generator_leaves_of_an_absolute_limit_drops_no_launch(self) -> None:
        runner = FakeRunner(Step(blocked_s=0.5), lag_ns=9 * MS)
        unhurt = make(runner)
        verdicts_of(unhurt, limits(p95="100ms", errors=None))
        assert (runner.launches, unhurt._measurement.dropped) == (2, 0)
        with pytest.raises(GeneratorLimitError):
            unhurt._measurement.require_valid()

    def test_requests_that_time_out_beside_busy_neighbours_are_no_certain_loss(self) -> None:
        class TimingOut(FakeRunner):
            def measure(self) -> Launch:
                launch = super().measure()
                outcome = launch.samples.outcome.copy()
                outcome[launch.samples.failed] = -1
                return replace(launch, samples=replace(launch.samples, outcome=outcome))

        runner = TimingOut(Step(blocked_s=0.2, lost=0.5), others_cores=1.4)
        assert verdicts_of(make(runner), limits())[1].outcome is Outcome.INCONCLUSIVE


class TestRefusals:
    @each_row(
        ("runner", "how", "step", "error", "said"),
        (
            FakeRunner(),
            {"during": None},
            None,
            SettingError,
            r"without a function .*write perf\(rate_rps=200, during=function\)",
        ),
        (
            FakeRunner(Step()),
            {},
            "relaod",
            SettingError,
            r"step='relaod'\), did you mean reload\? expected 'reload'; the f",
        ),
        (FakeRunner(), {}, None, SettingError, r"during\.step"),  # a function that names none
        (FakeRunner(), {}, "reload", SettingError, r"during\.step"),
        (FakeRunner(Step(), silence="no answer since 1 s"), {}, None, InvalidResultError, "no answer since"),
    )
    def test_steps_that_there_are_not_and_a_service_that_fell_silent(
        self, runner: FakeRunner, how: dict[str, Any], step: str | None, error: type[Exception], said: str
    ) -> None:
        with pytest.raises(error, match=said):
            verdicts_of(make(runner, **how), limits(step=step))
