"""Every assertion of ``perf``: bad arguments cost no launch, and a smoke run decides nothing."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from support.experiments import declared_experiment
from support.synthetic import even_launch

from pytest_mlpatterns import SettingError
from pytest_mlpatterns.judging.experiment import LoadDriver
from pytest_mlpatterns.judging.perf import Perf
from pytest_mlpatterns.records.launch import Launch

ASSERTIONS: dict[str, Callable[[Perf], object]] = {
    "rtm": lambda perf: perf.assert_rtm_below("1ns"),
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

    runner: Any = SimpleNamespace(measure=measure, close=lambda: None, want_requests=lambda _enough: None)
    experiment = declared_experiment(rate_rps=100, during=print)
    return Perf(replace(experiment, driver=LoadDriver({}, lambda _progress: None, smoke=smoke)), runner)


@pytest.mark.parametrize("name", ASSERTIONS)
def test_a_smoke_run_has_one_launch_and_no_verdict(name: str) -> None:
    launches: list[Launch] = []
    perf = perf_of(launches, smoke=True)
    ASSERTIONS[name](perf)
    assert (len(launches), perf._verdicts.all) == (1, [])


@pytest.mark.parametrize(
    "asserted",
    [
        lambda perf: perf.assert_nmrt_at_least(10, slo="quick"),
        lambda perf: perf.assert_goodput_at_least(0.9, at=0.5, slo="p95<1ms"),
        lambda perf: perf.assert_recovers_within("1s", slo="ttft<1ms"),
        lambda perf: perf.assert_scaling_efficiency_at_least(0.9, replicas=1),
        lambda perf: perf.assert_error_rate_below(0),
    ],
)
def test_a_bad_argument_costs_no_launch(asserted: Callable[[Perf], object]) -> None:
    launches: list[Launch] = []
    with pytest.raises(SettingError):
        asserted(perf_of(launches, smoke=False))
    assert not launches
