"""Two loads that take slices: who is asked when, over which connections, and how both end."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from support.services.jobs import MS, a_job
from support.services.scripted import Close, Hold, Request, ScriptedServer, Send, Silence, Step, answer, refused_port

from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult, WindowOpened
from pytest_mlpatterns.loadgen.slices import SlicedLoops
from pytest_mlpatterns.records.addressing import Progress
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.workload.schedule import ClosedLoop

SLICE_NS = 6 * MS


def pair(
    first: tuple[str, int], second: tuple[str, int], *, callers: int = 1, slices: int = 5, **changes: Any
) -> LoadJob:
    jobs = [a_job([address], ClosedLoop(callers), duration_ns=SLICE_NS, **changes) for address in (first, second)]
    return replace(jobs[0], beside=jobs[1], slices=slices)


def drive(job: LoadJob, emit: Callable[[Any], None] = lambda _: None) -> tuple[LoadResult, LoadResult]:
    result = SlicedLoops(job, emit).run()
    return result, result.beside


@pytest.mark.parametrize("callers", [1, 4])
def test_each_side_is_asked_only_in_its_slices_and_all_are_answered_before_the_other_begins(callers: int) -> None:
    with ScriptedServer() as one, ScriptedServer() as other:
        first, second = drive(pair(one.address, other.address, callers=callers))
    assert [len(result.slices) for result in (first, second)] == [5, 5]
    recorded = [samples_of(result) for result in (first, second)]
    begins = np.array([(a.start_ns, b.start_ns) for a, b in zip(first.slices, second.slices, strict=True)]).ravel()
    for number, samples in enumerate(recorded):
        place = np.searchsorted(begins, samples.due_ns, side="right") - 1
        assert (np.bincount(place, minlength=10)[number::2] >= callers).all()
        assert (place % 2 == number).all()
        assert (samples.done_ns < np.append(begins, 2**62)[place + 1]).all()
        assert set(samples.outcome.tolist()) == {200}
    assert [samples.due_ns.size for samples in recorded] == [len(server.requests) for server in (one, other)]


def test_connections_stay_open_from_slice_to_slice() -> None:
    with ScriptedServer() as one, ScriptedServer() as other:
        results = drive(pair(one.address, other.address, callers=3))
    assert [server.connections for server in (one, other)] == [3, 3]
    assert [result.generator.connections for result in results] == [3, 3]


def test_both_sides_draw_the_same_inputs_in_the_same_order() -> None:
    with ScriptedServer() as one, ScriptedServer() as other:
        results = [samples_of(result) for result in drive(pair(one.address, other.address))]
    for samples in results:
        drawn = samples.request[np.argsort(samples.due_ns)]
        assert drawn.tolist() == [number % 5 for number in range(drawn.size)]


def test_the_generator_counts_the_time_and_the_requests_of_each_side_in_its_own_slices() -> None:
    with ScriptedServer() as one, ScriptedServer() as other:
        results = drive(pair(one.address, other.address))
    for result in results:
        report, own_ns = result.generator, sum(one.duration_ns for one in result.slices)
        assert report.completed == samples_of(result).due_ns.size
        assert own_ns <= report.wall_ns < results[1].slices[-1].end_ns + 100 * MS - results[0].slices[0].start_ns
        assert report.cpu_ns > 0


def test_the_window_opens_once_for_both() -> None:
    events: list[Any] = []
    with ScriptedServer() as one, ScriptedServer() as other:
        first, second = drive(pair(one.address, other.address), events.append)
    assert [event for event in events if not isinstance(event, Progress)] == [WindowOpened(first.window.start_ns)]
    assert first.window.start_ns < second.window.start_ns
    assert second.window.end_ns == second.slices[-1].end_ns


def test_a_slice_lasts_until_the_slowest_answer() -> None:
    late = threading.Event()

    def script(request: Request) -> list[Step]:
        if request.number == 0:
            threading.Timer(0.1, late.set).start()
            return [Hold(late), Send(answer())]
        return [Send(answer())]

    with ScriptedServer(script) as one, ScriptedServer() as other:
        first, second = drive(pair(one.address, other.address, slices=2))
    assert second.slices[0].start_ns - first.slices[0].start_ns >= 90 * MS
    assert samples_of(first).latency_ns.max() >= 90 * MS


def test_a_service_that_refuses_is_noted_and_the_other_one_is_measured() -> None:
    with ScriptedServer() as one:
        first, second = drive(pair(one.address, ("127.0.0.1", refused_port())))
    assert set(samples_of(first).outcome.tolist()) == {200}
    assert set(samples_of(second).outcome.tolist()) == {Failure.CONNECT}
    assert len(second.slices) == 5


def test_callers_whose_connection_was_closed_go_on_within_a_long_slice() -> None:
    loops: list[SlicedLoops] = []

    def script(request: Request) -> list[Step]:
        if request.number == 20:
            loops[0].stop()
        return [Close()] if request.number == 0 else [Send(answer())]

    with ScriptedServer(script) as one, ScriptedServer() as other:
        job = replace(pair(one.address, other.address, slices=2), duration_ns=600_000 * MS)
        loops.append(SlicedLoops(job, lambda _: None))
        first = loops[0].run()
    samples = samples_of(first)
    inside = first.slices[0].covers(samples.due_ns)
    assert (samples.outcome[inside] == 200).any()
    assert samples.failed[inside].sum() == 1


def test_both_end_once_an_answer_took_as_long_as_the_time_out() -> None:
    def script(request: Request) -> list[Step]:
        return [Silence()] if request.number == 2 else [Send(answer())]

    with ScriptedServer(script) as one, ScriptedServer() as other:
        first, _second = drive(pair(one.address, other.address, slices=50, timeout_ns=150 * MS))
    assert len(first.slices) < 50
    assert Failure.TIMEOUT in samples_of(first).outcome


@pytest.mark.parametrize("asked", ["first", "second"])
def test_a_stop_abandons_what_is_in_flight(asked: str) -> None:
    reached = threading.Event()

    def script(_: Request) -> list[Step]:
        reached.set()
        return [Silence()]

    with ScriptedServer(script) as silent, ScriptedServer() as other:
        addresses = (silent.address, other.address) if asked == "first" else (other.address, silent.address)
        loops = SlicedLoops(pair(*addresses), lambda _: None)
        stopper = threading.Thread(target=lambda: (reached.wait(), loops.stop()))
        stopper.start()
        result = loops.run()
        stopper.join()
    assert result.stopped_early
    assert (result.beside is None) == (asked == "first")
