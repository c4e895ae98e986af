"""Every assertion of ``perf``: bad arguments cost no launch, and a smoke run decides nothing."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.experiments import declared_experiment
from support.synthetic import even_launch, noisy_launch

from pytest_mlpatterns import LimitFailure, Outcome, SettingError
from pytest_mlpatterns.judging.experiment import LoadDriver
from pytest_mlpatterns.judging.perf import Perf
from pytest_mlpatterns.records.launch import Launch

ASSERTIONS: dict[str, Callable[[Perf], object]] = {
    "rtm": lambda perf: perf.assert_rtm_below("1ns"),
    "that": lambda perf: perf.assert_that("rtm<1ns, throughput>=1"),
    "failures": lambda perf: perf.assert_no_failures(),
    "nmrt": lambda perf: perf.assert_nmrt_at_least(1e9, slo="p95<1ms"),
    "search": lambda perf: perf.measure_nmrt(),
    "goodput": lambda perf: perf.assert_goodput_at_least(0.9, at=2.0, slo="p95<1ms"),
    "recovery": lambda perf: perf.assert_recovers_within("1s"),
    "unhurt": lambda perf: perf.assert_unhurt(p99="2x"),
    "efficiency": lambda perf: perf.assert_scaling_efficiency_at_least(0.9, replicas=2),
    "scale_out": lambda perf: perf.assert_scale_out_below("1ms"),
    "leak": lambda perf: perf.assert_no_leak("1B"),
    "regression": lambda perf: perf.assert_no_regression(),
}


def perf_of(launches: list[Launch], *, smoke: bool) -> Perf:
    def measure() -> Launch:
        launches.append(even_launch())
        return launches[-1]

    runner: Any = SimpleNamespace(measure=measure, close=lambda: None, want_requests=lambda _enough, **_how: None)
    experiment = declared_experiment(rate_rps=100, during=print)
    return Perf(replace(experiment, driver=LoadDriver({}, lambda _progress: None, smoke=smoke)), runner)


def test_a_limit_says_what_it_needs_before_the_first_launch() -> None:
    told: list[object] = []
    perf = perf_of([], smoke=False)
    runner: Any = perf._measurement.runner
    runner.want_requests = lambda enough, **how: told.append((enough, how, perf._measurement.so_far))
    perf.assert_latency_below("1s", percentile=95)
    assert told == [(90, {"decides_alone": True}, None)]


@each_row("name", ASSERTIONS)
def test_a_smoke_run_has_one_launch_and_no_verdict(name: str) -> None:
    launches: list[Launch] = []
    perf = perf_of(launches, smoke=True)
    ASSERTIONS[name](perf)
    assert (len(launches), perf._verdicts.all) == (1, [])


@each_row(
    "asserted",
    [
        lambda perf: perf.assert_nmrt_at_least(10, slo="quick"),
        lambda perf: perf.assert_goodput_at_least(0.9, at=0.5, slo="p95<1ms"),
        lambda perf: perf.assert_recovers_within("1s", slo="ttft<1ms"),
        lambda perf: perf.assert_scaling_efficiency_at_least(0.9, replicas=1),
        lambda perf: perf.assert_error_rate_below(0),
        lambda perf: perf.assert_that("rtm<1s, p95<50"),
        lambda perf: perf.assert_that(),
        lambda perf: perf.assert_that(limits={"small-1": "p95<1s"}),
    ],
)
def test_a_bad_argument_costs_no_launch(asserted: Callable[[Perf], object]) -> None:
    launches: list[Launch] = []
    with pytest.raises(SettingError):
        asserted(perf_of(launches, smoke=False))
    assert not launches


def test_each_part_of_a_text_has_a_verdict_of_its_own() -> None:
    launches: list[Launch] = []
    perf = perf_of(launches, smoke=False)
    with pytest.raises(LimitFailure, match=r"^throughput .* is not at least 1,000,001 req/s; widened by 10%"):
        perf.assert_that("rtm<60s, throughput>=1111112, mean<60s, p99.9<60s", tolerance="10%")
    outcomes = {one.metric: one.outcome for one in perf._verdicts.all}
    assert outcomes == {
        "rtm": Outcome.PASS,
        "throughput": Outcome.FAIL,
        "mean": Outcome.PASS,
        "p99.9": Outcome.INCONCLUSIVE,
    }
    assert len(launches) == 2, "a failure is confirmed by a second launch, and then the others take no time"
    with pytest.raises(LimitFailure, match=r"^throughput .* is not at least 1,111,112 req/s"):
        perf.assert_that("throughput>=1111112")


def test_a_request_that_fails_after_the_assertion_fails_the_test_at_its_end() -> None:
    launches: list[Launch] = []
    perf = perf_of(launches, smoke=False)
    perf.assert_no_failures()
    perf._measurement.runner.measure = lambda: noisy_launch(1)  # type: ignore[method-assign]
    perf._measurement.launch_again()
    with pytest.raises(LimitFailure, match=r"^\d+ of 1,200 requests failed, expected none \("):
        perf.finish()
