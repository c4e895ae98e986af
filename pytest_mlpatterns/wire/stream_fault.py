"""Whether an answer is the stream that was requested, and if not, what it is: for the load and the requests before it.

Status and end of the HTTP response are judged elsewhere: an answer here is one of status 2xx whose last byte came.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import orjson

from pytest_mlpatterns.wire.stream_events import EVENT_STREAM

if TYPE_CHECKING:
    from pytest_mlpatterns.wire.stream_events import StreamReader
    from pytest_mlpatterns.wire.stream_request import Asked

__all__ = ["LINE_BYTES", "StreamFault", "described_fault", "error_text", "fault_of"]

LINE_BYTES = 200
"""Longest line of an answer in a message: enough for the text of an error, and one line of a terminal or two."""
_KEYS = ("error", "message", "detail")
"""Names under which servers put the text of an error, the outer ones first."""


class StreamFault(Enum):
    """Why an answer does not count as a stream; its names are those of the failures of a load."""

    NO_STREAM = auto()
    COMPRESSED = auto()
    ERROR_EVENT = auto()
    MALFORMED = auto()
    CUT_OFF = auto()
    EMPTY_STREAM = auto()


def fault_of(
    reader: StreamReader, *, has_chunks: bool, asked: Asked, needs_end: bool, coding: str = ""
) -> StreamFault | None:
    """What is wrong with a stream; None if nothing is.

    A stream without a chunk is whole if a choice of it ended for a reason, such as ``"finish_reason": "stop"``, or if
    the request asked for no tokens.

    Args:
        reader: has read it.
        has_chunks: whether it has a chunk with content.
        asked: what its request asked for.
        needs_end: whether it is cut off without ``[DONE]``.
        coding: its ``content-encoding``, if it was not decompressed.
    """
    if coding.strip().lower() not in ("", "identity"):
        return StreamFault.COMPRESSED
    if reader.error is not None:
        return StreamFault.ERROR_EVENT
    if reader.malformed:
        return StreamFault.MALFORMED
    if needs_end and not reader.ended:
        return StreamFault.CUT_OFF
    return None if has_chunks or reader.finished or not asked.tokens else StreamFault.EMPTY_STREAM


def described_fault(
    fault: StreamFault, reader: StreamReader, *, media_type: str = "", coding: str = "", opening: bytes = b""
) -> str:
    """A fault in one line; empty if its name says all.

    Args:
        fault: of an answer.
        reader: has read it, if it is a stream.
        media_type: of the answer.
        coding: its ``content-encoding``.
        opening: begin of its body, if it is no stream.
    """
    match fault:
        case StreamFault.NO_STREAM:
            found = _first_line(media_type.encode("utf-8", "replace")) or "no content-type"
            line = f"content-encoding {coding}" if coding else _first_line(opening) or "an empty body"
            return f"{found}, expected {EVENT_STREAM}: {line}"
        case StreamFault.COMPRESSED:
            return f"compressed (content-encoding: {coding}), which was not asked for; send the stream as it is"
        case StreamFault.ERROR_EVENT:
            return error_text(reader.error or b"")
        case StreamFault.EMPTY_STREAM:
            line = _first_line(reader.opening)
            return f"no event has content, expected at least one{f'; the first is {line}' if line else ''}"
    return ""


def error_text(data: bytes) -> str:
    """The text of an error object in one line: of ``error``, of ``message`` in it or beside it, or of ``detail``.

    If the object has no such text, its own first line, such as that of a choice that ended with an error.
    """
    try:
        found: Any = orjson.loads(data)
    except orjson.JSONDecodeError:
        return _first_line(data)
    for key in _KEYS:
        if isinstance(found, dict) and found.get(key):
            found = found[key]
    return _first_line(data if isinstance(found, dict | list) else str(found).encode("utf-8", "replace"))


def _first_line(data: bytes) -> str:
    """The first line that is not empty, cut to :data:`LINE_BYTES`."""
    lines = data[: 4 * LINE_BYTES].decode("utf-8", "replace").strip().splitlines()
    return " ".join(lines[0].split())[:LINE_BYTES] if lines else ""
