"""Values as tensors of an Open Inference message, and back: one row for each input or output.

The first dimension of a tensor counts the inputs (or outputs). A dictionary of named arrays is one row of several
tensors. Arrays of numbers are encoded without a copy. Text and bytes are ``BYTES``.

Numbers are read-only views of the received bytes. A row of ``BYTES`` is ``bytes``, or ``str`` if the parameter
``content_type`` is ``str`` (MLServer's convention).

Two additional parameters encode values that the protocol cannot express. ``named``: a single tensor is a dictionary
with one key. ``rows``: the values differ in shape, and each has its own tensors ``0:``, ``1:``, or ``0:name``.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from math import prod
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from pytest_mlpatterns.wire.body import WireError, items_of
from pytest_mlpatterns.wording import shown

DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""Numeric datatypes of the protocol, in their binary form; the only other datatype is ``BYTES``."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_MAX_DIMENSIONS = 32  # Most dimensions of an array before numpy 2
_MAX_STRINGS_BYTES = 2**28  # Largest array of text or bytes; numpy pads each element to the length of the longest


class RaggedError(WireError):
    """Values that differ in shape or type, so that one tensor cannot hold them."""


class Column(Struct, frozen=True):
    """One tensor: rows of one shape and type."""

    name: str
    datatype: str
    shape: tuple[int, ...]  # shape of the tensor
    arrays: tuple[Any, ...]  # arrays of one or more rows, in order; lists of elements for ``BYTES``
    is_text: bool = False  # ``BYTES`` are text

    def raw(self) -> list[bytes | memoryview]:
        """The binary form in parts; numbers are not copied."""
        if self.datatype != "BYTES":
            return [memoryview(array.reshape(-1).view(np.uint8)) for array in self.arrays]
        parts: list[bytes | memoryview] = []
        for element in self._elements():
            try:
                data = element.encode() if self.is_text else bytes(element)
            except UnicodeEncodeError as error:
                raise WireError(f"text that UTF-8 cannot encode: {error}") from None
            parts += (len(data).to_bytes(4, "little"), data)
        return parts

    def plain(self) -> Any:
        """The elements in row-major order, for JSON."""
        if self.datatype != "BYTES":
            return np.concatenate([array.reshape(-1) for array in self.arrays]) if self.arrays else []
        try:
            return [element if self.is_text else element.decode() for element in self._elements()]
        except UnicodeDecodeError as error:
            raise WireError(f"JSON cannot hold bytes that are not UTF-8 text: {error}; use rest+binary") from None

    def _elements(self) -> Iterator[Any]:
        return chain.from_iterable(self.arrays)


def columns_of(values: Any, name: str) -> list[Column]:
    """Convert values to columns: a single one, or one for each key if the values are dictionaries.

    ``values``: an array whose first dimension counts the values; or a sequence of arrays, numbers, text, bytes, nested
    lists of these, or dictionaries of these.
    """
    if isinstance(values, np.ndarray) and values.ndim and values.dtype.kind not in "SUO":
        return [_numbers(name, values.shape, [values])]
    rows = list(values)
    if not any(isinstance(row, dict) for row in rows):
        return [_rows(name, rows)]
    names = list(rows[0]) if isinstance(rows[0], dict) else []
    if not all(isinstance(row, dict) and list(row) == names for row in rows):
        raise RaggedError("they are not dictionaries of the same names in the same order")
    if not names or not all(map(_is_name, names)):
        raise WireError("dictionaries need names that are text, at least one, and an array for each")
    return [_rows(key, [row[key] for row in rows]) for key in names]


def _is_name(key: object) -> bool:
    """Whether a key can be the name of a tensor: text, and without surrogates, which UTF-8 cannot encode."""
    return isinstance(key, str) and key != "" and not any("\ud800" <= letter <= "\udfff" for letter in key)


def _rows(name: str, rows: list[Any]) -> Column:
    if any(isinstance(row, str | bytes) for row in rows):
        return _strings(name, (len(rows),), [_elements_of(row, ()) for row in rows])
    arrays = [_array(row) for row in rows]
    if not arrays:
        return Column(name, "FP64", (0,), ())
    shape = arrays[0].shape
    if any(array.shape != shape for array in arrays):
        raise RaggedError(f"shapes differ: {', '.join(sorted({str(list(array.shape)) for array in arrays})[:4])}")
    if any(array.dtype.kind in "SU" for array in arrays):
        return _strings(name, (len(rows), *shape), [_elements_of(row, shape) for row in rows])
    if any(array.dtype != arrays[0].dtype for array in arrays):
        if not all(isinstance(row, bool | int | float | list | tuple) for row in rows):
            raise RaggedError(f"types differ: {', '.join(sorted({array.dtype.name for array in arrays}))}")
        arrays = [np.stack(arrays)]  # a mixture of int and float
    return _numbers(name, (len(rows), *shape), arrays)


def _numbers(name: str, shape: tuple[int, ...], arrays: list[NDArray[Any]]) -> Column:
    dtype = arrays[0].dtype
    datatype = _NAMES.get(dtype.newbyteorder("<"))
    if datatype is None:
        raise WireError(f"no tensor can hold {dtype.name}, expected bool, whole numbers or floats of up to 64 bits")
    little = DTYPES[datatype]
    return Column(name, datatype, shape, tuple(np.ascontiguousarray(array, dtype=little) for array in arrays))


def _strings(name: str, shape: tuple[int, ...], rows: list[list[Any]]) -> Column:
    kinds = {str if isinstance(element, str) else bytes for row in rows for element in row}
    if len(kinds) > 1:
        raise RaggedError("some are text, some are bytes")
    return Column(name, "BYTES", shape, tuple(rows), is_text=kinds == {str})


def _array(value: Any) -> NDArray[Any]:
    try:
        array = np.asarray(items_of(value) if isinstance(value, range) else value)
    except WireError:
        raise
    except Exception as error:  # the conversion of a foreign type may raise any error
        raise WireError(f"{type(value).__name__} cannot be converted to an array: {error}") from error
    if array.dtype.kind not in "biufSU":
        what = f"an array of {array.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        raise WireError(f"no tensor can hold {what}, expected numbers, text or bytes, or arrays of one of these")
    return array


def _elements_of(value: Any, shape: tuple[int, ...]) -> list[Any]:
    """The elements of text or bytes in row-major order, with trailing NULs, which numpy would cut off."""
    if isinstance(value, np.ndarray) and value.shape == shape:
        elements = value.reshape(-1).tolist()
    else:
        elements = np.asarray(value, dtype=object).reshape(-1).tolist() if shape else [value]
    if not all(isinstance(element, str | bytes) for element in elements):
        raise WireError("text or bytes beside something else, which no tensor can hold")
    return elements


Rows = Sequence[Any] | NDArray[Any]


def rows_of(columns: Sequence[tuple[str, Rows]], *, named: bool) -> list[Any]:
    """Combine columns to rows."""
    if len(columns) == 1 and not named:
        return list(columns[0][1])
    counts = {len(rows) for _, rows in columns}
    if len(counts) > 1:
        raise WireError(f"the first dimensions of the tensors differ ({sorted(counts)}); they count the inputs")
    names = [name for name, _ in columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*(rows for _, rows in columns), strict=True)]


def rows_of_binary(data: memoryview, datatype: str, shape: tuple[int, ...], *, is_text: bool) -> Rows:
    """Decode the binary form of a tensor.

    ``data``: its bytes. ``shape``: at least one dimension. ``is_text``: BYTES are UTF-8 text.
    """
    if datatype != "BYTES":
        return _numbers_of_rows(data, datatype, shape)
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
    return _strings_of_rows(elements, shape, "U" if is_text else "S")


def rows_of_json(data: Any, datatype: str, shape: tuple[int, ...], *, is_text: bool) -> Rows:
    """The rows of a tensor whose elements are a list, flat or nested; otherwise as :func:`rows_of_binary`."""
    if not isinstance(data, list):
        raise WireError("no data, expected a list in row-major order, flat or nested")
    if datatype == "BYTES":
        elements = _flat(data)
        if not all(isinstance(element, str) for element in elements):
            raise WireError("an element of BYTES is not text")
        if len(elements) != prod(shape):
            raise WireError(f"{len(elements)} elements of shape {list(shape)}, expected {prod(shape)}")
        return _strings_of_rows(
            elements if is_text else [one.encode() for one in elements], shape, "U" if is_text else "S"
        )
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
    return _numbers_of_rows(numbers.view(np.uint8).data, datatype, shape)


def _numbers_of_rows(data: memoryview, datatype: str, shape: tuple[int, ...]) -> NDArray[Any]:
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
    """Convert integers if some exceed 2**63 - 1, because numpy makes floats of a mixture."""
    elements = _flat(data)
    return np.array(elements, dtype=np.uint64) if all(type(element) is int for element in elements) else found


def _fits(found: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "f":
        return found.dtype.kind in "iuf"
    if found.dtype.kind not in "iu":
        return found.dtype.kind == dtype.kind == "b"
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return int(found.min()) >= low and int(found.max()) <= high


def _strings_of_rows(elements: list[Any], shape: tuple[int, ...], kind: str) -> list[Any]:
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


def columns_for(
    kind: str, name: str, values: Any, *, rows_allowed: bool, wanted: Collection[str] | None = None
) -> tuple[list[Column], dict[str, Any]]:
    """Convert values to tensors, and the additional parameters of the message.

    ``kind``: ``inputs`` or ``outputs``. ``rows_allowed``: values of different shapes may use the ``rows`` parameter.
    ``wanted``: requested names, None for all; a single tensor takes any requested name.
    """
    values = values if isinstance(values, np.ndarray) else list(values)
    parameters: dict[str, Any] = {}
    try:
        columns = columns_of(values, name)
    except RaggedError as error:
        if not rows_allowed:
            raise WireError(
                f"{len(values)} {kind} do not fit one tensor: {error}; give all the same shape and type, send one "
                "input a request, or use rest+msgpack or V1"
            ) from None
        parameters["rows"] = len(values)
        columns = [
            replace(column, name=f"{row}:{column.name}", shape=column.shape[1:])
            for row, value in enumerate(values)
            for column in columns_of([value], "")
        ]
    if wanted is not None:
        return _chosen(wanted, columns), parameters
    if len(columns) == 1 and not isinstance(values, np.ndarray) and isinstance(values[0], dict):
        parameters["named"] = True
    return columns, parameters


def rows_from(kind: str, columns: list[tuple[str, Rows]], parameters: Mapping[str, Any]) -> list[Any]:
    """Convert tensors to values; the inverse of :func:`columns_for`.

    ``kind``: ``inputs`` or ``outputs``. ``columns``: name and rows of each tensor; one row each if the message has the
    ``rows`` parameter.
    """
    if not columns:
        raise WireError(f'"{kind}" is empty, expected at least one tensor')
    if "rows" in parameters:
        return _by_row(columns, parameters["rows"])
    return rows_of(columns, named=parameters.get("named") is True)


def specification_of(tensors: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Name, datatype and shape of tensors, with -1 as the first dimension."""
    return tuple(
        {**{key: tensor[key] for key in ("name", "datatype")}, "shape": [-1, *tensor["shape"][1:]]}
        for tensor in tensors
    )


def _chosen(wanted: Collection[str], columns: list[Column]) -> list[Column]:
    if len(columns) == len(wanted) == 1:
        return [replace(columns[0], name=next(iter(wanted)))]
    found = {column.name: column for column in columns}
    if absent := [name for name in wanted if name not in found]:
        raise WireError(f"outputs {', '.join(absent)} are requested, but the model has {', '.join(found)}")
    return [found[name] for name in wanted]


def _by_row(columns: list[tuple[str, Rows]], count: Any) -> list[Any]:
    """Rows that have their own tensors each."""
    if type(count) is not int or not 0 < count <= len(columns):
        raise WireError(f"parameter rows is {shown(count)}, expected the number of rows")
    grouped: list[list[tuple[str, Rows]]] = [[] for _ in range(count)]
    for name, rows in columns:
        number, _, rest = name.partition(":")
        if not (number.isascii() and number.isdigit() and int(number) < count):
            raise WireError(f"tensor {shown(name)}, expected its row number before a colon")
        grouped[int(number)].append((rest, rows))
    if not all(grouped):
        raise WireError("a row without a tensor")
    return [rows_of(row, named=bool(row[0][0]))[0] for row in grouped]
