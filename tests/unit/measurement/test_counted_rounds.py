"""A counted pass with a counter whose figures are declared: its rounds, its interval, its requests, and its end."""

import functools
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.each_row import each_row
from support.services.scripted import Close, Request, ScriptedServer, Send, Silence, Step, answer

from pytest_mlpatterns import Deployment, DeploymentError
from pytest_mlpatterns.errors import CountError
from pytest_mlpatterns.measurement import counted_pass as module
from pytest_mlpatterns.measurement.counted_pass import (
    Counting,
    Stretch,
    counted_passes,
    estimated,
    is_known,
    requests_of_round,
    require_time_for_a_pass,
    run_passes,
    spread,
)
from pytest_mlpatterns.measurement.variant import Variant
from pytest_mlpatterns.records.count import Count, RunUnder
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.serving.processes import ForeignProcesses
from pytest_mlpatterns.system.work_counter import Reading, WorkCounter
from pytest_mlpatterns.units import SECOND_NS
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop

INPUTS = [[number] for number in range(10)]
PLAN = LoadPlan(read_payload(INPUTS), ClosedLoop(1), 10**9, None, 10**10, None)


class Declared(WorkCounter):
    """A counter for which each request of a server costs 1,000, an idle second 500, and collecting garbage more."""

    tool = "valgrind-3.24.0"
    under = RunUnder(("tool", "--option"), {"PYTHONHASHSEED": "7", "TOOL": "1"}, "/counts")

    def __init__(self, answered: Callable[[], int], extra: Callable[[int], int] = lambda _: 0, spin: int = 500) -> None:
        self.answered = answered
        self.extra = extra
        self.spin = spin
        self._last = (0, time.monotonic())

    def read(self, deadline: float) -> Reading:
        before, self._last = self._last, (self.answered(), time.monotonic())
        worked = sum(1000 + self.extra(number) for number in range(before[0], self._last[0]))
        idle = round(self.spin * (self._last[1] - before[1]))
        return Reading(worked + idle, {("lib", "work"): worked, ("lib", "tick"): idle}, self._last[1])


class Bench:
    """A scripted server that is counted."""

    def __init__(self, script: Callable[[Request], Sequence[Step]] | None = None, spin: int = 500) -> None:
        self.seen: list[bytes] = []
        self.started: list[dict[str, Any]] = []
        self.stopped = 0
        self._spin = spin
        self._script = script or (lambda _: [Send(answer(b'{"predictions": [1]}'))])

    def run(
        self, extra: Callable[[int], int] = lambda _: 0, *, requests: int | None = None, seconds: float = 30.0
    ) -> Counting:
        with ScriptedServer(self._seen) as server:
            self.counter = Declared(lambda: len(self.seen), extra, self._spin)
            counting = Counting(read_payload(INPUTS), self.counter)
            run_passes([counting], [self.side(server)], limit_ns=round(seconds * 1e9), requests=requests)
        return counting

    def side(self, server: ScriptedServer) -> Variant:
        return Variant("a side", functools.partial(self._start, server), PLAN)

    def _seen(self, request: Request) -> Sequence[Step]:
        steps = self._script(request)
        self.seen.append(request.body)
        return steps

    def _start(self, server: ScriptedServer, **how: Any) -> Deployment:
        self.started.append(how)
        return Deployment(Endpoint((server.address,), "/v1/models/m:predict", "m"), ForeignProcesses((), self._stop))

    def _stop(self) -> None:
        self.stopped += 1


@pytest.fixture(autouse=True)
def short_idle_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE_S", 0.02)


def test_idle_work_is_no_work_of_requests() -> None:
    bench = Bench()
    counting = bench.run()
    assert counting.requests == 120
    assert counting.per_request() == pytest.approx([1000] * 6, rel=0.001)
    assert counting.idle_per_second() == pytest.approx(500, rel=0.1)
    assert bench.stopped == 1


def declared(left_s: float = 30.0) -> Counting:
    """Two rounds of two requests in 4 s each; of their 10,000 instructions idle processes, with 500/s, have 2,000."""
    counting = Counting(read_payload(INPUTS), Declared(lambda: 0))
    counting._deadline = time.monotonic() + left_s
    counting.requests = 2
    counting._rounds = [Stretch(Reading(10_000, {("lib", "work"): 8000, ("lib", "tick"): 2000}), 4.0)] * 2
    counting._idle = [Stretch(Reading(500 * seconds, {("lib", "tick"): 500 * seconds}), seconds) for seconds in (1, 3)]
    return counting


def test_idle_work_is_taken_from_functions_and_libraries_too() -> None:
    assert declared().per_request() == [4000.0] * 2
    assert declared().idle_per_second() == 500
    assert declared().most_of("{1} ({0})".format, 2) == {"work (lib)": 4000.0}
    assert declared().most_of("{0}".format, 5) == {"lib": 4000.0}


@pytest.mark.parametrize(("left_s", "has_time"), [(4.5, False), (5.5, True)])
def test_a_further_round_needs_the_time_of_the_longest_and_of_the_idle_moment_after_it(
    left_s: float, has_time: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_IDLE_S", 1.0)
    assert declared(left_s)._has_time() is has_time


def test_a_service_is_started_under_its_counter_with_fixed_variables() -> None:
    bench = Bench()
    bench.run()
    (how,) = bench.started
    assert how["under"].words == ("tool", "--option")
    assert how["under"].import_path == "/counts"
    assert (how["under"].env["OMP_NUM_THREADS"], how["under"].env["PYTHONHASHSEED"]) == ("1", "7")
    assert 20 * 10**9 < how["timeout_ns"] < 30 * 10**9


def test_a_cached_answer_does_not_choose_the_length_of_rounds() -> None:
    bench = Bench()
    missed = bench.run(lambda number: 0 if bench.seen[number] in bench.seen[number - 5 : number] else 8_000_000)
    assert missed.requests == 4


def test_rounds_are_those_of_the_count_to_compare_with() -> None:
    bench = Bench()
    assert bench.run(requests=4).requests == 4
    wanted = [b'{"instances":[[%d]]}' % number for number in (0, 2, 5, 7)]
    assert bench.seen[-24:] == wanted * 6


def test_a_collection_of_garbage_takes_more_rounds_and_does_not_move_the_count() -> None:
    counting = Bench().run(lambda number: 5000 if number == 80 else 0, requests=10)
    assert len(counting.per_request()) == 9
    assert estimated(counting.per_request()).value == pytest.approx(1000, rel=0.001)


def test_a_connection_that_the_server_closed_is_opened_again() -> None:
    bench = Bench(lambda request: [Send(answer()), Close()] if request.number % 7 == 3 else [Send(answer())])
    assert bench.run().per_request() == pytest.approx([1000] * 6, rel=0.01)


def test_threads_that_spin_end_the_count() -> None:
    with pytest.raises(CountError, match=r"its processes execute [\d,]+ instructions per second without a request"):
        Bench(spin=1_000_000_000).run()


def test_an_answer_that_is_no_success_ends_the_count() -> None:
    bench = Bench(lambda request: [Send(answer(status=500 if request.number == 40 else 200))])
    with pytest.raises(CountError, match="perf_payload item 0 was answered 500 while it was counted"):
        bench.run()
    assert bench.stopped == 1


def test_a_server_that_hangs_up_ends_the_count() -> None:
    bench = Bench(lambda request: [Close()])
    with pytest.raises(CountError, match="while it is counted: perf_payload item 0 got no answer"):
        bench.run()


def test_the_time_limit_ends_a_count_that_has_too_few_rounds() -> None:
    bench = Bench(lambda request: [Silence()] if request.number == 100 else [Send(answer())])
    with pytest.raises(CountError, match="the time limit of the count was over after 1 of the 2 rounds"):
        bench.run(requests=20, seconds=2.0)


def test_the_time_limit_keeps_the_rounds_that_are_done() -> None:
    bench = Bench(lambda request: [Silence()] if request.number == 120 else [Send(answer())])
    assert len(bench.run(requests=20, seconds=2.0).per_request()) == 2


def test_an_interrupt_ends_the_service() -> None:
    bench = Bench()

    def interrupt(number: int) -> int:
        if number > 70:
            raise KeyboardInterrupt
        return 0

    with pytest.raises(KeyboardInterrupt):
        bench.run(interrupt)
    assert bench.stopped == 1


def slow_answer(_: object) -> list[Step]:
    time.sleep(0.05)
    return [Send(answer())]


@pytest.mark.parametrize(("requests", "seconds"), [(1, 0.12), (10, 0.9)])
def test_a_count_that_cannot_end_in_time_is_given_up_at_once(requests: int, seconds: float) -> None:
    bench = Bench(slow_answer)
    with pytest.raises(CountError, match=f"2 rounds of {requests} requests? take about . s while they are counted"):
        bench.run(requests=requests, seconds=seconds)
    assert len(bench.seen) <= 2


def test_a_start_that_fails_is_the_reason(tmp_path: Path) -> None:
    def start(**_: Any) -> Deployment:
        raise DeploymentError("the model is absent")

    counting = Counting(read_payload(INPUTS), Declared(lambda: 0))
    with pytest.raises(CountError, match="while it is counted: main: the model is absent"):
        run_passes([counting], [Variant("main", start, PLAN)], limit_ns=30 * 10**9)


def test_both_sides_start_at_once_and_are_counted_one_after_another() -> None:
    benches = Bench(), Bench()
    both = threading.Barrier(2, timeout=30)

    def start(bench: Bench, server: ScriptedServer, **how: Any) -> Deployment:
        both.wait()
        return bench._start(server, **how)

    with ScriptedServer(benches[0]._seen) as first, ScriptedServer(benches[1]._seen) as second:
        starts = [functools.partial(start, *one) for one in zip(benches, (first, second), strict=True)]
        passes = [Counting(PLAN.payload, Declared(functools.partial(len, bench.seen))) for bench in benches]
        run_passes(passes, [Variant("a side", one, PLAN) for one in starts], limit_ns=30 * 10**9)
    assert [one.requests for one in passes] == [120, 120]
    assert [one.per_request() for one in passes] == [pytest.approx([1000] * 6, rel=0.001)] * 2
    assert [bench.stopped for bench in benches] == [1, 1]


def test_the_directory_of_a_pass_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()

    def declared(directory: Path) -> Declared:
        (directory / "out.1").touch()
        return Declared(lambda: len(bench.seen))

    monkeypatch.setattr(module, "Callgrind", declared)
    with ScriptedServer(bench._seen) as server:
        (found,) = counted_passes([bench.side(server)], directory=tmp_path, limit_ns=60_000_000_000)
    assert found.per_request.value == pytest.approx(1000, rel=0.001)
    assert (found.tool, found.requests) == ("valgrind-3.24.0", 120)
    assert Count.from_json(found.to_json()) == found
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("inputs", "requests", "numbers"),
    [(3, 6, (0, 1, 2, 0, 1, 2)), (3, 3, (0, 1, 2)), (10, 4, (0, 2, 5, 7)), (100, 1, (0,))],
)
def test_rounds_are_spread_over_the_inputs(inputs: int, requests: int, numbers: tuple[int, ...]) -> None:
    assert spread(inputs, requests) == numbers


@each_row(
    ("inputs", "instructions", "requests"),
    (1, 1_000, 128),
    (50, 4_000_000, 16),
    (50, 10_000_000, 4),
    (50, 50_000_000, 1),
    (50, 5_000_000_000, 1),
    (10, 1_000_000, 60),
    (10, 8_000_000, 8),
    (3, 0, 126),
)
def test_requests_of_a_round_follow_from_instructions(inputs: int, instructions: int, requests: int) -> None:
    assert requests_of_round(inputs, instructions) == requests


def test_the_interval_is_that_of_the_median() -> None:
    assert estimated([5.0, 1.0, 3.0]) == Estimate(3.0, 1.0, 5.0)
    assert estimated([float(number) for number in range(1, 10)]) == Estimate(5.0, 2.0, 8.0)


@pytest.mark.parametrize(
    ("rounds", "known"),
    [([100.0] * 5, False), ([100.0] * 6, True), ([100.0] * 5 + [100.6], False), ([100.0] * 8 + [200.0], True)],
)
def test_rounds_are_enough_when_their_median_is_known(rounds: list[float], known: bool) -> None:
    assert is_known(rounds) is known


def test_a_pass_that_cannot_end_in_its_time_is_not_begun() -> None:
    for known_ns in (0.0, 0.5e9):  # an unknown one, and the slowest request that a pass may have time for
        require_time_for_a_pass(known_ns, limit_ns=60 * SECOND_NS)
    with pytest.raises(CountError, match=r"takes 2.00 s of CPU time, and a pass .* 240 s, expected at most 60"):
        require_time_for_a_pass(2e9, limit_ns=60 * SECOND_NS)
