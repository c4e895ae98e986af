"""Decodes tensors to rows: one input or output for each index of the first dimension.

Numbers are read-only views of the received bytes. A row of ``BYTES`` is ``bytes``, or ``str`` if the parameter
``content_type`` is ``str`` (MLServer's convention).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_mlpatterns.wire.body import WireError
from pytest_mlpatterns.wire.tensor_encoding import DTYPES
from pytest_mlpatterns.wording import shown

__all__ = ["Rows", "rows_of", "rows_of_binary", "rows_of_json"]

Rows = Sequence[Any] | NDArray[Any]
_MAX_DIMENSIONS = 32
_MAX_STRINGS_BYTES = 2**28
"""Largest array of text or bytes; numpy pads each element to the length of the longest."""


def rows_of(columns: Sequence[tuple[str, Rows]], *, named: bool) -> list[Any]:
    """Combine columns to rows.

    Args:
        columns: name and rows of each tensor.
        named: a single column makes dictionaries too.

    Returns:
        The rows of a single column, or dictionaries by column name.

    Raises:
        WireError: the columns differ in length.
    """
    if len(columns) == 1 and not named:
        return list(columns[0][1])
    counts = {len(rows) for _, rows in columns}
    if len(counts) > 1:
        raise WireError(f"the first dimensions of the tensors differ ({sorted(counts)}); they count the inputs")
    names = [name for name, _ in columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*(rows for _, rows in columns), strict=True)]


def rows_of_binary(data: memoryview, datatype: str, shape: tuple[int, ...], *, is_text: bool) -> Rows:
    """Decode the binary form of a tensor.

    Args:
        data: its bytes.
        datatype: datatype of the protocol.
        shape: at least one dimension.
        is_text: BYTES are UTF-8 text.

    Raises:
        WireError: the datatype is unknown, or the data does not match the shape.
    """
    if datatype != "BYTES":
        return _numbers(data, datatype, shape)
    count, at = prod(shape), 0
    if count * 4 > len(data):
        raise WireError(f"{len(data)} bytes are too few for {count} elements of BYTES")
    elements: list[Any] = []
    for _ in range(count):
        size = int.from_bytes(data[at : at + 4], "little")
        at += 4
        if at + size > len(data):
            raise WireError(f"an element of BYTES of {size} bytes, where {max(len(data) - at, 0)} are left")
        elements.append(bytes(data[at : at + size]))
        at += size
    if at != len(data):
        raise WireError(f"{len(data) - at} bytes after the last element of BYTES")
    if is_text:
        try:
            elements = [element.decode() for element in elements]
        except UnicodeDecodeError as error:
            raise WireError(f"text that is not UTF-8: {error}") from None
    return _strings(elements, shape, "U" if is_text else "S")


def rows_of_json(data: Any, datatype: str, shape: tuple[int, ...], *, is_text: bool) -> Rows:
    """The rows of a tensor whose elements are a list, flat or nested; otherwise as :func:`rows_of_binary`.

    Raises:
        WireError: an unknown datatype, or data that is not of it, or not of this shape.
    """
    if not isinstance(data, list):
        raise WireError("no data, expected a list in row-major order, flat or nested")
    if datatype == "BYTES":
        elements = _flat(data)
        if not all(isinstance(element, str) for element in elements):
            raise WireError("an element of BYTES is not text")
        if len(elements) != prod(shape):
            raise WireError(f"{len(elements)} elements of shape {list(shape)}, expected {prod(shape)}")
        return _strings(elements if is_text else [one.encode() for one in elements], shape, "U" if is_text else "S")
    dtype = _dtype(datatype)
    try:
        found = np.asarray(data)
        if found.dtype == object and dtype.kind == "f":
            found = np.asarray(data, dtype=np.float64)  # null stands for what JSON has no number for
        elif found.dtype.kind == "f" and dtype == DTYPES["UINT64"]:
            found = _beyond_int64(data, found)
    except (ValueError, TypeError, OverflowError) as error:
        raise WireError(f"data cannot be converted to an array: {error}") from None
    if found.size and not _fits(found, dtype):
        raise WireError(f"data of {found.dtype.name}, which is not {datatype} or out of its range")
    with np.errstate(over="ignore"):
        numbers = found.astype(dtype).reshape(-1)
    return _numbers(numbers.view(np.uint8).data, datatype, shape)


def _numbers(data: memoryview, datatype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    dtype = _dtype(datatype)
    size = prod(shape) * dtype.itemsize
    if len(data) != size:
        raise WireError(f"{len(data)} bytes for {datatype} of shape {list(shape)}, expected {size}")
    array = np.frombuffer(data, dtype)
    return _shaped(array if array.flags.aligned else array.copy(), shape)


def _dtype(datatype: str) -> np.dtype[Any]:
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise WireError(f"datatype {shown(datatype)}, expected one of {', '.join([*DTYPES, 'BYTES'])}")
    return dtype


def _beyond_int64(data: list[Any], found: NDArray[Any]) -> NDArray[Any]:
    """Convert integers of which some exceed 2**63 - 1, because numpy makes floats of a mixture."""
    elements = _flat(data)
    return np.array(elements, dtype=np.uint64) if all(type(element) is int for element in elements) else found


def _fits(found: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "f":
        return found.dtype.kind in "iuf"
    if found.dtype.kind not in "iu":
        return found.dtype.kind == dtype.kind == "b"
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return int(found.min()) >= low and int(found.max()) <= high


def _strings(elements: list[Any], shape: tuple[int, ...], kind: str) -> list[Any]:
    """The rows of a tensor of text or bytes: single elements, or arrays."""
    if len(shape) == 1:
        return elements
    size = prod(shape[1:])
    return [_array_of(elements[row * size : (row + 1) * size], shape[1:], kind) for row in range(shape[0])]


def _array_of(elements: list[Any], shape: tuple[int, ...], kind: str) -> NDArray[Any]:
    longest = max(map(len, elements), default=0)
    dtype = np.dtype(f"{kind}{longest or 1}")
    if dtype.itemsize * len(elements) > _MAX_STRINGS_BYTES:
        raise WireError(
            f"{len(elements)} elements of BYTES in one input, the longest of {longest}, make an array of more than "
            f"{_MAX_STRINGS_BYTES >> 20} MiB; send them one by one"
        )
    if any(element[-1:] in ("\0", b"\0") for element in elements):
        raise WireError("an element of BYTES ends with NUL, which arrays of numpy cannot hold; send it alone")
    return _shaped(np.array(elements, dtype=dtype), shape)


def _shaped(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if len(shape) > _MAX_DIMENSIONS:
        raise WireError(f"a tensor of {len(shape)} dimensions, expected at most {_MAX_DIMENSIONS}")
    try:
        return array.reshape(shape)
    except (ValueError, OverflowError) as error:
        raise WireError(f"shape {list(shape)}: {error}") from None


def _flat(data: list[Any]) -> list[Any]:
    """The elements of nested lists, in order."""
    flat, stack = [], [iter(data)]
    while stack:
        for item in stack[-1]:
            if isinstance(item, list):
                stack.append(iter(item))
                break
            flat.append(item)
        else:
            stack.pop()
    return flat
