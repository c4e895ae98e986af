"""JSON that people read and others may have written: laid out for diffs, parsed within bounds, checked.

A small part of JSON Schema, which the schemas of this package use, so that the files that ship describe what is read.
The package jsonschema checks all of it and is compared with this module in the tests; it would be six more packages
for every user, one of them compiled, and its messages quote whole objects. The package fastjsonschema was tried: it
compiles the schema of results in 50 ms, then checks five times as slowly (0.8 s more for a file of 4.6 MB), and knows
no draft 2020-12. Its errors name places such that a test's id, which has dots, cannot be separated from members, and
of ``anyOf`` they do not name what was expected. With all that mended, 75 of 330 lines were saved.

Two rules are stricter here: ``1.0`` is no integer, and text must be Unicode that a file can hold, without halves of
surrogate pairs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from pytest_mlpatterns.wording import HIDDEN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["SUPPORTED", "Schema", "laid_out", "parsed", "rounded", "shown"]


_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_NAMES = {
    "object": "an object",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}
_MOST_SHOWN = 60
"""Letters of a value in a message."""


class _Fault(Exception):
    """A value that the schema does not allow; ``path`` leads to it from the inside out."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.path: list[str | int] = []


def parsed(text: str, *, allows_constants: bool = False) -> Any:
    """The value of a JSON text.

    Args:
        text: JSON.
        allows_constants: whether the numbers ``NaN`` and ``Infinity``, which some programs write though JSON has none,
            are read as None; else they are refused.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or has a number that no computer holds; the message is one
            sentence.
    """
    try:
        return json.loads(text, parse_constant=_left_out if allows_constants else _refuse_constant)
    except RecursionError:
        raise ValueError("its lists and objects are nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(str(error)) from None
    except ValueError as error:  # Python reads no number of thousands of digits; its error explains a setting
        raise ValueError(str(error).partition(";")[0]) from None


def shown(value: object) -> str:
    """A value in a message: short, on one line, in ASCII where it could be anything."""
    if isinstance(value, dict | list):
        return f"{_NAMES['object' if isinstance(value, dict) else 'array']} of {len(value):,}"
    text = json.dumps(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}… ({len(text):,} characters)"


class Schema:
    """A JSON Schema.

    Args:
        schema: its content; it uses the keywords in ``SUPPORTED`` only.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._definitions: dict[str, _Check] = {}
        self._check = self._compiled(schema)

    def fault(self, value: object) -> str:
        """Where and how a value first differs from the schema, as a sentence; empty if it does not."""
        try:
            self._check(value)
        except _Fault as fault:
            return f"{_shown_path(fault.path)} {fault}"
        return ""

    def _compiled(self, schema: Mapping[str, Any]) -> _Check:
        """One function for a schema: a baseline file has a million values to check."""
        checks = [make(schema[keyword]) for keyword, make in _CHECKS.items() if keyword in schema]
        if "$ref" in schema:
            checks.append(self._definition(schema["$ref"].removeprefix("#/$defs/")))
        checks += map(self._compiled, schema.get("allOf", ()))
        if "anyOf" in schema:
            checks.append(_any_of([self._compiled(one) for one in schema["anyOf"]]))
        if not _OF_MEMBERS.isdisjoint(schema):
            checks.append(self._members(schema))
        if not _OF_ITEMS.isdisjoint(schema):
            checks.append(self._items(schema))

        def check(value: object) -> None:
            for one in checks:
                one(value)

        return checks[0] if len(checks) == 1 else check

    def _definition(self, name: str) -> _Check:
        if name not in self._definitions:
            self._definitions[name] = self._compiled(self._schema["$defs"][name])
        return self._definitions[name]

    def _members(self, schema: Mapping[str, Any]) -> _Check:
        described = {name: self._compiled(one) for name, one in schema.get("properties", {}).items()}
        rest = schema.get("additionalProperties", True)
        others = None if rest is False else _allow if rest is True else self._compiled(rest)
        names = re.compile(schema["propertyNames"]["pattern"]) if "propertyNames" in schema else None

        def check(value: object) -> None:
            if type(value) is not dict:
                return
            for name, member in value.items():
                if not name.isascii():
                    _check_unicode(name)
                inner = described.get(name, others)
                if inner is None or (names is not None and not names.search(name)):
                    raise _Fault(f"has the unknown member {shown(name)}")
                try:
                    inner(member)
                except _Fault as fault:
                    fault.path.append(name)
                    raise

        return check

    def _items(self, schema: Mapping[str, Any]) -> _Check:
        first = [self._compiled(one) for one in schema.get("prefixItems", ())]
        others = self._compiled(schema["items"]) if "items" in schema else _allow

        def check(value: object) -> None:
            if type(value) is not list:
                return
            for index, item in enumerate(value):
                try:
                    (first[index] if index < len(first) else others)(item)
                except _Fault as fault:
                    fault.path.append(index)
                    raise

        return check


_Check = Callable[[object], None]
"""Raises :class:`_Fault` for a value that is not allowed; values are as :func:`parsed` gives them, of no subclass."""


def _allow(_: object) -> None:
    """Allow any value."""


def _any_of(checks: Sequence[_Check]) -> _Check:
    def check(value: object) -> None:
        for one in checks[:-1]:
            try:
                return one(value)
            except _Fault:
                continue
        return checks[-1](value)

    return check


def _type(wanted: str | list[str]) -> _Check:
    names = [wanted] if isinstance(wanted, str) else wanted
    allowed = frozenset(kind for name in names for kind in _TYPES[name])
    expected = " or ".join(_NAMES[name] for name in names)

    def check(value: object) -> None:
        if type(value) not in allowed:
            raise _Fault(f"is {shown(value)}, expected {expected}")
        if type(value) is str and not value.isascii():
            _check_unicode(value)

    return check


def _enum(wanted: Sequence[object]) -> _Check:
    expected = " or ".join(map(shown, wanted))

    def check(value: object) -> None:
        if not any(value == one and (type(value) is bool) is (type(one) is bool) for one in wanted):
            raise _Fault(f"is {shown(value)}, expected {expected}")

    return check


def _minimum(least: float) -> _Check:
    def check(value: object) -> None:
        if (type(value) is int or type(value) is float) and value < least:
            raise _Fault(f"is {shown(value)}, expected at least {least:g}")

    return check


def _maximum(most: float) -> _Check:
    def check(value: object) -> None:
        if (type(value) is int or type(value) is float) and value > most:
            raise _Fault(f"is {shown(value)}, expected at most {most:g}")

    return check


def _least_items(least: int) -> _Check:
    def check(value: object) -> None:
        if type(value) is list and len(value) < least:
            raise _Fault(f"has {len(value)} items, expected at least {least}")

    return check


def _most_items(most: int) -> _Check:
    def check(value: object) -> None:
        if type(value) is list and len(value) > most:
            raise _Fault(f"has {len(value):,} items, expected at most {most}")

    return check


def _required(names: Sequence[str]) -> _Check:
    def check(value: object) -> None:
        if type(value) is dict:
            for name in names:
                if name not in value:
                    raise _Fault(f"lacks the member {name}")

    return check


def _check_unicode(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _Fault(f"has {shown(text)}, half a surrogate pair, expected Unicode") from None


_CHECKS: Mapping[str, Callable[[Any], _Check]] = {
    "type": _type,
    "enum": _enum,
    "const": lambda wanted: _enum([wanted]),
    "minimum": _minimum,
    "maximum": _maximum,
    "minItems": _least_items,
    "maxItems": _most_items,
    "required": _required,
}
_OF_MEMBERS = frozenset({"properties", "additionalProperties", "propertyNames"})
_OF_ITEMS = frozenset({"items", "prefixItems"})
SUPPORTED = frozenset(
    {*_CHECKS, *_OF_MEMBERS, *_OF_ITEMS, "$ref", "allOf", "anyOf", "$schema", "$defs", "title", "description"}
)
"""Keywords that a schema of this package may use."""


def _left_out(_: str) -> None:
    """In place of a number that JSON does not have."""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _shown_path(path: Sequence[str | int]) -> str:
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
    """A finite number to ``digits`` significant digits; a whole number without its point."""
    short = float(f"{number:.{digits}g}")
    return int(short) if short.is_integer() else short


def _block(begin: str, lines: Sequence[str], end: str, *, indent: str) -> str:
    line_break = f"\n{indent} "
    return f"{begin}{line_break}{f',{line_break}'.join(lines)}\n{indent}{end}"


def _in_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).translate(_ESCAPED)
