"""Which answers are streams, and of which form: server-sent events, JSON lines, or chunks of anything.

What the user declares decides, and else the head of an answer: media types of events and of lines announce a stream.
Everything else is whole, since many services send whole answers in chunked transfer. Some send plain text as
``text/event-stream``, as BentoML does. An answer with a content-length is whole before its first byte is sent, so it is
no stream of lines or chunks.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.units import format_duration, format_size
from pytest_mlpatterns.wire.stream_events import EVENT_STREAM, StreamReader, TextReader, promises_end
from pytest_mlpatterns.wire.stream_lines import JsonLines, LineReader, PieceReader
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_mlpatterns.wire.wire import Wire

__all__ = [
    "AUTO",
    "WHOLE",
    "Reader",
    "StreamForm",
    "StreamSetting",
    "described_answer",
    "form_in",
    "form_of",
    "names_stream",
    "new_reader",
    "read_stream",
    "usual_form",
]

_LINE_TYPES = frozenset(
    (
        *("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonl"),
        *("application/jsonlines", "application/x-jsonlines", "application/json-lines", "application/stream+json"),
    )
)
"""Media types of JSON lines."""
AUTO, WHOLE, _CHUNKS = "auto", "whole", "chunks"
Reader = StreamReader | LineReader | PieceReader
"""What reads a stream; all of them have the same attributes."""
StreamSetting = str | JsonLines
"""How answers are read: :data:`AUTO`, ``"chunks"``, ``"whole"``, or the meaning of their lines."""


class StreamForm(Enum):
    """The form of a stream."""

    EVENTS = "server-sent events"
    LINES = "JSON lines"
    CHUNKS = "chunks"


def read_stream(value: object, found: str) -> StreamSetting:
    """Convert ``stream=`` of a target.

    Args:
        value: as the user gives it; None lets the media type decide.

    Raises:
        SettingError: it is none of the known values.
    """
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

    Args:
        wire: of its request. The wire ``openai`` has events only; lines of ``invocations`` are its own whole answers.
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

    Args:
        headers: of the answer, names in lower case.
        size: of its body in bytes.
        pieces: in which its body came; 0 if that is not known.
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
