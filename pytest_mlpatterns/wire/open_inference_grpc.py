"""V2 over gRPC: protobuf messages with raw or typed tensor contents.

Raw contents of a received message are not copied: this module splits them off by their field number, and only the small
rest is parsed by protobuf. In a sent message they are copied once.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from pytest_mlpatterns.wire.body import Body, Headers, WireError
from pytest_mlpatterns.wire.grpc_call import message_class, message_prefix
from pytest_mlpatterns.wire.open_inference import InferRequest
from pytest_mlpatterns.wire.tensors import Column, Rows, columns_for, rows_from, rows_of_binary, specification_of
from pytest_mlpatterns.wording import shown

_REQUEST, _RESPONSE = "inference.ModelInferRequest", "inference.ModelInferResponse"
_RAW_INPUTS, _RAW_OUTPUTS = 7, 6
_INPUT, _OUTPUT = "input-0", "output-0"
_LENGTHS = {1: 8, 5: 4}  # Bytes of fields of fixed size by their wire type (the encoding of protobuf)
_VARINT, _DELIMITED = 0, 2
_TYPED = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Field of the typed contents for each datatype; FP16 has none."""


class _CodecProtobuf:
    """The codec; see :class:`pytest_mlpatterns.wire.codec.Codec`. Bodies are messages without the name of the model."""

    def path(self, model: str) -> str:
        """Path of the same request over REST; the transport moves the model's name into the message."""
        return f"/v2/models/{model}/infer"

    def encode_inputs(self, inputs: Any) -> Body:
        message = message_class(_REQUEST)()
        columns, parameters = columns_for("inputs", _INPUT, inputs, rows_allowed=True)
        _set_parameters(message, parameters)
        for column in columns:
            _describe(message.inputs.add(), column)
        return Body((message.SerializeToString(), *_raw(columns, _RAW_INPUTS)), ())

    def decode_inputs(self, body: bytes | memoryview, _headers: Headers) -> list[Any]:
        return read_call(body).request.inputs

    def encode_outputs(self, outputs: Any) -> Body:
        request = InferRequest([], None, None, binary=True, specification=())
        return Body((encode_answer(request, outputs, "", rows_allowed=True),), ())

    def decode_outputs(self, body: bytes | memoryview, _headers: Headers) -> list[Any]:
        message, raw = _parsed(body, _RESPONSE, _RAW_OUTPUTS)
        return _rows_in("outputs", message, message.outputs, raw=raw)


PROTOBUF = _CodecProtobuf()


class InferCall(Struct, frozen=True):
    """A request, and the model and version that it names; empty if it names none."""

    request: InferRequest
    model_name: str
    model_version: str


def read_call(data: bytes | memoryview) -> InferCall:
    """Decode a ModelInferRequest. Numbers in raw contents become views of ``data``."""
    message, raw = _parsed(data, _REQUEST, _RAW_INPUTS)
    inputs = _rows_in("inputs", message, message.inputs, raw=raw)
    if not inputs:
        raise WireError("the first dimension is 0, expected at least one input")
    wanted = None
    if message.outputs:
        wanted = {tensor.name: bool(raw) for tensor in message.outputs}
        for tensor in message.outputs:
            if "classification" in tensor.parameters:
                raise WireError(f"output {shown(tensor.name)} asks for a classification, which is not supported")
    specification = specification_of(map(_described, message.inputs))
    request = InferRequest(inputs, message.id or None, wanted, binary=bool(raw), specification=specification)
    return InferCall(request, message.model_name, message.model_version)


def encode_answer(request: InferRequest, outputs: Any, model: str, *, rows_allowed: bool = False) -> bytes:
    """Encode a ModelInferResponse: raw contents if the request had them, otherwise typed if possible.

    Raises WireError: no tensor can hold the outputs, or a requested output does not exist.
    """
    message = message_class(_RESPONSE)(model_name=model, model_version="1" if model else "", id=request.identity or "")
    columns, parameters = columns_for("outputs", _OUTPUT, outputs, rows_allowed=rows_allowed, wanted=request.outputs)
    _set_parameters(message, parameters)
    typed = not request.binary and all(column.datatype in _TYPED for column in columns)
    for column in columns:
        tensor = message.outputs.add()
        _describe(tensor, column)
        if typed:
            getattr(tensor.contents, _TYPED[column.datatype]).extend(_elements(column))
    return b"".join([message.SerializeToString(), *([] if typed else _raw(columns, _RAW_OUTPUTS))])


def outputs_in(answer: bytes) -> tuple[dict[str, Any], ...]:
    """Name, datatype and shape of each tensor in a response, with -1 as the first dimension."""
    return specification_of(map(_described, _parsed(answer, _RESPONSE, _RAW_OUTPUTS)[0].outputs))


def call_message(parts: Sequence[bytes | memoryview], model: str) -> bytes:
    """A framed request: gRPC prefix, name of the model, and the body of the codec."""
    name = model_field(model)
    return b"".join([message_prefix(len(name) + sum(map(len, parts))), name, *parts])


def model_field(model: str) -> bytes:
    """The encoded field with the name of the model; followed by the body of the codec, it is a complete message."""
    encoded: bytes = message_class(_REQUEST)(model_name=model).SerializeToString()
    return encoded


def split_raw(data: bytes | memoryview, field: int) -> tuple[bytes | memoryview, list[memoryview]]:
    """Split a repeated ``bytes`` field off a protobuf message."""
    view, found, rest = memoryview(data), list[memoryview](), list[memoryview]()
    at = since = 0
    while at < len(view):
        start = at
        tag, at = _varint(view, at)
        kind = tag & 7
        if kind == _DELIMITED:
            size, at = _varint(view, at)
        elif kind == _VARINT:
            size, at = 0, _varint(view, at)[1]
        elif kind in _LENGTHS:
            size = _LENGTHS[kind]
        else:
            raise WireError("the message is not protobuf")
        if at + size > len(view):
            raise WireError("the message is truncated")
        if tag == field << 3 | _DELIMITED:
            found.append(view[at : at + size])
            rest.append(view[since:start])
            since = at + size
        at += size
    if not found:
        return data, found
    rest.append(view[since:])
    return b"".join(rest), found


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(view) and shift < 64:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise WireError("the message is truncated")


def _parsed(data: bytes | memoryview, name: str, raw_field: int) -> tuple[Any, list[memoryview]]:
    from google.protobuf.message import DecodeError

    rest, raw = split_raw(data, raw_field)
    try:
        return message_class(name).FromString(bytes(rest)), raw
    except DecodeError as error:
        raise WireError(f"the message is not a {name.rpartition('.')[2]}: {error}") from None


def _rows_in(kind: str, message: Any, tensors: Sequence[Any], *, raw: list[memoryview]) -> list[Any]:
    """The rows of a message's tensors."""
    if raw and len(raw) != len(tensors):
        raise WireError(f"{len(raw)} raw contents for {len(tensors)} {kind}, expected one for each")
    parameters = _parameters(message)
    by_row = "rows" in parameters
    columns = []
    for number, tensor in enumerate(tensors):
        try:
            columns.append((tensor.name, _rows(tensor, raw[number] if raw else None, by_row=by_row)))
        except WireError as error:
            raise WireError(f"tensor {shown(tensor.name)}: {error}") from None
    return rows_from(kind, columns, parameters)


def _rows(tensor: Any, raw: memoryview | None, *, by_row: bool) -> Rows:
    shape = tuple(tensor.shape)
    asked = _parameters(tensor)
    if "shared_memory_region" in asked:
        raise WireError("it is in shared memory, which is not supported; send its data")
    if any(length < 0 for length in shape):
        raise WireError(f"shape {list(shape)}, expected whole numbers from 0")
    if not shape and not by_row:
        raise WireError("it has no dimension, expected a first one that counts the inputs")
    if raw is None:
        raw = _typed(tensor)
    elif (
        tensor.HasField("contents") and tensor.contents.ByteSize()
    ):  # MLServer sends empty typed contents with raw ones
        raise WireError("it has both raw and typed contents, expected one of them")
    whole = (1, *shape) if by_row else shape
    return rows_of_binary(raw, tensor.datatype, whole, is_text=asked.get("content_type") == "str")


def _typed(tensor: Any) -> memoryview:
    """Convert typed contents to raw contents."""
    from pytest_mlpatterns.wire.tensors import DTYPES

    datatype = tensor.datatype
    if datatype not in _TYPED:
        raise WireError(f"datatype {shown(datatype)} has no typed contents; send raw ones")
    elements = getattr(tensor.contents, _TYPED[datatype])
    if datatype == "BYTES":
        return memoryview(b"".join(part for one in elements for part in (len(one).to_bytes(4, "little"), one)))
    dtype = DTYPES[datatype]
    given = np.fromiter(elements, dtype if dtype.kind in "bf" or dtype.itemsize == 8 else np.int64, len(elements))
    found = given.astype(dtype, copy=False)
    if not np.array_equal(found, given, equal_nan=dtype.kind == "f"):
        raise WireError(f"contents out of the range of {datatype}")
    return found.view(np.uint8).data


def _elements(column: Column) -> list[Any]:
    if column.datatype == "BYTES":
        return [one.encode() if isinstance(one, str) else one for rows in column.arrays for one in rows]
    return [element for array in column.arrays for element in array.reshape(-1).tolist()]


def _raw(columns: Sequence[Column], field: int) -> list[bytes | memoryview]:
    parts: list[bytes | memoryview] = []
    for column in columns:
        raw = column.raw()
        parts += (bytes([field << 3 | _DELIMITED]) + _as_varint(sum(map(len, raw))), *raw)
    return parts


def _as_varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _describe(tensor: Any, column: Column) -> None:
    tensor.name = column.name
    tensor.datatype = column.datatype
    tensor.shape.extend(column.shape)
    if column.is_text:
        tensor.parameters["content_type"].string_param = "str"


def _described(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _set_parameters(message: Any, parameters: dict[str, Any]) -> None:
    for name, value in parameters.items():
        if isinstance(value, bool):
            message.parameters[name].bool_param = value
        else:
            message.parameters[name].int64_param = value


def _parameters(holder: Any) -> dict[str, Any]:
    return {
        name: getattr(value, which)
        for name, value in holder.parameters.items()
        if (which := value.WhichOneof("parameter_choice")) is not None
    }
