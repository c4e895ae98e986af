"""Streams of events as they arrive, mutated and split anywhere. However they are split, the same chunks are counted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.wire.stream_events import StreamReader
from support.fuzz import Area
from support.fuzz.hostile import octets

if TYPE_CHECKING:
    import random

__all__ = ["AREAS", "SPLICES", "STREAMS"]


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
    b": ping\r\n\r\nid: 1\r\nretry: 5\r\ndata: 1\r\ndata: 2\r\n\r\n",
    b"\xef\xbb\xbfdata: 1\r\rdata\r\r",
)
SPLICES = (
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"\0", b"\xff", b"\xef\xbb\xbf", b":", b"data:", b"data: ", b"event: error\n"),
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
    """Read it in pieces and at once.

    Raises:
        AssertionError: the split changes what is counted.
    """
    found = []
    for pieces in (case.pieces(), [case.stream]):
        reader = StreamReader(is_openai=case.is_openai)
        count = sum(reader.feed(piece) for piece in pieces)
        tokens = reader.input_tokens, reader.output_tokens
        found.append((count, tokens, reader.ended, reader.error, reader.malformed))
    assert found[0] == found[1], f"in pieces {found[0]}, at once {found[1]}"


AREAS = [Area("streams", 100_000, arriving, read, ())]
