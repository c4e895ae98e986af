"""Body and headers of a message."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from math import isfinite, isnan
from typing import Any, NamedTuple

import orjson

JSON_HEADERS = (("content-type", "application/json"),)  # Headers of a body in JSON
_LONGEST_RANGE = 2**22  # Most numbers of a ``range`` that is written as a list, so that a slip does not fill the memory

Headers = Mapping[str, str]  # Headers of a message, by name in lower case


class WireError(ValueError):
    """Malformed bytes, or values that the format cannot encode."""


class Body(NamedTuple):  # one for each response, in half the time of a frozen dataclass
    """A body in parts, and its headers (names in lower case) without ``content-length``."""

    parts: tuple[bytes | memoryview, ...]
    headers: tuple[tuple[str, str], ...]

    @property
    def size(self) -> int:
        """Length of all parts, in bytes."""
        return len(self.parts[0]) if len(self.parts) == 1 else sum(map(len, self.parts))

    def joined(self) -> bytes:
        """All parts as one ``bytes``."""
        return self.parts[0] if len(self.parts) == 1 and isinstance(self.parts[0], bytes) else b"".join(self.parts)


def items_of(values: set[Any] | frozenset[Any] | range) -> list[Any]:
    """The items of a set or range, for formats that know lists alone."""
    if isinstance(values, range) and values[_LONGEST_RANGE:]:
        raise WireError(f"{values} has more than {_LONGEST_RANGE:,} numbers")
    return list(values)


def json_in(body: bytes | memoryview) -> Any:
    """The value of a body in JSON. Raises WireError: it is not JSON."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise WireError(f"the body is not JSON: {error}") from None


def headers_of(head: bytes) -> dict[str, str]:
    """The headers in the head of an HTTP/1.1 message."""
    pairs = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, _, value in pairs if name}


class NotFiniteError(WireError):
    """A value has NaN or infinity, which JSON cannot carry; ``found`` says what and where: ``NaN at [0][3]``."""

    def __init__(self, what: str, item: int, found: str) -> None:
        self.reason: str = f'has {found}, which JSON cannot carry; use wire="rest+binary"'
        super().__init__(f"{what} {item} {self.reason}")


def check_finite(what: str, items: Iterable[Any]) -> None:
    """Check values in a message that has a null."""
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
