"""The loop that drives the load, against servers whose every byte is declared: who is asked, when, what is noted."""

import threading
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter_ns as time_ns

import numpy as np
import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.services.jobs import MS, a_job, window_of
from support.services.scripted import (
    Close,
    Hold,
    Request,
    Reset,
    ScriptedServer,
    Send,
    Silence,
    Step,
    answer,
    refused_port,
)

from pytest_mlpatterns.loadgen import connection as connection_module
from pytest_mlpatterns.loadgen import event_loop as pool_module
from pytest_mlpatterns.loadgen import http1 as http1_module
from pytest_mlpatterns.loadgen import load_run as load_run_module
from pytest_mlpatterns.loadgen import warmup
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.event_loop import LoadLoop
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult, WindowOpened
from pytest_mlpatterns.records.addressing import Balance, Progress
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.records.samples import Samples
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, Schedule, Stages, Trace

TICK_NS = 50 * MS
ONE_FIRST = array("I", [0] + [1] * 100_000).tobytes()
"""An order that draws the first message once, and then the second for as long as any test takes."""


def drive(job: LoadJob, emit: Callable[[WindowOpened | Progress], None] = lambda _: None) -> LoadResult:
    return LoadLoop(job, emit).run()


def in_due_order(samples: Samples) -> list[int]:
    return np.sort(samples.due_ns).tolist()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


class TestClosedLoop:
    @pytest.mark.parametrize("concurrency", [1, 3, 16])
    def test_there_are_exactly_as_many_requests_in_flight_as_callers(self, concurrency: int) -> None:
        everybody = threading.Event()

        def script(request: Request) -> list[Step]:
            if request.number == concurrency - 1:
                everybody.set()
            return [Hold(everybody), Send(answer())]

        with ScriptedServer(script) as server:
            result = drive(a_job([server.address], ClosedLoop(concurrency)))
        assert server.peak_in_flight == concurrency
        assert server.connections == concurrency
        assert result.generator.connections == concurrency

    def test_every_request_is_one_row_in_the_order_of_completion(self, server: ScriptedServer) -> None:
        samples = samples_of(drive(a_job([server.address], ClosedLoop(4))))
        assert len(samples.done_ns) == len(server.requests) >= 4
        assert set(samples.outcome.tolist()) == {200}
        assert set(samples.received_bytes.tolist()) == {len(answer())}
        assert (np.diff(samples.done_ns) >= 0).all()
        assert (samples.due_ns <= samples.sent_ns).all()
        assert (samples.sent_ns <= samples.done_ns).all()

    def test_a_caller_sends_again_when_it_is_answered_and_not_before(self, server: ScriptedServer) -> None:
        samples = samples_of(drive(a_job([server.address], ClosedLoop(1))))
        assert (samples.due_ns[1:] >= samples.done_ns[:-1]).all()

    def test_answers_that_are_there_are_all_noted_before_a_request_follows_one(self) -> None:
        released, sent = threading.Event(), [threading.Event() for _ in range(3)]
        loops: list[LoadLoop] = []

        def script(request: Request) -> list[Step]:
            if request.number >= len(sent):
                if request.number == 20:
                    loops[0].stop()
                return [Send(answer())]
            return [Hold(released), Send(answer()), Hold(released, sent[request.number])]

        def emit(event: object) -> None:
            if isinstance(event, WindowOpened):  # the loop waits for us, while the answers come
                released.set()
                for one in sent:
                    assert one.wait(30)

        with ScriptedServer(script) as server:
            loops.append(LoadLoop(a_job([server.address], ClosedLoop(len(sent)), duration_ns=600_000 * MS), emit))
            samples = samples_of(loops[0].run())
        done, due = samples.done_ns[: len(sent)], np.sort(samples.due_ns)
        assert done.max() <= due[len(sent)]

    def test_a_caller_pauses_for_its_think_time(self, server: ScriptedServer) -> None:
        job = a_job([server.address], ClosedLoop(1, think_time="5ms"), duration_ns=400 * MS)
        samples = samples_of(drive(job))
        assert len(samples.due_ns) > 1
        assert (samples.due_ns[1:] - samples.done_ns[:-1] >= 5 * MS).all()

    @pytest.mark.parametrize(
        ("order", "drawn"), [((), (0, 1, 2, 3, 4)), ((2, 0, 2, 4), (2, 0, 2, 4))], ids=["in-turn", "given"]
    )
    def test_messages_are_drawn_in_turn_or_in_the_order_given(
        self, server: ScriptedServer, order: tuple[int, ...], drawn: tuple[int, ...]
    ) -> None:
        job = a_job([server.address], ClosedLoop(1), order=array("I", order).tobytes())
        samples = samples_of(drive(job))
        expected = [drawn[number % len(drawn)] for number in range(len(samples.request))]
        assert samples.request.tolist() == expected
        assert [request.body for request in server.requests] == [b"input %d" % number for number in expected]

    def test_answers_that_arrive_after_the_window_are_still_recorded(self) -> None:
        over = threading.Event()

        def emit(event: object) -> None:
            if isinstance(event, Progress) and event.elapsed_ns > 500 * MS:
                over.set()

        with ScriptedServer(lambda _: [Hold(over), Send(answer())]) as server:
            result = drive(a_job([server.address], ClosedLoop(3)), emit)
            assert len(server.requests) == 3
        samples = samples_of(result)
        assert samples.outcome.tolist() == [200] * 3
        assert (samples.done_ns > result.window.end_ns).all()
        assert result.generator.completed == 0

    def test_a_warm_up_request_that_hangs_into_the_window_adds_no_caller(self) -> None:
        opened = threading.Event()

        def script(request: Request) -> list[Step]:
            return [Hold(opened), Send(answer())] if request.number == 0 else [Send(answer())]

        schedule = Stages((("200ms", 1),), of="concurrency", start=1)
        with ScriptedServer(script) as server:
            result = drive(a_job([server.address], schedule, warmup_ns=50 * MS), lambda _: opened.set())
        samples = samples_of(result)
        due, done = samples.due_ns[1:], samples.done_ns[1:]
        assert len(due) > 1
        assert (due[1:] >= done[:-1]).all()
        assert server.peak_in_flight == 1


class TestTargets:
    @pytest.mark.parametrize("schedule", [ClosedLoop(1), ConstantRate(200)], ids=str)
    def test_round_robin_alternates_exactly(self, schedule: Schedule) -> None:
        with ScriptedServer() as one, ScriptedServer() as two:
            samples = samples_of(drive(a_job([one.address, two.address], schedule)))
        by_due = samples.target[np.argsort(samples.due_ns, kind="stable")].tolist()
        assert by_due == [number % 2 for number in range(len(by_due))]
        assert [len(one.requests), len(two.requests)] == [by_due.count(0), by_due.count(1)]

    def test_least_outstanding_avoids_an_address_that_is_stuck(self) -> None:
        arrived, enough = threading.Event(), threading.Event()
        seen: list[int] = []
        loops: list[LoadLoop] = []

        def stick(_request: Request) -> list[Step]:
            arrived.set()
            return [Hold(enough), Send(answer())]

        def healthy(request: Request) -> list[Step]:
            arrived.wait()
            if request.number == 20:
                seen.append(len(stuck.requests))
                loops[0].stop()
                enough.set()
            return [Send(answer())]

        with ScriptedServer(stick) as stuck, ScriptedServer(healthy) as other:
            addresses = [stuck.address, other.address]
            job = a_job(addresses, ClosedLoop(2), balance=Balance.LEAST_OUTSTANDING, duration_ns=600_000 * MS)
            loops.append(LoadLoop(job, lambda _: None))
            loops[0].run()
        assert seen == [1]


class TestOpenLoop:
    @pytest.mark.parametrize("rate_rps", [37, 300.5])
    def test_request_n_is_due_at_n_over_the_rate_without_a_gap(self, server: ScriptedServer, rate_rps: float) -> None:
        result = drive(a_job([server.address], ConstantRate(rate_rps), warmup_ns=60 * MS))
        samples = samples_of(result)
        assert (samples.sent_ns >= samples.due_ns).all()
        due = in_due_order(samples)
        assert due == [due[0] + round(number * 1e9 / rate_rps) for number in range(len(due))]
        assert due[-1] <= result.window.end_ns < due[0] + round(len(due) * 1e9 / rate_rps) + 1
        assert len(server.requests) == len(due)

    def test_a_schedule_with_a_length_is_the_window_as_a_whole(self, server: ScriptedServer, tmp_path: Path) -> None:
        path = tmp_path / "trace.csv"
        path.write_text("timestamp\n" + "".join(f"{100 + moment}\n" for moment in (0, 0.01, 0.011, 0.05, 0.13)))
        for schedule in (Trace(path), Stages((("100ms", 100), ("50ms", 20)))):
            job = a_job([server.address], schedule, warmup_ns=60 * MS, duration_ns=schedule.length_ns)
            result = drive(job)
            due = np.array(in_due_order(samples_of(result)))
            scheduled = due[result.warmup.requests :] - result.window.start_ns
            assert scheduled[scheduled >= 0].tolist() == list(schedule.arrivals())

    def test_a_stall_counts_in_full_for_every_request_that_was_due_during_it(self) -> None:
        released = threading.Event()
        released_ns: list[int] = []

        def script(request: Request) -> list[Step]:
            if request.number == 14:
                released_ns.append(time_ns())
                released.set()
            return [Hold(released), Send(answer())] if 3 <= request.number <= 14 else [Send(answer())]

        with ScriptedServer(script) as server:
            result = drive(a_job([server.address], ConstantRate(100), duration_ns=400 * MS))
            samples = samples_of(result)
            assert len(server.requests) == len(samples.due_ns)
        by_due = np.argsort(samples.due_ns)
        due, done = samples.due_ns[by_due], samples.done_ns[by_due]
        assert np.diff(due).tolist() == [10 * MS] * (len(due) - 1)
        stalled = (due <= released_ns[0]) & (done >= released_ns[0])
        assert stalled.sum() >= 12
        assert (done - due >= released_ns[0] - due)[stalled].all()
        assert (done - due)[stalled].max() >= 110 * MS  # twelve were due one after the other, and none was answered

    def test_requests_wait_when_connections_are_exhausted_as_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pool_module, "MAX_OPEN_LOOP_CONNECTIONS", 2)
        released = threading.Event()
        released_ns: list[int] = []

        def emit(event: object) -> None:
            if isinstance(event, Progress) and not released.is_set():
                released_ns.append(time_ns())
                released.set()

        with ScriptedServer(lambda _: [Hold(released), Send(answer())]) as server:
            result = drive(a_job([server.address], ConstantRate(100), duration_ns=400 * MS), emit)
        samples = samples_of(result)
        assert result.generator.connection_limit_reached
        assert result.generator.connections == server.connections == server.peak_in_flight == 2
        assert set(samples.outcome.tolist()) == {200}
        due = in_due_order(samples)
        assert due == [due[0] + number * 10 * MS for number in range(len(due))]
        assert (np.sort(samples.done_ns)[2:] >= released_ns[0]).all()

    def test_the_wait_for_a_connection_is_no_lag_of_the_generator(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pool_module, "MAX_OPEN_LOOP_CONNECTIONS", 1)
        first_answered = threading.Event()
        signs: list[Progress] = []

        def emit(event: object) -> None:
            if isinstance(event, Progress):
                signs.append(event)
                # All were due, and pauses of this process, which are lag, were a small part of the four signs a second.
                if len(signs) >= 2 and event.elapsed_ns < len(signs) * 350 * MS:
                    first_answered.set()

        with ScriptedServer(lambda _: [Hold(first_answered), Send(answer())]) as server:
            samples = samples_of(drive(a_job([server.address], ConstantRate(100), duration_ns=400 * MS), emit))
        held = samples.latency_ns > 150 * MS
        assert held.sum() >= 3
        assert samples.send_lag_ns[held].sum() < samples.latency_ns[held].sum() / 2

    def test_requests_that_wait_too_long_for_a_connection_time_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pool_module, "MAX_OPEN_LOOP_CONNECTIONS", 1)
        with ScriptedServer(lambda _: [Silence()]) as server:
            job = a_job([server.address], ConstantRate(100), timeout_ns=100 * MS)
            samples = samples_of(drive(job))
        assert len(samples.outcome) > 5
        assert set(samples.outcome.tolist()) == {Failure.TIMEOUT}
        assert (samples.done_ns - samples.due_ns >= 100 * MS).all()
        assert (samples.sent_ns >= samples.due_ns).all()

    def test_a_caller_goes_on_after_it_waited_too_long_for_a_connection(self, monkeypatch: pytest.MonkeyPatch) -> None:
        enough, expirations = 3, []

        def expired(due_ns: int, now_ns: int) -> None:
            expirations.append(due_ns)
            if len(expirations) == enough:
                loop.stop()
            went_on(due_ns, now_ns)

        with ScriptedServer(lambda _: [Silence()]) as server:
            loop = LoadLoop(a_job([server.address], ClosedLoop(2), timeout_ns=100 * MS, duration_ns=20_000 * MS), str)
            loop._pool._limit = loop._pool._open_ahead = 1  # as where an address was removed
            went_on = loop.expired
            monkeypatch.setattr(loop, "expired", expired)
            samples = samples_of(loop.run())
        assert len(expirations) >= enough
        assert set(samples.outcome.tolist()) == {Failure.TIMEOUT}

    def test_with_nothing_listening_every_request_is_a_connect_row(self) -> None:
        samples = samples_of(drive(a_job([("127.0.0.1", refused_port())], ConstantRate(100))))
        assert set(samples.outcome.tolist()) == {Failure.CONNECT}
        due = in_due_order(samples)
        assert due == [due[0] + number * 10 * MS for number in range(len(due))]


class TestFaults:
    @each_row(
        ("steps", "outcome"),
        ([Send(answer()[:-1]), Close()], Failure.CLOSED),
        ([Send(answer()[:10]), Close()], Failure.CLOSED),
        ([Close()], Failure.CLOSED),
        ([Reset()], Failure.CLOSED),
        ([Send(answer()[:-1]), Reset()], Failure.CLOSED),
        ([Send(b"\x00 garbage \r\n\r\n")], Failure.MALFORMED),
    )
    @each_row("schedule", [ClosedLoop(1), ConstantRate(100)])
    def test_a_fault_is_one_row_and_the_load_goes_on_over_a_new_connection(
        self, schedule: Schedule, steps: list[Step], outcome: Failure
    ) -> None:
        def script(request: Request) -> list[Step]:
            return steps if request.body == b"input 0" else [Send(answer())]

        with ScriptedServer(script) as server:
            samples = samples_of(drive(a_job([server.address], schedule, order=ONE_FIRST, duration_ns=300 * MS)))
        assert samples.outcome[samples.request == 0].tolist() == [outcome]
        assert set(samples.outcome[samples.request == 1].tolist()) == {200}
        assert len(samples.outcome) == len(server.requests)
        assert server.requests[0].connection != server.requests[1].connection

    def test_a_request_without_an_answer_is_one_time_out_row_and_the_load_goes_on(self) -> None:
        def script(request: Request) -> list[Step]:
            return [Silence()] if request.body == b"input 0" else [Send(answer())]

        with ScriptedServer(script) as server:
            job = a_job([server.address], ClosedLoop(1), order=ONE_FIRST, timeout_ns=800 * MS, window=window_of(10))
            samples = samples_of(drive(job))
            assert len(samples.outcome) == len(server.requests)
        silent = samples.request == 0
        assert samples.outcome[silent].tolist() == [Failure.TIMEOUT]
        assert (samples.done_ns - samples.due_ns)[silent] >= 800 * MS
        assert 200 in samples.outcome[~silent]

    def test_a_late_answer_is_not_taken_for_that_of_the_next_request(self) -> None:
        later = threading.Event()

        def script(request: Request) -> list[Step]:
            if request.body == b"input 0":
                return [Hold(later), Send(answer(b"later"))]
            later.set()
            time.sleep(0.01)  # in which the late answer comes
            return [Send(answer(request.body))]

        with ScriptedServer(script) as server:
            job = a_job([server.address], ClosedLoop(1), order=ONE_FIRST, timeout_ns=800 * MS, window=window_of(10))
            result = drive(replace(job, keep_answers=100))
        assert result.answers
        assert {answer.body for answer in result.answers} == {b"input 1"}

    def test_nothing_listening_is_tried_again_at_most_once_a_tick_by_every_caller(self) -> None:
        samples = samples_of(drive(a_job([("127.0.0.1", refused_port())], ClosedLoop(4), duration_ns=300 * MS)))
        assert set(samples.outcome.tolist()) == {Failure.CONNECT}
        ticks = (samples.done_ns[-1] - samples.due_ns[0]) / TICK_NS
        assert 4 < len(samples.outcome) <= 4 * (ticks + 2)  # the first tick comes sooner

    def test_a_server_that_comes_up_during_the_load_is_found(self) -> None:
        with ScriptedServer(listening=False) as server:

            def emit(event: object) -> None:
                if isinstance(event, WindowOpened):
                    server.listen()

            job = a_job([server.address], ClosedLoop(2), warmup_ns=60 * MS, duration_ns=400 * MS)
            samples = samples_of(drive(job, emit))
        outcomes = samples.outcome.tolist()
        assert set(outcomes) == {Failure.CONNECT, 200}
        assert outcomes == sorted(outcomes)


@pytest.fixture
def never_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """No service counts as slow, however busy the machine is."""
    monkeypatch.setattr(warmup, "SLOW_INTERVAL_NS", 60_000 * MS)


class TestWarmUp:
    def test_a_fixed_warm_up_lasts_its_time_and_the_window_follows(self, server: ScriptedServer) -> None:
        told: list[object] = []
        result = drive(a_job([server.address], ClosedLoop(2), warmup_ns=100 * MS), told.append)
        assert result.warmup.steady is None
        assert result.warmup.duration_ns >= 100 * MS
        assert WindowOpened(result.window.start_ns) in told
        assert result.window.duration_ns == 90 * MS
        done = samples_of(result).done_ns
        assert result.warmup.requests == (done < result.window.start_ns).sum() > 0
        assert result.generator.completed >= ((done >= result.window.start_ns) & (done < result.window.end_ns)).sum()

    @pytest.mark.usefixtures("never_slow")
    def test_an_automatic_warm_up_ends_when_its_windows_are_steady(
        self, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        windows: list[object] = []

        def is_steady(so_far: list[object]) -> bool:
            windows[:] = so_far
            return len(so_far) >= 2

        monkeypatch.setattr(load_run_module, "is_steady", is_steady)
        monkeypatch.setattr(load_run_module, "WARMUP_CAP_NS", 60_000 * MS)  # a busy machine needs more than usual
        result = drive(a_job([server.address], ClosedLoop(2), warmup_ns=None))
        assert result.warmup.steady is True
        assert result.warmup.duration_ns >= 2 * load_run_module.WINDOW_NS
        assert len(windows) == 2
        assert all(window.throughput_rps > 0 and window.median_ns > 0 for window in windows)

    @pytest.mark.usefixtures("never_slow")
    @pytest.mark.parametrize("status", [200, 503])
    def test_an_automatic_warm_up_that_never_gets_steady_is_capped_and_says_so(
        self, status: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(load_run_module, "WARMUP_CAP_NS", 300 * MS)
        monkeypatch.setattr(load_run_module, "is_steady", lambda _windows: False)
        with ScriptedServer(lambda _: [Send(answer(status=status))]) as server:
            result = drive(a_job([server.address], ClosedLoop(2), warmup_ns=None))
        assert result.warmup.steady is False
        assert result.warmup.duration_ns >= 300 * MS
        assert result.window.duration_ns == 90 * MS

    def test_a_window_of_the_warm_up_waits_for_enough_requests(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(load_run_module, "WARMUP_CAP_NS", 300 * MS)
        windows: list[object] = []

        def is_steady(so_far: list[object]) -> bool:
            windows.extend(so_far)
            return False

        monkeypatch.setattr(load_run_module, "is_steady", is_steady)
        with ScriptedServer(lambda request: [Send(answer()) if request.number < 3 else Silence()]) as server:
            result = drive(a_job([server.address], ClosedLoop(1), warmup_ns=None, timeout_ns=300 * MS))
        assert windows == []
        assert result.warmup.steady is False


class TestTheEnd:
    def test_stop_ends_the_load_early_from_another_thread(self) -> None:
        loops: list[LoadLoop] = []

        def script(request: Request) -> list[Step]:
            if request.number == 5:
                loops[0].stop()
            return [Send(answer())]

        with ScriptedServer(script) as server:
            job = a_job([server.address], ClosedLoop(1), duration_ns=600_000 * MS)
            loops.append(LoadLoop(job, lambda _: None))
            result = loops[0].run()
        assert result.stopped_early
        assert result.window.end_ns < result.window.start_ns + 600_000 * MS
        assert len(samples_of(result).outcome) > 5

    @pytest.mark.parametrize(("warmup_ns", "steady"), [(600_000 * MS, None), (None, False)], ids=["fixed", "automatic"])
    def test_stop_during_the_warm_up_gives_what_there_is(
        self, monkeypatch: pytest.MonkeyPatch, warmup_ns: int | None, steady: bool | None
    ) -> None:
        monkeypatch.setattr(load_run_module, "WARMUP_CAP_NS", 600_000 * MS)

        def script(request: Request) -> list[Step]:
            if request.number == 0:
                return [Send(answer())]
            loop.stop()
            return [Silence()]  # further answers, if they are late, would end an automatic warm-up

        with ScriptedServer(script) as server:
            loop = LoadLoop(a_job([server.address], ClosedLoop(1), warmup_ns=warmup_ns), lambda _: None)
            result = loop.run()
        assert result.stopped_early
        assert result.warmup.steady is steady
        assert result.window.duration_ns >= 0
        assert result.warmup.requests == 1

    def test_stop_does_not_wait_for_answers_that_never_come(self) -> None:
        with ScriptedServer(lambda _: [Silence()]) as server:

            def emit(_: object) -> None:
                if len(server.requests) == 3:
                    loop.stop()

            job = a_job([server.address], ClosedLoop(3), duration_ns=600_000 * MS, timeout_ns=600_000 * MS)
            loop = LoadLoop(job, emit)
            result = loop.run()
            assert len(server.requests) == 3
        assert result.stopped_early
        assert len(samples_of(result).outcome) == 0

    def test_signs_of_life_count_up(self, server: ScriptedServer) -> None:
        signs: list[Progress] = []

        def emit(event: object) -> None:
            if isinstance(event, Progress):
                signs.append(event)
                if len(signs) == 2:
                    loop.stop()

        loop = LoadLoop(a_job([server.address], ClosedLoop(1), duration_ns=600_000 * MS), emit)
        loop.run()
        assert len(signs) >= 2
        assert [sign.elapsed_ns for sign in signs] == sorted({sign.elapsed_ns for sign in signs})
        assert [sign.completed for sign in signs] == sorted(sign.completed for sign in signs)
        assert all(sign.median_ns is not None and sign.median_ns > 0 for sign in signs if sign.completed)

    def test_the_generator_reports_its_own_cost_over_the_window(self, server: ScriptedServer) -> None:
        result = drive(a_job([server.address], ClosedLoop(2)))
        report = result.generator
        assert report.cpu_ns > 0
        assert report.wall_ns >= result.window.duration_ns
        assert report.connect_ns > 0
        assert not result.stopped_early
        assert result.answers == []


class TestAnswersKept:
    def test_kept_answers_are_those_of_their_requests(self) -> None:
        with ScriptedServer(lambda request: [Send(answer(b"answer to " + request.body))]) as server:
            result = drive(a_job([server.address], ClosedLoop(4), keep_answers=20))
        assert 0 < len(result.answers) <= 20
        assert not result.generator.answers_cut
        for kept in result.answers:
            assert kept.body == b"answer to input %d" % kept.request
            assert kept.head.startswith(b"HTTP/1.1 200 ")

    def test_only_successful_answers_are_kept(self) -> None:
        def script(request: Request) -> list[Step]:
            return [Send(answer(b"fine") if int(request.body[-1:]) % 2 else answer(b"broken", 500))]

        with ScriptedServer(script) as server:
            result = drive(a_job([server.address], ClosedLoop(1), keep_answers=20))
        assert {answer.body for answer in result.answers} == {b"fine"}
        assert {answer.request for answer in result.answers} <= {1, 3}

    def test_only_so_many_bytes_of_answers_are_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(load_run_module, "KEPT_BYTES", 1000)
        with ScriptedServer(lambda _: [Send(answer(b"x" * 400))]) as server:
            result = drive(a_job([server.address], ClosedLoop(2), keep_answers=20))
        assert 0 < len(result.answers) <= 2
        assert result.generator.answers_cut

    def test_answers_longer_than_that_are_not_collected(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (connection_module, http1_module):
            monkeypatch.setattr(module, "KEPT_BYTES", 1000)
        with ScriptedServer(lambda _: [Send(answer(b"x" * 4000), 500)]) as server:
            result = drive(a_job([server.address], ClosedLoop(2), keep_answers=20))
        assert set(samples_of(result).outcome.tolist()) == {200}
        assert result.answers == []
        assert result.generator.answers_cut

    def test_answers_of_the_warm_up_are_not_kept(self) -> None:
        opened = threading.Event()
        with ScriptedServer(lambda _: [Send(answer(b"window" if opened.is_set() else b"warm-up"))]) as server:
            job = a_job([server.address], ClosedLoop(1), warmup_ns=100 * MS, keep_answers=10_000)
            result = drive(job, lambda _: opened.set())
        bodies = [answer.body for answer in result.answers]
        assert bodies.count(b"warm-up") <= 1  # the one that was on its way when the window opened
        assert b"window" in bodies
