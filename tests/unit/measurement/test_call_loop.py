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
from pytest_mlpatterns.engines.local.plain_caller import CallRecord, CallRound
from pytest_mlpatterns.engines.local.plain_calls import PlainCalls, deploy_calls
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.loadgen.messages import Event, LoadJob, WindowOpened
from pytest_mlpatterns.measurement.interleaved import InterleavedRun, Variant
from pytest_mlpatterns.measurement.load_source import CallLoop
from pytest_mlpatterns.measurement.paired_blocks import BlockDesign
from pytest_mlpatterns.serving.model import pack_inputs, service_plan
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop
from pytest_mlpatterns.workload.window_plan import RequestWindow

HERE = sys.modules[__name__]
INPUTS = [1, 2, 3]
S, MS = 10**9, 10**6
PLAN = LoadPlan(read_payload(INPUTS), ClosedLoop(2), S, 0, 30 * S, None)
SHORT = BlockDesign(block_ns=50 * MS, answers=2, rounds=1, most_rounds=1, warmup_ns=20 * MS)
JOB = LoadJob(Endpoint(()), (b"",) * 3, ClosedLoop(2), 7 * S, 0, 3 * S, order=bytes(12))


class Scripted(PlainCalls):
    """Gives a record, or none in time."""

    def __init__(self, record: CallRecord | None) -> None:
        self._record = record
        self.asked: list[tuple[CallRound, float]] = []

    def loop(self, asked: CallRound, wait_s: float, on_poll: Callable[[], None]) -> CallRecord:
        self.asked.append((asked, wait_s))
        on_poll()
        if self._record is None:
            raise TimeoutError
        return self._record


def record(outcomes: list[int], failed: Any = None) -> CallRecord:
    count = len(outcomes)
    times = b"".join((5 + number).to_bytes(8, "little") for number in range(count))
    codes = b"".join(code.to_bytes(2, "little") for code in outcomes)
    return CallRecord(times, times, codes, bytes(4 * count), 1, 100, failed)


def ran(deployment: Scripted, job: LoadJob = JOB) -> tuple[Any, list[Event | None]]:
    events: list[Event | None] = []
    return CallLoop(deployment).run(job, poll_s=0.1, on_poll=events.append), events


def test_calls_are_recorded_as_requests_are() -> None:
    result, events = ran(Scripted(record([200, 200, 200])))
    assert {name: len(column) for name, column in result.columns.items()} == {
        "due_ns": 24,
        "sent_ns": 24,
        "done_ns": 24,
        "outcome": 6,
        "request": 12,
        "target": 3,
        "received_bytes": 12,
    }
    assert (result.window.start_ns, result.window.end_ns) == (1, 100)
    assert (result.generator.completed, result.generator.cpu_ns, result.failed) == (3, 0, {})
    assert isinstance(events[0], WindowOpened)
    assert events[1:] == [None]


def test_a_failed_call_is_named_by_its_outcome() -> None:
    result, _ = ran(Scripted(record([200, 500], (1, "LookupError: no"))))
    assert result.failed == {500: (1, "LookupError: no")}


def test_the_callers_and_the_window_are_those_of_the_job() -> None:
    deployment = Scripted(record([200]))
    ran(deployment)
    windowed = LoadJob(
        Endpoint(()), (b"",), ClosedLoop(4), 0, 0, 3 * S, order=bytes(4), window=RequestWindow(9, 2 * S, 6 * S)
    )
    ran(deployment, windowed)
    assert [asked for asked, _ in deployment.asked] == [
        CallRound(2, bytes(12), 7 * S),
        CallRound(4, bytes(4), 6 * S, 9, 2 * S),
    ]
    assert deployment.asked[0][1] == pytest.approx(7 + 3 + 5)


def test_a_call_that_does_not_return_is_an_error_with_its_limit() -> None:
    with pytest.raises(DeploymentError, match=r"a call has not returned after 3\.00 s, the time-out; raise it with"):
        ran(Scripted(None))


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
