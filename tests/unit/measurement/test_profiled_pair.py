"""Profiled pairs: real deployments under load, with a profiler that is scripted, and once with py-spy."""

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from support.services.deploy import make_start_options
from support.services.processes import our_children
from support.services.py_spy import patient_py_spy
from support.synthetic import MS, S

from pytest_mlpatterns import Deployment, Microservice, Pattern, Single
from pytest_mlpatterns.engines.local.launcher import launch
from pytest_mlpatterns.errors import DeploymentError, InvalidResultError, ProfilerError
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.measurement import profiled_pair
from pytest_mlpatterns.measurement.paired_blocks import ResponsePace
from pytest_mlpatterns.measurement.profiled_pair import ProfiledPair, ProfiledSide, ProfilingPlan, awaits_in, calls_in
from pytest_mlpatterns.measurement.variant import Variant
from pytest_mlpatterns.profiling.frame_names import SourceNames
from pytest_mlpatterns.profiling.py_spy import RawFrame, RawStack, RawStacks
from pytest_mlpatterns.records.addressing import Progress
from pytest_mlpatterns.records.profile import ProfiledBlock
from pytest_mlpatterns.records.telemetry import AWAIT_TIMES, Awaiting, LayerStats, PatternStats, chain_name
from pytest_mlpatterns.serving.model import service_plan
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop

INPUTS = [[1], [2], [3]]
PLAN = LoadPlan(
    payload=read_payload(INPUTS), schedule=ClosedLoop(1), duration_ns=S, warmup_ns=0, timeout_ns=30 * S, check=None
)
SHORT = ProfilingPlan(most_s=0.0, rounds=3, fewest=1, block_ns=200 * MS, answers=2, warmup_ns=10 * MS)
"""One round, in which even a busy machine answers some requests of each block: otherwise it is recorded again."""
NAMES = SourceNames(Path(__file__).parent)


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


class ScriptedProfiler:
    """Sees ten looks at one function of each process; ``refused`` are numbers of recordings that see nothing."""

    name = "scripted 1"

    def __init__(
        self,
        refused: frozenset[int] = frozenset(),
        on_start: Callable[["ScriptedRecording"], None] = lambda _: None,
        ends_early: int = 0,
    ) -> None:
        self.on_start = on_start
        self.ends_early = ends_early
        self.rates: Counter[tuple[int, int]] = Counter()
        self.running = 0
        self._refused = refused

    def start(self, pid: int, rate_hz: int) -> "ScriptedRecording":
        self.rates[pid, rate_hz] += 1
        self.running += 1
        return ScriptedRecording(self, pid, refuses=self.rates.total() in self._refused)


class ScriptedRecording:
    def __init__(self, profiler: ScriptedProfiler, pid: int, *, refuses: bool) -> None:
        self._profiler, self._pid, self._refuses = profiler, pid, refuses

    def await_start(self) -> None:
        self._profiler.on_start(self)
        if self._refuses:
            raise ProfilerError("cannot read process N")

    def request_stop(self) -> None:
        """Nothing runs."""

    def stop(self) -> RawStacks:
        if self._profiler.ends_early:
            self._profiler.ends_early -= 1
            raise ProfilerError("ended early")
        stack = RawStack(self._pid, "MainThread", (RawFrame("predict", __file__, 1),))
        return RawStacks(self._pid, 50 * MS, {stack: 10}, 2)

    def abandon(self) -> None:
        self._profiler.running -= 1


def start(pattern: Pattern, model: object, directory: Path) -> Deployment:
    options = replace(make_start_options(directory, INPUTS), profiled=True)
    return launch(service_plan(pattern, model, [sys.modules[__name__]]), options)


def side(name: str, directory: Path, pattern: Pattern | None = None, model: object = Waiting) -> ProfiledSide:
    return ProfiledSide(Variant(name, partial(start, pattern or Single(), model, directory), PLAN), NAMES)


def silent(_: Progress) -> None:
    """Nobody watches."""


def functions(block: ProfiledBlock) -> list[list[str]]:
    return [[frame.function for frame in stack.frames] for stack in block.stacks]


@pytest.mark.processes
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


@pytest.mark.processes
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


@pytest.mark.processes
@pytest.mark.parametrize("end", [KeyboardInterrupt, DeploymentError])
def test_whatever_ends_a_recording_nothing_is_left(
    generator: Generator, tmp_path: Path, end: type[BaseException]
) -> None:
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


@pytest.mark.processes
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
    assert {frame.file for stack in deep for frame in stack.frames if frame.owner == "project"} == {Path(__file__).name}
    assert "Deep.outer" in {frame.function for stack in deep for frame in stack.frames}


def test_the_rate_is_shared_by_the_processes() -> None:
    plan = ProfilingPlan()
    assert [plan.rate_of(number) for number in (1, 2, 4, 20)] == [500, 500, 250, 100]


def test_blocks_have_twenty_answers_if_there_is_time() -> None:
    plan = ProfilingPlan(most_s=6.0, fewest=2)
    fast, slow = ResponsePace(1 * MS, 1 * MS), ResponsePace(300 * MS, 300 * MS)
    assert plan.lengths_ns([fast, fast], 5.0) == [200 * MS, 200 * MS]
    assert plan.lengths_ns([fast, slow], 5.0) == [200 * MS, 600 * MS]
    assert plan.lengths_ns([ResponsePace(20 * MS, 20 * MS)], 5.0) == [400 * MS]
    assert plan.lengths_ns([ResponsePace(1 * MS, 1 * MS, 100 * MS)], 5.0) == [100 * MS]


def test_a_load_that_is_too_long_is_refused() -> None:
    plan = ProfilingPlan(most_s=6.0)
    with pytest.raises(ProfilerError, match=r"a turn of its load takes 5.00 s, and 8 of them are more than the 6 s"):
        plan.lengths_ns([ResponsePace(1, 1, 5 * S)], 5.0)


def test_the_slow_down_is_that_of_the_blocks_with_a_profiler() -> None:
    found = profiled_pair._slowdown([[100.0, 110.0, 112.0, 110.0, 102.0], [200.0, 220.0, 224.0, 220.0, 204.0]])
    assert found.value == pytest.approx(1.096, abs=0.001)
    assert found.low < found.value < found.high
    assert profiled_pair._slowdown([[100.0, 110.0, 100.0]]) is None


def test_calls_of_all_models_are_added() -> None:
    def stats(features: int, other: int) -> PatternStats:
        layer = LayerStats(0, "split", {"features/calls": features, "calls": other, "features/model_cpu": 7})
        return PatternStats(layers=(layer, LayerStats(1, "batched", {"calls": 900})))

    assert calls_in(stats(11, 4).since(stats(1, 2))) == {"model": 12.0}
    assert calls_in(stats(1, 2).since(stats(1, 2))) == {"model": 0.0}
    assert calls_in(PatternStats()) == {}


def test_waits_are_those_of_the_layer_awaits() -> None:
    name = chain_name([Awaiting("Model.fetch", "/srv/model.py", 7)])
    before = PatternStats(layers=(LayerStats(0, "awaits", {name: 10, AWAIT_TIMES + name: 1}),))
    after = PatternStats(
        layers=(LayerStats(0, "awaits", {name: 50, AWAIT_TIMES + name: 3}), LayerStats(1, "split", {name: 9}))
    )
    (found,) = awaits_in(after.since(before))
    assert (found.chain[0].qualified, found.ns, found.times) == ("Model.fetch", 40, 2)


class ScriptedRun:
    """A load that had to be repeated in its first blocks, as many as ``repeats`` says."""

    def __init__(self, repeats: int = 0) -> None:
        self.position = self.repeated = 0
        self._repeats = repeats

    def load(self, _length_ns: int, position: int, _core: int) -> None:
        self.position = position + 10
        if self._repeats > self.repeated:
            self.repeated += 1


def recorded(run: ScriptedRun, profiler: ScriptedProfiler, directory: Path) -> profiled_pair._Recorded:
    """One side whose only process is this one."""
    processes = SimpleNamespace(pids=[os.getpid()], stats=PatternStats, roles={})
    arguments: Any = (side("now", directory), processes, run)
    return profiled_pair._Recorded(*arguments, profiler=profiler, plan=SHORT)


def test_a_block_that_was_repeated_or_lost_its_profiler_is_recorded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiled_pair, "_python_processes", lambda roots: roots)
    profiler = ScriptedProfiler(ends_early=1)
    found = recorded(ScriptedRun(repeats=2), profiler, tmp_path)
    found.record(20 * MS, 5, 0)
    assert profiler.rates.total() == 3
    (block,) = found.blocks(found.sampled)
    assert (block.requests, block.samples) == (10, 12)
    for run, early, words in ((ScriptedRun(9), 0, "now: 3 turns in a row"), (ScriptedRun(), 9, "ended early")):
        with pytest.raises(ProfilerError, match=words):
            recorded(run, ScriptedProfiler(ends_early=early), tmp_path).record(20 * MS, 0, 0)


def test_a_round_records_both_sides_from_the_same_input_and_then_in_the_other_order() -> None:
    recorded: list[tuple[str, int, int, int]] = []

    class Recorded:
        def __init__(self, name: str, position: int) -> None:
            self.run = SimpleNamespace(position=position)
            self.name = name

        def record(self, length_ns: int, position: int, core: int) -> None:
            self.run.position = position + 10
            recorded.append((self.name, length_ns, position, core))

    sides: Any = [Recorded("before", 3), Recorded("now", 7)]
    profiled_pair._record_round(sides, [100, 200])
    assert recorded == [("before", 100, 7, 0), ("now", 200, 7, 0), ("now", 200, 17, 1), ("before", 100, 17, 1)]


def test_a_side_without_python_cannot_be_profiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiled_pair, "_python_processes", lambda _: [])
    with pytest.raises(ProfilerError, match="now has no process that runs Python"):
        recorded(ScriptedRun(), ScriptedProfiler(), tmp_path).record(20 * MS, 0, 0)


def test_processes_that_do_not_exist_run_no_python() -> None:
    assert profiled_pair._python_processes([2**22 + 1]) == []
