"""V1: the REST JSON protocol of KServe and TF Serving.

A request is ``{"instances": [...]}``, a response ``{"predictions": [...]}``, an error ``{"error": text}``. In a stream,
an error after the first chunk is ``event: error`` with ``{"error": text}``, and the last event.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson

from pytest_mlpatterns.wire.body import JSON_HEADERS, Body, Headers, WireError, check_finite, items_of, json_in
from pytest_mlpatterns.wire.stream_events import EVENT_STREAM, Event, EventStreamError, EventStreamParser

DONE = b"data: [DONE]\n\n"  # The event that ends a stream
_END = b"[DONE]"
_CUT_OFF = "the stream is cut off: it has no event [DONE]"


class _JsonV1:
    """The codec; see :class:`pytest_mlpatterns.wire.codec.Codec`."""

    def path(self, model: str) -> str:
        return f"/v1/models/{model}:predict"

    def encode_inputs(self, inputs: Sequence[Any]) -> Body:
        return Body((encode_instances(list(inputs)),), JSON_HEADERS)

    def decode_inputs(self, body: bytes | memoryview, headers: Headers) -> list[Any]:
        return decode_instances(body)

    def encode_outputs(self, outputs: Any) -> Body:
        return Body((encode_predictions(outputs),), JSON_HEADERS)

    def decode_outputs(self, body: bytes | memoryview, headers: Headers) -> list[Any]:
        return decode_predictions(body)


JSON_V1 = _JsonV1()


def encode_instances(instances: list[Any]) -> bytes:
    """Encode a predict request; NumPy arrays and scalars become numbers.

    Raises WireError: JSON cannot encode an input, or it has NaN or infinity.
    """
    return encode({"instances": instances}, "input", instances)


def encode_predictions(outputs: Any) -> bytes:
    """Encode a response; ``outputs`` is an array or an iterable.

    Raises WireError: JSON cannot encode an output, or it has NaN or infinity.
    """
    plain = outputs if isinstance(outputs, list | tuple) or hasattr(outputs, "tolist") else list(outputs)
    return encode({"predictions": plain}, "output", plain)


def encode_value(value: Any) -> bytes:
    """Encode one value, such as a chunk of a stream.

    Raises WireError: JSON cannot encode it, or it has NaN or infinity.
    """
    return encode(value, "chunk", [value])


def encode_error(text: str) -> bytes:
    """Encode an error response; unpaired surrogates, which UTF-8 cannot encode, become question marks."""
    return orjson.dumps({"error": text.encode(errors="replace").decode()})


def decode_error(body: bytes) -> str:
    """The text of an error response; the body itself if it has another form."""
    try:
        text = _load(body, "error")
    except WireError:
        text = None
    return text if isinstance(text, str) else body[:2000].decode(errors="replace")


def decode_instances(body: bytes | memoryview, load: Callable[..., object] | None = None) -> list[Any]:
    """Decode the inputs of a predict request; at least one. ``load``: finds a field of the body; None if it is JSON."""
    instances = (load or _load)(body, "instances")
    if not isinstance(instances, list) or not instances:
        raise WireError('the body is not {"instances": [...]} with at least one instance')
    return instances


def decode_predictions(body: bytes | memoryview, load: Callable[..., object] | None = None) -> list[Any]:
    """Decode the outputs of a response; ``load`` as of :func:`decode_instances`."""
    predictions = (load or _load)(body, "predictions")
    if not isinstance(predictions, list):
        raise WireError('the body is not {"predictions": [...]}')
    return predictions


def _load(body: bytes | memoryview, key: str) -> object:
    message = json_in(body)
    return message.get(key) if isinstance(message, dict) else None


def encode(message: Any, what: str, items: Iterable[Any]) -> bytes:
    """Encode a message as JSON; arrays, sets and ranges become lists.

    Raises WireError: JSON cannot encode it, or one of the ``items`` in it, ``what`` each is, has NaN or infinity.
    """
    try:
        body = orjson.dumps(message, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        raise WireError(str(error)) from error
    if b"null" in body:  # orjson writes NaN and the infinities so
        check_finite(what, items)
    return body


def _plain(value: object) -> object:
    """Convert values that orjson cannot encode: arrays of other layouts and types, sets, ranges."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, set | frozenset | range):
        return items_of(value)
    raise TypeError(f"JSON cannot hold {type(value).__name__}")


class StreamError(WireError):
    """An error event; the text is the service's."""


def is_event_stream(headers: Mapping[str, str]) -> bool:
    """Whether an answer with these headers, whose names are in lower case, is a stream."""
    return headers.get("content-type", "").lower().startswith(EVENT_STREAM)


def encode_chunk(chunk: Any) -> bytes:
    """The event of a chunk. Raises WireError: JSON cannot encode it."""
    return b"data: %s\n\n" % encode_value(chunk)


def encode_error_event(text: str) -> bytes:
    """The event of an error."""
    return b"event: error\ndata: %s\n\n" % encode_error(text)


def encode_times_event(times: bytes) -> bytes:
    """The event with the times of a stream, which only processes of one deployment send each other."""
    return b"event: times\ndata: %s\n\n" % times


class ChunkReader:
    """Reads a stream, however its bytes are divided. ``times``: of the event with times; empty before."""

    def __init__(self) -> None:
        self.is_done: bool = False
        self.times: bytes = b""
        self._parser = EventStreamParser()

    def feed(self, data: bytes) -> list[Any]:
        """The chunks that are complete with these bytes; a :class:`StreamError` in place of an error event."""
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
    """The chunks of a whole stream. Raises StreamError: it ends with an error."""
    reader = ChunkReader()
    chunks = reader.feed(body)
    for chunk in chunks:
        if isinstance(chunk, StreamError):
            raise chunk
    if not reader.is_done:
        raise WireError(_CUT_OFF)
    return chunks


def events_in(body: bytes) -> list[Event]:
    """The events of a whole stream before ``[DONE]``."""
    try:
        events = EventStreamParser().feed(body)
    except EventStreamError as error:
        raise WireError(str(error)) from None
    end = next((number for number, event in enumerate(events) if event.data == _END), None)
    if end is None:
        raise WireError(_CUT_OFF)
    return events[:end]
