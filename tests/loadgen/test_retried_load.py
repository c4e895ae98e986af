"""Loads whose failed requests are sent again, against servers whose every byte is declared."""

from __future__ import annotations

import threading
from array import array
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.services.jobs import MS, a_job, window_of
from support.services.scripted import Close, Hold, ScriptedServer, Send, Silence, answer, refused_port

from pytest_mlpatterns.loadgen.columns import merged_columns, samples_of, shifted_columns
from pytest_mlpatterns.loadgen.event_loop import LoadLoop
from pytest_mlpatterns.loadgen.pyreqwest_loop import PyreqwestLoop
from pytest_mlpatterns.records.addressing import Progress, Remote
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.workload.retries import Retries
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from support.services.scripted import Request, Step

    from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult
    from pytest_mlpatterns.records.samples import Samples
    from pytest_mlpatterns.workload.schedule import Schedule

QUICK = Retries(3, backoff="2ms")
LOOPS = pytest.mark.parametrize("kind", [LoadLoop, PyreqwestLoop])


def drive(job: LoadJob, kind: Any = LoadLoop) -> LoadResult:
    """Run a job, over our own connections or over the client library."""
    if kind is PyreqwestLoop:
        host, port = job.endpoint.addresses[0]
        job = replace(job, endpoint=replace(job.endpoint, remote=Remote(f"http://{host}:{port}", http2=False)))
    result: LoadResult = kind(job, lambda _: None).run()
    return result


def attempts_of(samples: Samples) -> list[int]:
    assert samples.retries is not None
    return list(samples.retries.attempts.tolist())


def two_of_three_refused(request: Request) -> list[Step]:
    return [Send(answer(status=503 if request.number % 3 else 200))]


@LOOPS
@pytest.mark.parametrize("schedule", [ClosedLoop(3), ConstantRate(200)], ids=str)
@pytest.mark.parametrize("stream", [False, True])
def test_the_server_counts_the_attempts_that_the_recording_has(kind: Any, schedule: Schedule, stream: bool) -> None:
    with ScriptedServer(two_of_three_refused) as server:
        result = drive(a_job([server.address], schedule, retries=QUICK, stream=stream), kind)
    samples = samples_of(result)
    attempts = attempts_of(samples)
    assert sum(attempts) == len(server.requests) > len(attempts)
    assert max(attempts) <= 4
    final = (200, Failure.NO_STREAM)  # which no attempt mends
    assert all(end in final or count == 4 for end, count in zip(samples.outcome.tolist(), attempts, strict=True))
    assert (samples.due_ns <= samples.sent_ns).all()
    assert (np.diff(samples.done_ns) >= 0).all()
    sent = Counter(request.body for request in server.requests)
    per_input = Counter[int]()
    for request, count in zip(samples.request.tolist(), attempts, strict=True):
        per_input[request] += count
    assert sent == {b"input %d" % request: count for request, count in per_input.items()}


@LOOPS
def test_latency_counts_from_when_a_request_was_due_to_the_answer_to_its_last_attempt(kind: Any) -> None:
    retries = Retries(2, backoff="30ms", jitter=False)
    with ScriptedServer(two_of_three_refused) as server:
        samples = samples_of(drive(a_job([server.address], ClosedLoop(1), retries=retries, window=window_of(3)), kind))
    waited = {1: 0, 2: 30 * MS, 3: 90 * MS}
    for latency_ns, count in zip(samples.latency_ns.tolist(), attempts_of(samples), strict=True):
        assert latency_ns >= waited[count]
    assert 3 in attempts_of(samples)


@LOOPS
def test_a_retry_waits_as_long_as_the_answer_asks_for(kind: Any) -> None:
    def script(request: Request) -> list[Step]:
        return [Send(answer(b"", 503, b"Retry-After: 1") if request.number == 0 else answer())]

    for honours, least_ns in ((True, 1000 * MS), (False, 0)):
        retries = Retries(1, backoff="1ms", honour_retry_after=honours)
        with ScriptedServer(script) as server:
            samples = samples_of(drive(a_job([server.address], ClosedLoop(1), retries=retries), kind))
        tried = samples.latency_ns[np.array(attempts_of(samples)) == 2]
        assert tried.size == 1
        assert least_ns <= tried[0]
        assert samples.succeeded.all()


@LOOPS
def test_an_attempt_that_takes_too_long_is_followed_by_another_one(kind: Any) -> None:
    def script(request: Request) -> list[Step]:
        return [Silence()] if request.number < 2 else [Send(answer())]

    retries = Retries(2, backoff="1ms", attempt_timeout="500ms")
    with ScriptedServer(script) as server:
        samples = samples_of(drive(a_job([server.address], ClosedLoop(1), retries=retries, window=window_of(5)), kind))
    assert samples.succeeded.all()
    assert attempts_of(samples)[0] == 3
    assert samples.latency_ns[0] >= 1_000 * MS


@LOOPS
def test_all_attempts_together_take_no_longer_than_the_time_out(kind: Any) -> None:
    retries = Retries(50, backoff="20ms", jitter=False, attempt_timeout="30ms")
    with ScriptedServer(lambda _: [Silence()]) as server:
        job = a_job([server.address], ConstantRate(50), retries=retries, duration_ns=100 * MS, timeout_ns=1_200 * MS)
        samples = samples_of(drive(job, kind))
    assert set(samples.outcome.tolist()) == {Failure.TIMEOUT}
    assert sum(attempts_of(samples)) >= len(server.requests)  # the last ones may end before the server reads them
    assert 2 <= max(attempts_of(samples)) <= 6  # which begin at 0, 50, 120, 230, 420 and 770 ms


@LOOPS
def test_a_budget_bounds_the_extra_requests_and_what_it_denies_is_noted(kind: Any) -> None:
    with ScriptedServer(lambda _: [Send(answer(status=429))]) as server:
        retries = Retries(3, backoff="1ms", budget="20%")
        samples = samples_of(drive(a_job([server.address], ConstantRate(400), retries=retries), kind))
    found = samples.retries
    assert found is not None
    assert found.denied is not None
    requests, attempts = len(samples.outcome), int(found.attempts.sum())
    assert attempts == len(server.requests)
    assert 0 < attempts - requests <= 0.2 * requests
    assert found.denied.all()
    assert (found.denied | (found.attempts == 4)).all()


@LOOPS
def test_a_dead_server_is_asked_only_as_often_as_retries_allow(kind: Any) -> None:
    retries = Retries(2, backoff="1ms")
    job = a_job([("127.0.0.1", refused_port())], ClosedLoop(2), retries=retries, duration_ns=300 * MS)
    samples = samples_of(drive(job, kind))
    assert set(samples.outcome.tolist()) == {Failure.CONNECT}
    assert set(attempts_of(samples)) == {3}
    assert len(samples.outcome) <= 2 * 20  # two callers that rest after their last attempt


def test_a_server_that_goes_away_in_the_middle_leaves_requests_of_all_attempts_and_the_load_ends() -> None:
    def script(request: Request) -> Iterable[Step]:
        if request.number == 20:
            server._listener.close()
        return [Close()] if request.number >= 20 else [Send(answer())]

    with ScriptedServer(script) as server:
        job = a_job([server.address], ClosedLoop(4), retries=QUICK, window=window_of(40))
        samples = samples_of(drive(job))
    failed = ~samples.succeeded
    assert failed.any()
    assert set(np.array(attempts_of(samples))[failed].tolist()) == {4}


def test_a_request_of_the_window_is_tried_again_after_it_and_none_after_the_load() -> None:
    over = threading.Event()

    def script(request: Request) -> list[Step]:
        return [Send(answer())] if request.number else [Hold(over), Send(answer(status=503))]

    def emit(event: object) -> None:
        if isinstance(event, Progress) and event.elapsed_ns > 300 * MS:
            over.set()

    with ScriptedServer(script) as server:
        result = LoadLoop(a_job([server.address], ClosedLoop(1), retries=QUICK), emit).run()
        assert len(server.requests) == 2
    samples = samples_of(result)
    assert (samples.outcome.tolist(), attempts_of(samples)) == ([200], [2])
    assert samples.done_ns[0] > result.window.end_ns


def test_a_turn_of_a_conversation_is_tried_again_before_the_next_one_follows() -> None:
    think_ns, firsts = array("q", [0, 0, -1, 0, -1]), array("I", [0, 3])
    with ScriptedServer(two_of_three_refused) as server:
        job = a_job([server.address], ClosedLoop(1), retries=QUICK, duration_ns=200 * MS)
        samples = samples_of(drive(replace(job, think_ns=think_ns.tobytes(), order=firsts.tobytes())))
    assert samples.succeeded.all()
    turns = [0, 1, 2, 3, 4]
    assert samples.request.tolist() == [turns[number % 5] for number in range(samples.request.size)]
    assert max(attempts_of(samples)) == 3


def test_a_load_that_is_stopped_waits_for_no_retry() -> None:
    refused = threading.Event()

    def script(_request: Request) -> list[Step]:
        refused.set()
        return [Send(answer(b"", 503, b"Retry-After: 600"))]

    with ScriptedServer(script) as server:
        loop = LoadLoop(
            a_job([server.address], ClosedLoop(1), retries=QUICK, duration_ns=600_000 * MS, timeout_ns=10**12),
            lambda _: None,
        )
        stopper = threading.Thread(target=lambda: (refused.wait(30), loop.stop()))
        stopper.start()
        result = loop.run()
        stopper.join()
    assert result.stopped_early
    assert samples_of(result).outcome.size == 0


def test_a_stream_that_broke_after_its_first_chunk_is_not_tried_again() -> None:
    begun = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = b"data: one\n\n"

    def script(request: Request) -> list[Step]:
        if request.number == 0:
            return [Close()]
        if request.number == 1:
            return [Send(b"%b%x\r\n%b\r\n" % (begun, len(chunk), chunk)), Close()]
        return [Send(b"%b%x\r\n%b\r\n0\r\n\r\n" % (begun, len(chunk), chunk))]

    with ScriptedServer(script) as server:
        samples = samples_of(
            drive(a_job([server.address], ClosedLoop(1), retries=QUICK, stream=True, window=window_of(5)))
        )
    assert samples.stream is not None
    assert samples.outcome[0] == Failure.CLOSED
    assert attempts_of(samples)[:2] == [2, 1]
    assert samples.stream.chunk_count.tolist() == [1] * len(samples.outcome)


def test_the_generator_reports_every_attempt_and_a_load_without_retries_has_no_column() -> None:
    with ScriptedServer(two_of_three_refused) as server:
        result = drive(a_job([server.address], ConstantRate(200), retries=QUICK, duration_ns=200 * MS))
        plain = samples_of(drive(a_job([server.address], ConstantRate(200))))
    assert result.generator.completed > (samples_of(result).done_ns < result.window.end_ns).sum()
    assert plain.retries is None


def test_attempts_stay_with_their_requests_where_recordings_are_merged_and_shifted() -> None:
    parts = []
    for budget in (0.5, 0.5):
        with ScriptedServer(two_of_three_refused) as server:
            job = a_job([server.address], ConstantRate(200), retries=Retries(3, backoff="2ms", budget=budget))
            parts.append(drive(job))
    whole = samples_of(replace(parts[0], columns=merged_columns([shifted_columns(p.columns, 7) for p in parts])))
    apart = [samples_of(part) for part in parts]
    expected: dict[int, tuple[int, bool]] = {}
    for part in apart:
        assert part.retries is not None
        assert part.retries.denied is not None
        pairs = zip(part.retries.attempts.tolist(), part.retries.denied.tolist(), strict=True)
        expected |= dict(zip((part.due_ns + 7).tolist(), pairs, strict=True))
    assert whole.retries is not None
    assert whole.retries.denied is not None
    pairs = zip(whole.retries.attempts.tolist(), whole.retries.denied.tolist(), strict=True)
    assert dict(zip(whole.due_ns.tolist(), pairs, strict=True)) == expected
