"""A scale-out step by step: a generator, a deployment and a clock that do as they are told."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from support.services.jobs import a_job
from support.synthetic import MS, S, samples

from pytest_mlpatterns.analysis.capacity.scale_out import answers_in_share
from pytest_mlpatterns.loadgen.columns import _columns
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult, WindowOpened
from pytest_mlpatterns.measurement.further_load import FurtherLoad, ScaleOutRun
from pytest_mlpatterns.records.addressing import Balance, Progress
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.workload.schedule import ClosedLoop

OLD, NEW = ("127.0.0.1", 1), ("127.0.0.1", 2)
LOADS_NS = 300 * MS


class World:
    """Everything that a scale-out needs: one request every 10 ms, to the servers in turn."""

    scaler: Any
    cpu_share = None
    timeout_ns = 60 * S

    def __init__(self, *, gets_requests: bool = True) -> None:
        self.now_ns = 0
        self.asked_ns = -1
        self.added: list[tuple[int, tuple[str, int]]] = []
        self.ended_ns = -1
        self.progress: list[Progress] = []
        self.checks = 0
        self.scaler = self
        self.processes = self
        self.job: LoadJob | None = None
        self._gets_requests = gets_requests

    def add(self) -> "World":
        self.asked_ns = self.now_ns
        return self

    def address(self) -> tuple[str, int] | None:
        return NEW if self.now_ns >= self.asked_ns + LOADS_NS else None

    def requests(self) -> int:
        self.checks += 1
        return (self.now_ns - self.added[0][0]) // (20 * MS) if self._gets_requests else 0

    def drop_connections(self) -> None:
        """There are none."""

    def stats(self) -> None:
        """All processes run."""

    def add_address(self, address: tuple[str, int]) -> None:
        self.added.append((self.now_ns, address))

    def end_load(self) -> None:
        self.ended_ns = self.now_ns

    def run(self, job: LoadJob, *, poll_s: float, on_poll: Callable[[Any], None], processes: int) -> LoadResult:
        self.job = job
        on_poll(None)
        start_ns = self.now_ns = 100 * MS
        on_poll(WindowOpened(start_ns))
        on_poll(WindowOpened(start_ns))  # each generator process opens one
        while self.ended_ns < 0:
            self.now_ns += round(poll_s * S)
            on_poll(Progress(self.now_ns, 1, None))
        on_poll(None)
        due_ns = np.arange(0, self.now_ns, 10 * MS, dtype=np.int64)
        since = due_ns >= self.added[0][0]
        target = np.where(since & (np.arange(due_ns.size) % 2 == 0) & self._gets_requests, 1, 0)
        columns = _columns(replace(samples(due_ns, 5 * MS), target=target.astype(np.uint8)))
        unused: Any = None
        return LoadResult(columns, Window(start_ns, self.now_ns), unused, unused, [], stopped_early=True)

    def scale_out(self, concurrency: int) -> Any:
        world: Any = self
        plan: Any = SimpleNamespace(generators=1)
        load = FurtherLoad(world, plan, a_job([OLD], ClosedLoop(1)), world, self.progress.append)
        return ScaleOutRun(load, Balance.LEAST_OUTSTANDING, clock=self.clock).run(concurrency)

    def clock(self) -> int:
        return self.now_ns


def test_the_replica_is_asked_for_under_load_and_gets_its_turn_once_it_is_ready() -> None:
    world = World()
    found = world.scale_out(concurrency=3)
    assert world.asked_ns == 600 * MS
    assert world.added == [(900 * MS, NEW)]
    assert found.ready_ns == LOADS_NS
    assert found.duration_ns == pytest.approx(LOADS_NS, abs=25 * MS)
    assert (found.replicas, found.concurrency, found.failed) == (1, 3, 0)
    assert found.requests == pytest.approx(30, abs=3)
    assert world.progress


def test_the_load_is_closed_at_the_knee_and_spread_as_the_pattern_says() -> None:
    world = World()
    world.scale_out(concurrency=3)
    assert world.job.schedule == ClosedLoop(3)
    assert world.job.endpoint.balance is Balance.LEAST_OUTSTANDING
    assert world.job.duration_ns > world.timeout_ns


def test_the_load_ends_when_the_replica_has_received_its_share_of_the_answers_that_count() -> None:
    world = World()
    world.scale_out(concurrency=3)
    enough = answers_in_share(1, 3) // 2 + 3
    assert world.ended_ns - world.added[0][0] == pytest.approx(enough * 20 * MS, abs=100 * MS)
    assert world.checks <= 10  # ten a second


def test_the_load_ends_at_last_if_the_replica_gets_nothing() -> None:
    world = World(gets_requests=False)
    found = world.scale_out(concurrency=1)
    assert found.duration_ns is None
    assert "it gave 0 of " in found.never
    assert world.ended_ns - world.added[0][0] == pytest.approx(15 * S, abs=100 * MS)
