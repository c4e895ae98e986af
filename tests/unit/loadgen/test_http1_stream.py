"""Answers in pieces, byte by byte: however they are split, every chunk is counted once and stamped by its last byte."""

import sys

import pytest
from support.each_row import each_row

from pytest_mlpatterns.loadgen.http1 import Http1Pieces, Http1Stream
from pytest_mlpatterns.loadgen.recorder import StreamColumns
from pytest_mlpatterns.loadgen.streamed_answer import StreamedAnswer
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.wire import REST_JSON, Wire
from pytest_mlpatterns.wire.stream_request import read_stream

OPENAI = Wire.parse("openai")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
ROLE = b'data: {"choices": [{"delta": {"role": "assistant", "content": ""}}]}\n\n'
TOKENS = [b'data: {"choices": [{"delta": {"content": "%s"}}]}\n\n' % text.encode() for text in ("a", "tök", "€")]
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}}\n\n'
DONE = b"data: [DONE]\n\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n"


def chunked(*parts: bytes, end: bool = True) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return HEAD + CHUNKED + b"\r\n" + body + (b"0\r\n\r\n" if end else b"")


class Reading:
    """A protocol whose pieces arrive at 1, 2, 3, … ns."""

    def __init__(self, *, is_openai: bool = True, follow: bool = False, keep: bool = False) -> None:
        self.answer = StreamedAnswer(wire=OPENAI if is_openai else REST_JSON)
        self.protocol = Http1Stream([b"request"], "host", follow=follow, keep=keep, answer=self.answer)

    def take(self, *pieces: bytes) -> int:
        """Ask, take the pieces, and return the first outcome."""
        self.protocol.ask(0)
        self.answer.begin()
        for number, piece in enumerate(pieces, start=1):
            self.answer.now_ns = number
            if outcome := self.protocol.take(piece):
                return outcome
        return 0

    def chunks(self) -> list[int]:
        return self.answer.chunk_ns.tolist()


WHOLE = chunked(ROLE, *TOKENS, USAGE, DONE)


@pytest.mark.parametrize("kept", [True, False])
def test_every_split_at_every_byte_gives_the_same_chunks(kept: bool) -> None:
    reading = Reading(keep=kept)
    ends = [WHOLE.index(token) + len(token) for token in TOKENS]
    for at in range(1, len(WHOLE)):
        assert reading.take(WHOLE[:at], WHOLE[at:]) == 200
        assert reading.chunks() == [1 if end <= at else 2 for end in ends]
        assert (reading.answer.reader.input_tokens, reading.answer.reader.output_tokens) == (5, 3)
        assert not reading.protocol.used_up
        assert reading.protocol.body() == (b"".join([ROLE, *TOKENS, USAGE, DONE]) if kept else b"")


def test_bytes_one_by_one_stamp_each_chunk_with_its_last_byte() -> None:
    reading = Reading()
    assert reading.take(*(WHOLE[at : at + 1] for at in range(len(WHOLE)))) == 200
    assert reading.chunks() == [WHOLE.index(token) + len(token) for token in TOKENS]


def test_several_events_in_one_chunk_of_http_are_several_chunks() -> None:
    reading = Reading()
    assert reading.take(chunked(ROLE + b"".join(TOKENS) + DONE)) == 200
    assert reading.chunks() == [1, 1, 1]


def test_an_event_in_several_chunks_of_http_is_one_chunk() -> None:
    reading = Reading()
    assert reading.take(chunked(*(TOKENS[1][at : at + 3] for at in range(0, len(TOKENS[1]), 3)), DONE)) == 200
    assert reading.chunks() == [1]


def test_one_connection_reads_one_stream_after_another() -> None:
    reading = Reading()
    for _ in range(3):
        assert reading.take(WHOLE) == 200
        assert reading.chunks() == [1, 1, 1]
    assert reading.take(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}") == Failure.NO_STREAM
    assert reading.chunks() == []
    assert not reading.answer.is_stream
    assert reading.take(WHOLE) == 200
    assert reading.chunks() == [1, 1, 1]


@each_row(
    ("stream", "is_openai", "outcome"),
    (chunked(*TOKENS), True, Failure.CUT_OFF),
    (chunked(*TOKENS), False, 200),
    (chunked(*TOKENS, DONE), True, 200),
    (chunked(*TOKENS, end=False), False, 0),
    (chunked(*TOKENS, DONE, end=False), True, 0),
    (chunked(*TOKENS, b"event: error\ndata: no memory\n\n"), False, Failure.ERROR_EVENT),
    (chunked(*TOKENS, b'data: {"error": {"message": "no"}}\n\n'), True, Failure.ERROR_EVENT),
    (chunked(*TOKENS, b"data: {\n\n", DONE), True, Failure.MALFORMED),
    (chunked(*TOKENS, DONE).replace(b"200 OK", b"500 Oh"), True, 500),
    (chunked(*TOKENS, end=False) + b"zz\r\n", True, Failure.MALFORMED),
    (HEAD + b"content-length: %d\r\n\r\n" % len(TOKENS[0]) + TOKENS[0], False, 200),
)
def test_a_stream_without_its_end_is_a_failure(stream: bytes, is_openai: bool, outcome: int) -> None:
    reading = Reading(is_openai=is_openai)
    assert reading.take(stream) == outcome


def test_what_is_broken_after_the_head_is_malformed_or_no_part_of_the_answer() -> None:
    reading = Reading()
    head, chunk = chunked(end=False), b"%x\r\n%s\r\n" % (len(TOKENS[0]), TOKENS[0])
    assert reading.take(head, chunk, b"zz\r\n") == Failure.MALFORMED
    assert reading.chunks() == [2]
    reading = Reading(is_openai=False)
    assert reading.take(head, chunk + b"0\r\n\r\nnonsense") == 200
    assert reading.protocol.used_up


@pytest.mark.parametrize(
    ("body", "outcome"), [(b"".join(TOKENS), Failure.CUT_OFF), (b"".join([*TOKENS, DONE]), 200), (b"", Failure.CUT_OFF)]
)
def test_a_stream_that_lasts_until_the_connection_is_closed_needs_its_last_event(body: bytes, outcome: int) -> None:
    reading = Reading(is_openai=False)
    assert reading.take(HEAD + b"\r\n" + body) == 0
    assert reading.protocol.end() == outcome
    assert reading.take(chunked(*TOKENS, end=False)) == 0
    assert reading.protocol.end() == 0  # lost


def test_an_accepted_request_is_polled_until_its_stream_comes() -> None:
    reading = Reading(is_openai=False, follow=True)
    accepted = b"HTTP/1.1 202 Accepted\r\nlocation: /jobs/1\r\ncontent-length: 0\r\n\r\n"
    assert reading.take(accepted) == 0
    assert reading.protocol.outbox == [b"GET /jobs/1 HTTP/1.1\r\nhost: host\r\n\r\n"]
    reading.answer.now_ns = 7
    assert reading.protocol.take(chunked(*TOKENS)) == 200
    assert reading.chunks() == [7, 7, 7]


def test_an_interim_response_is_no_answer() -> None:
    reading = Reading()
    assert reading.take(b"HTTP/1.1 100 Continue\r\n\r\n", WHOLE) == 200
    assert reading.chunks() == [2, 2, 2]


LINES = b'{"response": "a", "done": false}\n{"response": "b", "done": true}\n'


@each_row(("setting", "kind"), [("lines", Http1Stream), ("chunks", Http1Pieces)])
@each_row("cut", [0, 1, 20, len(HINTS)])
@each_row(
    ("framing", "tail", "ends"),
    [(CHUNKED, b"%x\r\n%s\r\n0\r\n\r\n" % (len(LINES), LINES), False), (b"connection: close\r\n", LINES, True)],
)
def test_early_hints_of_their_own_are_no_stream(
    setting: str, kind: type[Http1Stream], cut: int, framing: bytes, tail: bytes, ends: bool
) -> None:
    answer = StreamedAnswer(stream=read_stream(setting, "stream"))
    protocol = kind([b"request"], "host", follow=False, keep=False, answer=answer)
    protocol.ask(0)
    data = HINTS + b"HTTP/1.1 200 OK\r\nx-of: the answer\r\n" + framing + b"\r\n" + tail
    outcomes = [protocol.take(piece) for piece in (data[:cut], data[cut:]) if piece]
    if ends:
        outcomes.append(protocol.end())
    assert protocol.head().startswith(b"HTTP/1.1 200 OK\r\nx-of: the answer")
    assert [outcome for outcome in outcomes if outcome] == [200 if setting == "lines" or not ends else Failure.CUT_OFF]


@pytest.mark.parametrize("setting", ["lines", "chunks"])
def test_a_whole_answer_after_early_hints_of_their_own_is_no_stream(setting: str) -> None:
    answer = StreamedAnswer(stream=read_stream(setting, "stream"))
    protocol = Http1Pieces([b"request"], "host", follow=False, keep=False, answer=answer)
    protocol.ask(0)
    assert protocol.take(HINTS) == 0
    assert not answer.is_stream
    sized = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    assert protocol.take(sized) == Failure.NO_STREAM
    assert protocol.head() == sized.partition(b"\r\n\r\n")[0]


def test_a_second_response_in_the_same_bytes_is_noticed() -> None:
    reading = Reading()
    assert reading.take(WHOLE[:-4], WHOLE[-4:] + WHOLE) == 200
    assert reading.protocol.used_up


def test_a_million_chunks_take_less_than_twenty_megabytes() -> None:
    columns, answer = StreamColumns(), StreamedAnswer()
    answer.chunk_ns.extend(range(1000))
    for _ in range(1000):
        columns.add(answer)
    sizes = {name: sys.getsizeof(getattr(columns, name)) for name in StreamColumns.COLUMNS}
    assert len(columns.chunk_ns) == 1_000_000
    assert sum(sizes.values()) < 20e6
