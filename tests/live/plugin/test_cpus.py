"""``cpus=``: what a deployment may use, on the marker, as an option and for ``perf_deploy``."""

import os
from pathlib import Path

import pytest
from support.half_core import REFUSAL, VARIANT
from support.project import Project

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(
        not hasattr(os, "sched_setaffinity"), reason="this system does not say on which cores a process may run"
    ),
]

CORES = """
import os

import pytest

from pytest_mlpatterns import SettingError, Url

ALL = len(os.sched_getaffinity(0))

def cores(batch):
    return [len(os.sched_getaffinity(0)) for _ in batch]

@pytest.fixture
def perf_model():
    return cores

@pytest.fixture
def perf_payload():
    return [0]

@pytest.mark.perf(duration="300ms", warmup="0s", cpus="all")
def test_all(perf):
    assert perf.predict(0) == ALL

@pytest.mark.perf(duration="300ms", warmup="0s", concurrency=2, pattern="microservice(replicas=2)")
def test_one(perf):
    assert perf.predict(0) == 1
    assert 0 < perf.metrics.asl_ratio.value < 1.1
    assert len(os.sched_getaffinity(0)) == ALL

@pytest.mark.perf(cpus="all")
def test_deploy(perf_deploy):
    for given, expected in ((None, ALL), (1, 1), ("all", ALL)):
        with perf_deploy(cpus=given) as deployment:
            assert deployment.predict(0) == expected

def test_too_many(perf_deploy):
    with pytest.raises(SettingError, match="^cpus=4097 for a deployment, but "):
        with perf_deploy(cpus=4097):
            raise AssertionError("the body ran")

def test_attached(perf_deploy):
    with pytest.raises(SettingError, match=r"^perf_deploy\\(cpus=1\\) beside .*http://127.*write cpus=\\"all\\"$"):
        with perf_deploy(target=Url("http://127.0.0.1:1/predict")):
            raise AssertionError("the body ran")
"""


def test_a_deployment_runs_on_the_cores_that_it_was_given(tmp_path: Path) -> None:
    ran = Project().with_file("test_perf.py", CORES).run(tmp_path, "--perf-cpus=1", "--perf-json=results.json")
    assert ran.outcomes["passed"] == 5
    setups = {test["test"].partition("::")[2]: test["setup"]["cpus"] for test in ran.json("results.json")["results"]}
    assert setups == {"test_all": "", "test_one": "1"}


HALF = """
import time

import pytest

def busy(batch):
    until = time.thread_time() + 0.01
    while time.thread_time() < until:
        pass
    return batch

@pytest.mark.perf(payload=[0], model=busy, duration="600ms", warmup="200ms", launches=1, concurrency=2, cpus=0.5)
def test_half(perf):
    metrics = perf.metrics
    used_cores = metrics.cpu_ns_per_request.value * metrics.throughput_rps.value / 1e9
    assert metrics.asl_ratio.value == pytest.approx(used_cores / 0.5, rel=0.3)
    assert {launch.usage.cores for launch in metrics.launches} == {0.5}
"""


@VARIANT
def test_the_load_relates_to_the_half_core_that_a_control_group_gives(tmp_path: Path, refused: bool) -> None:
    ran = Project().with_file("test_perf.py", HALF).run(tmp_path, "--perf-json=results.json")
    if refused:
        assert ran.outcomes["failed"] == 1
        assert REFUSAL in ran.out
        return
    assert ran.outcomes["passed"] == 1
    assert [test["setup"]["cpus"] for test in ran.json("results.json")["results"]] == ["0.5"]
