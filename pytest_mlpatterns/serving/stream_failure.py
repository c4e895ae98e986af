"""Why an answer of status 2xx is not the stream that was requested: the rule of the load, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.wire.stream_events import promises_end
from pytest_mlpatterns.wire.stream_fault import StreamFault, described_fault, fault_of
from pytest_mlpatterns.wire.stream_form import AUTO, WHOLE, Reader, StreamSetting, form_in, new_reader, usual_form
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


def stream_failure(response: httpx.Response, wire: Wire, body: bytes, *, stream: StreamSetting = AUTO) -> str:
    """The reason, in words; empty if the response is a whole stream, or none and none was requested.

    A stream is to come if a request of the wire ``openai`` or the target says so. Elsewhere the first answer shows it.

    Args:
        response: read to its end, and decompressed.
        wire: of the request.
        body: of the request.
        stream: what the target says about the form of its streams.
    """
    reader = _reader_of(response, wire, stream)
    fault = stream_fault(response, wire, body, stream=stream, reader=reader)
    if fault is None:
        return ""
    if reader.why:
        return f"the stream is broken: {reader.why}"
    if fault is StreamFault.MALFORMED:
        return f"the stream has an event that is not one of {wire}"
    media_type = response.headers.get("content-type", "")
    return _WORDS[fault] + described_fault(fault, reader, media_type=media_type, opening=response.content)


def stream_fault(
    response: httpx.Response,
    wire: Wire,
    body: bytes,
    *,
    stream: StreamSetting = AUTO,
    reader: Reader | None = None,
) -> StreamFault | None:
    """What is wrong, as :func:`stream_failure` describes it; None if nothing is.

    Args:
        response: read to its end, and decompressed.
        wire: of the request.
        body: of the request.
        stream: what the target says about the form of its streams.
        reader: reads the stream; None for one of its own.
    """
    is_openai, is_stated = promises_end(wire), stream not in (AUTO, WHOLE)
    asked, reader = asked_by(body, by_default=not is_openai), reader or _reader_of(response, wire, stream)
    if form_in(response.headers, wire, stream) is None:
        is_expected = (is_openai or is_stated) and asked.stream
        return StreamFault.NO_STREAM if is_expected and response.is_success else None
    has_chunks = reader.feed(response.content) + reader.end() > 0
    return fault_of(reader, has_chunks=has_chunks, asked=asked)


def _reader_of(response: httpx.Response, wire: Wire, stream: StreamSetting) -> Reader:
    """What reads a response: of its own form, or of the expected one if it is no stream."""
    form = form_in(response.headers, wire, stream) or usual_form(stream)
    return new_reader(form, stream, is_openai=promises_end(wire))
