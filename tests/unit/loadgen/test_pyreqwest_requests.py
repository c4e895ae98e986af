"""A load that the client library drives, against a server in this process: what is sent when, and how answers end."""

from array import array
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from msgspec.structs import replace
from support.services.jobs import MS, a_job, window_of
from support.services.scripted import Close, Request, ScriptedServer, Send, Step, answer, refused_port

from pytest_mlpatterns.loadgen import pyreqwest_loop
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.event_loop import LoadLoop
from pytest_mlpatterns.loadgen.load_run import TICK_NS
from pytest_mlpatterns.loadgen.pyreqwest_loop import PyreqwestLoop, parse_message
from pytest_mlpatterns.records.addressing import Remote
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.records.samples import Samples, Window
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.schedule import ClosedLoop, Schedule, Trace

LINES = b'{"a": 1}\n{"a": 2}\n'
EVENT, DONE = b'data: {"a": 1}\n\n', b"data: [DONE]\n\n"
JSON_LINES, EVENT_STREAM = b"content-type: application/x-ndjson\r\n", b"content-type: text/event-stream\r\n"
SIZED = b"content-length: %d\r\n" % len(EVENT)
IN_CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(LINES), LINES)


@pytest.mark.parametrize(
    ("head", "body", "outcome"),
    [
        (JSON_LINES, LINES, Failure.CUT_OFF),
        (EVENT_STREAM, EVENT, Failure.CUT_OFF),
        (EVENT_STREAM, EVENT + DONE, 200),
        (EVENT_STREAM + SIZED, EVENT, 200),
        (JSON_LINES + b"transfer-encoding: chunked\r\n", IN_CHUNKS, 200),
    ],
    ids=["lines", "event", "event-and-done", "sized-event", "chunked-lines"],
)
def test_a_stream_that_lasts_until_the_connection_is_closed_needs_its_last_event(
    head: bytes, body: bytes, outcome: int
) -> None:
    data = b"HTTP/1.1 200 OK\r\nconnection: close\r\n" + head + b"\r\n" + body
    with ScriptedServer(lambda _: [Send(data), Close()]) as service:
        remote = Remote(f"http://127.0.0.1:{service.address[1]}", http2=False)
        job = a_job([service.address], ClosedLoop(1), stream=True, window=window_of(3))
        job = replace(job, endpoint=replace(job.endpoint, remote=remote))
        samples = samples_of(PyreqwestLoop(job, lambda _event: None).run())
    assert samples.outcome.tolist() == [outcome] * 3


def sent_by_the_library(schedule: Schedule, **changes: Any) -> tuple[Samples, Window]:
    """What a load over plain HTTP came to, and its window."""
    with ScriptedServer() as service:
        job = a_job([service.address], schedule, **{"warmup_ns": 50 * MS, **changes})
        remote = Remote(f"http://127.0.0.1:{service.address[1]}", http2=False)
        result = PyreqwestLoop(replace(job, endpoint=replace(job.endpoint, remote=remote)), lambda _event: None).run()
    return samples_of(result), result.window


@pytest.mark.parametrize(
    ("schedule", "think_ns"),
    [(ClosedLoop(1, think_time="5ms"), b""), (ClosedLoop(1), array("q", [5 * MS] * 3 + [-1]).tobytes())],
    ids=["think time", "conversation"],
)
def test_a_request_that_an_answer_makes_due_is_sent_before_the_next_tick(schedule: Schedule, think_ns: bytes) -> None:
    order = array("I", [0]).tobytes() if think_ns else b""
    samples, _ = sent_by_the_library(schedule, duration_ns=600 * MS, think_ns=think_ns, order=order)
    assert np.median(samples.sent_ns - samples.due_ns) < TICK_NS / 2


def test_a_trace_is_sent_whole_up_to_its_last_request(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("timestamp\n0\n" + "".join(f"0.100{number}\n" for number in range(5)))
    trace = Trace(file)
    for _ in range(5):
        samples, window = sent_by_the_library(trace, duration_ns=trace.length_ns, warmup_ns=60 * MS)
        assert np.count_nonzero(samples.due_ns >= window.start_ns) == 6


@pytest.mark.parametrize("loop", [LoadLoop, PyreqwestLoop])
@pytest.mark.parametrize("answers", [0, 1])
def test_a_request_that_meets_a_closed_idle_connection_is_sent_again_once(
    loop: type[LoadLoop | PyreqwestLoop], answers: int
) -> None:
    """The server closes each connection at the request after so many."""

    def script(request: Request) -> list[Step]:
        return [Send(answer()) if request.number_on_connection < answers else Close()]

    with ScriptedServer(script) as service:
        job = a_job([service.address], ClosedLoop(1), window=window_of(6))
        remote = Remote(f"http://127.0.0.1:{service.address[1]}", http2=False)
        job = replace(job, endpoint=replace(job.endpoint, remote=remote if loop is PyreqwestLoop else None))
        result = loop(job, lambda _event: None).run()
    assert samples_of(result).outcome.tolist() == [200 if answers else Failure.CLOSED] * 6
    assert result.generator.sent_again == 5 * answers


def test_a_server_that_is_gone_gives_counted_refusals_after_each_of_which_a_caller_rests() -> None:
    port = refused_port()
    job = a_job([("127.0.0.1", port)], ClosedLoop(2), duration_ns=300 * MS)
    job = replace(job, endpoint=replace(job.endpoint, remote=Remote(f"http://127.0.0.1:{port}", http2=False)))
    outcomes = samples_of(PyreqwestLoop(job, lambda _event: None).run()).outcome
    assert set(outcomes.tolist()) == {Failure.CONNECT}
    assert outcomes.size <= 2 * 10


class BrokenClient:
    """A client whose requests end in an error that no library documents."""

    async def __aenter__(self) -> "BrokenClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is open."""

    def request(self, *_: object) -> None:
        raise RuntimeError("the client is broken")


def test_a_request_that_ends_in_an_unexpected_error_is_a_row_and_the_log_has_the_error_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pyreqwest_loop, "_client_of", lambda _remote, _timeout_ns: BrokenClient())
    job = a_job([("127.0.0.1", 1)], ClosedLoop(2), duration_ns=200 * MS)
    job = replace(job, endpoint=replace(job.endpoint, remote=Remote("https://127.0.0.1:1", http2=False)))
    result = PyreqwestLoop(job, lambda _event: None).run()
    samples = samples_of(result)
    assert len(samples.outcome) >= 2
    assert set(samples.outcome.tolist()) == {Failure.MALFORMED}
    assert capsys.readouterr().err.count("RuntimeError: the client is broken") == 1


def test_a_prepared_message_is_taken_apart_into_what_a_library_wants() -> None:
    request = httpx.Request(
        "PUT", "http://host:1/a?b=c", headers=[("X-Key", "v: w"), ("X-Key", "again")], content=b"body\r\n\r\nmore"
    )
    (message,) = read_payload([request]).messages("ignored", 1, "/ignored")
    method, path, headers, body = parse_message(message)
    assert (method, path, body) == ("PUT", "/a?b=c", b"body\r\n\r\nmore")
    assert headers == [("X-Key", "v: w"), ("X-Key", "again")]
