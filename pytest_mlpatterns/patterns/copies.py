"""Private copies of inputs and outputs, for layers that keep them while a model or a stage may change them in place."""

from __future__ import annotations

import copy
from typing import Any

__all__ = ["copy_of"]

_IMMUTABLE = frozenset({bool, bytes, float, int, str, type(None)})


def copy_of(value: Any) -> Any:
    """A deep copy; a fraction of the time of :func:`copy.deepcopy` for values of JSON.

    Raises:
        Exception: the value contains an object that cannot be copied.
    """
    kind = type(value)
    if kind in _IMMUTABLE:
        return value
    if kind is list:
        return [item if type(item) in _IMMUTABLE else copy_of(item) for item in value]
    if kind is dict:
        return {key: item if type(item) in _IMMUTABLE else copy_of(item) for key, item in value.items()}
    return copy.deepcopy(value)
