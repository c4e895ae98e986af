"""V2: the Open Inference Protocol over REST, in JSON and with the binary tensor extension.

With the extension, the body is a JSON header followed by the binary data of its tensors, in order. The HTTP header
``Inference-Header-Content-Length`` is the length of the JSON header.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from msgspec import Struct

from pytest_mlpatterns.wire.body import JSON_HEADERS, Body, Headers, NotFiniteError, WireError, json_in, name_of_number
from pytest_mlpatterns.wire.tensors import (
    Column,
    Rows,
    columns_for,
    rows_from,
    rows_of_binary,
    rows_of_json,
    specification_of,
)
from pytest_mlpatterns.wording import shown

HEAD_LENGTH = "inference-header-content-length"
_ALIGNMENT = 8  # Bytes of the largest number; data that begins at a multiple of it need not be copied
_NAMES = {"inputs": "input-0", "outputs": "output-0"}  # Name of a single tensor


class _Layout(Struct, frozen=True):
    """Form of the tensors of a message."""

    binary: bool
    rows_allowed: bool  # values of different shapes may use an encoding that only this package knows
    # names of the requested tensors, and whether each is binary; None: all, in the default form
    wanted: Mapping[str, bool] | None = None


class _CodecV2:
    """The codec; see :class:`pytest_mlpatterns.wire.codec.Codec`."""

    def __init__(self, *, binary: bool) -> None:
        self._binary = binary
        self._layout = _Layout(binary=binary, rows_allowed=True)

    def path(self, model: str) -> str:
        return f"/v2/models/{model}/infer"

    def encode_inputs(self, inputs: Any) -> Body:
        """Encode an inference request that asks for a response in the same format."""
        parameters = {"binary_data_output": True} if self._binary else {}
        return _encoded("inputs", inputs, {"parameters": parameters}, layout=self._layout)

    def decode_inputs(self, body: bytes | memoryview, headers: Headers) -> list[Any]:
        return read_request(body, headers).inputs

    def encode_outputs(self, outputs: Any) -> Body:
        """Encode a response to another process of the deployment."""
        return _encoded("outputs", outputs, {}, layout=self._layout)

    def decode_outputs(self, body: bytes | memoryview, headers: Headers) -> list[Any]:
        return _decoded("outputs", *_message(body, headers))


JSON_V2 = _CodecV2(binary=False)
BINARY_V2 = _CodecV2(binary=True)


class InferRequest(Struct, frozen=True):
    """A decoded inference request."""

    inputs: list[Any]
    identity: str | None
    # names of the requested outputs, and whether each is binary; None: all outputs, in the default format
    outputs: dict[str, bool] | None
    binary: bool
    # name, datatype and shape of each input tensor, with -1 as the first dimension
    specification: tuple[dict[str, Any], ...]


def read_request(body: bytes | memoryview, headers: Headers) -> InferRequest:
    """Decode an inference request, JSON or binary."""
    message, data = _message(body, headers)
    identity = message.get("id")
    if identity is not None and not isinstance(identity, str):
        raise WireError(f"id is {shown(identity)}, expected text")
    parameters = _parameters(message)
    inputs = _decoded("inputs", message, data)
    if not inputs:
        raise WireError("the first dimension is 0, expected at least one input")
    wanted = None
    binary = parameters.get("binary_data_output") is True
    if message.get("outputs") is not None:
        wanted = {}
        for tensor in _tensors(message, "outputs"):
            asked = _parameters(tensor)
            if "classification" in asked:
                raise WireError(f"output {shown(tensor['name'])} asks for a classification, which is not supported")
            wanted[tensor["name"]] = asked.get("binary_data", binary) is True
    specification = specification_of(message["inputs"])
    return InferRequest(inputs, identity, wanted, binary, specification)


def encode_answer(request: InferRequest, outputs: Any, model: str, *, rows_allowed: bool) -> Body:
    """Encode the response to a request.

    ``rows_allowed``: outputs of different shapes may use an encoding that only this package knows. Raises WireError: no
    tensor can hold the outputs, or a requested output does not exist.
    """
    fields: dict[str, Any] = {"model_name": model, "model_version": "1"}
    if request.identity is not None:
        fields["id"] = request.identity
    return _encoded("outputs", outputs, fields, layout=_Layout(request.binary, rows_allowed, request.outputs))


def outputs_in(answer: Body) -> tuple[dict[str, Any], ...]:
    """Name, datatype and shape of each tensor in a response, with -1 as the first dimension."""
    length = int(dict(answer.headers).get(HEAD_LENGTH, answer.size))
    return specification_of(orjson.loads(answer.joined()[:length])["outputs"])


def _encoded(kind: str, values: Any, fields: dict[str, Any], *, layout: _Layout) -> Body:
    """Encode a message. ``kind``: ``inputs`` or ``outputs``."""
    columns, added = columns_for(kind, _NAMES[kind], values, rows_allowed=layout.rows_allowed, wanted=layout.wanted)
    parameters = {**fields.get("parameters", {}), **added}
    tensors, parts = [], []
    for column in columns:
        as_binary = layout.binary if layout.wanted is None else layout.wanted[column.name]
        tensor: dict[str, Any] = {"name": column.name, "datatype": column.datatype, "shape": column.shape}
        asked: dict[str, Any] = {"content_type": "str"} if column.is_text else {}
        if as_binary:
            raw = column.raw()
            asked["binary_data_size"] = sum(map(len, raw))
            parts += raw
        if asked:
            tensor["parameters"] = asked
        if not as_binary:
            tensor["data"] = _data_of(column, kind, by_row="rows" in added)
        tensors.append(tensor)
    message = {**fields, "parameters": parameters, kind: tensors}
    if not parameters:
        del message["parameters"]
    try:
        head = orjson.dumps(message, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        raise WireError(str(error)) from None
    if not parts:
        return Body((head,), JSON_HEADERS)
    head += b" " * (-len(head) % _ALIGNMENT)  # aligns the data, so that it need not be copied
    headers = (("content-type", "application/octet-stream"), (HEAD_LENGTH, str(len(head))))
    return Body((head, *parts), headers)


def _data_of(column: Column, kind: str, *, by_row: bool) -> Any:
    """The elements of a tensor for JSON. NaN becomes null, which decoders read as NaN; an infinity has no form."""
    data = column.plain()
    if not column.datatype.startswith("FP") or not np.isinf(data).any():
        return data
    first = int(np.flatnonzero(np.isinf(data))[0])
    shape = (1, *column.shape) if by_row else column.shape
    row, *place = (int(index) for index in np.unravel_index(first, shape))
    item, _, name = column.name.partition(":") if by_row else (row, "", column.name)
    at = f" at {''.join(f'[{index}]' for index in place)}" if place else ""
    of = f" of tensor {name}" if name else ""
    raise NotFiniteError(kind.removesuffix("s"), int(item), f"{name_of_number(data[first])}{at}{of}")


def _message(body: bytes | memoryview, headers: Headers) -> tuple[dict[str, Any], memoryview]:
    """Split a body into its JSON header and the binary data."""
    whole = memoryview(body)
    given = headers.get(HEAD_LENGTH)
    end = len(whole) if given is None else int(given) if given.isascii() and given.isdigit() else -1
    if not 0 <= end <= len(whole):
        raise WireError(f"Inference-Header-Content-Length is {given}, expected at most the body's {len(whole)}")
    message = json_in(whole[:end])
    if not isinstance(message, dict):
        raise WireError('the body is not {"inputs": [...]}')
    return message, whole[end:]


def _decoded(kind: str, message: dict[str, Any], data: memoryview) -> list[Any]:
    """The rows of a message's tensors."""
    parameters = _parameters(message)
    by_row = "rows" in parameters
    columns: list[tuple[str, Rows]] = []
    for tensor in _tensors(message, kind):
        size = _parameters(tensor).get("binary_data_size")
        try:
            columns.append((tensor["name"], _rows(tensor, size, data, by_row=by_row)))
        except WireError as error:
            raise WireError(f"tensor {shown(tensor['name'])}: {error}") from None
        data = data[size or 0 :]
    if len(data):
        raise WireError(f"{len(data)} bytes after the last tensor")
    return rows_from(kind, columns, parameters)


def _rows(tensor: dict[str, Any], size: Any, data: memoryview, *, by_row: bool) -> Rows:
    """The rows of one tensor; its binary data, if any, is at the start of ``data``."""
    asked, datatype, shape = _parameters(tensor), tensor.get("datatype"), tensor.get("shape")
    if "shared_memory_region" in asked:
        raise WireError("it is in shared memory, which is not supported; send its data")
    if not isinstance(shape, list) or not all(type(length) is int and length >= 0 for length in shape):
        raise WireError(f"shape {shown(shape)}, expected a list of whole numbers from 0")
    if not isinstance(datatype, str):
        raise WireError(f"datatype {shown(datatype)}, expected text")
    if not shape and not by_row:
        raise WireError("it has no dimension, expected a first one that counts the inputs")
    whole = (1, *shape) if by_row else tuple(shape)
    is_text = asked.get("content_type") == "str"
    if size is None:
        return rows_of_json(tensor.get("data"), datatype, whole, is_text=is_text)
    if type(size) is not int or not 0 <= size <= len(data):
        raise WireError(f"binary_data_size is {shown(size)}, but the body has {len(data)} more bytes")
    return rows_of_binary(data[:size], datatype, whole, is_text=is_text)


def _tensors(message: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    tensors = message.get(kind)
    if not isinstance(tensors, list):
        raise WireError(f'the body is not {{"{kind}": [...]}}')
    for tensor in tensors:
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise WireError(f'"{kind}" holds something else than tensors with a name')
    return tensors


def _parameters(holder: dict[str, Any]) -> dict[str, Any]:
    parameters = holder.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise WireError(f"parameters are {shown(parameters)}, expected an object")
    return parameters
