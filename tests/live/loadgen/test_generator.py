"""The generator's processes: one job after the other, shared loads, Ctrl-C, failures, and their end."""

import contextlib
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from time import perf_counter_ns

import numpy as np
import psutil
import pytest
from msgspec.structs import replace
from support.services.jobs import MS, a_job, message
from support.services.processes import our_children, survivors
from support.services.scripted import Hold, Request, ScriptedServer, Send, Silence, Step, answer

from pytest_mlpatterns import ChildError
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.generator import Generator, LoadInterrupted
from pytest_mlpatterns.loadgen.generator_process import LocalPool
from pytest_mlpatterns.loadgen.messages import Event, LoadJob, LoadResult, Warm, WindowOpened
from pytest_mlpatterns.records.addressing import Balance, Progress
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate

pytestmark = pytest.mark.processes

LONG_NS = 600_000 * MS


class PatientPool(LocalPool):
    """After Ctrl-C a process has the time to start first, however busy the machine is."""

    stop_timeout_s = 60.0


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generator]:
    """One for most tests: whatever one of them did to it, it works for the next."""
    before = our_children()
    generator = Generator(tmp_path_factory.mktemp("generator") / "generator.log", pool=PatientPool())
    yield generator
    generator.close()
    assert our_children() <= before


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Generator]:
    """One that has no process yet."""
    before = our_children()
    generator = Generator(tmp_path / "generator.log", pool=PatientPool())
    yield generator
    generator.close()
    assert our_children() <= before


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


def run(generator: Generator, job: LoadJob, *, processes: int = 1) -> LoadResult:
    return generator.run(job, poll_s=0.05, on_poll=lambda _: None, processes=processes)


def raising(error: BaseException, when: type = WindowOpened) -> Callable[[Event | None], None]:
    def on_poll(event: Event | None) -> None:
        if isinstance(event, when):
            raise error

    return on_poll


def works(generator: Generator, server: ScriptedServer, processes: int = 1) -> bool:
    """Whether a job runs to its end."""
    result = run(generator, a_job([server.address], ClosedLoop(processes)), processes=processes)
    return not result.stopped_early and set(samples_of(result).outcome.tolist()) == {200}


@pytest.mark.covered_processes
class TestJobs:
    def test_jobs_one_after_the_other_are_driven_by_one_process(self, fresh: Generator, server: ScriptedServer) -> None:
        before = our_children()
        first = samples_of(run(fresh, a_job([server.address], ClosedLoop(2))))
        started = our_children() - before
        seen = len(server.requests)
        second = samples_of(run(fresh, a_job([server.address], ConstantRate(100))))
        assert our_children() - before == started
        assert len(started) == 1
        assert [len(first.outcome), len(second.outcome)] == [seen, len(server.requests) - seen]
        assert second.due_ns.min() > first.done_ns.max()

    def test_times_are_on_the_clock_of_this_process(self, generator: Generator, server: ScriptedServer) -> None:
        begin = perf_counter_ns()
        samples = samples_of(run(generator, a_job([server.address], ClosedLoop(1))))
        assert begin < samples.due_ns.min()
        assert samples.done_ns.max() < perf_counter_ns()

    def test_the_caller_gets_window_progress_and_silence(self, generator: Generator, server: ScriptedServer) -> None:
        told: list[Event | None] = []

        def on_poll(event: Event | None) -> None:
            told.append(event)
            if {type(one) for one in told} >= {WindowOpened, Progress, type(None)}:
                generator.end_load()

        job = a_job([server.address], ClosedLoop(1), warmup_ns=60 * MS, duration_ns=LONG_NS)
        result = generator.run(job, poll_s=0.001, on_poll=on_poll)
        assert [event for event in told if isinstance(event, WindowOpened)] == [WindowOpened(result.window.start_ns)]
        assert any(isinstance(event, Progress) for event in told)
        assert None in told

    def test_answers_come_with_the_recording(self, generator: Generator) -> None:
        with ScriptedServer(lambda request: [Send(answer(b"answer to " + request.body))]) as server:
            result = run(generator, a_job([server.address], ClosedLoop(2), keep_answers=10))
        assert result.answers
        assert all(answer.body == b"answer to input %d" % answer.request for answer in result.answers)

    def test_no_process_is_started_before_the_first_job(self, tmp_path: Path) -> None:
        before = our_children()
        generator = Generator(tmp_path / "generator.log")
        assert our_children() == before
        generator.close()
        generator.close()

    def test_large_messages_and_many_rows_cross_the_pipe(self, generator: Generator, server: ScriptedServer) -> None:
        messages = tuple(message(bytes([number]) * 300_000) for number in range(10))
        samples = samples_of(run(generator, a_job([server.address], ClosedLoop(1), messages=messages)))
        assert set(samples.outcome.tolist()) == {200}
        for request in server.requests:
            assert request.body == bytes([request.number % 10]) * 300_000

    def test_more_callers_than_the_soft_limit_of_open_files_are_served(self, fresh: Generator) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit = psutil.Process().num_fds() + 40
        everybody = threading.Event()

        def script(request: Request) -> list[Step]:
            if request.number == limit:  # one was sent before, by the job that started the process
                everybody.set()
            return [Hold(everybody), Send(answer())] if request.number else [Send(answer())]

        with ScriptedServer(script) as server:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))  # the new process inherits it
            try:
                run(fresh, a_job([server.address], ConstantRate(1)))
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            samples = samples_of(run(fresh, a_job([server.address], ClosedLoop(limit))))
        assert set(samples.outcome.tolist()) == {200}
        assert server.peak_in_flight == limit

    def test_the_process_prints_nothing(self, tmp_path: Path, server: ScriptedServer) -> None:
        with closing(Generator(tmp_path / "generator.log")) as generator:
            assert works(generator, server)
        logs = list(tmp_path.iterdir())
        assert logs
        assert [log.read_text() for log in logs] == [""] * len(logs)


@pytest.mark.covered_processes
class TestAddedServers:
    @pytest.mark.parametrize("processes", [1, 2])
    def test_a_server_that_is_added_gets_its_turn_until_the_load_is_ended(
        self, generator: Generator, server: ScriptedServer, processes: int
    ) -> None:
        known_ns: list[int] = []
        seen: list[int] = []
        with ScriptedServer() as added:

            def on_poll(event: Event | None) -> None:
                if isinstance(event, WindowOpened):
                    generator.add_address(added.address)
                elif not seen and added.connections == 4:  # of all callers
                    known_ns.append(perf_counter_ns())
                    seen.append(len(added.requests))
                elif (seen and len(added.requests) > seen[0] + 100) or len(server.requests) > 400_000:
                    generator.end_load()

            job = a_job([server.address], ClosedLoop(4), duration_ns=LONG_NS)
            result = generator.run(job, poll_s=0.01, on_poll=on_poll, processes=processes)
        samples = samples_of(result)
        assert result.stopped_early
        assert set(samples.outcome.tolist()) == {200}
        since = samples.target[samples.sent_ns > known_ns[0]] == 1
        assert since.sum() >= 20
        assert since.mean() == pytest.approx(0.5, abs=0.2)  # two processes take turns, each for itself
        assert result.generator.connections == 8

    @pytest.mark.parametrize("balance", [Balance.ROUND_ROBIN, Balance.LEAST_OUTSTANDING])
    def test_a_server_that_is_removed_gets_no_more_requests_and_answers_those_that_it_has(
        self, generator: Generator, server: ScriptedServer, balance: Balance
    ) -> None:
        many, left = 200, [(0, 0)]
        stayed: list[tuple[int, int]] = []
        with ScriptedServer() as removed:

            def on_poll(event: Event | None) -> None:
                seen = len(removed.requests), len(server.requests)
                if isinstance(event, WindowOpened):
                    generator.remove_address(removed.address)
                    generator.remove_address(("127.0.0.1", 1))  # none of its servers
                if seen[1] > 100 * many or (stayed and seen[1] > stayed[0][1] + many):
                    generator.end_load()
                elif seen[0] > left[-1][0]:
                    left.append(seen)
                elif not stayed and seen[1] > left[-1][1] + many:  # it has had no turn for a long time
                    stayed.append((perf_counter_ns(), seen[1]))
                    generator.remove_address(server.address)  # the last one stays

            job = a_job([server.address, removed.address], ClosedLoop(4), duration_ns=LONG_NS)
            job = replace(job, endpoint=replace(job.endpoint, balance=balance))
            samples = samples_of(generator.run(job, poll_s=0.01, on_poll=on_poll))
        assert set(samples.outcome.tolist()) == {200}
        assert (samples.target == 1).any()
        assert stayed
        late = samples.due_ns > stayed[0][0]
        assert late.sum() > many // 2
        assert not (samples.target[late] == 1).any()


@pytest.mark.covered_processes
class TestSharedLoads:
    def test_callers_are_shared_out_and_their_rows_merged_in_order_of_completion(self, generator: Generator) -> None:
        everybody = threading.Event()

        def script(request: Request) -> list[Step]:
            if request.number == 4:
                everybody.set()
            return [Hold(everybody), Send(answer())]

        with ScriptedServer(script) as server:
            result = run(generator, a_job([server.address], ClosedLoop(5)), processes=2)
        samples = samples_of(result)
        assert server.peak_in_flight == 5
        assert result.generator.processes == 2
        assert result.generator.connections == 5
        assert len(samples.done_ns) == len(server.requests)
        assert (np.diff(samples.done_ns) >= 0).all()

    def test_an_open_loop_keeps_its_exact_arrivals_over_several_processes(
        self, generator: Generator, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(generator.pool, "opening_delay_ns", lambda _processes: 1_000 * MS)
        job = a_job([server.address], ConstantRate(200), duration_ns=300 * MS)
        result = run(generator, job, processes=2)
        due = np.sort(samples_of(result).due_ns)
        in_window = (due[due >= result.window.start_ns] - result.window.start_ns).tolist()
        assert in_window == [number * 5 * MS for number in range(len(in_window))]
        assert len(in_window) >= 60

    def test_the_window_opens_once_for_all(self, generator: Generator, server: ScriptedServer) -> None:
        told: list[Event | None] = []
        job = a_job([server.address], ClosedLoop(4), warmup_ns=60 * MS)
        result = generator.run(job, poll_s=0.05, on_poll=told.append, processes=2)
        assert [event for event in told if isinstance(event, WindowOpened)] == [WindowOpened(result.window.start_ns)]
        assert not any(isinstance(event, Warm) for event in told)

    def test_ctrl_c_ends_them_all_and_keeps_all_rows(self, generator: Generator, server: ScriptedServer) -> None:
        job = a_job([server.address], ClosedLoop(4), duration_ns=LONG_NS)
        with pytest.raises(LoadInterrupted) as caught:
            generator.run(job, poll_s=0.05, on_poll=raising(KeyboardInterrupt()), processes=2)
        assert caught.value.result.stopped_early
        assert caught.value.result.generator.processes == 2
        assert works(generator, server, processes=2)

    def test_ctrl_c_when_one_of_them_has_ended_already_keeps_its_rows_too(self, generator: Generator) -> None:
        """One of two callers waits for an answer that does not come, long after the window."""

        def script(request: Request) -> list[Step]:
            return [Silence()] if request.body == b"input 1" else [Send(answer())]

        def on_poll(event: Event | None) -> None:
            if isinstance(event, Progress) and event.elapsed_ns > 1_500 * MS:
                raise KeyboardInterrupt

        with ScriptedServer(script) as server:
            job = a_job([server.address], ClosedLoop(2), messages=(message(b"input 0"), message(b"input 1")))
            with pytest.raises(LoadInterrupted) as caught:
                generator.run(job, poll_s=0.05, on_poll=on_poll, processes=2)
        samples = samples_of(caught.value.result)
        assert set(samples.request.tolist()) == {0}
        assert len(samples.outcome) > 1


class TestCtrlC:
    @pytest.mark.covered_processes
    def test_ctrl_c_keeps_the_recording_and_the_next_job_works(self, fresh: Generator, server: ScriptedServer) -> None:
        before = our_children()
        job = a_job([server.address], ClosedLoop(2), duration_ns=LONG_NS)
        with pytest.raises(LoadInterrupted) as caught:
            fresh.run(job, poll_s=0.05, on_poll=raising(KeyboardInterrupt(), Progress))
        result = caught.value.result
        started = our_children() - before
        assert result.stopped_early
        assert set(samples_of(result).outcome.tolist()) == {200}
        assert isinstance(caught.value, KeyboardInterrupt)
        assert works(fresh, server)
        assert our_children() - before == started

    @pytest.mark.parametrize("processes", [1, 2])
    def test_ctrl_c_ends_a_load_that_has_not_begun(
        self, fresh: Generator, server: ScriptedServer, processes: int
    ) -> None:
        job = a_job([server.address], ClosedLoop(2), duration_ns=20_000 * MS)
        with pytest.raises(LoadInterrupted) as caught:
            fresh.run(job, poll_s=0.0001, on_poll=raising(KeyboardInterrupt(), type(None)), processes=processes)
        assert caught.value.result.stopped_early
        assert works(fresh, server, processes)

    def test_ctrl_c_after_the_death_of_the_process_stays_ctrl_c(self, fresh: Generator, server: ScriptedServer) -> None:
        before = our_children()

        def on_poll(event: Event | None) -> None:
            if isinstance(event, Progress):
                (pid,) = our_children() - before
                os.kill(pid, signal.SIGKILL)
                survivors([pid], 30)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fresh.run(a_job([server.address], ClosedLoop(2), duration_ns=LONG_NS), poll_s=0.05, on_poll=on_poll)
        assert works(fresh, server)


class TestFailures:
    @pytest.mark.parametrize("processes", [1, 2])
    def test_what_the_caller_raises_ends_the_load_and_the_next_job_works(
        self, generator: Generator, server: ScriptedServer, processes: int
    ) -> None:
        job = a_job([server.address], ClosedLoop(2), duration_ns=LONG_NS)
        with pytest.raises(ZeroDivisionError):
            generator.run(job, poll_s=0.05, on_poll=raising(ZeroDivisionError()), processes=processes)
        seen = len(server.requests)
        assert works(generator, server, processes)
        assert len(server.requests) > seen

    @pytest.mark.parametrize("processes", [1, 2])
    @pytest.mark.parametrize(
        ("sent", "said"),
        [
            (signal.SIGKILL, "SIGKILL"),
            (signal.SIGSTOP, r"the load generator is stopped: process \d+ .+ is stopped \(SIGSTOP\)"),
        ],
    )
    def test_a_process_that_is_killed_or_stopped_is_an_error_that_says_so_and_the_next_job_works(
        self, fresh: Generator, server: ScriptedServer, processes: int, sent: signal.Signals, said: str
    ) -> None:
        before = our_children()

        def on_poll(event: Event | None) -> None:
            if isinstance(event, WindowOpened):
                os.kill(max(our_children() - before), sent)

        job = a_job([server.address], ClosedLoop(2), duration_ns=LONG_NS)
        with pytest.raises(ChildError, match=said):
            fresh.run(job, poll_s=0.05, on_poll=on_poll, processes=processes)
        assert our_children() <= before
        assert works(fresh, server, processes)

    def test_a_process_that_dies_between_jobs_does_not_take_the_next_with_it(
        self, fresh: Generator, server: ScriptedServer
    ) -> None:
        before = our_children()
        assert works(fresh, server)
        (pid,) = our_children() - before
        os.kill(pid, signal.SIGKILL)
        survivors([pid], 30)
        with contextlib.suppress(ChildError):  # found out now, and told
            works(fresh, server)
        assert works(fresh, server)

    def test_timeouts_and_refusals_are_rows_and_no_errors(self, generator: Generator) -> None:
        with ScriptedServer(lambda _: [Silence()]) as server:
            samples = samples_of(run(generator, a_job([server.address], ClosedLoop(1), timeout_ns=100 * MS)))
        assert set(samples.outcome.tolist()) == {Failure.TIMEOUT}
        samples = samples_of(run(generator, a_job([server.address], ClosedLoop(1))))
        assert set(samples.outcome.tolist()) == {Failure.CONNECT}
