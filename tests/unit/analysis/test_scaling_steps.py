"""Scaling from declared capacities: efficiency, predictions, and what is said where they are not known."""

import math
from dataclasses import replace

import msgspec
import pytest
from msgspec import structs
from support.synthetic import capacity, even_launch, usage

from pytest_mlpatterns import GeneratorLimitError, InvalidResultError
from pytest_mlpatterns.analysis.capacity.scaling import Scaling, ScalingStep
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.records.capacity import ScalingRecord
from pytest_mlpatterns.records.launch import Capacity, Launch, SearchEnd
from pytest_mlpatterns.records.price import Price
from pytest_mlpatterns.reports.text.notes import describe_scaling


def at_nmrt(busy_cores: float, machine_cores: float) -> Launch:
    return even_launch(used=usage(busy_cores, machine_cores, cores=4))


def scaling(rates: dict[int, tuple[Capacity, ...]], machine_cores: float = 1.0) -> Scaling:
    return Scaling(
        tuple(ScalingStep.of(n, found, (at_nmrt(0.5, machine_cores),) * len(found)) for n, found in rates.items()), 4
    )


PERFECT = {n: (capacity(100.0 * n), capacity(101.0 * n)) for n in (1, 2, 4)}


def test_the_efficiency_compares_searches_of_the_same_pass() -> None:
    drifting = {1: (capacity(100), capacity(50)), 2: (capacity(160), capacity(80))}
    found = scaling(drifting).efficiency(2)
    assert found.value == pytest.approx(0.8)
    assert found.low < 0.8 < found.high
    assert found.high - found.low < 0.25
    assert scaling(drifting).efficiency(1).value == 1


def test_a_perfect_pattern_is_predicted_to_scale_on() -> None:
    found = scaling(PERFECT)
    assert found.predicted_rps(8).value == pytest.approx(804, rel=0.01)
    assert found.replicas_for(750).value == 8
    assert found.peak_replicas == math.inf
    assert found.contention.value == pytest.approx(0, abs=1e-6)
    assert found.ended_by == ""


def test_a_step_has_its_cost_at_nmrt_if_there_is_a_price() -> None:
    launch, price = at_nmrt(0.5, 1.0), Price(1.0, 0.0, "USD")
    step = ScalingStep.of(1, PERFECT[1], (launch,), price=price)
    assert step.cost_per_million_requests == Metrics((launch,), price=price).cost_per_million_requests
    assert step.cost_per_million_requests.value == pytest.approx(1e6 * 0.5 / 200 / 3600, rel=0.01)
    assert Scaling((step,), 4).record.steps[0].figures["cost"][0] == step.cost_per_million_requests.value
    assert scaling(PERFECT).steps[0].cost_per_million_requests is None


def test_a_step_has_its_load_and_memory_at_nmrt() -> None:
    step = scaling(PERFECT).steps[1]
    assert step.nmrt_rps.value == pytest.approx(201, rel=0.01)
    assert step.nmrt_concurrency == 4
    assert step.asl_ratio.value == pytest.approx(0.125, rel=0.01)
    assert step.cpu_ns_per_request is not None
    assert step.peak_rss_bytes is not None
    assert step.machine_ratio == pytest.approx(0.25, rel=0.01)


def test_cores_that_are_used_up_end_the_scaling_if_it_falls_short() -> None:
    short = {1: (capacity(100),) * 2, 2: (capacity(120),) * 2}
    assert scaling(short, machine_cores=3.9).ended_by == (
        "at 2 replicas 97.5 % of the machine's 4 cores were busy, 85.0 % with the load generator and other processes: "
        "the cores, not the pattern, end the scaling"
    )
    assert scaling(short).ended_by == ""
    assert scaling(PERFECT, machine_cores=3.9).ended_by == ""
    assert replace(scaling(short, machine_cores=3.9), cpus_per_replica=1).ended_by == ""


@pytest.mark.parametrize(("cpus", "ended_by"), [(0.5, "98.0 % of the 0.5 cores that the deployment has"), (1, "")])
def test_cores_that_the_deployment_was_given_end_the_scaling(cpus: float, ended_by: str) -> None:
    window = even_launch(used=usage(0.49, 1.0, cores=cpus, of_machine=4))
    steps = (ScalingStep.of(1, (capacity(100),) * 2, (window,)), ScalingStep.of(2, (capacity(120),) * 2, (window,)))
    found = Scaling(steps, 4).ended_by
    assert ended_by in found
    assert bool(found) == bool(ended_by)


def test_a_capacity_that_is_only_a_bound_supports_no_efficiency_and_no_law() -> None:
    open_end = structs.replace(capacity(200, at_least=True), stopped="the time was up at concurrency 8")
    found = scaling({1: (capacity(100),) * 2, 2: (open_end,) * 2, 4: (capacity(400),) * 2})
    with pytest.raises(
        InvalidResultError, match=r"capacity \(NMRT\) of 2 replicas is not known: the time was up"
    ) as caught:
        found.efficiency(2)
    assert not isinstance(caught.value, GeneratorLimitError)
    with pytest.raises(GeneratorLimitError, match=r"capacity \(NMRT\) of 1 replica is not known"):
        ScalingStep.of(1, (structs.replace(open_end, end=SearchEnd.GENERATOR),), (at_nmrt(0.5, 1.0),)).require_nmrt()
    assert found.efficiency(4).value == pytest.approx(1)
    assert found.law.largest == 4
    assert "2 replicas: capacity (NMRT) is not known (the time was up at concurrency 8)" in "\n".join(
        describe_scaling(found.record)
    )


def test_other_numbers_and_smoke_runs_are_refused() -> None:
    with pytest.raises(InvalidResultError, match=r"3 replicas were not measured, only 1, 2 and 4; write .*\(1, 3\)"):
        scaling(PERFECT).efficiency(3)
    with pytest.raises(InvalidResultError, match="a smoke run"):
        Scaling((), 1).efficiency(2)
    assert Scaling((), 1).record is None


def test_the_record_survives_a_trip_and_is_described() -> None:
    record = scaling(PERFECT).record
    assert ScalingRecord.from_json(msgspec.to_builtins(record)) == record
    lines = describe_scaling(record)
    assert lines[1].startswith("2 replicas: capacity (NMRT) 201 req/s (")
    assert "efficiency 100 % (" in lines[1]
    assert lines[3].startswith("scalability law: contention 0.000 (0.000 to ")
    assert lines[3].endswith("by it each further replica adds capacity")
    assert describe_scaling(None) == []
