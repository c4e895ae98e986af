"""Loads whose answers come in pieces, against servers that declare every byte, and one that records its own sends."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.services.jobs import MS, a_job, streams_of, wanting
from support.services.scripted import Close, ScriptedServer, Send, Silence, Step, answer, refused_port
from support.streaming_server import StreamingServer, streaming_server

from pytest_mlpatterns.loadgen import event_loop as pool_module
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.event_loop import LoadLoop
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.loadgen.messages import LoadJob, LoadResult
from pytest_mlpatterns.loadgen.pyreqwest_loop import PyreqwestLoop
from pytest_mlpatterns.records.addressing import Remote
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.records.samples import Samples
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
END = b"0\r\n\r\n"


def piece(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


CHUNK = piece(b'data: "a"\n\n')
ERROR = piece(b'event: error\ndata: {"error": "no memory"}\n\n')


def drive(address: tuple[str, int], **changes: Any) -> LoadResult:
    return LoadLoop(a_job([address], ClosedLoop(1), **{"stream": True, **changes}), lambda _: None).run()


def first_of(*steps: Step, then: bytes = HEAD + CHUNK + END, **changes: Any) -> tuple[Samples, ScriptedServer]:
    """The rows of a load whose first request gets these steps, and every other one a stream of one chunk."""
    with ScriptedServer(lambda request: [*steps] if request.number == 0 else [Send(then)]) as server:
        return samples_of(drive(server.address, **changes)), server


class TestOutcomes:
    def test_each_chunk_is_counted_and_stamped_in_order(self) -> None:
        samples, server = first_of(Send(HEAD), *[Send(CHUNK)] * 5, Send(END))
        stream = streams_of(samples)
        assert (samples.outcome == 200).all()
        assert stream.chunk_count.tolist() == [5] + [1] * (samples.due_ns.size - 1)
        assert stream.chunk_ns.size == stream.chunk_count.sum()
        assert (np.diff(stream.chunk_ns) >= 0).all()
        assert (samples.sent_ns < stream.first_byte_ns).all()
        last = stream.chunk_ns[np.cumsum(stream.chunk_count) - 1]
        first = last - (last - stream.first_byte_ns)
        assert (first <= last).all()
        assert (last <= samples.done_ns).all()
        assert set(stream.output_tokens.tolist()) == {-1}
        assert server.connections == 1

    @each_row(
        ("steps", "outcome", "chunks", "connections"),
        ([Send(HEAD + CHUNK), Send(CHUNK), Close()], Failure.CLOSED, 2, 2),
        ([Send(HEAD + CHUNK + END[:-1]), Close()], Failure.CLOSED, 1, 2),
        ([Close()], Failure.CLOSED, 0, 2),
        ([Send(HEAD + CHUNK + ERROR + END)], Failure.ERROR_EVENT, 1, 1),
        ([Send(HEAD + CHUNK + b"nonsense"), Silence()], Failure.MALFORMED, 1, 2),
        ([Send(UNTIL_CLOSE + b'data: "a"\n\n'), Close()], Failure.CUT_OFF, 1, 2),
        ([Send(answer(b"{}", 500))], 500, 0, 1),
        ([Send(HEAD + CHUNK + END + HEAD)], 200, 1, 2),
    )
    def test_every_stream_ends_in_one_row(self, steps: list[Step], outcome: int, chunks: int, connections: int) -> None:
        samples, server = first_of(*steps)
        assert samples.outcome[0] == outcome
        assert streams_of(samples).chunk_count[0] == chunks
        assert (samples.outcome[1:] == 200).all()
        assert samples.due_ns.size == len(server.requests)
        assert server.connections == (connections if len(server.requests) > 1 else 1)

    def test_a_refused_connection_and_a_wait_in_vain_have_no_chunks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stream = streams_of(samples_of(drive(("127.0.0.1", refused_port()))))
        assert set(stream.chunk_count.tolist()) == {0}
        assert set(stream.first_byte_ns.tolist()) == {0}
        monkeypatch.setattr(pool_module, "MAX_OPEN_LOOP_CONNECTIONS", 1)
        with ScriptedServer(lambda _: [Silence()]) as server:
            samples = samples_of(
                LoadLoop(
                    a_job([server.address], ConstantRate(100), stream=True, timeout_ns=50 * MS), lambda _: None
                ).run()
            )
        assert set(samples.outcome.tolist()) == {Failure.TIMEOUT}
        assert streams_of(samples).chunk_count.size == samples.due_ns.size > 1

    def test_kept_answers_are_whole_streams(self) -> None:
        with ScriptedServer(lambda _: [Send(HEAD + CHUNK + CHUNK + END)]) as server:
            result = drive(server.address, keep_answers=3)
        assert {kept.body for kept in result.answers} == {b'data: "a"\n\n' * 2}

    def test_a_long_request_is_sent_while_the_answer_is_awaited(self) -> None:
        body = b"x" * 4_000_000
        message = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
        with ScriptedServer(lambda _: [Send(HEAD + CHUNK + END)], read_bytes=4096) as server:
            samples = samples_of(drive(server.address, messages=(message,)))
        assert set(samples.outcome.tolist()) == {200}

    def test_an_accepted_request_is_polled_and_its_stream_counts(self) -> None:
        accepted = answer(b"", 202, b"location: /jobs/1", b"content-type: text/event-stream")
        with ScriptedServer(
            lambda request: [Send(HEAD + CHUNK + END if request.head.startswith(b"GET") else accepted)]
        ) as server:
            job = a_job([server.address], ClosedLoop(1), stream=True)
            job = replace(job, endpoint=replace(job.endpoint, polled=True))
            samples = samples_of(LoadLoop(job, lambda _: None).run())
        assert set(samples.outcome.tolist()) == {200}
        assert set(streams_of(samples).chunk_count.tolist()) == {1}
        assert set(samples.received_bytes.tolist()) == {len(HEAD + CHUNK + END)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StreamingServer]:
    with streaming_server(tmp_path_factory.mktemp("streams") / "sent.jsonl") as server:
        yield server


@pytest.mark.processes
class TestRecordingServer:
    @pytest.mark.parametrize("loop", [LoadLoop, PyreqwestLoop])
    @pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/v1/models/m:predict"])
    def test_every_token_is_counted(
        self, server: StreamingServer, path: str, loop: type[LoadLoop | PyreqwestLoop]
    ) -> None:
        wanted = [
            {"max_tokens": 17},
            {"max_tokens": 5, "per_send": 3},
            {"max_tokens": 3, "split": 7},
            {"max_tokens": 0},  # no chunk, which is whole because none was requested
            {"max_tokens": 1, "variant": "no_usage"},
        ]
        messages = tuple(wanting(path, first_ms=1, gap_ms=0.5, **one) for one in wanted)
        samples = samples_of(loop(self.job(server, loop, messages=messages), lambda _: None).run())
        stream = streams_of(samples)
        assert (samples.outcome == 200).all()
        counts = np.array([one["max_tokens"] for one in wanted])
        assert stream.chunk_count.tolist() == counts[samples.request].tolist()
        told = np.array([-1 if path.endswith("predict") or "variant" in one else one["max_tokens"] for one in wanted])
        assert stream.output_tokens.tolist() == told[samples.request].tolist()

    @pytest.mark.parametrize("loop", [LoadLoop, PyreqwestLoop])
    def test_what_goes_wrong_in_a_stream_is_a_failure(
        self, server: StreamingServer, loop: type[LoadLoop | PyreqwestLoop]
    ) -> None:
        expected = {"cut": Failure.CLOSED, "error": Failure.ERROR_EVENT, "status": 500, "until_close": 200}
        messages = tuple(
            wanting("/v1/completions", variant=variant, max_tokens=4, first_ms=0, gap_ms=0.1) for variant in expected
        )
        job = self.job(server, loop, messages=messages)
        samples = samples_of(loop(job, lambda _: None).run())
        found = {variant: set(samples.outcome[samples.request == n].tolist()) for n, variant in enumerate(expected)}
        assert {variant: {int(outcome)} for variant, outcome in expected.items()} == found
        chunks = streams_of(samples).chunk_count
        assert set(chunks[samples.request == 0].tolist()) == {2}

    def job(self, server: StreamingServer, loop: type[LoadLoop | PyreqwestLoop], **changes: Any) -> LoadJob:
        job = a_job([server.address], ConstantRate(50), **{"stream": True, "duration_ns": 200 * MS, **changes})
        if loop is LoadLoop:
            return job
        remote = Remote(f"http://127.0.0.1:{server.port}", http2=False)
        return replace(job, endpoint=replace(job.endpoint, remote=remote))


@pytest.mark.processes
def test_generators_that_share_a_load_keep_each_request_with_its_chunks(tmp_path: Path) -> None:
    generator = Generator(tmp_path / "generator.log")
    messages = tuple(wanting("/v1/completions", max_tokens=tokens, first_ms=1, gap_ms=0.2) for tokens in (3, 9, 1))
    try:
        with streaming_server(tmp_path / "sent.jsonl") as server:
            job = a_job([server.address], ClosedLoop(4), stream=True, messages=messages, duration_ns=100 * MS)
            samples = samples_of(generator.run(job, poll_s=0.1, on_poll=lambda _: None, processes=2))
            sent = server.stop()
    finally:
        generator.close()
    stream = streams_of(samples)
    assert len(sent) == samples.due_ns.size
    assert stream.chunk_count.tolist() == np.array([3, 9, 1])[samples.request].tolist()
    ends = np.cumsum(stream.chunk_count)
    assert (np.diff(samples.done_ns) >= 0).all()
    assert (stream.chunk_ns[ends - 1] <= samples.done_ns).all()
    assert (stream.chunk_ns[ends - stream.chunk_count] >= samples.sent_ns).all()
