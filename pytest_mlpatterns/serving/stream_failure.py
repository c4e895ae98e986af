"""Why a stream that began well is no answer: an error event, one that cannot be read, or a missing end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from pytest_mlpatterns.wire.rest_stream import is_event_stream
from pytest_mlpatterns.wire.stream_events import StreamReader, promises_end

if TYPE_CHECKING:
    import httpx

    from pytest_mlpatterns.wire import Wire

__all__ = ["stream_failure"]


def stream_failure(response: httpx.Response, wire: Wire) -> str:
    """The reason, in words; empty if the response is a whole stream, or none.

    Args:
        response: read to its end.
        wire: of the request.
    """
    if not is_event_stream(response.headers):
        return ""
    reader = StreamReader(is_openai=wire.protocol == "openai")
    reader.feed(response.content)
    if reader.error is not None:
        return f"the stream ended with an error: {_text_of(reader.error)}"
    if reader.malformed:
        return f"the stream has an event that is not one of {wire}"
    return "the stream ended without [DONE]" if promises_end(wire) and not reader.ended else ""


def _text_of(data: bytes) -> str:
    """The text in the data of an error event: ``{"error": text}``, or ``{"error": {"message": text}}``."""
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        found = data.decode("utf-8", "replace")
    for key in ("error", "message"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    return str(found)
