"""Replicas that follow the load and die, or cannot load: the test says so in time, and leaves nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.fault_run import run_fault_here
from support.project import Project

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.processes

TEST = """
import pytest
from pytest_mlpatterns import Autoscaled


@pytest.fixture
def perf_model():
    return "served:Model"


@pytest.fixture
def perf_payload():
    return [1, 2, 3]


@pytest.mark.perf(
    pattern=Autoscaled(min={least}, max=2, window="100ms"),
    duration={duration},
    warmup="0s",
    launches=1,
    concurrency=4,
    timeout="10s",
)
def test_it(perf):
    perf.assert_rtm_below("60s")
"""
DIES = """
import itertools, os, signal, time

count = itertools.count(1)


class Model:
    def __call__(self, batch):
        time.sleep(0.01)
        if next(count) >= 20:
            os.kill(os.getpid(), signal.SIGKILL)
        return batch
"""
LOADS_ONCE = """
import pathlib, time

FIRST = pathlib.Path(__file__).with_name("first")


class Model:
    def __init__(self):
        if FIRST.exists():
            raise MemoryError("no room for a second model")
        FIRST.touch()

    def __call__(self, batch):
        time.sleep(0.02)
        return batch
"""
NEVER_LOADS = """
class Model:
    def __init__(self):
        raise MemoryError("no room for any model")
"""


def project(model: str, *, least: int, duration: str) -> Project:
    test = TEST.format(least=least, duration=repr(duration))
    return Project().with_file("test_it.py", test).with_file("served.py", model)


@pytest.mark.parametrize(
    ("model", "least", "duration", "words"),
    [
        (DIES, 1, "20s", "4 processes of replicas that follow the load died, expected at most 3"),
        (LOADS_ONCE, 1, "10s", "MemoryError: no room for a second model"),
        (NEVER_LOADS, 0, "200ms", "MemoryError: no room for any model"),
    ],
    ids=["keeps dying", "loads once", "never loads"],
)
def test_replicas_that_die_or_do_not_load_are_the_error_of_the_test(
    tmp_path: Path, model: str, least: int, duration: str, words: str
) -> None:
    run = run_fault_here(project(model, least=least, duration=duration), tmp_path)
    run.assert_ended({"failed": 1}, words)
