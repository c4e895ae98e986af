"""Retries beyond the capacity of a service: a storm without a budget, none with one; and a regression in attempts.

The service answers one request at a time, in 10 ms. What would wait more than 100 ms it refuses, which takes 4 ms of
the same time: its capacity is 100 requests a second, and 250 refusals a second leave none of it. Its time is slept, so
that no machine is too slow for it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.deployed import CALLERS, MS, Checked, deployed
from support.project import Project
from support.repository import Repository

from pytest_mlpatterns import Cached, DeploymentError, Limited, Microservice, RequestError, Retries, Single
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop, Stages

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pytest_mlpatterns import Pattern
    from pytest_mlpatterns.loadgen.generator import Generator
    from pytest_mlpatterns.measurement.launch import LaunchRunner
    from pytest_mlpatterns.records.addressing import Progress
    from pytest_mlpatterns.records.launch import Launch

pytestmark = pytest.mark.processes

HERE = sys.modules[__name__]
ANSWER_S, REFUSAL_S, MOST_WAIT_S = 0.010, 0.004, 0.100
CAPACITY_RPS = 1 / ANSWER_S
STORM_S = 2
LOAD = Stages(
    ((f"{STORM_S}s", 1.2 * CAPACITY_RPS), ("0s", 0.8 * CAPACITY_RPS), ("2s", 0.8 * CAPACITY_RPS)),
    start=1.2 * CAPACITY_RPS,
)
"""1.2 times the capacity for two seconds, and then 0.8 times."""
THREE = Retries(3, backoff="20ms")


class Stormy:
    """Squares; it writes when each request has come."""

    def __init__(self) -> None:
        self._free_s = 0.0
        self._log = os.open(os.environ["ARRIVALS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def __call__(self, batch: list[Any]) -> list[Any]:
        os.write(self._log, b"%d\n" % time.perf_counter_ns())
        now_s = time.perf_counter()
        self._free_s = max(self._free_s, now_s)
        if self._free_s - now_s > MOST_WAIT_S:
            self._free_s += REFUSAL_S
            raise RequestError(503, "too many requests wait")
        self._free_s += ANSWER_S
        await asyncio.sleep(self._free_s - now_s)
        return [one * one for one in batch]


def storm(retries: Retries, generator: Generator, directory: Path) -> tuple[Launch, int]:
    """A launch under the load, and how many requests the service counted from its beginning to its end."""
    directory.mkdir()
    arrivals, check = directory / "arrivals", Checked(lambda one: one * one)
    length_ns = LOAD.length_ns
    payload = read_payload(list(range(50)))
    plan = LoadPlan(payload, LOAD, length_ns, 100 * MS, 10_000 * MS, check, overloads=True, retries=retries)
    pattern = Single(env={"ARRIVALS": str(arrivals)})
    with deployed(pattern, Stormy, plan, module=HERE, generator=generator, directory=directory) as runner:
        launch = runner.measure()
    assert check.seen
    came_ns = np.array(arrivals.read_text().split(), dtype=np.int64)
    samples = launch.samples
    return launch, int(((came_ns >= samples.due_ns.min()) & (came_ns <= samples.done_ns.max())).sum())


def answered(launch: Launch, first_s: float, last_s: float) -> float:
    """Share of the requests that were due in these seconds of the window and got an answer."""
    since_s: NDArray[np.float64] = (launch.samples.due_ns - launch.window.start_ns) / 1e9
    inside = (since_s >= first_s) & (since_s < last_s)
    return float(launch.samples.succeeded[inside].mean())


def test_retries_without_a_budget_keep_a_service_down_and_those_with_one_do_not(
    generator: Generator, tmp_path: Path
) -> None:
    (free, came_free), (bounded, came_bounded) = (
        storm(retries, generator, tmp_path / name)
        for name, retries in (("free", THREE), ("bounded", replace(THREE, budget=0.1)))
    )
    for launch, came in ((free, came_free), (bounded, came_bounded)):
        retries = launch.samples.retries
        assert retries is not None
        assert int(retries.attempts.sum()) == pytest.approx(came, rel=0.03)
        assert int(retries.attempts.max()) <= 1 + THREE.count

    assert answered(free, 1, STORM_S) < 0.2
    assert answered(free, STORM_S + 1, STORM_S + 2) < 0.2  # the load is below its capacity, and it stays down
    storm_free, storm_bounded = Metrics((free,)), Metrics((bounded,))
    assert storm_free.attempts_per_request is not None
    assert storm_free.attempts_per_request.value > 3
    assert storm_free.retry_denied_ratio is None

    # With 132 attempts a second, p of them refused: 132 (10 (1 - p) + 4 p) = 1000, so 79 of 120 are answered.
    assert answered(bounded, 1, STORM_S) == pytest.approx(79 / 120, abs=0.1)
    assert answered(bounded, STORM_S + 1, STORM_S + 2) > 0.95
    assert storm_bounded.attempts_per_request is not None
    assert storm_bounded.attempts_per_request.value <= 1.1 + 100 / bounded.samples.outcome.size
    assert storm_bounded.retry_denied_ratio is not None
    assert storm_bounded.retry_denied_ratio.value > 0.05


async def squares(batch: list[Any]) -> list[Any]:
    await asyncio.sleep(0.002)
    return [one * one for one in batch]


@pytest.mark.parametrize(
    "pattern", [Limited(4, 0, retry_after=None), Limited(4, 0, retry_after=None) | Cached()], ids=str
)
def test_callers_that_are_refused_get_their_own_answer_from_a_later_attempt(
    pattern: Pattern, generator: Generator, tmp_path: Path
) -> None:
    check = Checked(lambda one: one * one)
    plan = LoadPlan(read_payload(list(range(500))), ClosedLoop(CALLERS), 1000 * MS, 100 * MS, 20_000 * MS, check)
    plan = replace(plan, retries=Retries(50, backoff="1ms"), generators=2)
    with deployed(pattern, squares, plan, module=HERE, generator=generator, directory=tmp_path) as runner:
        launch = runner.measure()

    assert check.seen
    assert Metrics((launch,)).failures == {}
    assert launch.stats is not None
    assert launch.samples.retries is not None
    (layer,) = launch.stats.layers_named("limited")
    counted = layer.counted(("admitted", "rejected"))
    in_window = launch.window.covers(launch.samples.due_ns)
    attempts = int(launch.samples.retries.attempts[in_window].sum())
    assert attempts > in_window.sum()
    edges = CALLERS * int(launch.samples.retries.attempts.max())  # those under way when the window opens and closes
    assert attempts == pytest.approx(counted, rel=0.03, abs=edges)


class Slow:
    """Takes five milliseconds a call."""

    def __call__(self, batch: list[Any]) -> list[Any]:
        time.sleep(0.005)
        return batch


def test_a_service_that_is_killed_ends_a_load_with_retries(generator: Generator, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(progress: Progress, runner: LaunchRunner) -> None:
        if not killed and progress.elapsed_ns > 200 * MS:
            member = next(one for one in runner.deployment.processes.workers if one.role == "service")
            assert member.child.pid is not None
            killed.append(member.child.pid)
            os.kill(killed[0], signal.SIGKILL)

    plan = LoadPlan(
        read_payload([1, 2, 3]), ClosedLoop(8), 1000 * MS, 100 * MS, 2_000 * MS, None, retries=Retries(3, "5ms")
    )
    with (
        deployed(
            Microservice(), Slow, plan, module=HERE, generator=generator, directory=tmp_path, on_progress=kill
        ) as runner,
        pytest.raises(DeploymentError, match=r"service: process \d+ ended with signal SIGKILL"),
    ):
        runner.measure()
    assert killed


REGRESSION = """
import time

import pytest
from pytest_mlpatterns import RequestError, Retries


class Model:
    def __init__(self):
        self.calls = 0

    def __call__(self, batch):
        time.sleep(0.005)
        self.calls += 1
        if self.calls % 10 >= 10 - {refused}:
            raise RequestError(503, "busy")
        return batch


@pytest.fixture
def perf_model():
    return Model


@pytest.fixture
def perf_payload():
    return [1, 2, 3]


@pytest.mark.perf(retries=Retries(5, backoff="1ms"), compare=("attempts_per_request",), duration="1s")
def test_retried(perf):
    pass
"""


def test_more_attempts_are_a_regression_of_the_revision(tmp_path: Path) -> None:
    repository = Repository.made(tmp_path / "shop")
    repository.commit({"pytest.ini": "[pytest]\n", "test_perf.py": REGRESSION.format(refused=1)})

    run = Project().with_file("test_perf.py", REGRESSION.format(refused=4)).run(repository.top, "--perf-against=main")

    assert run.exit_code == 1, run.out
    assert "RegressionFailure: attempts per request" in run.failure("test_retried")
