"""A model that ends its process, hangs or is killed under load: with a fallback before it no request fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.fault_run import run_fault_here
from support.project import Project

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.processes

RARE = pytest.mark.all_faults
TEST = """
import asyncio, os, signal, time
import pytest
from pytest_mlpatterns import Fallback, Faulty, Microservice

class Model:
    calls = 0

    async def __call__(self, batch):
        self.calls += 1
        if self.calls == 40 and not os.path.exists("fault"):
            open("fault", "w").close()
            {fault}
        await asyncio.sleep(0.001)
        return [2 * one for one in batch]

def other(batch):
    return [-1 for _ in batch]

@pytest.fixture
def perf_model():
    return Model

@pytest.fixture
def perf_payload():
    return [1, 2, 3]

def both(inputs, outputs):
    assert all(output in (-1, 2 * given) for given, output in zip(inputs, outputs, strict=True))

SAFE = Fallback(other, timeout="200ms", window="500ms", retry_after="200ms")

@pytest.mark.perf(
    pattern={pattern}, concurrency=4, duration="3s", warmup="0s", launches=1, timeout="5s", check=both, budget="20s"
)
def test_it(perf):
    perf.assert_error_rate_below("1%")
    assert perf.metrics.figure("fallback_share").value > 0
"""
KILLED = "os.kill(os.getpid(), signal.SIGKILL)"
EXITS = "os._exit(3)"
HANGS = "time.sleep(3600)"
WAITS = "await asyncio.sleep(3600)"


def project(fault: str, pattern: str) -> Project:
    return Project().with_file("test_it.py", TEST.format(fault=fault, pattern=pattern))


@pytest.mark.parametrize(
    ("fault", "pattern"),
    [
        (KILLED, "SAFE | Microservice()"),
        (WAITS, "SAFE"),
        pytest.param(EXITS, "SAFE | Faulty('1ms') | Microservice(2)", marks=RARE),
        pytest.param(HANGS, "SAFE | Microservice()", marks=RARE),
    ],
)
def test_a_fallback_answers_for_a_model_that_is_gone(fault: str, pattern: str, tmp_path: Path) -> None:
    run_fault_here(project(fault, pattern), tmp_path).assert_ended({"passed": 1})


@pytest.mark.parametrize(
    "pattern", ["Faulty('1ms') | Microservice()", pytest.param("Microservice() | SAFE", marks=RARE)]
)
def test_without_one_a_death_ends_the_test_and_is_named(pattern: str, tmp_path: Path) -> None:
    run_fault_here(project(KILLED, pattern), tmp_path).assert_ended({"failed": 1}, "ended with signal SIGKILL")
