"""JSON that others may have written: parsed within bounds, and checked at every level against a JSON Schema.

A small part of JSON Schema, which the schemas of this package use, so that the files that ship describe what is read.
The package jsonschema checks all of it and is compared with this module in the tests; it would be six more packages
for every user, one of them compiled, and its messages quote whole objects. Two rules are stricter here: ``1.0`` is no
integer, and text must be Unicode that a file can hold, without halves of surrogate pairs.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["SUPPORTED", "Schema", "parsed", "shown"]

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


class _Fault(Exception):
    """A value that the schema does not allow; ``path`` leads to it from the inside out."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.path: list[str | int] = []


def parsed(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or has a number that no computer holds; one sentence says so.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("its lists and objects are nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(str(error)) from None
    except ValueError as error:  # Python reads no number of thousands of digits, and says how to change that
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

    def fault(self, value: object) -> str:
        """Where and how a value first differs from the schema, as a sentence; empty if it does not."""
        try:
            self._check(value, self._schema)
        except _Fault as fault:
            return f"{_shown_path(fault.path)} {fault}"
        return ""

    def _check(self, value: object, schema: Mapping[str, Any]) -> None:
        for keyword, wanted in schema.items():
            if check := _CHECKS.get(keyword):
                check(self, value, wanted)
        if isinstance(value, dict):
            self._check_members(value, schema)
        elif isinstance(value, list):
            self._check_items(value, schema)

    def _check_members(self, value: dict[str, Any], schema: Mapping[str, Any]) -> None:
        described, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        names = re.compile(schema["propertyNames"]["pattern"]) if "propertyNames" in schema else None
        for name, member in value.items():
            _check_unicode(name)
            if names is not None and not names.search(name):
                raise _Fault(f"has the unknown member {shown(name)}")
            if (inner := described.get(name, others)) is False:
                raise _Fault(f"has the unknown member {shown(name)}")
            if inner is not True:
                self._enter(name, member, inner)

    def _check_items(self, value: list[Any], schema: Mapping[str, Any]) -> None:
        first = schema.get("prefixItems", ())
        for index, item in enumerate(value):
            inner = first[index] if index < len(first) else schema.get("items")
            if inner is not None:
                self._enter(index, item, inner)

    def _enter(self, name: str | int, value: object, schema: Mapping[str, Any]) -> None:
        try:
            self._check(value, schema)
        except _Fault as fault:
            fault.path.append(name)
            raise

    def _check_reference(self, value: object, reference: str) -> None:
        self._check(value, self._schema["$defs"][reference.removeprefix("#/$defs/")])

    def _check_all(self, value: object, schemas: Sequence[Mapping[str, Any]]) -> None:
        for schema in schemas:
            self._check(value, schema)

    def _check_any(self, value: object, schemas: Sequence[Mapping[str, Any]]) -> None:
        fault = _Fault("")
        for schema in schemas:
            try:
                return self._check(value, schema)
            except _Fault as found:
                fault = found
        raise fault


def _check_type(_: Schema, value: object, wanted: str | list[str]) -> None:
    names = [wanted] if isinstance(wanted, str) else wanted
    if not any(
        isinstance(value, _TYPES[name]) and (name == "boolean" or (value is not True and value is not False))
        for name in names
    ):
        raise _Fault(f"is {shown(value)}, expected {' or '.join(_NAMES[name] for name in names)}")
    if isinstance(value, str):
        _check_unicode(value)


def _check_enum(_: Schema, value: object, wanted: Sequence[object]) -> None:
    if not any(value == one and isinstance(value, bool) is isinstance(one, bool) for one in wanted):
        raise _Fault(f"is {shown(value)}, expected {' or '.join(map(shown, wanted))}")


def _check_const(schema: Schema, value: object, wanted: object) -> None:
    _check_enum(schema, value, [wanted])


def _check_minimum(_: Schema, value: object, least: float) -> None:
    if isinstance(value, int | float) and value < least:
        raise _Fault(f"is {shown(value)}, expected at least {least:g}")


def _check_maximum(_: Schema, value: object, most: float) -> None:
    if isinstance(value, int | float) and value > most:
        raise _Fault(f"is {shown(value)}, expected at most {most:g}")


def _check_least_items(_: Schema, value: object, least: int) -> None:
    if isinstance(value, list) and len(value) < least:
        raise _Fault(f"has {len(value)} items, expected at least {least}")


def _check_most_items(_: Schema, value: object, most: int) -> None:
    if isinstance(value, list) and len(value) > most:
        raise _Fault(f"has {len(value):,} items, expected at most {most}")


def _check_required(_: Schema, value: object, names: Sequence[str]) -> None:
    if isinstance(value, dict):
        for name in names:
            if name not in value:
                raise _Fault(f"lacks the member {name}")


def _check_unicode(text: str) -> None:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise _Fault(f"has {shown(text)}, half a surrogate pair, expected Unicode") from None


_CHECKS: Mapping[str, Callable[[Schema, object, Any], None]] = {
    "type": _check_type,
    "enum": _check_enum,
    "const": _check_const,
    "minimum": _check_minimum,
    "maximum": _check_maximum,
    "minItems": _check_least_items,
    "maxItems": _check_most_items,
    "required": _check_required,
    "$ref": Schema._check_reference,
    "allOf": Schema._check_all,
    "anyOf": Schema._check_any,
}
SUPPORTED = frozenset(
    {*_CHECKS, "properties", "additionalProperties", "propertyNames", "items", "prefixItems"}
    | {"$schema", "$defs", "title", "description"}
)
"""Keywords that a schema of this package may use."""


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
