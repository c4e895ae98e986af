"""V1 messages in MessagePack, with arrays as arrays.

The messages are ``{"instances": [...]}`` and ``{"predictions": [...]}``. An array is encoded as the package
msgpack-numpy encodes it (a map with ``nd``, ``type``, ``kind``, ``shape`` and ``data``), so its users can send requests
to our servers. Unlike msgpack-numpy, this module never unpickles data.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from pytest_mlpatterns.wire.body import Body, Headers, WireError, items_of
from pytest_mlpatterns.wire.kserve_v1 import decode_instances, decode_predictions
from pytest_mlpatterns.wording import shown

CONTENT_TYPE = "application/msgpack"
_HEADERS = (("content-type", CONTENT_TYPE),)
_KINDS = "biufcSUmM"  # Kinds of numpy types that an array may have: those without objects, so nothing is unpickled
_MAX_ITEMS = 2**22  # Most items of one list or map, so that a short message cannot claim much memory


class _MsgpackV1:
    """The codec; see :class:`pytest_mlpatterns.wire.codec.Codec`."""

    def path(self, model: str) -> str:
        return f"/v1/models/{model}:predict"

    def encode_inputs(self, inputs: Sequence[Any]) -> Body:
        return _encode({"instances": inputs if isinstance(inputs, list) else list(inputs)})

    def decode_inputs(self, body: bytes | memoryview, headers: Headers) -> list[Any]:
        return decode_instances(body, _decode)

    def encode_outputs(self, outputs: Any) -> Body:
        return _encode({"predictions": outputs if isinstance(outputs, list) else list(outputs)})

    def decode_outputs(self, body: bytes | memoryview, headers: Headers) -> list[Any]:
        return decode_predictions(body, _decode)


MSGPACK_V1 = _MsgpackV1()


def _encode(message: dict[str, list[Any]]) -> Body:
    import msgpack

    try:
        return Body((msgpack.packb(message, default=_plain),), _HEADERS)
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError(f"MessagePack cannot encode the values: {error}") from error


def _decode(body: bytes | memoryview, key: str) -> object:
    import msgpack

    try:
        message = msgpack.unpackb(
            body, object_hook=_array_of, strict_map_key=False, max_array_len=_MAX_ITEMS, max_map_len=_MAX_ITEMS
        )
    except WireError:
        raise
    except Exception as error:  # msgpack raises many kinds, also for keys that are not hashable
        raise WireError(f"the body is not MessagePack: {error or type(error).__name__}") from None
    return message.get(key) if isinstance(message, dict) else None


def _plain(value: object) -> object:
    """Convert values that MessagePack cannot encode: arrays, sets, ranges."""
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind not in _KINDS:
            raise TypeError(f"arrays of {value.dtype} cannot be sent")
        array = np.ascontiguousarray(value)
        data = array.reshape(-1).view(np.uint8).data if array.dtype.itemsize else b""
        kind = {b"type": value.dtype.str, b"data": data}
        if isinstance(value, np.generic):
            return {b"nd": False, **kind}
        return {b"nd": True, b"kind": b"", b"shape": value.shape, **kind}
    if isinstance(value, set | frozenset | range):
        return items_of(value)
    if hasattr(value, "__array__"):
        return _plain(np.asarray(value))
    raise TypeError(f"{type(value).__name__} cannot be sent")


def _array_of(found: dict[Any, Any]) -> Any:
    if b"nd" not in found:
        return found
    try:
        array = np.frombuffer(found[b"data"], _dtype(found[b"type"]))
        if not found[b"nd"]:
            return array[0]
        return array.reshape(found[b"shape"])
    except (KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
        raise WireError(f"malformed array: {type(error).__name__}: {error}") from None


@cache
def _dtype(name: str) -> np.dtype[Any]:
    dtype = np.dtype(name)
    if dtype.kind not in _KINDS or not dtype.itemsize:
        raise ValueError(f"type {shown(name)}")
    return dtype
