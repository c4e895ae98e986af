"""A stream over REST JSON: server-sent events, ``data: <chunk as JSON>`` for each chunk, and ``data: [DONE]`` last.

An error after the first chunk is ``event: error`` with ``{"error": text}``, and the last event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from pytest_mlpatterns.wire.body import WireError
from pytest_mlpatterns.wire.event_stream import Event, EventStreamError, EventStreamParser
from pytest_mlpatterns.wire.kserve_v1 import decode_error, encode_error, encode_value
from pytest_mlpatterns.wire.stream_events import EVENT_STREAM

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DONE",
    "ChunkReader",
    "StreamError",
    "chunks_in",
    "encode_chunk",
    "encode_error_event",
    "encode_times_event",
    "events_in",
    "is_event_stream",
]

DONE = b"data: [DONE]\n\n"
"""The event that ends a stream."""
_END = b"[DONE]"
_CUT_OFF = "the stream is cut off: it has no event [DONE]"


class StreamError(WireError):
    """An error event; the text is that of the service."""


def is_event_stream(headers: Mapping[str, str]) -> bool:
    """Whether an answer with these headers, whose names are in lower case, is a stream."""
    return headers.get("content-type", "").lower().startswith(EVENT_STREAM)


def encode_chunk(chunk: Any) -> bytes:
    """The event of a chunk.

    Raises:
        WireError: JSON cannot encode it.
    """
    return b"data: %s\n\n" % encode_value(chunk)


def encode_error_event(text: str) -> bytes:
    """The event of an error."""
    return b"event: error\ndata: %s\n\n" % encode_error(text)


def encode_times_event(times: bytes) -> bytes:
    """The event with the times of a stream, which only processes of one deployment send each other."""
    return b"event: times\ndata: %s\n\n" % times


class ChunkReader:
    """Reads a stream, however its bytes are divided.

    Attributes:
        is_done: whether the event that ends a stream has arrived.
        times: of the event with times; empty before.
    """

    def __init__(self) -> None:
        self.is_done: bool = False
        self.times: bytes = b""
        self._parser = EventStreamParser()

    def feed(self, data: bytes) -> list[Any]:
        """The chunks that are complete with these bytes; a :class:`StreamError` in place of an error event.

        Raises:
            WireError: an event is no JSON, or too long.
        """
        chunks: list[Any] = []
        try:
            for event in self._parser.feed(data):
                if event.name == b"error":
                    chunks.append(StreamError(decode_error(event.data)))
                elif event.name == b"times":
                    self.times = event.data
                elif event.data == _END:
                    self.is_done = True
                else:
                    chunks.append(orjson.loads(event.data))
        except orjson.JSONDecodeError as error:
            raise WireError(f"an event of the stream is not JSON: {error}") from None
        except EventStreamError as error:
            raise WireError(str(error)) from None
        return chunks


def chunks_in(body: bytes) -> list[Any]:
    """The chunks of a whole stream.

    Raises:
        StreamError: it ends with an error.
        WireError: it has another form, or is cut off.
    """
    reader = ChunkReader()
    chunks = reader.feed(body)
    for chunk in chunks:
        if isinstance(chunk, StreamError):
            raise chunk
    if not reader.is_done:
        raise WireError(_CUT_OFF)
    return chunks


def events_in(body: bytes) -> list[Event]:
    """The events of a whole stream before ``[DONE]``.

    Raises:
        WireError: it is cut off, or an event is too long.
    """
    try:
        events = EventStreamParser().feed(body)
    except EventStreamError as error:
        raise WireError(str(error)) from None
    end = next((number for number, event in enumerate(events) if event.data == _END), None)
    if end is None:
        raise WireError(_CUT_OFF)
    return events[:end]
