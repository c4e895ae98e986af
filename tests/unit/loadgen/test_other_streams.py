"""Loads whose streams are no server-sent events: JSON lines, lines of Ollama, and chunks of HTTP."""

import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.each_row import each_row
from support.services.jobs import MS, a_job, streams_of, wanting
from support.streaming_server import StreamingServer, streaming_server
from support.synthetic import PROPERTY

from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.event_loop import LoadLoop
from pytest_mlpatterns.loadgen.http1 import Http1Pieces, Http1Stream
from pytest_mlpatterns.loadgen.messages import LoadJob
from pytest_mlpatterns.loadgen.pyreqwest_loop import PyreqwestLoop
from pytest_mlpatterns.loadgen.streamed_answer import StreamedAnswer
from pytest_mlpatterns.records.addressing import Remote
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.wire.stream_lines import JsonLines
from pytest_mlpatterns.wire.stream_request import AUTO, StreamSetting
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate

NDJSON, TEXT = b"content-type: application/x-ndjson\r\n", b"content-type: text/plain\r\n"
WORD = b'{"response": "w", "done": false}\n'
END = b'{"response": "", "done": true, "done_reason": "stop", "eval_count": 9}\n'
LONG = b"x" * 200_000


def chunked(*parts: bytes, head: bytes = b"", end: bool = True) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return b"HTTP/1.1 200 OK\r\n%stransfer-encoding: chunked\r\n\r\n%s%s" % (head, body, b"0\r\n\r\n" if end else b"")


def sized(body: bytes, head: bytes = TEXT) -> bytes:
    return b"HTTP/1.1 200 OK\r\n%scontent-length: %d\r\n\r\n%s" % (head, len(body), body)


def until_close(body: bytes, head: bytes = NDJSON) -> bytes:
    return b"HTTP/1.1 200 OK\r\n%sconnection: close\r\n\r\n%s" % (head, body)


def take(pieces: Sequence[bytes], stream: StreamSetting) -> tuple[int, list[int], StreamedAnswer]:
    """The outcome of an answer whose pieces arrive at 1, 2, 3, … ns, and the arrivals of its chunks."""
    answer = StreamedAnswer(stream=stream)
    made = Http1Pieces if stream == "chunks" else Http1Stream
    protocol = made([b"request"], "host", follow=False, keep=False, answer=answer)
    protocol.ask(0)
    answer.begin()
    outcome = 0
    for number, piece in enumerate(pieces, start=1):
        answer.now_ns = number
        outcome = outcome or protocol.take(piece)
    return outcome or protocol.end(), answer.chunk_ns.tolist(), answer


@each_row(
    ("pieces", "stream", "chunks_ns"),
    ([chunked(WORD, end=False, head=NDJSON), chunked(WORD, END).partition(b"\r\n\r\n")[2]], AUTO, [1, 2]),
    ([chunked(WORD * 2, END[:9], END[9:], head=NDJSON)], AUTO, [1, 1]),
    ([chunked(b'"a"\n"b"', head=NDJSON)], AUTO, [1, 1]),
    ([chunked(b'{"a":1}\n', b'{"a":2}\n')], JsonLines(), [1, 1]),
    ([chunked(b"ab", b"c", head=TEXT)], "chunks", [1, 1]),
    ([chunked(LONG, b"c", head=TEXT)[:100_000], chunked(LONG, b"c", head=TEXT)[100_000:]], "chunks", [2, 2]),
    ([chunked(b"one", head=TEXT)], "chunks", [1]),
)
def test_complete_chunks_are_stamped(pieces: list[bytes], stream: StreamSetting, chunks_ns: list[int]) -> None:
    outcome, found, _ = take(pieces, stream)
    assert (outcome, found) == (200, chunks_ns)


@each_row(
    ("data", "stream", "outcome", "words"),
    (
        sized(LONG),
        "chunks",
        Failure.NO_STREAM,
        "text/plain, expected chunks without a content-length: a body that is no error",
    ),
    (sized(b'{"error": "busy"}'), JsonLines(), Failure.NO_STREAM, "expected JSON lines without a content-length: busy"),
    (sized(WORD + END, NDJSON), AUTO, Failure.NO_STREAM, "application/x-ndjson"),
    (chunked(*[LONG] * 9, head=TEXT), AUTO, Failure.NO_STREAM, "text/plain, expected text/event-stream"),
    (chunked(*[LONG] * 9, head=NDJSON), "whole", Failure.NO_STREAM, ""),
    (chunked(head=TEXT), "chunks", Failure.EMPTY_STREAM, "no chunk has content"),
    (chunked(WORD, b'{"error": "no memory"}\n', head=NDJSON), AUTO, Failure.ERROR_EVENT, "no memory"),
    (
        chunked(WORD, END.replace(b"stop", b"error"), head=NDJSON),
        AUTO,
        Failure.ERROR_EVENT,
        "the answer ended with done_reason error",
    ),
    (
        chunked(END.replace(b"stop", b"load"), head=NDJSON),
        AUTO,
        Failure.EMPTY_STREAM,
        "no output came before the end, whose done_reason is 'load'",
    ),
    (
        chunked(WORD, b"1\n", END, head=NDJSON),
        AUTO,
        Failure.MALFORMED,
        "line 2 of the stream, of 1 byte, is no JSON obj",
    ),
    (chunked(WORD, b'"\xe4"\n', head=NDJSON), AUTO, Failure.MALFORMED, "is no JSON in UTF-8"),
    (chunked(WORD, WORD, head=NDJSON), AUTO, Failure.CUT_OFF, 'no line has "done": true'),
    (chunked(WORD, b'{"resp', head=NDJSON), AUTO, Failure.CUT_OFF, "it ends in the middle of line 2"),
    (chunked(WORD, b"{\n", head=NDJSON), AUTO, Failure.MALFORMED, "line 2 of the stream, of 1 byte, is no JSON"),
    (until_close(b"1\n2\n"), AUTO, Failure.CUT_OFF, ""),
    (until_close(WORD + END), AUTO, 200, ""),
    (chunked(b"a", head=TEXT + b"content-encoding: br\r\n"), "chunks", Failure.COMPRESSED, "content-encoding: br"),
)
def test_answers_that_are_no_streams_say_why(data: bytes, stream: StreamSetting, outcome: int, words: str) -> None:
    found, _, answer = take([data], stream)
    assert found == outcome
    assert words in answer.words(found)


@PROPERTY
@given(st.sampled_from([AUTO, "chunks", JsonLines()]), st.lists(st.integers(1, 500), max_size=6), st.booleans())
def test_segments_of_tcp_change_nothing(stream: StreamSetting, cuts: list[int], ended: bool) -> None:
    data = chunked(WORD, WORD + WORD[:5], WORD[5:], b"\n", END if ended else b"{}", head=NDJSON)
    borders = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    outcome, chunks, answer = take([data[start:end] for start, end in pairwise(borders)], stream)
    whole = take([data], stream)
    assert (outcome, len(chunks), answer.words(outcome)) == (whole[0], len(whole[1]), whole[2].words(whole[0]))
    assert len(chunks) == (5 if stream == "chunks" else 3 + (not ended))


@each_row(("coding", "bits"), [("gzip", 31), ("deflate", 15), ("Deflate", -15)])
@each_row("stream", [AUTO, JsonLines(), "chunks"])
def test_a_compressed_stream_is_read_as_it_comes(coding: str, bits: int, stream: StreamSetting) -> None:
    packer = zlib.compressobj(wbits=bits)
    pieces = [packer.compress(line) + packer.flush(zlib.Z_SYNC_FLUSH) for line in (WORD, WORD)]
    pieces.append(packer.compress(END) + packer.flush())
    head, first, *more = chunked(*pieces, head=NDJSON + f"content-encoding: {coding}\r\n".encode()).partition(
        b"\r\n\r\n"
    )
    body = more[0]
    at = body.index(pieces[1])
    outcome, chunks_ns, answer = take([head + first, body[:at], body[at : at + 1], body[at + 1 :]], stream)
    assert outcome == 200
    assert chunks_ns == ([2, 4, 4] if stream == "chunks" else [2, 4])
    assert answer.reader.output_tokens == (-1 if stream == "chunks" else 9)


PATHS = [("/api/generate", AUTO), ("/api/chat", AUTO), ("/lines", JsonLines()), ("/chunks", "chunks")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StreamingServer]:
    with streaming_server(tmp_path_factory.mktemp("streams") / "sent.jsonl") as server:
        yield server


@pytest.mark.processes
@pytest.mark.parametrize("loop", [LoadLoop, PyreqwestLoop])
@pytest.mark.parametrize(("path", "form"), PATHS)
class TestRecordingServer:
    def test_every_token_is_counted(
        self, server: StreamingServer, path: str, form: StreamSetting, loop: type[LoadLoop | PyreqwestLoop]
    ) -> None:
        wanted: list[dict[str, Any]] = [{"max_tokens": 17}, {"max_tokens": 1}, {"max_tokens": 6, "gap_ms": 2}]
        wanted += [{"max_tokens": 5, "per_send": 3}, {"max_tokens": 3, "split": 7}] if path != "/chunks" else []
        messages = tuple(wanting(path, **{"first_ms": 1, "gap_ms": 0.5, **one}) for one in wanted)
        samples = samples_of(loop(self.job(server, loop, form, messages), lambda _: None).run())
        assert (samples.outcome == 200).all()
        counts = np.array([one["max_tokens"] for one in wanted])[samples.request].tolist()
        assert streams_of(samples).chunk_count.tolist() == counts
        is_counted = path.startswith("/api")
        assert streams_of(samples).output_tokens.tolist() == (counts if is_counted else [-1] * len(counts))
        assert set(streams_of(samples).input_tokens.tolist()) == {7 if is_counted else -1}

    def test_what_goes_wrong_in_a_stream_is_a_failure(
        self, server: StreamingServer, path: str, form: StreamSetting, loop: type[LoadLoop | PyreqwestLoop]
    ) -> None:
        expected = {"cut": Failure.CLOSED, "status": 500}
        if path != "/chunks":
            expected |= {"error": Failure.ERROR_EVENT, "malformed": Failure.MALFORMED}
        if path.startswith("/api"):
            expected |= {"no_done": Failure.CUT_OFF}
        messages = tuple(wanting(path, variant=variant, max_tokens=4, first_ms=0, gap_ms=0.1) for variant in expected)
        samples = samples_of(loop(self.job(server, loop, form, messages), lambda _: None).run())
        found = {variant: set(samples.outcome[samples.request == n].tolist()) for n, variant in enumerate(expected)}
        assert {variant: {int(outcome)} for variant, outcome in expected.items()} == found

    def job(
        self,
        server: StreamingServer,
        loop: type[LoadLoop | PyreqwestLoop],
        form: StreamSetting,
        messages: tuple[bytes, ...],
    ) -> LoadJob:
        job = a_job([server.address], ConstantRate(50), stream=True, duration_ns=200 * MS, messages=messages)
        remote = Remote(f"http://127.0.0.1:{server.port}", http2=False) if loop is PyreqwestLoop else None
        return replace(job, endpoint=replace(job.endpoint, stream=form, remote=remote))


@pytest.mark.processes
@pytest.mark.parametrize(("path", "form"), [*PATHS, ("/v1/completions", AUTO)])
def test_times_are_those_of_the_server_that_sent_the_chunks(tmp_path: Path, path: str, form: StreamSetting) -> None:
    with streaming_server(tmp_path / "sent.jsonl") as server:
        messages = (wanting(path, max_tokens=20, first_ms=3, gap_ms=0.5),)
        job = a_job([server.address], ClosedLoop(1), stream=True, duration_ns=200 * MS, messages=messages)
        job = replace(job, endpoint=replace(job.endpoint, stream=form))
        samples = samples_of(LoadLoop(job, lambda _: None).run())
        sent = server.stop()
    first_byte_ns = streams_of(samples).first_byte_ns
    arrivals = streams_of(samples).chunk_ns.reshape(len(sent), 20)
    sends, received = (np.array([getattr(one, name) for one in sent]) for name in ("chunk_ns", "received_ns"))
    assert (arrivals >= sends).all()
    assert (np.diff(arrivals, axis=1) >= 0).all()
    assert (samples.sent_ns <= received).all()
    assert (first_byte_ns >= received).all()
    assert (first_byte_ns <= arrivals[:, 0]).all()
    assert (arrivals[:, -1] <= samples.done_ns).all()
