"""Where plain values differ from a type, in a sentence: what msgspec refuses, and what it lets pass and no file has.

msgspec names no key of a dictionary in a place, and none of the values that may stand there.
"""

import re
from collections.abc import Mapping
from typing import Any

from msgspec import inspect

from pytest_mlpatterns.records.json_text import shown, shown_path

MOST = 1e18  # Largest number in a file, which stands for one without bound
_OBJECT = ((dict,), "an object")
_LIST = ((list,), "a list")
_FORMS: Mapping[type, tuple[tuple[type, ...], str]] = {
    inspect.StructType: _OBJECT,
    inspect.DataclassType: _OBJECT,
    inspect.DictType: _OBJECT,
    inspect.TupleType: _LIST,
    inspect.VarTupleType: _LIST,
    inspect.StrType: ((str,), "text"),
    inspect.IntType: ((int,), "a whole number"),
    inspect.FloatType: ((float, int), "a number"),
    inspect.BoolType: ((bool,), "true or false"),
    inspect.NoneType: ((type(None),), "null"),
    inspect.AnyType: ((dict, list, str, int, float, bool, type(None)), "a value"),
}
"""What stands in JSON for a value of a type, and how messages call it."""
_ANY = inspect.AnyType()
_WHOLE = re.compile("-?[0-9]{1,19}")


class _Fault(Exception):
    """A value that the type does not allow; ``path`` leads to it from the inside out."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.path: list[str | int] = []


def fault(value: object, kind: type) -> str:
    """Where and how plain values first differ from a type, as a sentence; empty if they do not."""
    try:
        _check(value, inspect.type_info(kind))
    except _Fault as found:
        return f"{shown_path(found.path)} {found}"
    return ""


def _check(value: Any, kind: inspect.Type) -> None:
    one = _alternative(value, kind.type if isinstance(kind, inspect.Metadata) else kind)
    if isinstance(value, str):
        _check_unicode(value)
    elif isinstance(value, dict):
        _check_members(value, one)
    elif isinstance(value, list):
        _check_items(value, one)
    elif value is not None:
        least, most = (getattr(one, bound, None) for bound in ("ge", "le"))
        least, most = -MOST if least is None else least, MOST if most is None else most
        if not least <= value <= most:
            expected = f"least {least:g}" if value < least else f"most {most:g}"
            raise _Fault(f"is {shown(value)}, expected at {expected}")


def _check_at(name: str | int, value: object, kind: inspect.Type) -> None:
    try:
        _check(value, kind)
    except _Fault as found:
        found.path.append(name)
        raise


def _alternative(value: object, kind: inspect.Type) -> inspect.Type:
    """The one of the types that may stand there which the value has the form of."""
    expected: dict[str, None] = {}
    for one in kind.types if isinstance(kind, inspect.UnionType) else (kind,):
        if isinstance(one, inspect.EnumType | inspect.LiteralType):
            values = one.values if isinstance(one, inspect.LiteralType) else [member.value for member in one.cls]
            if type(value) is not bool and value in values:
                return one
            expected |= dict.fromkeys(map(shown, values))
        else:
            is_row = isinstance(one, inspect.StructType) and one.array_like
            forms, name = _LIST if is_row else _FORMS[type(one)]
            if type(value) in forms:
                return one
            expected[name] = None
    raise _Fault(f"is {shown(value)}, expected {' or '.join(expected)}")


def _check_members(value: dict[str, Any], kind: inspect.Type) -> None:
    fields = kind.fields if isinstance(kind, inspect.StructType | inspect.DataclassType) else ()
    lacking = [field.encode_name for field in fields if field.required and field.encode_name not in value]
    if lacking:
        raise _Fault(f"lacks the member {lacking[0]}")
    known = {field.encode_name: field.type for field in fields}
    others = None if getattr(kind, "forbid_unknown_fields", False) else getattr(kind, "value_type", _ANY)
    only_numbers = isinstance(getattr(kind, "key_type", None), inspect.IntType)
    for name, member in value.items():
        _check_unicode(name)
        inner = known.get(name, others)
        if inner is None or (only_numbers and not _WHOLE.fullmatch(name)):
            raise _Fault(f"has the unknown member {shown(name)}")
        _check_at(name, member, inner)


def _check_items(value: list[Any], kind: inspect.Type) -> None:
    others = getattr(kind, "item_type", _ANY)
    kinds = getattr(kind, "item_types", ()) or [field.type for field in getattr(kind, "fields", ())]
    least = sum(field.required for field in kind.fields) if isinstance(kind, inspect.StructType) else len(kinds)
    least = getattr(kind, "min_length", None) or least
    if len(value) < least:
        raise _Fault(f"has {len(value)} items, expected at least {least}")
    if isinstance(kind, inspect.TupleType) and len(value) > least:
        raise _Fault(f"has {len(value):,} items, expected at most {least}")
    for index, item in enumerate(value):
        _check_at(index, item, kinds[index] if index < len(kinds) else others)


def _check_unicode(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _Fault(f"has {shown(text)}, half a surrogate pair, expected Unicode") from None
