"""Searches over a generator whose service is a queue of known capacity: what is sent, and what is found."""

import re
import time
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from support.queueing import served_ns
from support.services.jobs import a_job
from support.synthetic import MS, START_NS, S, samples

from pytest_mlpatterns.loadgen.columns import _columns
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult
from pytest_mlpatterns.measurement.capacity import CapacitySearch
from pytest_mlpatterns.records.launch import Capacity, GeneratorReport, Warmup
from pytest_mlpatterns.records.objective import parse_objective
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.system.process_tree import ResourceMonitor
from pytest_mlpatterns.workload.schedule import ClosedLoop, PoissonRate


@dataclass
class QueueGenerator:
    """A generator whose every job is answered by one server that takes ``service_ns`` for each request.

    Its answers are streams of that number of ``chunks``, and every tenth of them has one; 0 for whole answers.
    """

    service_ns: int
    busy_above: int = 10_000
    chunks: int = 0
    outcome: int = 200
    open_loops: list[PoissonRate] = field(default_factory=list)
    closed_loops: int = 0

    def run(self, job: LoadJob, **_options: Any) -> LoadResult:
        length_ns = job.warmup_ns + job.duration_ns
        limited = False
        if isinstance(job.schedule, ClosedLoop):
            self.closed_loops += 1
            done = np.arange(1, length_ns // self.service_ns + 1) * self.service_ns
            due = np.concatenate([np.zeros(job.schedule.concurrency, dtype=np.int64), done])[: done.size]
            limited = job.schedule.concurrency >= self.busy_above
        else:
            assert isinstance(job.schedule, PoissonRate)
            self.open_loops.append(job.schedule)
            due = arrivals_until(job.schedule, length_ns)
            done = served_ns(due, np.full(due.size, self.service_ns))
        return result_of(due + START_NS, done + START_NS, job, limited=limited, of=self)


def arrivals_until(schedule: PoissonRate, length_ns: int) -> NDArray[np.int64]:
    arrivals = schedule.arrivals()
    due = []
    while (at := next(arrivals)) < length_ns:
        due.append(at)
    return np.array(due, dtype=np.int64)


def result_of(
    due_ns: NDArray[np.int64], done_ns: NDArray[np.int64], job: LoadJob, *, limited: bool, of: QueueGenerator
) -> LoadResult:
    count, chunks = due_ns.size, of.chunks
    start_ns = START_NS + (job.warmup_ns or 0)
    columns = _columns(samples(due_ns, done_ns - due_ns, outcome=of.outcome))
    if chunks:
        chunk_count = np.where(np.arange(count) % 10, chunks, 1).astype(np.uint32)
        unknown = np.full(count, -1, dtype=np.int32)
        columns |= {"first_byte_ns": done_ns, "chunk_count": chunk_count, "chunk_ns": np.repeat(done_ns, chunk_count)}
        columns |= {"output_tokens": unknown, "input_tokens": unknown}
    report = GeneratorReport(
        cpu_ns=job.duration_ns if limited else 0, wall_ns=job.duration_ns, completed=count, connections=1
    )
    window = Window(start_ns, start_ns + job.duration_ns)
    return LoadResult(columns, window, Warmup(job.warmup_ns or 0, 0, None), report, [], stopped_early=False)


def searching(generator: QueueGenerator, **more: Any) -> CapacitySearch:
    return CapacitySearch(
        template=a_job([("127.0.0.1", 1)], ClosedLoop(1)),
        generator=cast("Generator", generator),
        monitor=ResourceMonitor(list),
        deadline_ns=time.perf_counter_ns() + 24 * S,
        on_progress=lambda _progress: None,
        ceiling_rps=None,
        **more,
    )


def search(generator: QueueGenerator, slo: str) -> Capacity:
    return searching(generator).run(lambda _value: False, parse_objective(slo))


def test_the_rate_that_keeps_an_objective_is_that_of_the_long_run() -> None:
    found = search(QueueGenerator(10 * MS), "p95<50ms")
    assert found.nmrt.value == pytest.approx(69.3, rel=0.05)
    assert not found.at_least
    assert found.stopped == "the highest rate that keeps the objective was found"


def test_each_window_has_a_seed_of_its_own_and_a_rate_below_the_capacity() -> None:
    generator = QueueGenerator(10 * MS)
    search(generator, "p95<50ms")
    seeds = [load.seed for load in generator.open_loops]
    assert len(set(seeds)) == len(seeds) >= 6
    assert all(load.rate_rps <= 100 for load in generator.open_loops)


def test_an_objective_that_the_capacity_keeps_gives_the_capacity_and_no_more() -> None:
    found = search(QueueGenerator(10 * MS), "p95<60s")
    assert 95 <= found.nmrt.value <= 100.5


def test_a_climb_that_the_generator_ended_makes_a_rate_near_its_end_a_lower_bound() -> None:
    found = search(QueueGenerator(10 * MS, busy_above=2), "p95<60s")
    assert found.at_least
    assert "the load generator was the limit at concurrency 2" in found.stopped


def test_a_service_that_fails_has_no_capacity_under_the_objective_either() -> None:
    found = search(QueueGenerator(10 * MS, outcome=500), "p95<50ms")
    assert (found.nmrt.value, found.objective) == (0, parse_objective("p95<50ms"))


def test_answers_that_an_objective_cannot_judge_are_named() -> None:
    found = search(QueueGenerator(10 * MS, chunks=4), "ttft:p95<50ms, tpot:p95<50ms")
    assert re.search(
        r"; [1-9]\d* answers of too few tokens for ttft:p95<50\.0ms,tpot:p95<50\.0ms left out$", found.stopped
    )
    assert "left out" not in search(QueueGenerator(10 * MS, chunks=4), "ttft:p95<50ms").stopped


def test_a_further_search_under_an_objective_does_not_climb_again_and_has_arrivals_of_its_own() -> None:
    generator = QueueGenerator(10 * MS)
    first = searching(generator)
    first.run(lambda _value: False, parse_objective("p95<50ms"))
    assert first.climbed is not None
    climbs, seeds = generator.closed_loops, {load.seed for load in generator.open_loops}
    second = searching(generator, climbed=first.climbed, number=1)
    found = second.run(lambda _value: False, parse_objective("p95<50ms"))
    assert generator.closed_loops == climbs == 3
    assert seeds.isdisjoint(load.seed for load in generator.open_loops[len(seeds) :])
    assert found.nmrt.value == pytest.approx(69.3, rel=0.05)
    assert (found.ladder, found.asl, found.concurrency) == ((), None, 1)
