"""JSON that people read and others may have written: laid out for diffs, and parsed within bounds."""

import json
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from pytest_mlpatterns.wording import HIDDEN

_UNUSUAL = (re.compile(r"\d(?:\d{18}|[eE]\+?\d+[\s,\]}])"), re.compile(r"\\u[dD][89a-fA-F]"))
_MOST_SHOWN = 60  # Letters of a value in a message


def parsed(text: str, *, allows_constants: bool = False, is_merged: bool = False) -> Any:
    """The value of a JSON text.

    ``is_merged``: whether the text may come from two files, merged by hand or by git: a name that an object has twice
    is refused, since all but its last member would be lost. ``allows_constants``: whether the numbers ``NaN`` and
    ``Infinity``, which some programs write though JSON has none, are read as None; else they are refused.
    """
    try:
        hook = _once if is_merged else None
        return json.loads(
            text, parse_constant=_left_out if allows_constants else _refuse_constant, object_pairs_hook=hook
        )
    except RecursionError:
        raise ValueError("its lists and objects are nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(str(error)) from None
    except ValueError as error:  # Python reads no number of thousands of digits; its error explains a setting
        raise ValueError(str(error).partition(";")[0]) from None


def may_be_unusual(text: str) -> bool:
    """Whether a JSON text may have a number beyond 1e18, or half a surrogate pair: msgspec lets both pass."""
    return any(form.search(text) for form in _UNUSUAL)


def shown(value: object) -> str:
    """A value in a message: short, on one line, in ASCII where it could be anything."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value):,}"
    text = json.dumps(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}… ({len(text):,} characters)"


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The members of an object. Raises ValueError: it has two of one name."""
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"an object has {shown(next(name for name in names if names.count(name) > 1))} twice")
    return members


def _left_out(_: str) -> None:
    """In place of a number that JSON does not have."""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def shown_path(path: Sequence[str | int]) -> str:
    """The way to a value from the outside, as ``tests["test_a.py::test"].metrics.rtm[0]``."""
    parts = [
        f"[{name}]"
        if isinstance(name, int)
        else f".{name}"
        if name.isidentifier() and name.isascii()
        else f"[{json.dumps(name)}]"
        for name in reversed(path)
    ]
    return "".join(parts).removeprefix(".") or "the file"


_ESCAPED = {ord(sign): f"\\u{ord(sign):04x}" for sign in HIDDEN if not "\ud800" <= sign <= "\udfff"}
"""Hidden characters are written as JSON's escapes, for readers of the file or its diff in a terminal."""


def laid_out(value: object, *, sort_keys: bool = False, counts_inline: bool = False, indent: str = "") -> str:
    """Write a value as JSON.

    Each member of an object has a line of its own, and so has each object of a list. Other lists stay on one line.
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
    """A finite number to ``digits`` significant digits; a whole number without its point."""
    short = float(f"{number:.{digits}g}")
    return int(short) if short.is_integer() else short


def _block(begin: str, lines: Sequence[str], end: str, *, indent: str) -> str:
    line_break = f"\n{indent} "
    return f"{begin}{line_break}{f',{line_break}'.join(lines)}\n{indent}{end}"


def _in_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).translate(_ESCAPED)
