"""Whether two outputs of models are equal, as a person sees it: numbers, text, nested lists and arrays.

It must not know where the outputs come from, and imports numpy only when one of them is an array.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["are_equal"]


def are_equal(left: Any, right: Any) -> bool:
    """Whether two outputs are equal.

    Lists and tuples are equal to arrays with the same values, because the wire between two processes may have turned
    one into the other. Floating point numbers that are no numbers are equal to each other. Arrays of different
    precision are compared in the smaller one.

    Args:
        left: an output.
        right: the other one.

    Raises:
        Exception: the exception of a comparison of the user's.
    """
    if _is_array(left) or _is_array(right):
        return _are_equal_arrays(left, right)
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(are_equal(value, right[key]) for key, value in left.items())
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(are_equal, left, right))
    if isinstance(left, float) and isinstance(right, float):
        return left == right or (left != left and right != right)  # noqa: PLR0124 - only NaN differs from itself
    return bool(left == right)


def _is_array(value: Any) -> bool:
    """Whether a value is an array, or a number of numpy's types."""
    return hasattr(type(value), "__array__")


def _are_equal_arrays(left: Any, right: Any) -> bool:
    import numpy as np

    try:
        first, second = np.asarray(left), np.asarray(right)
    except ValueError:  # lists of different lengths
        return False
    if first.shape != second.shape:
        return False
    if first.dtype.kind == second.dtype.kind == "f":
        smaller = min(first.dtype, second.dtype, key=lambda dtype: dtype.itemsize)
        first, second = first.astype(smaller), second.astype(smaller)
    if "O" in (first.dtype.kind, second.dtype.kind):
        return all(map(are_equal, first.ravel().tolist(), second.ravel().tolist()))
    has_nan = first.dtype.kind in "fc" and second.dtype.kind in "fc"
    return bool(np.array_equal(first, second, equal_nan=has_nan))
