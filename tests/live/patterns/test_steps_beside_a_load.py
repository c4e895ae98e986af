"""Steps beside a real load: what they hurt, and for how long, is what the service itself logged."""

import asyncio
import re
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, perf_counter_ns
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray
from support.deployed import MS, deployed
from support.project import Project

from pytest_mlpatterns import Pattern, Replicated, Single
from pytest_mlpatterns.analysis.capacity.step_impact import HurtLimit, around_steps, impacts_of
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.measurement.during import During
from pytest_mlpatterns.records.capacity import StepImpact
from pytest_mlpatterns.records.launch import Launch
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ConstantRate

pytestmark = pytest.mark.processes

HERE = sys.modules[__name__]
RATE_RPS = 180
LATE_NS = 250 * MS
"""Latency above which a request is hurt; far more than a busy machine adds."""
BLOCK_S = 1.0


class Logged:
    """Answers after some milliseconds, and logs when each request came and went, on the clock of the load."""

    def __init__(self, log: str, *, serial: bool = False, milliseconds: int = 7) -> None:
        self.log = log
        self.serial = serial
        self.takes_s = milliseconds / 1e3
        self.blocked_until_s = 0.0
        self.lock: asyncio.Lock | None = None

    async def __call__(self, batch: list[Any]) -> list[Any]:
        came_ns = perf_counter_ns()
        if batch == ["reload"]:
            self.blocked_until_s = perf_counter() + BLOCK_S
            await asyncio.sleep(BLOCK_S)
            return batch
        if self.serial:
            self.lock = self.lock or asyncio.Lock()
            async with self.lock:
                await asyncio.sleep(self.takes_s)
        else:
            await asyncio.sleep(max(self.blocked_until_s - perf_counter(), 0.0) + self.takes_s)
        with open(self.log, "a", encoding="ascii") as file:
            file.write(f"{came_ns} {perf_counter_ns()}\n")
        return batch


def logged(log: Path) -> NDArray[np.int64]:
    """When each request came and went, by when it came."""
    rows = np.loadtxt(log, dtype=np.int64, ndmin=2)
    return rows[np.argsort(rows[:, 0])]


def measured(
    generator: Generator, directory: Path, pattern: Pattern, model: Logged, *, during: Callable[[During], object]
) -> tuple[Launch, StepImpact]:
    """One launch with the function beside it, and what its only step did."""
    plan = LoadPlan(read_payload(["work"]), ConstantRate(RATE_RPS), 4000 * MS, 500 * MS, 10_000 * MS, None)
    plan = replace(plan, during=during)
    with deployed(pattern, model, plan, module=HERE, generator=generator, directory=directory) as runner:
        launch = runner.measure()
    (impact,) = impacts_of(around_steps([launch]), HurtLimit(99, None, LATE_NS))
    return launch, impact


def test_a_reload_hurts_those_that_the_service_let_wait(generator: Generator, tmp_path: Path) -> None:
    def reload(during: During) -> None:
        during.wait_until("1s")
        with during.step("reload"):
            assert during.predict("reload") == "reload"

    log = tmp_path / "requests"
    launch, impact = measured(generator, tmp_path, Single(), Logged(str(log)), during=reload)
    came_ns, went_ns = logged(log).T
    inside = (came_ns >= launch.steps[0].begin_ns) & (came_ns < launch.window.end_ns)
    waited = inside & (went_ns - came_ns > LATE_NS)
    well_ns = came_ns[np.flatnonzero(waited)[-1] + 1]
    assert impact.hurt == pytest.approx(waited.sum(), rel=0.1)
    assert impact.failed == 0
    assert impact.recovery_ns == pytest.approx(well_ns - launch.steps[0].begin_ns, rel=0.1)
    assert impact.worst_ns == pytest.approx((went_ns - came_ns).max(), rel=0.1)


def test_a_killed_replica_loses_turns_until_the_balancer_leaves_it_out(generator: Generator, tmp_path: Path) -> None:
    left_out_ns: list[int] = []

    def lose(during: During) -> None:
        during.wait_until("1s")
        with during.step("kill"):
            during.kill("replica")
            during.wait("600ms")
            during.scale(1)
            left_out_ns.append(perf_counter_ns())

    log = tmp_path / "requests"
    launch, impact = measured(generator, tmp_path, Replicated(2), Logged(str(log)), during=lose)
    (step,) = launch.steps
    came_ns = logged(log)[:, 0]
    turns_of_the_other = int(((came_ns >= step.begin_ns) & (came_ns < left_out_ns[0])).sum())
    assert impact.failed == pytest.approx(turns_of_the_other, rel=0.1)
    assert impact.hurt == pytest.approx(impact.failed, rel=0.1)
    assert impact.recovery_ns == pytest.approx(left_out_ns[0] - step.begin_ns, rel=0.1)
    assert launch.stats is not None
    assert not launch.silence


def test_a_scale_in_loses_nothing_and_delays_what_too_few_are_left_for(generator: Generator, tmp_path: Path) -> None:
    def scale_in(during: During) -> None:
        during.wait_until("1s")
        with during.step("scale-in"):
            during.scale(1)

    log = tmp_path / "requests"
    model = Logged(str(log), serial=True)
    launch, impact = measured(generator, tmp_path, Replicated(2), model, during=scale_in)
    (step,) = launch.steps
    came_ns, went_ns = logged(log).T
    inside = (came_ns >= step.begin_ns) & (came_ns < launch.window.end_ns)
    assert impact.failed == 0
    assert impact.hurt == pytest.approx((inside & (went_ns - came_ns > LATE_NS)).sum(), rel=0.1)
    assert impact.recovery_ns is None
    counts = launch.samples.target[launch.samples.due_ns > step.end_ns]
    assert set(counts.tolist()) == {0}


PROJECT = """
import asyncio

import pytest
from pytest_mlpatterns import Replicated

class Model:
    async def __call__(self, batch):
        await asyncio.sleep(0.005)
        return batch

def kill(during):
    during.wait_until("500ms")
    with during.step("kill"):
        during.kill("replica", 2)

def look(during):
    during.wait_until("500ms")
    with during.step("look"):
        during.predict(5)

def broken(during):
    during.wait_until("300ms")
    return 1 / 0

pytestmark = pytest.mark.perf(model=Model, payload=[1, 2, 3])
settings = dict(pattern=Replicated(2), rate_rps=200, duration="2s", launches=2)

@pytest.mark.perf(during=kill, **settings)
def test_lost(perf):
    perf.assert_unhurt(step="kill", p99="5s", errors=0)  # beside which no lag of the generator matters

@pytest.mark.perf(during=look, **settings)
def test_calm(perf):
    perf.assert_unhurt(step="look", p90="1s", errors=0)

@pytest.mark.perf(during=broken, **settings)
def test_broken(perf):
    perf.assert_unhurt()

@pytest.mark.perf(during=look, concurrency=2)
def test_closed(perf):
    perf.assert_unhurt()
"""


def test_whole_runs_fail_by_lost_requests_and_by_the_error_of_the_function(tmp_path: Path) -> None:
    project = Project().with_file("test_it.py", PROJECT)
    run = project.run(tmp_path, "-n", "2", "--perf-json", "results.json")
    assert (run.outcomes["passed"], run.outcomes["failed"]) == (1, 3), run.out  # a busy machine may leave one open
    assert re.search(r"\d+ of \d+ requests around the step kill failed, allowed 0", run.failure("test_lost"))
    broken = run.failure("test_broken")
    assert "return 1 / 0" in broken
    assert "ZeroDivisionError: division by zero" in broken
    assert "measurement/during.py" not in broken
    assert "perf(during=...) under closed(2), expected an open loop" in run.failure("test_closed")
    steps = {one["test"].rpartition("::")[2]: one["steps"] for one in run.json("results.json")["results"]}
    assert {one["name"] for one in steps["test_lost"]} == {"kill"}
    assert all(one["hurt"] >= one["failed"] > 20 for one in steps["test_lost"])
    assert all(one["failed"] == 0 for one in steps["test_calm"])


SERVICE = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    headers = [(b"content-type", b"application/json"), (b"content-length", b"21")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"predictions": [11]}'})
"""
OF_SERVICE = """
import pytest
from pytest_mlpatterns import App

@pytest.fixture
def perf_target():
    return App("service:app", path="/p", workers=3)

@pytest.fixture
def perf_payload():
    return [1, 2, 3]

def kill(during):
    during.wait_until("300ms")
    with during.step("kill"):
        killed = during.kill("server", 2)
        during.wait_until(lambda: not killed.is_running)
    assert [one.role for one in during.processes] == 2 * ["server"]
    during.scale(2)

@pytest.mark.perf(during=kill, rate_rps=200, duration="1500ms", launches=1)
def test_service(perf):
    perf.assert_unhurt(step="kill", p50="10s", errors="60%")
    assert 0.1 < perf.metrics.error_ratio.value < 0.5
"""


def test_a_worker_of_an_existing_service_is_killed_and_cannot_be_scaled(tmp_path: Path) -> None:
    project = Project().with_file("service.py", SERVICE).with_file("test_scaled.py", OF_SERVICE)
    killed = OF_SERVICE.replace("    during.scale(2)\n", "")
    run = project.with_file("test_killed.py", killed).run(tmp_path)
    assert (run.outcomes["passed"], run.outcomes["failed"]) == (1, 1), run.out
    failure = run.failure("test_service")
    assert "during.scale(2)" in failure
    assert "expected replicas that this package starts on this machine" in failure
