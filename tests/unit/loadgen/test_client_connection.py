"""A client of the user's own as a connection: in threads and as tasks, its chunks, errors, time-outs and objects."""

import asyncio
import pickle
import sys
import threading
import time
from typing import Any

import pytest
from msgspec.structs import replace
from support.services.jobs import MS, a_job, streams_of, window_of

from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.event_loop import LoadLoop
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult, Transport
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.own_client import ClientWire
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, Schedule

SEEN: list[Any] = []


def double(number: int) -> int:
    SEEN.append(threading.get_ident())
    return 2 * number


async def double_later(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


def chunks(number: int) -> Any:
    yield from (10, number)


async def words(number: int) -> Any:
    for _ in range(2):
        await asyncio.sleep(0.001)
        yield f"{number} "


def no_ones(number: int, url: str) -> str:
    if number == 1:
        raise ValueError("no ones")
    return url


def hangs_once(number: int) -> int:
    if number == 1:
        time.sleep(1.0)
    return number


async def waits_for_ever(number: int) -> int:
    await asyncio.sleep(0 if number != 1 else 3600)
    return number


class Session:
    """Answers how often its object was called before."""

    def open(self, address: str) -> None:
        self.address, self.calls = address, -1
        SEEN.append("opened")

    def send(self, number: int) -> tuple[str, int]:
        self.calls += 1
        if number == 2 and self.calls == 2:
            raise OSError
        return self.address, self.calls


def job_of(client: Any, schedule: Schedule, *, port: int = 7, is_async: bool = False, **changes: Any) -> LoadJob:
    wire = ClientWire(name=client.__name__, packed=pickle.dumps(client), is_async=is_async)
    messages = tuple(wire.encode_inputs([number]).joined() for number in range(3))
    job = a_job([("127.0.0.1", port)], schedule, messages=messages, stream=True, **changes)
    return replace(job, endpoint=Endpoint((("127.0.0.1", port),), wire=wire))


def test_a_client_needs_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hpack", None)
    monkeypatch.delitem(sys.modules, "pytest_mlpatterns.loadgen.http2", raising=False)
    LoadLoop(job_of(double, ClosedLoop(1)), lambda _event: None)


def ran(job: LoadJob) -> LoadResult:
    SEEN.clear()
    return LoadLoop(job, lambda _event: None).run()


@pytest.mark.parametrize(("client", "is_async"), [(double, False), (double_later, True)])
@pytest.mark.parametrize("schedule", [ClosedLoop(3), ConstantRate(200)], ids=str)
def test_every_input_is_answered_in_its_turn(client: Any, schedule: Schedule, *, is_async: bool) -> None:
    result = ran(job_of(client, schedule, is_async=is_async, window=window_of(12), keep_answers=12))
    samples = samples_of(result)
    assert sorted(samples.request[samples.due_in(result.window)]) == sorted([0, 1, 2] * 4)
    assert (samples.outcome == 200).all()
    assert (samples.sent_ns >= samples.due_ns).all()
    assert (samples.done_ns >= samples.sent_ns).all()
    assert samples.stream is None
    assert {pickle.loads(answer.body) == 2 * answer.request for answer in result.answers} == {True}
    assert result.generator.client == client.__name__


def test_each_caller_has_a_thread() -> None:
    ran(job_of(double, ClosedLoop(4), window=window_of(40)))
    assert len(set(SEEN)) == 4
    assert threading.get_ident() not in SEEN


@pytest.mark.parametrize(("client", "is_async", "tokens"), [(chunks, False, [10, 11, 12]), (words, True, [-1, -1, -1])])
def test_chunks_have_times_and_whole_numbers_are_tokens(client: Any, tokens: list[int], *, is_async: bool) -> None:
    samples = samples_of(ran(job_of(client, ClosedLoop(1), is_async=is_async, window=window_of(3))))
    streams = streams_of(samples)
    assert list(streams.chunk_count[:3]) == [2, 2, 2]
    assert list(streams.output_tokens[:3]) == tokens
    assert (streams.chunk_ns[:2] >= samples.sent_ns[0]).all()
    assert (streams.chunk_ns[:2] <= samples.done_ns[0]).all()


def test_an_exception_is_a_failed_request_with_its_type_message_and_line() -> None:
    result = ran(job_of(no_ones, ClosedLoop(1), window=window_of(6), keep_answers=6))
    samples = samples_of(result)
    assert list(samples.outcome[:3]) == [200, Failure.RAISED, 200]
    (found,) = result.failed.values()
    assert found.request == 1
    assert found.words.startswith("ValueError: no ones (test_client_connection.py:")
    assert {pickle.loads(answer.body) for answer in result.answers} == {"http://127.0.0.1:7"}


@pytest.mark.parametrize(("client", "is_async"), [(hangs_once, False), (waits_for_ever, True)])
def test_a_call_beyond_its_time_fails_and_its_caller_goes_on(client: Any, *, is_async: bool) -> None:
    job = job_of(
        client, ClosedLoop(1), is_async=is_async, timeout_ns=60 * MS, window=window_of(3), duration_ns=900 * MS
    )
    outcomes = samples_of(ran(job)).outcome
    assert list(outcomes[:3]) == [200, Failure.TIMEOUT, 200]


def test_a_class_is_built_for_each_caller_kept_between_jobs_and_anew_after_an_error() -> None:
    job = job_of(Session, ClosedLoop(1), window=window_of(4), keep_answers=9)
    answers = [pickle.loads(answer.body) for answer in ran(job).answers]
    assert answers[:2] == [("127.0.0.1:7", 0), ("127.0.0.1:7", 1)]
    assert answers[2] == ("127.0.0.1:7", 0)  # the third call failed
    assert SEEN.count("opened") == 2  # ahead of the load, and after the error
    assert pickle.loads(ran(replace(job, order=bytes(4))).answers[0].body)[1] >= 0
    assert not SEEN


def test_a_client_alone_takes_no_processor_of_a_generator() -> None:
    job = job_of(double, ClosedLoop(1), port=0, window=window_of(3))
    assert (job.is_in_process, job.transport) == (True, Transport.THREAD)
    assert ran(job).generator.cpu_ns == 0


def test_a_client_gets_the_name_of_its_host() -> None:
    job = job_of(no_ones, ClosedLoop(1), window=window_of(1), keep_answers=1)
    result = ran(replace(job, endpoint=replace(job.endpoint, host="localhost")))
    assert pickle.loads(result.answers[0].body) == "http://localhost:7"
