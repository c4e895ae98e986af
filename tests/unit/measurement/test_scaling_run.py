"""The order of a scaling measurement, and which deployment gets one more replica, with runners that do as declared."""

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from support.synthetic import S, capacity, even_launch

from pytest_mlpatterns import Cached, Replicated, Single
from pytest_mlpatterns.analysis.capacity.scale_out import ScaleOut
from pytest_mlpatterns.measurement import scaling as scaling_module
from pytest_mlpatterns.measurement.scaling import ScalingRun
from pytest_mlpatterns.measurement.variant import Variant
from pytest_mlpatterns.patterns.replication import balance_of
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.records.launch import Capacity, Launch
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the runners did; each serves 100 requests/s with each replica."""
    done: list[str] = []

    class Runner:
        def __init__(self, start: Callable[[], Any], plan: LoadPlan, *_arguments: Any, **_options: Any) -> None:
            self.deployment = start()
            self.plan = plan

        def search(self, *_arguments: Any) -> Capacity:
            done.append(f"search {self.deployment.replicas}")
            return capacity(self.deployment.rate_rps * self.deployment.replicas)

        def measure(self, plan: LoadPlan) -> Launch:
            done.append(f"measure {self.deployment.replicas}")
            return even_launch()

        def scale_out(self, concurrency: int, balance: Balance) -> ScaleOut:
            done.append(f"scale out {self.deployment.replicas} at {concurrency} by {balance}")
            return ScaleOut(1, concurrency, S, S, "", 1e6, 2e6, 100, 0)

        def close(self) -> None:
            done.append("close")

    monkeypatch.setattr(scaling_module, "LaunchRunner", Runner)
    return done


def scaling_run(
    balance: Balance | None = Balance.ROUND_ROBIN,
    *,
    scaler: object = "can",
    rate_rps: float = 100.0,
    cores: float | None = None,
) -> ScalingRun:
    payload: Any = None
    plan = LoadPlan(payload, ClosedLoop(1), S, 0, S, None)

    def variant(replicas: int) -> Variant:
        deployment: Any = SimpleNamespace(replicas=replicas, scaler=scaler, rate_rps=rate_rps, cores=cores)
        return Variant(f"{replicas} replicas", lambda: deployment, plan)

    generator: Any = None
    return ScalingRun({n: variant(n) for n in (2, 1)}, generator, on_progress=lambda _: None, balance=balance)


def test_the_smallest_number_gets_one_more_in_each_pass_and_the_next_goes_the_other_way(events: list[str]) -> None:
    run = scaling_run()
    run.measure_pass()
    run.measure_pass()
    one = ["search 1", "measure 1", "scale out 1 at 4 by round-robin", "close"]
    two = ["search 2", "measure 2", "close"]
    assert events == [*one, *two, *two, *one]
    assert [[one.nmrt.value for one in step.capacities] for step in run.scaling.steps] == [[100] * 2, [200] * 2]
    assert len(run.scaling.scale_outs) == 2
    assert run.scaling.scale_out_ns is not None
    assert run.scaling.scale_out_unknown == ""


@pytest.mark.parametrize(
    ("balance", "scaler", "message"),
    [
        (Balance.SHARED_SOCKET, "can", 'the kernel gives a new replica only new connections.*choose "round-robin"'),
        (None, "can", 'a gateway process chooses among the replicas.*choose balance="round-robin"'),
        (Balance.ROUND_ROBIN, None, 'adds no replica to a running service; choose engine="local"'),
    ],
)
def test_a_service_that_cannot_get_one_more_says_why(
    events: list[str], balance: Balance | None, scaler: object, message: str
) -> None:
    run = scaling_run(balance, scaler=scaler)
    run.measure_pass()
    assert not any("scale out" in event for event in events)
    assert run.scaling.scale_out_ns is None
    assert re.search(message, run.scaling.scale_out_unknown)


def test_a_service_without_a_capacity_is_not_loaded_any_further(events: list[str]) -> None:
    run = scaling_run(rate_rps=0.0)
    run.measure_pass()
    assert events == ["search 1", "close", "search 2", "close"]
    assert run.scaling.scale_outs == ()


def test_the_balance_is_that_of_the_replicas_if_the_pattern_has_some() -> None:
    assert balance_of(Single()) is Balance.ROUND_ROBIN
    assert balance_of(Replicated(3, "least-outstanding")) is Balance.LEAST_OUTSTANDING


@pytest.mark.parametrize("pattern", [Replicated(3, "prefix"), Replicated(2, "two-choices")])
def test_there_is_none_if_a_gateway_chooses(pattern: Replicated) -> None:
    assert balance_of(pattern | Cached()) is None


@pytest.mark.usefixtures("events")
def test_the_cores_are_those_of_the_cluster_if_the_service_runs_on_one() -> None:
    run = scaling_run(cores=48.0)
    run.measure_pass()
    assert run.scaling.cores == 48.0
