"""Replicas that follow a real load: a ramp, a target that oscillates, a cold start, a scale-in, and a regression."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.deployed import MS, Checked, deployed
from support.fault_run import await_true
from support.project import Project
from support.repository import Repository

from pytest_mlpatterns import Autoscaled, Cached, ClosedLoop, ConstantRate, Stages
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.measurement.launch import Interrupted
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_mlpatterns import Deployment, LayerStats
    from pytest_mlpatterns.loadgen.generator import Generator
    from pytest_mlpatterns.measurement.launch import LaunchRunner
    from pytest_mlpatterns.records.addressing import Progress
    from pytest_mlpatterns.workload.schedule import Schedule

pytestmark = pytest.mark.processes

HERE = sys.modules[__name__]
SERVICE_S = 0.02
INPUTS = list(range(64))


class Sleeper:
    """Doubles a number in 20 ms, one call at a time; it sleeps, so that it takes no processor."""

    takes_s = SERVICE_S

    def __call__(self, batch: list[Any]) -> list[Any]:
        time.sleep(self.takes_s)
        return [2 * one for one in batch]


class LongSleeper(Sleeper):
    """The same in 40 ms, beside which what a busy machine adds to a call is little."""

    takes_s = 2 * SERVICE_S


def double(one: int) -> int:
    return 2 * one


def plan_of(schedule: Schedule, seconds: float, check: Checked | None = None) -> LoadPlan:
    return LoadPlan(
        read_payload(INPUTS), schedule, round(1000 * seconds) * MS, 100 * MS, 20_000 * MS, check, overloads=True
    )


def layer_of(deployment: Deployment, name: str = "autoscaled") -> LayerStats:
    (layer,) = deployment.stats().layers_named(name)
    return layer


def test_a_ramp_is_followed_without_an_error_and_without_an_oscillation(generator: Generator, tmp_path: Path) -> None:
    check = Checked(double)
    plan = plan_of(Stages([("3s", 100), ("2s", 100)]), 5, check)
    pattern = Autoscaled(window="300ms", stable="1min")
    with deployed(pattern, Sleeper, plan, module=HERE, generator=generator, directory=tmp_path) as runner:
        metrics = Metrics((runner.measure(),))
        layer = layer_of(runner.deployment)

    assert check.seen
    assert metrics.failures == {}
    assert layer.counters.get("oscillations", 0) == layer.counters.get("scale_ins", 0) == 0
    wanted = [value for _, value in layer.series["wanted"]]
    assert wanted == sorted(wanted)
    assert wanted[-1] >= 3  # 100 requests a second of at least 20 ms are 2 in flight: 2 / 0.7
    figure = metrics.figure("replicas")
    assert figure is not None
    assert 1 <= figure.value <= 4


class Until:
    """Ends the load when something is true of what the autoscaling has counted."""

    def __init__(self, is_true: Callable[[LayerStats], bool]) -> None:
        self.is_true = is_true

    def __call__(self, _progress: Progress, runner: LaunchRunner) -> None:
        if self.is_true(layer_of(runner.deployment)):
            raise KeyboardInterrupt


def test_a_target_above_what_a_replica_takes_oscillates(generator: Generator, tmp_path: Path) -> None:
    plan = plan_of(ConstantRate(35), 90)  # at least 1.4 in flight: too much for one replica, below the target of two
    pattern = Autoscaled(max=2, target=2.4, window="200ms", stable="200ms")
    twice = Until(lambda layer: layer.counters.get("oscillations", 0) >= 2)
    tools = {"module": HERE, "generator": generator, "directory": tmp_path, "on_progress": twice}
    with deployed(pattern, LongSleeper, plan, **tools) as runner, pytest.raises(Interrupted) as interrupted:
        runner.measure()

    metrics = Metrics((interrupted.value.launch,))
    assert metrics.failures == {}
    figure = metrics.figure("oscillations")
    assert figure is not None
    assert figure.value > 0


def test_a_cold_start_answers_its_first_request_and_a_service_without_load_has_no_replica(
    generator: Generator, tmp_path: Path
) -> None:
    plan = plan_of(ClosedLoop(1), 0.3, Checked(double))
    pattern = Autoscaled(min=0, window="100ms", stable="100ms")
    with deployed(pattern, Sleeper, plan, module=HERE, generator=generator, directory=tmp_path) as runner:
        metrics = Metrics((runner.measure(),))
        deployment = runner.deployment
        await_true(lambda: len(deployment.pids) == 1, 30, "only the gateway is left")
        assert deployment.predict(4) == 8
        layer = layer_of(deployment)

    assert metrics.failures == {}
    assert layer.counters["waited"] >= 2
    assert "failed" not in layer.counters
    assert sum(layer.histograms["out_ns"].values()) >= 2
    assert layer.series["replicas"][0][1] == 0


def test_replicas_that_have_ended_keep_their_counts(generator: Generator, tmp_path: Path) -> None:
    plan = plan_of(ClosedLoop(8), 90)
    pattern = Autoscaled(max=2, window="100ms", stable="100ms") | Cached(max_entries=1)
    shared = Until(lambda layer: (layer.series["replicas"][-1][1], layer.counters.get("unhurt", 0) > 100) == (2, True))
    tools = {"module": HERE, "generator": generator, "directory": tmp_path, "on_progress": shared}
    with deployed(pattern, Sleeper, plan, **tools) as runner:
        with pytest.raises(Interrupted) as interrupted:
            runner.measure()
        deployment = runner.deployment
        await_true(lambda: layer_of(deployment).histograms.get("in_ns"), 30, "a replica has ended")
        assert len(deployment.pids) == 2  # the gateway and one replica
        hops, cached = layer_of(deployment, "hop"), layer_of(deployment, "cached")

    launch = interrupted.value.launch
    assert Metrics((launch,)).failures == {}
    answered = sum(cached.counters.get(name, 0) for name in ("hits", "misses", "coalesced"))
    assert answered == hops.counters["calls"]
    assert launch.usage is not None
    assert (launch.usage.cpu_ns[1:] >= launch.usage.cpu_ns[:-1]).all()


REGRESSION = """
import asyncio
import time

import pytest
from pytest_mlpatterns import Autoscaled, Pipeline, Stages


class Model:
    def __call__(self, batch):
        time.sleep({seconds})
        return batch


@pytest.fixture
def perf_model():
    return Model


@pytest.fixture
def perf_payload():
    return [1, 2, 3]


async def rest(batch):
    await asyncio.sleep(0.1)
    return batch


@pytest.mark.perf(
    pattern=Pipeline([rest, "model"]) | Autoscaled(max=2, target=2, window="100ms", stable="100ms"),
    load=Stages(2 * [("500ms", 1), ("0s", 6), ("500ms", 6), ("0s", 1)], of="concurrency", start=1),
    overload=True,
    compare=("hurt_share",),
)
def test_scaled(perf):
    pass
"""
"""Callers rest before they need a replica, so that how many need one at a time follows the time that they have it; and
they wait for their answers, so that no lag of the generator makes a launch invalid."""


def test_requests_that_wait_for_a_scaling_are_a_regression_of_its_revision(tmp_path: Path) -> None:
    repository = Repository.made(tmp_path / "shop")
    repository.commit({"pytest.ini": "[pytest]\n", "test_perf.py": REGRESSION.format(seconds=0.002)})

    run = (
        Project().with_file("test_perf.py", REGRESSION.format(seconds=0.05)).run(repository.top, "--perf-against=main")
    )

    assert run.exit_code == 1
    assert "RegressionFailure: share of requests hurt by a scaling" in run.failure("test_scaled")
