"""Plain calls as a variant of an interleaved run: a real process beside a served one, its end, and calls that hang."""

import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.services.deploy import make_start_options
from support.services.processes import our_children

from pytest_mlpatterns import DeploymentError, Single
from pytest_mlpatterns.engines.local.launcher import launch
from pytest_mlpatterns.engines.local.plain_calls import PlainCalls, deploy_calls
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.loadgen.messages import Event, LoadJob, LoadResult, WindowOpened
from pytest_mlpatterns.measurement.interleaved import InterleavedRun, Variant
from pytest_mlpatterns.measurement.load_source import CallLoop
from pytest_mlpatterns.measurement.paired_blocks import BlockDesign
from pytest_mlpatterns.serving.model import pack_inputs, service_plan
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop

HERE = sys.modules[__name__]
INPUTS = [1, 2, 3]
S, MS = 10**9, 10**6
PLAN = LoadPlan(read_payload(INPUTS), ClosedLoop(2), S, 0, 30 * S, None)
SHORT = BlockDesign(block_ns=50 * MS, answers=2, rounds=1, most_rounds=1, warmup_ns=20 * MS)
JOB = LoadJob(Endpoint(()), (b"",) * 3, ClosedLoop(2), 7 * S, 0, 3 * S, order=bytes(12))


class Silent(PlainCalls):
    """Gives no result in time."""

    def __init__(self) -> None:
        self.wait_s = 0.0

    def loop(self, job: LoadJob, wait_s: float, on_poll: Callable[[], None]) -> LoadResult:
        self.wait_s = wait_s
        on_poll()
        raise TimeoutError


def test_a_call_that_does_not_return_is_an_error_with_its_limit() -> None:
    events: list[Event | None] = []
    deployment = Silent()
    with pytest.raises(DeploymentError, match=r"a call has not returned after 3\.00 s, the time-out; raise it with"):
        CallLoop(deployment).run(JOB, poll_s=0.1, on_poll=events.append)
    assert deployment.wait_s == pytest.approx(7 + 3 + 5)
    assert isinstance(events[0], WindowOpened)
    assert events[1:] == [None]


def sleeps(batch: list[Any]) -> list[Any]:
    time.sleep(0.005)
    return batch


def dies(batch: list[Any]) -> list[Any]:
    if threading.current_thread() is not threading.main_thread():  # a caller of the load, not the first call
        os._exit(3)
    return batch


def calls(model: object, directory: Path) -> PlainCalls:
    plan = service_plan(Single(), model, [HERE])
    return deploy_calls(plan, pack_inputs(INPUTS, [HERE]), make_start_options(directory, INPUTS))


@pytest.mark.processes
def test_plain_calls_are_measured_beside_the_served_model_and_end(tmp_path: Path) -> None:
    def served() -> Any:
        return launch(service_plan(Single(), sleeps, [HERE]), make_start_options(tmp_path, INPUTS))

    before = our_children()
    generator = Generator(tmp_path / "generator.log")
    variants = Variant("served", served, PLAN), Variant("plain", partial(calls, sleeps, tmp_path), PLAN)
    run = InterleavedRun(*variants, generator, on_progress=lambda _progress: None, design=SHORT)
    try:
        run.measure(60 * S, 1)
    finally:
        generator.close()
    (launched,), (found,) = run.second_launches, run.launches
    assert found.second.failed == 0
    assert found.second.rtm_ns >= 5 * MS
    assert launched.cold_start_ns is not None
    assert launched.facts
    assert launched.usage is not None
    assert our_children() <= before


@pytest.mark.processes
def test_a_process_that_dies_in_its_calls_is_an_error_of_its_side(tmp_path: Path) -> None:
    generator = Generator(tmp_path / "generator.log")
    variants = [Variant(name, partial(calls, model, tmp_path), PLAN) for name, model in (("a", sleeps), ("b", dies))]
    run = InterleavedRun(*variants, generator, on_progress=lambda _progress: None, design=SHORT)
    with pytest.raises(DeploymentError, match=r"^b: its process: process \d+ ended with exit code 3"):
        run.measure(60 * S, 1)
    generator.close()
