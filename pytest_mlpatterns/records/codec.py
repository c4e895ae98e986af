"""Records as plain values and back, by the types of their fields.

Plain values are what JSON and execnet hold: dictionaries, lists, text and numbers, of no subclass. A record of another
form in files, such as a price that is written as text, overrides the two methods for that member.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Self

import msgspec

__all__ = ["Record", "plain"]


def plain(value: object) -> Any:
    """A value as plain values, to any depth; a path is text, and the numbers of numpy are those of Python."""
    return msgspec.to_builtins(value, enc_hook=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "dtype"):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no plain value")


class Record(msgspec.Struct, frozen=True):
    """A value that travels as the plain values of its fields, by their names."""

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        found: dict[str, Any] = plain(self)
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`, also after a trip through JSON or between processes.

        Absent members have their defaults, and members of other records are ignored.

        Raises:
            ValueError: a member has another type, or lacks; the message has its place.
        """
        try:
            return msgspec.convert(data, cls, str_keys=True, from_attributes=True)
        except msgspec.ValidationError as error:
            raise ValueError(f"{cls.__name__}: {error}") from None
