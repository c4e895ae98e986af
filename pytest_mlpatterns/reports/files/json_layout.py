"""JSON laid out for people and for diffs: an object's members on lines of their own, lists of numbers on one line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pytest_mlpatterns.wording import HIDDEN

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["laid_out", "rounded"]

_ESCAPED = {ord(sign): f"\\u{ord(sign):04x}" for sign in HIDDEN if not "\ud800" <= sign <= "\udfff"}
"""Hidden characters are written as JSON's escapes, for those who read the file or its diff in a terminal."""


def laid_out(value: object, *, sort_keys: bool = False, counts_inline: bool = False, indent: str = "") -> str:
    """Write a value as JSON.

    Each member of an object has a line of its own, and so has each object of a list. Other lists stay on one line.

    Args:
        value: plain values.
        sort_keys: order the members of objects by name.
        counts_inline: keep an object of whole numbers only on one line.
        indent: spaces before the last line.
    """

    def nested(one: object) -> str:
        return laid_out(one, sort_keys=sort_keys, counts_inline=counts_inline, indent=indent + " ")

    if isinstance(value, dict) and value:
        if not (counts_inline and all(isinstance(member, int) for member in value.values())):
            names = sorted(value) if sort_keys else value
            return _block("{", [f"{_in_json(str(name))}: {nested(value[name])}" for name in names], "}", indent=indent)
    elif isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
        return _block("[", [nested(item) for item in value], "]", indent=indent)
    return _in_json(value)


def rounded(number: float, digits: int = 5) -> float | int:
    """A finite number to so many significant digits; a whole number without its point."""
    short = float(f"{number:.{digits}g}")
    return int(short) if short.is_integer() else short


def _block(begin: str, lines: Sequence[str], end: str, *, indent: str) -> str:
    line_break = f"\n{indent} "
    return f"{begin}{line_break}{f',{line_break}'.join(lines)}\n{indent}{end}"


def _in_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).translate(_ESCAPED)
