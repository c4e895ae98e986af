"""V1: the REST JSON protocol of KServe and TF Serving.

A request is ``{"instances": [...]}``, a response ``{"predictions": [...]}``, an error ``{"error": text}``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from pytest_mlpatterns.wire.body import Body, Headers, WireError, items_of
from pytest_mlpatterns.wire.not_finite import check_finite

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "CONTENT_TYPE",
    "JSON_V1",
    "JsonV1",
    "decode_error",
    "decode_instances",
    "decode_predictions",
    "dump",
    "encode_error",
    "encode_instances",
    "encode_predictions",
    "encode_value",
]

CONTENT_TYPE = "application/json"
_HEADERS = (("content-type", CONTENT_TYPE),)


class JsonV1:
    """The codec; see :class:`pytest_mlpatterns.wire.codec.Codec`."""

    def path(self, model: str) -> str:
        """Path of the predict requests of a model."""
        return f"/v1/models/{model}:predict"

    def encode_inputs(self, inputs: Sequence[Any]) -> Body:
        """Encode a predict request."""
        return Body((encode_instances(list(inputs)),), _HEADERS)

    def decode_inputs(self, body: bytes | memoryview, headers: Headers) -> list[Any]:
        """Decode the instances of a request."""
        return decode_instances(body)

    def encode_outputs(self, outputs: Any) -> Body:
        """Encode a response."""
        return Body((encode_predictions(outputs),), _HEADERS)

    def decode_outputs(self, body: bytes | memoryview, headers: Headers) -> list[Any]:
        """Decode the predictions of a response."""
        return decode_predictions(body)


JSON_V1 = JsonV1()


def encode_instances(instances: list[Any]) -> bytes:
    """Encode a predict request; NumPy arrays and scalars become numbers.

    Raises:
        WireError: JSON cannot encode an input, or it has NaN or infinity.
    """
    body = dump({"instances": instances})
    if b"null" in body:
        check_finite("input", instances)
    return body


def encode_predictions(outputs: Any) -> bytes:
    """Encode a response; ``outputs`` is an array or an iterable.

    Raises:
        WireError: JSON cannot encode an output, or it has NaN or infinity.
    """
    plain = outputs if isinstance(outputs, list | tuple) or hasattr(outputs, "tolist") else list(outputs)
    body = dump({"predictions": plain})
    if b"null" in body:
        check_finite("output", plain)
    return body


def encode_value(value: Any) -> bytes:
    """Encode one value, such as a chunk of a stream.

    Raises:
        WireError: JSON cannot encode it, or it has NaN or infinity.
    """
    body = dump(value)
    if b"null" in body:
        check_finite("chunk", [value])
    return body


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


def decode_instances(body: bytes | memoryview) -> list[Any]:
    """Decode the inputs of a predict request; at least one.

    Raises:
        WireError: the body is not JSON, or has another form.
    """
    instances = _load(body, "instances")
    if not isinstance(instances, list) or not instances:
        raise WireError('the body is not {"instances": [...]} with at least one instance')
    return instances


def decode_predictions(body: bytes | memoryview) -> list[Any]:
    """Decode the outputs of a response.

    Raises:
        WireError: the body is not JSON, or has another form.
    """
    predictions = _load(body, "predictions")
    if not isinstance(predictions, list):
        raise WireError('the body is not {"predictions": [...]}')
    return predictions


def _load(body: bytes | memoryview, key: str) -> object:
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise WireError(f"the body is not JSON: {error}") from None
    return message.get(key) if isinstance(message, dict) else None


def dump(message: Any) -> bytes:
    """Encode a message as JSON; arrays, sets and ranges become lists, NaN and infinity null.

    Raises:
        WireError: JSON cannot encode it.
    """
    try:
        return orjson.dumps(message, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        raise WireError(str(error)) from error


def _plain(value: object) -> object:
    """Convert values that orjson cannot encode: arrays of other layouts and types, sets, ranges."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, set | frozenset | range):
        return items_of(value)
    raise TypeError(f"JSON cannot hold {type(value).__name__}")
