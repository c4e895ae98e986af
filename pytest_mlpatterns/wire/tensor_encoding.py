"""Encodes values as tensors: one column for each name, one row for each value.

The first dimension of a tensor counts the inputs (or outputs). A dictionary of named arrays is one row of several
tensors. Arrays of numbers are encoded without a copy. Text and bytes are ``BYTES``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_mlpatterns.wire.body import WireError, items_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

__all__ = ["DTYPES", "Column", "RaggedError", "columns_of"]

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


class RaggedError(WireError):
    """Values that differ in shape or type, so that one tensor cannot hold them."""


@dataclass(frozen=True, slots=True)
class Column:
    """One tensor: rows of one shape and type.

    Args:
        name: name of the tensor.
        datatype: datatype of the protocol.
        shape: shape of the tensor.
        arrays: arrays of one or more rows, in order; lists of elements for ``BYTES``.
        is_text: ``BYTES`` are text.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    arrays: tuple[Any, ...]
    is_text: bool = False

    def raw(self) -> list[bytes | memoryview]:
        """The binary form in parts; numbers are not copied.

        Raises:
            WireError: text with an unpaired surrogate.
        """
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
        """The elements in row-major order, for JSON.

        Raises:
            WireError: bytes that are not UTF-8.
        """
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

    Args:
        values: an array whose first dimension counts the values; or a sequence of arrays, numbers, text, bytes, nested
            lists of these, or dictionaries of these.
        name: name of a single column.

    Raises:
        RaggedError: the values differ in shape or type.
        WireError: a value that no tensor can hold.
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
