"""Why an answer of status 2xx is not the stream that was requested: the rule of the load, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.wire.rest_stream import is_event_stream
from pytest_mlpatterns.wire.stream_events import StreamReader, promises_end
from pytest_mlpatterns.wire.stream_fault import StreamFault, described_fault, fault_of
from pytest_mlpatterns.wire.stream_request import asked_by

if TYPE_CHECKING:
    import httpx

    from pytest_mlpatterns.wire import Wire

__all__ = ["stream_failure", "stream_fault"]

_WORDS = {
    StreamFault.NO_STREAM: "its answer is no stream: ",
    StreamFault.ERROR_EVENT: "the stream ended with an error: ",
    StreamFault.CUT_OFF: "the stream ended without [DONE]",
    StreamFault.EMPTY_STREAM: "the stream is empty: ",
}


def stream_failure(response: httpx.Response, wire: Wire, body: bytes) -> str:
    """The reason, in words; empty if the response is a whole stream, or none and none was requested.

    Only the wire ``openai`` says in its requests that a stream is to come. Elsewhere the first answer shows it.

    Args:
        response: read to its end, and decompressed.
        wire: of the request.
        body: of the request.
    """
    reader = StreamReader(is_openai=promises_end(wire))
    fault = stream_fault(response, wire, body, reader=reader)
    if fault is None:
        return ""
    if fault is StreamFault.MALFORMED:
        return f"the stream has an event that is not one of {wire}"
    media_type = response.headers.get("content-type", "")
    return _WORDS[fault] + described_fault(fault, reader, media_type=media_type, opening=response.content)


def stream_fault(
    response: httpx.Response, wire: Wire, body: bytes, *, reader: StreamReader | None = None
) -> StreamFault | None:
    """What is wrong, as :func:`stream_failure` describes it; None if nothing is.

    Args:
        response: read to its end, and decompressed.
        wire: of the request.
        body: of the request.
        reader: reads the stream; None for one of its own.
    """
    is_openai = promises_end(wire)
    asked, reader = asked_by(body, by_default=not is_openai), reader or StreamReader(is_openai=is_openai)
    if not is_event_stream(response.headers):
        return StreamFault.NO_STREAM if is_openai and asked.stream and response.is_success else None
    has_chunks = reader.feed(response.content) > 0
    return fault_of(reader, has_chunks=has_chunks, asked=asked, needs_end=is_openai)
