"""Load generators on three nodes: the schedule exactly, one start, what the service saw, and those that are lost."""

from __future__ import annotations

import itertools
import os
import re
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from support.nightly import rarer
from support.services.jobs import MESSAGES, MS, a_job, message
from support.services.processes import survivors
from support.services.scripted import Hold, ScriptedServer, Send, answer

from pytest_mlpatterns.engines.ray.generator_host import RayPool
from pytest_mlpatterns.engines.ray.messages import RayJob
from pytest_mlpatterns.engines.ray.session import RaySession
from pytest_mlpatterns.errors import ChildError
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.generator import Generator, LoadInterrupted
from pytest_mlpatterns.loadgen.messages import LoadResult, Transport, WindowOpened
from pytest_mlpatterns.measurement.capacity import CapacitySearch
from pytest_mlpatterns.system.process_tree import ResourceMonitor
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, GammaRate, PoissonRate, Stages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from support.services.scripted import Request, Step

    from pytest_mlpatterns.loadgen.messages import Event, LoadJob
    from pytest_mlpatterns.workload.schedule import Schedule

LONG_NS = 600_000 * MS
PATIENT_S = 180
AFTERWARDS = b"another load"


@pytest.fixture(scope="module")
def driver(three_nodes: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RaySession]:
    """The driver of the generators' hosts; the last test ends it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        log = tmp_path_factory.mktemp("driver") / "driver.log"
        session = RaySession(RayJob(address=three_nodes.address, source="the test"), log)
        yield session
        session.close()


@pytest.fixture(scope="module")
def generator(driver: RaySession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generator]:
    """One for all tests: whatever one of them did to it, it works for the next."""
    generator = Generator(tmp_path_factory.mktemp("generators") / "generator.log", pool=RayPool(lambda: driver))
    yield generator
    generator.close()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


def run(
    generator: Generator, job: LoadJob, processes: int = 3, on_poll: Callable[[Event | None], None] = lambda _: None
) -> LoadResult:
    return generator.run(job, poll_s=0.05, on_poll=on_poll, processes=processes)


def pids_of(generator: Generator) -> list[int]:
    """The processes, which all run on this machine."""
    names = [process.name for process in generator._processes]
    return [int(found[1]) for found in map(re.compile(r"process (\d+) on node").match, names) if found]


def when_opened(action: Callable[[], object]) -> Callable[[Event | None], None]:
    """Do this when the window opens."""

    def on_poll(event: Event | None) -> None:
        if isinstance(event, WindowOpened):
            action()

    return on_poll


def expected(schedule: Any, generators: int, until_ns: int) -> list[int]:
    """The due times of a schedule in its first time, in the order of time."""
    whole = schedule.merged_arrivals(generators) if isinstance(schedule, PoissonRate) else schedule.arrivals()
    return list(itertools.takewhile(lambda due: due < until_ns, whole))


RAMP = Stages((("200ms", 200), ("200ms", 50)), start=20)


@pytest.mark.parametrize(
    "schedule", [PoissonRate(90, seed=2), *rarer(RAMP, ConstantRate(90), GammaRate(90, 0.5))], ids=str
)
def test_three_generators_send_exactly_the_schedule_from_one_agreed_time(
    generator: Generator, server: ScriptedServer, schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generator that hears late of the agreed time would have sent requests of its warm-up that are due after it."""
    monkeypatch.setattr(
        "pytest_mlpatterns.engines.ray.generator_host._OPENING_NS", 6_000 * MS
    )  # all hear of it in time
    window_ns = schedule.length_ns or 400 * MS
    result = run(generator, a_job([server.address], schedule, duration_ns=window_ns, warmup_ns=50 * MS))
    samples = samples_of(result)
    assert len(samples.done_ns) == len(server.requests)
    assert set(samples.outcome.tolist()) == {200}
    assert (np.diff(samples.done_ns) >= 0).all()
    due = np.sort(samples.due_ns[samples.due_ns >= result.window.start_ns]) - result.window.start_ns
    assert due.tolist() == expected(schedule, 3, window_ns)
    inside = samples.due_ns >= result.window.start_ns
    assert (samples.sent_ns[inside] >= samples.due_ns[inside]).all()
    parts = result.generator.parts
    assert [part.node for part in parts] == ["127.0.0.3", "127.0.0.4", "127.0.0.2"]  # the head comes last
    assert {part.clock_error_ns for part in parts} == {0}
    late_ms = [part.opened_late_ns / MS for part in parts]
    assert min(late_ms) >= 0
    print(f"{schedule}: the generators began within {max(late_ms) - min(late_ms):.2f} ms of each other")  # noqa: T201


def test_the_callers_of_a_closed_loop_are_shared_out(generator: Generator) -> None:
    everybody = threading.Event()

    def script(request: Request) -> list[Step]:
        if request.number == 6:
            everybody.set()
        return [Hold(everybody), Send(answer())]

    with ScriptedServer(script) as server:
        result = run(generator, a_job([server.address], ClosedLoop(7)))
        assert server.peak_in_flight == 7
        assert len(samples_of(result).done_ns) == len(server.requests)
    assert (result.generator.processes, result.generator.connections) == (3, 7)
    assert sum(part.completed for part in result.generator.parts) == result.generator.completed


def test_stages_of_callers_and_messages_of_any_size(generator: Generator, server: ScriptedServer) -> None:
    stages = Stages((("200ms", 6),), of="concurrency", start=3)
    large = tuple(message(bytes([number]) * 300_000) for number in range(4))
    result = run(generator, a_job([server.address], stages, messages=large, duration_ns=stages.length_ns))
    assert server.peak_in_flight <= 6
    assert set(samples_of(result).outcome.tolist()) == {200}
    assert {len(request.body) for request in server.requests} == {300_000}


def test_answers_come_with_the_recording(generator: Generator) -> None:
    with ScriptedServer(lambda request: [Send(answer(b"answer to " + request.body))]) as server:
        result = run(generator, a_job([server.address], ClosedLoop(3), keep_answers=9))
    assert {answer.request for answer in result.answers} <= set(range(len(MESSAGES)))
    assert all(answer.body == b"answer to input %d" % answer.request for answer in result.answers)
    assert result.answers


def test_a_capacity_is_searched_for_by_all_of_them(generator: Generator, server: ScriptedServer) -> None:
    search = CapacitySearch(
        template=a_job([server.address], ClosedLoop(1)),
        generator=generator,
        monitor=ResourceMonitor(list),
        deadline_ns=time.perf_counter_ns() + 60_000 * MS,
        on_progress=lambda _progress: None,
        generators=3,
        ceiling_rps=generator.ceiling_of(a_job([server.address], ClosedLoop(1))),
    )
    found = search.run(lambda _value: True, None)
    assert found.nmrt.value > 0
    assert len(server.requests) > 0


def test_what_they_reach_is_measured_once_for_all_nodes_of_one_machine(generator: Generator) -> None:
    found = generator.pool.ceilings_rps(Transport.HTTP1, 3)
    assert len(found) == 3
    assert len(set(found)) == 1
    assert found[0] > 0


def test_ctrl_c_ends_them_all_and_keeps_all_rows(generator: Generator, server: ScriptedServer) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    job = a_job([server.address], ClosedLoop(6), duration_ns=LONG_NS)
    with pytest.raises(LoadInterrupted) as caught:
        run(generator, job, on_poll=when_opened(interrupt))
    result = caught.value.result
    assert result.stopped_early
    assert result.generator.processes == 3
    assert len(result.generator.parts) == 3


def kill_first(pids: Sequence[int]) -> None:
    os.kill(pids[0], signal.SIGKILL)


def kill_host_of_first(pids: Sequence[int]) -> None:
    os.kill(psutil.Process(pids[0]).ppid(), signal.SIGKILL)


def stop_first(pids: Sequence[int]) -> None:
    os.kill(pids[0], signal.SIGSTOP)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (kill_first, r"\(process \d+ on node 127\.0\.0\.3\) ended during its load: process \d+ ended with signal SIGK"),
        *rarer(
            (kill_host_of_first, r"\(process \d+ on node 127\.0\.0\.3\) ended during its load: node 127\.0\.0\.3 "),
            (stop_first, r"is stopped: process \d+ \(python.*\) is stopped \(SIGSTOP\) on node 127\.0\.0\.3"),
        ),
    ],
    ids=["killed", "host killed", "stopped"],
)
def test_a_lost_generator_makes_the_load_invalid_and_the_next_one_works(
    generator: Generator, server: ScriptedServer, harm: Callable[[Sequence[int]], None], said: str
) -> None:
    pids: list[int] = []

    def on_opened() -> None:
        pids.extend(pids_of(generator))
        harm(pids)

    with pytest.raises(ChildError, match=f"the load generator {said}.*: this load is invalid"):
        run(generator, a_job([server.address], ClosedLoop(6), duration_ns=LONG_NS), on_poll=when_opened(on_opened))
    assert len(pids) == 3
    assert not survivors(pids, PATIENT_S)
    result = run(generator, a_job([server.address], ClosedLoop(6), messages=(message(AFTERWARDS),)))
    seen = [request for request in server.requests if request.body == AFTERWARDS]  # the first load's may still come
    assert len(samples_of(result).done_ns) == len(seen)
    assert len({part.node for part in result.generator.parts}) == 3


def test_the_generators_end_with_the_driver_of_their_hosts(
    generator: Generator, driver: RaySession, server: ScriptedServer
) -> None:
    run(generator, a_job([server.address], ClosedLoop(3)))
    pids = pids_of(generator)
    driver.close()
    assert len(pids) == 3
    assert not survivors(pids, PATIENT_S)
