"""Streams of events as they arrive, mutated and split anywhere. However they are split, the same chunks are counted.

Whole answers too: however they are split, they have the same outcome, and what a failed one says of itself is one line.
"""

import json
import random
from dataclasses import dataclass

from pytest_mlpatterns.loadgen.http1 import Http1Stream
from pytest_mlpatterns.loadgen.streamed_answer import StreamedAnswer
from pytest_mlpatterns.wire.stream_events import StreamReader, TextReader, text_of
from pytest_mlpatterns.wire.stream_lines import JsonLines, LineReader
from pytest_mlpatterns.wire.wire import REST_JSON, Wire
from support.fuzz import Area
from support.fuzz.hostile import octets
from support.stream_modes import MODES


def _event(value: object) -> bytes:
    return b"data: %s\n\n" % json.dumps(value, ensure_ascii=False).encode()


_TEXT = [_event({"id": "c", "choices": [{"index": 0, "text": text}]}) for text in ("a", "tök", "€", 'a "b"', "")]
_CHAT = [_event({"choices": [{"delta": {"content": text}}]}) for text in ("a", "b\n", "🙂", "")]
_USAGE = _event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 9}})
_DONE = b"data: [DONE]\n\n"
STREAMS = (
    b"".join([*_TEXT, _USAGE, _DONE]),
    b"".join([_event({"choices": [{"delta": {"role": "assistant", "content": ""}}]}), *_CHAT, _USAGE, _DONE]),
    b"".join([*(_event(chunk) for chunk in ("a", 1, None, {"t": 1}, [])), _DONE]),
    b"".join([*_CHAT, b'event: error\ndata: {"error": "x"}\n\n']),
    b"".join(
        _event(chunk) for chunk in ({"choices": ["a"]}, {"token": "a", "usage": {}}, {"choices": [{"label": "a"}]})
    ),
    b"".join(_event({"text": "a", "meta_info": {"finish_reason": end}}) for end in (None, {"type": "abort"})),
    b": ping\r\n\r\nid: 1\r\nretry: 5\r\ndata: 1\r\ndata: 2\r\n\r\n",
    b"\xef\xbb\xbfdata: 1\r\rdata\r\r",
)
SPLICES = (
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"\0", b"\xff", b"\xef\xbb\xbf", b":", b"data:", b"data: ", b"event: error\n"),
    *(b'"finish_reason":"error"', b'"finish_reason":"stop"', b'{"detail":"x"}', b'{"object":"error","message":"x"}'),
    *(
        b'"delta":"x"',
        b'"finish_reason":{"type":"abort"}',
        b'"finish_reason":"timeout"',
        b'{"error":"x","error_type":"y"}',
    ),
    *(_DONE, _USAGE, b'"', b"\\", b"\\ud800", b"[" * 3000, b"9" * 400, b'{"choices":', b'"usage":', b"null"),
)


@dataclass(frozen=True)
class Arriving:
    """A stream, and where it is split."""

    stream: bytes
    cuts: tuple[int, ...]
    is_openai: bool

    def pieces(self) -> list[bytes]:
        ends = [*self.cuts, len(self.stream)]
        return [self.stream[start:end] for start, end in zip([0, *self.cuts], ends, strict=True)]


def arriving(draw: random.Random) -> Arriving:
    stream = octets(draw, STREAMS, SPLICES)
    if draw.random() < 0.3:  # at the ends of events, as servers do
        cuts = [at + 2 for at in range(len(stream)) if stream[at : at + 2] == b"\n\n"]
    else:
        cuts = [draw.randrange(len(stream) + 1) for _ in range(draw.randrange(8))]
    return Arriving(stream, tuple(sorted(cuts)), draw.random() < 0.5)


def read(case: Arriving) -> None:
    """Read it in pieces and at once, and keep its text."""
    found = []
    for pieces in (case.pieces(), [case.stream]):
        reader, keeping = StreamReader(is_openai=case.is_openai), TextReader(is_openai=case.is_openai)
        count, kept = (sum(one.feed(piece) for piece in pieces) for one in (reader, keeping))
        assert count == kept, f"{count} chunks, {kept} if their text is kept"
        tokens = reader.input_tokens, reader.output_tokens
        text = None if keeping.text is None else text_of(keeping.text)
        found.append((count, tokens, reader.ended, reader.finished, reader.error, reader.malformed, text))
    assert found[0] == found[1], f"in pieces {found[0]}, at once {found[1]}"


def _line(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


_END = {"done": True, "done_reason": "stop", "eval_count": 4, "prompt_eval_count": 2}
LINES = (
    b"".join(
        [*(_line({"response": text, "done": False}) for text in ("a", "tök", "")), _line({"response": "", **_END})]
    ),
    b"".join(_line({"message": {"content": "🙂", "tool_calls": calls}, "done": False}) for calls in (None, [{}], "x")),
    b"".join(_line(value) for value in ("a", 1, None, [], {}, {"text": "b"}, {"usage": {"out": 3}})),
    _line({"error": "no memory"}) + _line({"error": 0.5, "text": "a"}),
)
_OF_LINES = (b'"error":"x",', b'"done":true,', b'"done":1,', b'"usage":{"out":', b'"text":', *SPLICES)
_KEYS = JsonLines(text="text", tokens="usage.out")


def arriving_in_lines(draw: random.Random) -> Arriving:
    stream = octets(draw, LINES, _OF_LINES)
    cuts = sorted(draw.randrange(len(stream) + 1) for _ in range(draw.randrange(8)))
    return Arriving(stream, tuple(cuts), draw.random() < 0.5)


def read_lines(case: Arriving) -> None:
    """Read JSON lines in pieces and at once; ``is_openai`` is whether keys of objects are read."""
    found = []
    for pieces in (case.pieces(), [case.stream]):
        reader = LineReader(_KEYS if case.is_openai else None, keep_text=True)
        count = sum(map(reader.feed, pieces)) + reader.end()
        tokens = reader.input_tokens, reader.output_tokens
        ends = reader.ended, reader.finished, reader.error, reader.malformed, reader.cut, reader.why
        found.append((count, tokens, ends, None if reader.text is None else text_of(reader.text)))
    assert found[0] == found[1], f"in pieces {found[0]}, at once {found[1]}"


_ANSWERS = tuple(mode.data for mode in MODES)
_OF_HTTP = (
    *SPLICES,
    b"content-encoding: br\r\n",
    b"content-type: x\r\n",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n",
)
_LONGEST_WORDS = 400


def answering(draw: random.Random) -> Arriving:
    answer = octets(draw, _ANSWERS, _OF_HTTP)
    cuts = sorted(draw.randrange(len(answer) + 1) for _ in range(draw.randrange(6)))
    return Arriving(answer, tuple(cuts), draw.random() < 0.7)


def judge(case: Arriving) -> None:
    """Take an answer in pieces and at once; its outcome is the same, and what it says of itself one short line."""
    found = []
    for pieces in (case.pieces(), [case.stream]):
        answer = StreamedAnswer(wire=Wire.parse("openai") if case.is_openai else REST_JSON)
        protocol = Http1Stream([b""], "host", follow=False, keep=False, answer=answer)
        protocol.ask(0)
        answer.begin()
        outcome = (
            next((outcome for piece in pieces if piece and (outcome := protocol.take(piece))), 0) or protocol.end()
        )
        found.append((outcome, len(answer.chunk_ns), answer.words(outcome)))
    words = found[0][2]
    assert found[0] == found[1], f"in pieces {found[0]}, at once {found[1]}"
    assert len(words) <= _LONGEST_WORDS, f"{len(words)} characters of words"
    assert len(words.splitlines()) <= 1, f"several lines: {words!r}"


AREAS = [
    Area("streams", 60_000, arriving, read, ()),
    Area("streams of JSON lines", 20_000, arriving_in_lines, read_lines, ()),
    Area("answers to requests for streams", 20_000, answering, judge, ()),
]
