"""NaN and infinity in messages of JSON, which has no form for them: orjson writes null."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from math import isfinite, isnan
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.wire.body import WireError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["NotFiniteError", "check_finite", "name_of_number"]


class NotFiniteError(WireError):
    """A value has NaN or infinity, and JSON cannot carry them.

    Args:
        what: "input" or "output".
        item: its index in the message.
        found: what was found, and where in the item, such as ``NaN at [0][3]``.
    """

    def __init__(self, what: str, item: int, found: str) -> None:
        self.reason: str = f'has {found}, which JSON cannot carry; use wire="rest+binary"'
        super().__init__(f"{what} {item} {self.reason}")


def check_finite(what: str, items: Iterable[Any]) -> None:
    """Check values in a message that has a null.

    Args:
        what: "input" or "output".
        items: the values, as they were given to the encoder.

    Raises:
        NotFiniteError: one of them has NaN or infinity.
    """
    for number, item in enumerate(items):
        if (found := _found_in(item, "")) is not None:
            raise NotFiniteError(what, number, found)


def name_of_number(number: float) -> str:
    """How messages name NaN or an infinity."""
    return "NaN" if isnan(number) else "infinity" if number > 0 else "-infinity"


def _found_in(value: Any, place: str) -> str | None:
    """The first number in a value that is not finite, and its place; None if all are."""
    if isinstance(value, float):
        if isfinite(value):
            return None
        return f"{name_of_number(value)} at {place}" if place else name_of_number(value)
    if isinstance(value, dict):
        inner = ((repr(key), one) for key, one in value.items())
    elif is_dataclass(value):
        inner = ((repr(field.name), getattr(value, field.name)) for field in fields(value))
    elif isinstance(value, list | tuple | set | frozenset):
        inner = ((str(number), one) for number, one in enumerate(value))
    else:
        return _found_in(value.tolist(), place) if hasattr(value, "tolist") else None
    return next((found for key, one in inner if (found := _found_in(one, f"{place}[{key}]")) is not None), None)
