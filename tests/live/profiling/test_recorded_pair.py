"""Profiled pairs: real deployments under load, with a profiler that is scripted, and once with py-spy."""

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from support import TESTS
from support.profiled import INPUTS, SHORT, ScriptedProfiler, ScriptedRecording, profiled_side
from support.services.deploy import make_start_options
from support.services.processes import our_children
from support.services.py_spy import patient_py_spy
from support.synthetic import MS

from pytest_mlpatterns import Deployment, Microservice, Pattern, Single
from pytest_mlpatterns.engines.local.launcher import launch
from pytest_mlpatterns.errors import DeploymentError, InvalidResultError, ProfilerError
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.measurement.profiled_pair import ProfiledPair, ProfiledSide, ProfilingPlan
from pytest_mlpatterns.records.addressing import Progress
from pytest_mlpatterns.records.profile import ProfiledBlock
from pytest_mlpatterns.serving.model import service_plan

pytestmark = pytest.mark.processes


class Waiting:
    """Takes no processor."""

    def __call__(self, batch: list[Any]) -> list[Any]:
        time.sleep(0.005)
        return batch


class Deep:
    """All its time is in one function."""

    def __call__(self, batch: list[Any]) -> list[Any]:
        return self.outer(batch)

    def outer(self, batch: list[Any]) -> list[Any]:
        spin()
        return batch


def spin() -> None:
    """Take 5 ms of a processor, however long it takes to get them."""
    until = time.thread_time() + 0.005
    while time.thread_time() < until:
        pass


def start(pattern: Pattern, model: object, directory: Path) -> Deployment:
    options = replace(make_start_options(directory, INPUTS), profiled=True)
    return launch(service_plan(pattern, model, [sys.modules[__name__]]), options)


def side(name: str, directory: Path, pattern: Pattern | None = None, model: object = Waiting) -> ProfiledSide:
    return profiled_side(name, partial(start, pattern or Single(), model, directory))


def silent(_: Progress) -> None:
    """Nobody watches."""


def functions(block: ProfiledBlock) -> list[list[str]]:
    return [[frame.function for frame in stack.frames] for stack in block.stacks]


def test_both_sides_are_recorded_in_turn(generator: Generator, tmp_path: Path) -> None:
    profiler = ScriptedProfiler()
    pair = ProfiledPair(
        side("now", tmp_path),
        side("before", tmp_path, Microservice()),
        generator=generator,
        profiler=profiler,
        on_progress=silent,
        plan=SHORT,
    )
    run = pair.run()
    assert (len(run.before), len(run.now)) == (2, 2)
    assert (run.profiler, run.rate_hz, run.notes) == ("scripted 1", 500, ())
    assert run.slowdown is not None
    assert all(block.requests >= 1 and (block.samples, block.lost) == (12, 2) for block in run.now)
    assert all((block.samples, block.lost) == (24, 4) for block in run.before)
    assert functions(run.now[0]) == [["service", "predict"]]
    assert sorted(names[0] for names in functions(run.before[0])) == ["gateway", "service"]
    assert {rate for _, rate in profiler.rates} == {500}
    assert len(profiler.rates) == 3
    assert min(profiler.rates.values()) >= 2  # more where the machine had to repeat a block
    assert profiler.running == 0


def test_a_process_that_cannot_be_read_is_a_note_and_none_at_all_an_error(generator: Generator, tmp_path: Path) -> None:
    both = side("now", tmp_path, Microservice())
    profiler = ScriptedProfiler(frozenset({1}))
    arguments = {"generator": generator, "on_progress": silent, "plan": SHORT}
    run = ProfiledPair(both, None, profiler=profiler, **arguments).run()  # type: ignore[arg-type]
    assert run.before == ()
    assert run.notes == ("cannot read process N",)
    assert [block.samples for block in run.now] == [12, 12]
    profiler = ScriptedProfiler(frozenset({1, 2}))
    with pytest.raises(ProfilerError, match="cannot read process N"):
        ProfiledPair(both, None, profiler=profiler, **arguments).run()  # type: ignore[arg-type]
    assert profiler.running == 0


@pytest.mark.parametrize("end", [KeyboardInterrupt, DeploymentError])
def test_whatever_ends_a_recording_all_is_gone(generator: Generator, tmp_path: Path, end: type[BaseException]) -> None:
    def begin(recording: ScriptedRecording) -> None:
        if end is KeyboardInterrupt:
            raise end
        os.kill(recording._pid, signal.SIGKILL)

    profiler = ScriptedProfiler(on_start=begin)
    expected = (end,) if end is KeyboardInterrupt else (DeploymentError, InvalidResultError)
    arguments = {"generator": generator, "on_progress": silent, "plan": SHORT}
    with pytest.raises(expected, match=None if end is KeyboardInterrupt else "now: "):
        ProfiledPair(side("now", tmp_path), None, profiler=profiler, **arguments).run()  # type: ignore[arg-type]
    assert profiler.running == 0
    assert our_children() == set(generator.pids)


def test_py_spy_finds_the_function_in_a_served_model(generator: Generator, tmp_path: Path) -> None:
    run = ProfiledPair(
        side("now", tmp_path, model=Deep),
        None,
        generator=generator,
        profiler=patient_py_spy(tmp_path),
        on_progress=silent,
        plan=ProfilingPlan(most_s=0.0, fewest=1, block_ns=300 * MS, warmup_ns=10 * MS),
    ).run()
    stacks = [stack for block in run.now for stack in block.stacks]
    total = sum(stack.ns for stack in stacks)
    deep = [stack for stack in stacks if any(frame.function == "spin" for frame in stack.frames)]
    assert sum(stack.ns for stack in deep) >= total / 2
    assert {frame.file for stack in deep for frame in stack.frames if frame.owner == "project"} == {
        Path(__file__).relative_to(TESTS).as_posix()
    }
    assert "Deep.outer" in {frame.function for stack in deep for frame in stack.frames}
