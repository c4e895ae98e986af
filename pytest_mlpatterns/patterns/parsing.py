"""Patterns by their names: ``"cached"``, ``"cached|batched(max_batch_size=8)"``; what ``str()`` of a pattern prints."""

from __future__ import annotations

import ast
import contextlib
import re
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns import patterns
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.patterns.pattern import Composed, Pattern
from pytest_mlpatterns.wording import did_you_mean, split_outside_brackets

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["parse_pattern"]

_EXPORTED: list[type[Pattern]] = [
    kind
    for kind in map(vars(patterns).get, patterns.__all__)
    if isinstance(kind, type) and issubclass(kind, Pattern) and kind is not Pattern
]
_NAMED = {kind.__name__.lower(): kind for kind in _EXPORTED if not kind.needs_code}
_NEED_CODE = {kind.__name__.lower(): kind for kind in _EXPORTED if kind.needs_code}
_ONE = re.compile(r"\s*(?P<name>[A-Za-z]+)\s*(?:\((?P<arguments>.*)\))?\s*", re.DOTALL)


def parse_pattern(text: str, source: str) -> Pattern:
    """Read a pattern as it prints itself; upper and lower case are the same.

    Args:
        text: ``"cached|batched(max_batch_size=8)"``.
        source: where it was given, for the message.

    Raises:
        SettingError: an unknown name or argument, or a value that the pattern refuses.
    """
    members = tuple(_parse_one(part, source) for part in split_outside_brackets(text, "|"))
    if len(members) == 1:
        return members[0]
    with _named(source):
        return Composed(members)


def _parse_one(text: str, source: str) -> Pattern:
    match = _ONE.fullmatch(text)
    name = match["name"].lower() if match else ""
    if match is None or name not in _NAMED:
        if name in _NEED_CODE:
            raise SettingError(
                f"{source} names {text.strip()!r}, which needs code; write the value: {_NEED_CODE[name].__name__}(...)"
            )
        hint = did_you_mean(name or text.strip().lower(), _NAMED)
        raise SettingError(
            f"{source} names the pattern {text.strip()!r}, {hint}expected one of {', '.join(_NAMED)}, "
            "or several joined by |"
        )
    kind, given = _NAMED[name], {}
    known = list(kind.__dataclass_fields__)  # type: ignore[attr-defined]  # all are dataclasses
    for argument in split_outside_brackets(match["arguments"] or "", ","):
        key, equals, value = argument.partition("=")
        if not argument.strip():
            continue
        if not equals or key.strip() not in known:
            allowed = ", ".join(f"{field}=" for field in known) or "none"
            meant = None if equals else next((field for field in known if field not in given), None)
            mend = f"; write {name}({meant}={key.strip()})" if meant else ""
            raise SettingError(f"{source} gives {argument.strip()!r} to {name}, allowed are: {allowed}{mend}")
        given[key.strip()] = _value(value.strip())
    with _named(source):
        return kind(**given)


@contextlib.contextmanager
def _named(source: str) -> Iterator[None]:
    """Say where a value was given that a pattern refuses."""
    try:
        yield
    except SettingError as error:
        raise SettingError(f"{source}: {error}") from None


def _value(text: str) -> Any:
    """A Python literal, or else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        return text
