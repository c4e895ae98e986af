"""Converts values to the tensors of an Open Inference message, and back, for JSON and protobuf.

Two additional parameters encode values that the protocol cannot express. ``named``: a single tensor is a dictionary
with one key. ``rows``: the values differ in shape, and each has its own tensors ``0:``, ``1:``, or ``0:name``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_mlpatterns.wire.body import WireError
from pytest_mlpatterns.wire.tensor_decoding import rows_of
from pytest_mlpatterns.wire.tensor_encoding import RaggedError, columns_of
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from pytest_mlpatterns.wire.tensor_decoding import Rows
    from pytest_mlpatterns.wire.tensor_encoding import Column

__all__ = ["columns_for", "rows_from", "specification_of"]


def columns_for(
    kind: str, name: str, values: Any, *, rows_allowed: bool, wanted: Collection[str] | None = None
) -> tuple[list[Column], dict[str, Any]]:
    """Convert values to tensors, and the additional parameters of the message.

    Args:
        kind: ``inputs`` or ``outputs``.
        name: name of a single tensor.
        values: an array, or a sequence.
        rows_allowed: values of different shapes may use the ``rows`` parameter.
        wanted: requested names, None for all; a single tensor takes any requested name.

    Raises:
        WireError: no tensor can hold the values, or a requested one does not exist.
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
        columns = [_renamed(column, row) for row, value in enumerate(values) for column in columns_of([value], "")]
    if wanted is not None:
        return _chosen(wanted, columns), parameters
    if len(columns) == 1 and not isinstance(values, np.ndarray) and isinstance(values[0], dict):
        parameters["named"] = True
    return columns, parameters


def rows_from(kind: str, columns: list[tuple[str, Rows]], parameters: Mapping[str, Any]) -> list[Any]:
    """Convert tensors to values; the inverse of :func:`columns_for`.

    Args:
        kind: ``inputs`` or ``outputs``.
        columns: name and rows of each tensor; one row each if the message has the ``rows`` parameter.
        parameters: parameters of the message.

    Raises:
        WireError: the tensors are inconsistent.
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


def _renamed(column: Column, row: int) -> Column:
    return replace(column, name=f"{row}:{column.name}", shape=column.shape[1:])


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
