"""One long load on a running deployment: its pieces, its track, and why it ends."""

import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from support.deployed import deployed

from pytest_mlpatterns import Cached, InvalidResultError, Pattern, Single
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult
from pytest_mlpatterns.measurement.launch import LaunchRunner
from pytest_mlpatterns.records.samples import ResourceTrack
from pytest_mlpatterns.serving.processes import ForeignProcesses
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop, Schedule, Stages

pytestmark = pytest.mark.processes

HERE = sys.modules[__name__]
MS = 1_000_000
INPUTS = [[1, 2], [3, 4]]
KEPT: list[bytearray] = []


def add(batch: list[Any]) -> list[Any]:
    time.sleep(0.004)
    return [sum(numbers) for numbers in batch]


def keep(batch: list[Any]) -> list[Any]:
    KEPT.append(bytearray(b"x" * 100_000))
    return add(batch)


def refuse_all(batch: list[Any]) -> list[Any]:
    if len(batch[0]) > 1 and batch[0] == INPUTS[1]:
        raise ValueError("the second input")
    return add(batch)


def make_runner(
    generator: Generator,
    directory: Path,
    model: object = add,
    *,
    schedule: Schedule | None = None,
    pattern: Pattern | None = None,
    inputs: Sequence[Any] = INPUTS,
) -> AbstractContextManager[LaunchRunner]:
    plan = LoadPlan(read_payload(inputs), schedule or ClosedLoop(2), 100 * MS, 20 * MS, 30_000 * MS, None)
    return deployed(pattern or Single(), model, plan, module=HERE, generator=generator, directory=directory)


def test_an_undecided_growth_is_followed_over_the_whole_time(generator: Generator, tmp_path: Path) -> None:
    seen: list[int] = []

    def is_decided(track: ResourceTrack) -> bool:
        seen.append(int(track.requests[-1]))
        return False

    with make_runner(generator, tmp_path) as runner:
        found = runner.follow_growth(2500 * MS, is_decided)
        answered = runner.deployment.stats().replica_requests[0]
    assert found.is_whole
    assert seen == sorted(seen)
    assert (np.diff(found.track.requests) >= 0).all()
    assert found.track.requests[-1] <= answered
    assert (found.track.rss_bytes > 0).all()
    assert found.total.replica_requests[0] == answered
    assert 0 < found.stats.replica_requests[0] < answered


def test_a_decided_growth_ends_the_load_early_and_the_deployment_goes_on_until_the_next_launch(
    generator: Generator, tmp_path: Path
) -> None:
    with make_runner(generator, tmp_path) as runner:
        runner.measure()
        deployment = runner.deployment
        found = runner.follow_growth(10_000 * MS, lambda _track: True)
        assert runner.deployment is deployment
        runner.measure()
        assert runner.deployment is not deployment
    assert not found.is_whole


def test_each_piece_goes_on_with_the_next_input(generator: Generator, tmp_path: Path) -> None:
    """A cache that knew the inputs of the piece before would have more than one input twice at most."""
    with make_runner(generator, tmp_path, pattern=Cached(), inputs=[[number, 1] for number in range(50_000)]) as runner:
        found = runner.follow_growth(1000 * MS, lambda _track: False)
    (cache,) = found.total.layers_named("cached")
    assert cache.counters["misses"] > 0
    assert cache.counters["hits"] <= 12  # where two pieces meet: those that were in flight, and the first request


def test_a_load_with_a_length_of_its_own_is_repeated(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    run = generator.run

    def count(job: LoadJob, **options: Any) -> LoadResult:
        lengths.append(job.duration_ns)
        return run(job, **options)

    monkeypatch.setattr(generator, "run", count)
    with make_runner(generator, tmp_path, schedule=Stages([("200ms", 50)])) as runner:
        found = runner.follow_growth(1000 * MS, lambda _track: False)
    assert found.is_whole
    assert lengths == 5 * [200 * MS]
    assert found.total.replica_requests[0] >= 5 * 5  # half of what is due in each: a busy machine sends the rest late


def test_a_service_that_takes_the_memory_of_the_machine_is_not_loaded_on(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=0))
    with make_runner(generator, tmp_path, keep) as runner:
        found = runner.follow_growth(10_000 * MS, lambda _track: False)
    assert not found.is_whole


def test_processes_that_are_not_known_end_it_after_the_first_piece(generator: Generator, tmp_path: Path) -> None:
    with make_runner(generator, tmp_path) as runner:
        processes, runner.deployment.processes = runner.deployment.processes, ForeignProcesses()
        try:
            found = runner.follow_growth(1500 * MS, lambda _track: False)
        finally:
            runner.deployment.processes = processes
    assert found.track is None
    assert not found.is_whole


def test_a_service_that_fails_supports_no_verdict(generator: Generator, tmp_path: Path) -> None:
    with (
        make_runner(generator, tmp_path, refuse_all) as runner,
        pytest.raises(InvalidResultError, match=r"requests failed .*item 1 -> ValueError: the second input"),
    ):
        runner.follow_growth(500 * MS, lambda _track: False)
