"""What a request asks of its answer: whether it is to be a stream, and whether it is to have tokens.

Status and end of the HTTP response are judged elsewhere: an answer here is one of status 2xx whose last byte came. What
describes an answer stands in reports: texts of errors and pages, and nothing that may be an output of a model.

Which answers are streams, and of which form: server-sent events, JSON lines, or chunks of anything.

What the user declares decides, and else the head of an answer: media types of events and of lines announce a stream.
Everything else is whole, since many services send whole answers in chunked transfer. Some send plain text as
``text/event-stream``, as BentoML does. An answer with a content-length is whole before its first byte is sent, so it is
no stream of lines or chunks.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from functools import cache
from typing import Any, NamedTuple

import orjson

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.units import format_duration, format_size
from pytest_mlpatterns.wire.stream_events import EVENT_STREAM, StreamReader, TextReader, broken_end, promises_end
from pytest_mlpatterns.wire.stream_lines import JsonLines, LineReader, PieceReader
from pytest_mlpatterns.wire.wire import Wire
from pytest_mlpatterns.wording import shown

_LINE_TYPES = frozenset(
    (
        *("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonl"),
        *("application/jsonlines", "application/x-jsonlines", "application/json-lines", "application/stream+json"),
    )
)
"""Media types of JSON lines."""
AUTO, WHOLE, _CHUNKS = "auto", "whole", "chunks"
Reader = StreamReader | LineReader | PieceReader  # What reads a stream; all of them have the same attributes
StreamSetting = str | JsonLines
"""How answers are read: :data:`AUTO`, ``"chunks"``, ``"whole"``, or the meaning of their lines."""


class StreamForm(Enum):
    """The form of a stream."""

    EVENTS = "server-sent events"
    LINES = "JSON lines"
    CHUNKS = "chunks"


def read_stream(value: object, found: str) -> StreamSetting:
    """Convert ``stream=`` of a target. ``value``: as the user gives it; None lets the media type decide."""
    if value is None or isinstance(value, JsonLines):
        return AUTO if value is None else value
    known: dict[object, StreamSetting] = {"lines": JsonLines(), _CHUNKS: _CHUNKS, WHOLE: WHOLE}
    if not isinstance(value, str) or value not in known:
        raise SettingError(
            f'{found}(stream={shown(value)}), expected "lines" for JSON lines, "chunks" for chunks of anything, '
            '"whole" for answers that are no streams, or JsonLines(tokens="..."); leave it out for server-sent events'
        )
    return known[value]


def form_of(media_type: str, *, is_sized: bool, wire: Wire, stream: StreamSetting) -> StreamForm | None:
    """The form of an answer of status 2xx by its head; None if it is no stream.

    ``wire``: of its request. The wire ``openai`` has events only; lines of ``invocations`` are its own whole answers.
    """
    if stream == WHOLE:
        return None
    media_type = media_type.partition(";")[0].strip().lower()
    if stream != AUTO and not promises_end(wire):
        return None if is_sized else usual_form(stream)
    if media_type == EVENT_STREAM:
        return StreamForm.EVENTS
    has_lines = not (is_sized or promises_end(wire) or wire.protocol == "invocations")
    return StreamForm.LINES if has_lines and media_type in _LINE_TYPES else None


def names_stream(media_type: str) -> bool:
    """Whether a ``content-type`` announces a stream."""
    kind = media_type.partition(";")[0].strip().lower()
    return kind == EVENT_STREAM or kind in _LINE_TYPES


def form_in(headers: Mapping[str, str], wire: Wire, stream: StreamSetting = AUTO) -> StreamForm | None:
    """The form of an answer with these headers, whose names are in lower case; see :func:`form_of`."""
    media_type = headers.get("content-type", "")
    return form_of(media_type, is_sized="content-length" in headers, wire=wire, stream=stream)


def usual_form(stream: StreamSetting) -> StreamForm:
    """The form of the streams that the target's setting names; events if it names none."""
    if isinstance(stream, JsonLines):
        return StreamForm.LINES
    return StreamForm.CHUNKS if stream == _CHUNKS else StreamForm.EVENTS


def new_reader(form: StreamForm, stream: StreamSetting, *, is_openai: bool, keep_text: bool = False) -> Reader:
    """What reads one stream of a form."""
    match form:
        case StreamForm.LINES:
            return LineReader(stream if isinstance(stream, JsonLines) else None, keep_text=keep_text)
        case StreamForm.CHUNKS:
            return PieceReader(keep_text=keep_text)
    return (TextReader if keep_text else StreamReader)(is_openai=is_openai)


def described_answer(
    headers: Mapping[str, str], size: int, *, pieces: int, spread_ns: int, stream: StreamSetting = AUTO
) -> str:
    """What a whole answer looked like, and how it could be read as a stream, for a test of streams.

    ``size``: of its body in bytes. ``pieces``: in which its body came; 0 if that is not known.
    """
    if stream == WHOLE:
        return 'the target has stream="whole"; leave it out'

    media_type = headers.get("content-type", "").partition(";")[0].strip()[:100] or "an answer without content-type"
    if "content-length" in headers:
        return f"the first one was {media_type} with a content-length ({format_size(size)}), so it was sent whole"
    spread = f" over {format_duration(spread_ns)}" if pieces > 1 else ""
    seen = f"the first one was {media_type} in {pieces} chunk{'' if pieces == 1 else 's'}{spread}"
    if pieces < 2:
        return seen
    return f'{seen}, and may be a stream: give the target stream="chunks", or stream="lines" if each line is JSON'


_LIMITS = ("max_tokens", "max_completion_tokens", "max_new_tokens")
"""Fields that limit the tokens of an answer, of OpenAI and of its servers."""
OPENING_BYTES = 4096  # Begin of a body that is kept to describe it: enough for an error object with a trace
_LINE_LETTERS = 200
"""Longest line of an answer in a message: enough for the text of an error, and one line of a terminal or two."""
_NO_EVENTS = '; its bytes are no events: if the service sends plain text, give the target stream="chunks"'
"""End of the message of an empty stream whose bytes the reader of events left out."""
_KEYS = ("error", "message", "detail")  # Names under which servers put the text of an error, the outer ones first


class Asked(NamedTuple):
    """What a request asks for."""

    stream: bool
    tokens: bool  # whether its answer is to have tokens; not with ``max_tokens: 0``, which only reads the prompt


def asked_by(body: bytes, *, by_default: bool) -> Asked:
    """What the body of a request asks for: a stream by ``"stream": true``, a whole answer by ``"stream": false``.

    ``by_default``: whether a body without either asks for a stream. Over the wire ``openai`` it does not, while other
    services may stream by their path.
    """
    value = _json_of(body)
    if not isinstance(value, dict):
        return Asked(by_default, tokens=True)
    stream = value.get("stream") is not False if by_default else value.get("stream") is True
    return Asked(stream, tokens=not any(type(value.get(name)) is int and value[name] == 0 for name in _LIMITS))


def asked_in_load(messages: Sequence[bytes], *, is_openai: bool, has_streams: bool) -> Callable[[int], Asked]:
    """The function of what each of the requests of a load asks for, by its index.

    Of a service of REST JSON a body may leave open whether it asks for a stream. If another one has ``"stream": true``,
    the field decides, and such a body asks for none. Else the path may decide, and it asks for one if its request line
    is the first input's, whose answer was seen to be a stream.
    """
    by_field = is_openai or not has_streams or _some_ask(messages)
    first = _request_line(messages[0]) if messages else b""

    @cache
    def asked(request: int) -> Asked:
        message = messages[request]
        found = asked_by(_body(message), by_default=not by_field and _request_line(message) == first)
        return found if has_streams else found._replace(stream=False)

    return asked


def asks_for_streams(wire: Wire, messages: Sequence[bytes]) -> bool:
    """Whether one of these requests, complete with their heads, asks for a stream by the rules of its wire."""
    return promises_end(wire) and _some_ask(messages)


def _some_ask(messages: Sequence[bytes]) -> bool:
    """Whether one of these requests has ``"stream": true``."""
    return any(asked_by(_body(message), by_default=False).stream for message in messages if b'"stream"' in message)


def _body(message: bytes) -> bytes:
    return message.partition(b"\r\n\r\n")[2]


def _request_line(message: bytes) -> bytes:
    return message.partition(b"\r\n")[0]


class StreamFault(Enum):
    """Why an answer does not count as a stream; a load's failures have these names."""

    NO_STREAM = auto()
    COMPRESSED = auto()
    ERROR_EVENT = auto()
    MALFORMED = auto()
    CUT_OFF = auto()
    EMPTY_STREAM = auto()


def fault_of(
    reader: Reader, *, has_chunks: bool, asked: Asked, delimited: bool = True, coding: str = ""
) -> StreamFault | None:
    """What is wrong with a stream; None if nothing is.

    A stream without a chunk is whole if a choice of it ended for a reason, such as ``"finish_reason": "stop"``, or if
    the request asked for no tokens.

    ``coding``: its ``content-encoding``, if it was not decompressed.
    """
    if coding.strip().lower() not in ("", "identity"):
        return StreamFault.COMPRESSED
    if reader.error is not None:
        return StreamFault.ERROR_EVENT
    if reader.malformed:
        return StreamFault.MALFORMED
    if reader.cut or ((reader.needs_end or not delimited) and not reader.ended):
        return StreamFault.CUT_OFF
    return None if has_chunks or reader.finished or not asked.tokens else StreamFault.EMPTY_STREAM


def described_fault(
    fault: StreamFault, reader: Reader, *, media_type: str = "", coding: str = "", opening: bytes = b""
) -> str:
    """A fault in one line; empty if its name suffices."""
    media_type, coding = (_first_line(text.encode("utf-8", "replace")) for text in (media_type, coding))
    match fault:
        case StreamFault.NO_STREAM:
            found = f"content-encoding {coding}" if coding else _described_body(media_type, opening)
            return f"{media_type or 'no content-type'}, expected {reader.expected}: {found}"
        case StreamFault.COMPRESSED:
            return f"compressed (content-encoding: {coding}), which is not read as it comes; send the stream as it is"
        case StreamFault.ERROR_EVENT:
            return error_text(reader.error or b"")
        case StreamFault.EMPTY_STREAM:
            is_other = not reader.needs_end and not reader.opening and opening.strip()
            seen = _NO_EVENTS if is_other else _described_event(reader.opening)
            return reader.why or f"no {reader.unit} has content, expected at least one{seen}"
    return reader.why


def error_text(data: bytes) -> str:
    """The text of an error object in one line: of ``error``, of ``message`` in it or beside it, or of ``detail``.

    If the object has no such text, its own first line. Of a choice or an answer that ended with an error, the reason
    alone.
    """
    found = _json_of(data)
    if isinstance(found, dict) and not found.get("error"):
        choices = found.get("choices")
        if isinstance(choices, list):
            return f"a choice ended with finish_reason {next(filter(None, map(broken_end, choices)), '')}"
        for name, ended in (("finish_reason", found.get("meta_info")), ("done_reason", found)):
            if reason := broken_end(ended):
                return f"the answer ended with {name} {reason}"
    for key in _KEYS:
        if isinstance(found, dict) and found.get(key):
            found = found[key]
    return _first_line(str(found).encode("utf-8", "replace") if isinstance(found, str | int | float) else data)


def _described_body(media_type: str, opening: bytes) -> str:
    """A body that is no stream: the text of an error object, the first line of a page, or that it is neither."""
    found = _json_of(opening)
    if isinstance(found, dict) and (found.get("error") or found.get("detail") or found.get("object") == "error"):
        return error_text(opening)
    if media_type.lower().startswith("text/html") and (line := _first_line(opening)):
        return line
    return "a body that is no error object" if opening.strip() else "an empty body"


def _described_event(data: bytes) -> str:
    """The first event of an empty stream: its end, or the names of its fields; empty if it has another form."""
    if data == b"[DONE]":
        return "; the first is [DONE]"
    found = _json_of(data)
    return f"; the first has {_first_line(', '.join(found).encode())}" if found and isinstance(found, dict) else ""


def _json_of(data: bytes) -> Any:
    """The JSON value; None if it is none."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _first_line(data: bytes) -> str:
    """The first line that is not empty, cut to its longest length."""
    lines = data[: 4 * _LINE_LETTERS].decode("utf-8", "replace").strip().splitlines()
    return " ".join(lines[0].split())[:_LINE_LETTERS] if lines else ""
