"""Ways in which a server of OpenAI's protocol answers a request for a stream, each with what has to come of it.

The bytes are declared, so that the same table drives the reader, a load, and a whole run of pytest.
"""

import gzip
import json
import zlib
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from pytest_mlpatterns.records.outcomes import Failure

TOKENS = 10
"""Tokens of an answer that has its usual number."""


class Ending(Enum):
    """What the server does after the bytes."""

    KEEP = "it waits for the next request"
    CLOSE = "it closes the connection"
    SILENCE = "it sends nothing more, and does not close"


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to answer, and what is expected of it."""

    name: str
    data: bytes  # the whole response
    outcome: int  # a status or a code of Failure
    chunks: int = 0
    words: str = ""  # in what the failed answer says of itself
    ending: Ending = Ending.KEEP  # what the server does then


def event(value: Any) -> bytes:
    """An event with this value as JSON."""
    return b"data: %s\n\n" % json.dumps(value).encode()


def text(content: str = "w ", reason: str | None = None) -> bytes:
    """The event of a completion."""
    return event({"choices": [{"index": 0, "text": content, "finish_reason": reason}]})


def delta(**fields: Any) -> bytes:
    """The event of a chat."""
    return event({"choices": [{"index": 0, "delta": fields, "finish_reason": None}]})


def usage(tokens: int) -> bytes:
    """The event with the usage."""
    return event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": tokens}})


DONE = b"data: [DONE]\n\n"
CONTENT = text() * TOKENS
ERROR = b'{"error":{"message":"CUDA out of memory","type":"internal"}}'
STREAM = b"text/event-stream"


def response(*parts: bytes, media: bytes = STREAM, head: bytes = b"", end: bool = True) -> bytes:
    """A response in chunks of HTTP, one for each part; without a media type if that is empty."""
    kind = b"content-type: %s\r\n" % media if media else b""
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts if part)
    tail = b"0\r\n\r\n" if end else b""
    return b"HTTP/1.1 200 OK\r\n%s%stransfer-encoding: chunked\r\n\r\n%s%s" % (kind, head, body, tail)


def whole(body: bytes, media: bytes = b"application/json", status: bytes = b"200 OK") -> bytes:
    """A response that is no stream, with its length."""
    return b"HTTP/1.1 %s\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n%s" % (status, media, len(body), body)


def _streamed(name: str, *parts: bytes, outcome: int = 200, chunks: int = TOKENS, words: str = "") -> Mode:
    return Mode(name, response(*parts), outcome, chunks, words)


_PARTS = (CONTENT, usage(TOKENS), DONE)
_GZIP, _DEFLATE, _BR = (b"content-encoding: %s\r\n" % coding for coding in (b"gzip", b"deflate", b"br"))
GOOD = _streamed("good", CONTENT, usage(TOKENS), DONE)
LEGITIMATE = (
    GOOD,
    _streamed("one token", text(), usage(1), DONE, chunks=1),
    _streamed("no usage", CONTENT, DONE),
    _streamed("tool call", delta(tool_calls=[{"function": {"arguments": "x"}}]) * TOKENS, usage(TOKENS), DONE),
    _streamed("reasoning", delta(reasoning_content="hm") * TOKENS, usage(TOKENS), DONE),
    Mode("gzip", response(gzip.compress(b"".join(_PARTS), mtime=0), head=_GZIP), 200, TOKENS),
    Mode("deflate", response(zlib.compress(b"".join(_PARTS)), head=_DEFLATE), 200, TOKENS),
    _streamed("stops at once", text("", "stop"), usage(1), DONE, chunks=0),
    _streamed("filtered", text("", "content_filter"), DONE, chunks=0),
    _streamed("special tokens", CONTENT, text("") * 40, text("", "length"), usage(TOKENS + 41), DONE),
)
"""Answers that count. Two of them have no token: a choice ended at once, for a reason."""
_NO_STREAM, _EMPTY, _ERROR = Failure.NO_STREAM, Failure.EMPTY_STREAM, Failure.ERROR_EVENT
NOT_COUNTED = (
    Mode("error as JSON", whole(ERROR), _NO_STREAM, words="application/json, expected text/event-stream: CUDA out"),
    Mode("detail as JSON", whole(b'{"detail":"busy"}'), _NO_STREAM, words="text/event-stream: busy"),
    Mode("a page", whole(b"<html>login</html>", b"text/html"), _NO_STREAM, words="text/html, expected text/event-s"),
    Mode("no body", whole(b""), _NO_STREAM, words="an empty body"),
    Mode("no content", b"HTTP/1.1 204 No Content\r\n\r\n", _NO_STREAM, words="no content-type"),
    Mode("a stream as JSON", response(*_PARTS, media=b"application/json"), _NO_STREAM, words="a body that is no error"),
    Mode("a stream as NDJSON", response(*_PARTS, media=b"application/x-ndjson"), _NO_STREAM, words="x-ndjson"),
    Mode("a stream without a type", response(*_PARTS, media=b""), _NO_STREAM, words="no content-type"),
    Mode("an empty stream", whole(b"", STREAM), Failure.CUT_OFF),
    _streamed(
        "the end only",
        DONE,
        outcome=_EMPTY,
        chunks=0,
        words="no event has content, expected at least one; the first is [DONE]",
    ),
    _streamed("usage only", usage(TOKENS), DONE, outcome=_EMPTY, chunks=0, words="the first has choices, usage"),
    _streamed("usage of nothing", usage(0), DONE, outcome=_EMPTY, chunks=0, words="no event has content"),
    _streamed("empty texts", text("") * TOKENS, usage(TOKENS), DONE, outcome=_EMPTY, chunks=0),
    _streamed("a role only", delta(role="assistant", content=""), DONE, outcome=_EMPTY, chunks=0),
    _streamed("null choices", event({"choices": None}) * 5, DONE, outcome=_EMPTY, chunks=0),
    _streamed("no objects", event({"choices": [1, None, "a", {}]}), DONE, outcome=_EMPTY, chunks=0),
    _streamed(
        "an error event", text() * 3, b"data: %s\n\n" % ERROR, DONE, outcome=_ERROR, chunks=3, words="CUDA out of"
    ),
    _streamed("a named error", text(), b"event: error\ndata: boom\n\n", outcome=_ERROR, chunks=1, words="boom"),
    _streamed("an error text", event({"error": "no memory"}), DONE, outcome=_ERROR, chunks=0, words="no memory"),
    _streamed(
        "an error object",
        *(text() * 3, event({"object": "error", "message": "no memory", "code": 50001}), DONE),
        outcome=_ERROR,
        chunks=3,
        words="no memory",
    ),
    _streamed("a detail", event({"detail": "internal error"}), DONE, outcome=_ERROR, chunks=0, words="internal error"),
    _streamed("ends in error", text() * 3, text("", "error"), DONE, outcome=_ERROR, chunks=3, words="reason error"),
    _streamed("aborted", text() * 3, text("x", "abort"), DONE, outcome=_ERROR, chunks=3, words="reason abort"),
    _streamed("broken JSON", text(), b'data: {"choices":[{"te\n\n', DONE, outcome=Failure.MALFORMED, chunks=1),
    _streamed("no end", CONTENT, usage(TOKENS), outcome=Failure.CUT_OFF),
    Mode("gzip that is none", response(*_PARTS, head=_GZIP), Failure.MALFORMED, words="the stream is not gzip: "),
    Mode("br", response(*_PARTS, head=_BR), Failure.COMPRESSED, TOKENS, "compressed (content-encoding: br), which is"),
    Mode(
        "a page in gzip",
        response(gzip.compress(b"<html>login</html>"), media=b"text/html", head=_GZIP),
        _NO_STREAM,
        words="text/html, expected text/event-stream: <html>login</html>",
    ),
    Mode("a page in br", response(b"x", media=b"text/html", head=_BR), _NO_STREAM, words="content-encoding br"),
    Mode("a status", whole(ERROR, status=b"500 Oh"), 500),
    Mode("closed in the middle", response(CONTENT, end=False), Failure.CLOSED, TOKENS, ending=Ending.CLOSE),
    Mode("stalls", response(text(), end=False), Failure.TIMEOUT, 1, ending=Ending.SILENCE),
    Mode("no end of HTTP", response(*_PARTS, end=False), Failure.NOT_ENDED, TOKENS, ending=Ending.SILENCE),
)
"""Answers that do not count."""
MODES = (
    *LEGITIMATE,
    replace(GOOD, name="usage of too much", data=response(CONTENT, usage(2_000_000_000), DONE)),
    replace(GOOD, name="usage of too little", data=response(CONTENT, usage(0), DONE)),
    *NOT_COUNTED,
)
"""Every mode. Of two the usage cannot be, so that their chunks are counted."""
