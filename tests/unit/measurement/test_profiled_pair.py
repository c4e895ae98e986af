"""Profiled pairs: how long they record, what they count, and what is recorded again."""

import os
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from support.profiled import SHORT, ScriptedProfiler, profiled_side
from support.synthetic import MS, S

from pytest_mlpatterns.errors import ProfilerError
from pytest_mlpatterns.measurement import profiled_pair
from pytest_mlpatterns.measurement.paired_blocks import ResponsePace
from pytest_mlpatterns.measurement.profiled_pair import ProfilingPlan, awaits_in, calls_in
from pytest_mlpatterns.records.telemetry import AWAIT_TIMES, Awaiting, LayerStats, PatternStats, chain_name


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


def recorded(run: ScriptedRun, profiler: ScriptedProfiler) -> profiled_pair._Recorded:
    """One side whose only process is this one."""
    processes = SimpleNamespace(pids=[os.getpid()], stats=PatternStats, roles={})
    arguments: Any = (profiled_side("now", Mock()), processes, run)
    return profiled_pair._Recorded(*arguments, profiler=profiler, plan=SHORT)


def test_a_block_that_was_repeated_or_lost_its_profiler_is_recorded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiled_pair, "_python_processes", lambda roots: roots)
    profiler = ScriptedProfiler(ends_early=1)
    found = recorded(ScriptedRun(repeats=2), profiler)
    found.record(20 * MS, 5, 0)
    assert profiler.rates.total() == 3
    (block,) = found.blocks(found.sampled)
    assert (block.requests, block.samples) == (10, 12)
    for run, early, words in ((ScriptedRun(9), 0, "now: 3 turns in a row"), (ScriptedRun(), 9, "ended early")):
        with pytest.raises(ProfilerError, match=words):
            recorded(run, ScriptedProfiler(ends_early=early)).record(20 * MS, 0, 0)


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


def test_a_side_without_python_cannot_be_profiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiled_pair, "_python_processes", lambda _: [])
    with pytest.raises(ProfilerError, match="now has no process that runs Python"):
        recorded(ScriptedRun(), ScriptedProfiler()).record(20 * MS, 0, 0)


def test_processes_that_do_not_exist_run_no_python() -> None:
    assert profiled_pair._python_processes([2**22 + 1]) == []
