"""The pattern and the wire of a marker: one, or a list that makes one test each; and patterns from text.

Loaded while tests are collected if there is such a list, so it imports nothing heavy.
"""

import ast
import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from pytest_mlpatterns import patterns
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.patterns import Pattern
from pytest_mlpatterns.patterns.arguments import read_variables
from pytest_mlpatterns.patterns.pattern import Composed
from pytest_mlpatterns.removed import why_removed
from pytest_mlpatterns.wire import Wire
from pytest_mlpatterns.wording import did_you_mean, named, shown, split_outside_brackets

_Member = TypeVar("_Member", Pattern, Wire)
_EXPORTED: list[type[Pattern]] = [
    kind
    for kind in map(vars(patterns).get, patterns.__all__)
    if isinstance(kind, type) and issubclass(kind, Pattern) and kind is not Pattern
]
_NAMED = {kind.__name__.lower(): kind for kind in _EXPORTED if not kind.needs_code}
_NEED_CODE = {kind.__name__.lower(): kind for kind in _EXPORTED if kind.needs_code}
_ONE = re.compile(r"(?P<name>[A-Za-z]+)(?:\s*\((?P<arguments>.*)\))?", re.DOTALL)


def patterns_of(
    marker: Mapping[str, Any], options: Mapping[str, object], ini: Mapping[str, object]
) -> tuple[Pattern, ...] | None:
    """The patterns to test: a list in the marker, or ``--perf-patterns`` if the marker has no pattern.

    None if the marker has a single pattern, or if no pattern is given.
    """
    given, source = marker.get("pattern"), "perf(pattern=...)"
    text = options["patterns"] if options.get("patterns") is not None else ini.get("patterns") or None
    if given is None and text is not None:
        given = [part for part in split_outside_brackets(str(text), ",") if part.strip()]
        source = "--perf-patterns" if options.get("patterns") is not None else "ini key perf_patterns"
    if not isinstance(given, list | tuple):
        return None
    if not given:
        raise SettingError(f'{source} is empty, expected at least one pattern; write [Single()] or "single"')
    return _each_once(tuple(read_pattern(item, source) for item in given), source, "pattern")


def wires_of(marker: Mapping[str, Any]) -> tuple[Wire, ...] | None:
    """The wires to test: a list in the marker; None if it has a single wire or none."""
    given, source = marker.get("wire"), "perf(wire=...)"
    if not isinstance(given, list | tuple):
        return None
    if not given:
        raise SettingError(f"{source} is empty, expected at least one wire; write ['rest+json', 'rest+binary']")
    return _each_once(tuple(read_wire(item, source) for item in given), source, "wire")


def _each_once(members: tuple[_Member, ...], source: str, kind: str) -> tuple[_Member, ...]:
    for number, member in enumerate(members):
        if member in members[:number]:
            raise SettingError(f"{source} lists {shown(str(member))} twice, expected each {kind} once")
    return members


def read_pattern(value: object, source: str) -> Pattern:
    """Convert a pattern, or the name of one."""
    if isinstance(value, str):
        return parse_pattern(value, source)
    if isinstance(value, type) and issubclass(value, Pattern):
        raise SettingError(f"{source} is the class {value.__name__}, expected a value; write {value.__name__}()")
    if not isinstance(value, Pattern):
        raise SettingError(
            f'{source} is {shown(value)}, expected a pattern; write Single(), Cached() | Batched(), or "cached|batched"'
        )
    return value


def read_wire(value: object, source: str) -> Wire:
    """Convert a wire, or the name of one, and check that its packages are installed."""
    wire = Wire.parse(value, source) if isinstance(value, str) else value
    if not isinstance(wire, Wire):
        raise SettingError(f"{source} is {shown(value)}, expected a wire; write 'rest+json' or Wire('rest', 'json')")
    wire.check_installed(source)
    return wire


def parse_pattern(text: str, source: str) -> Pattern:
    """Read a pattern as ``str()`` prints it, ``"cached|batched(max_batch_size=8)"``; case does not matter."""
    parts = tuple(_parse_one(part, source) for part in split_outside_brackets(text, "|"))
    if len(parts) == 1:
        return parts[0]
    with _located(source):
        return Composed(parts)


def _parse_one(text: str, source: str) -> Pattern:
    match = _ONE.fullmatch(text.strip())
    name = match["name"].lower() if match else ""
    if match is None or name not in _NAMED:
        raise SettingError(f"{source} names {_unknown(text.strip(), name)}")
    kind = _NAMED[name]
    arguments = _arguments(split_outside_brackets(match["arguments"] or "", ","), name, source)
    with _located(source):
        return kind(**arguments)


def _unknown(text: str, name: str) -> str:
    """What is wrong with a text that names no pattern, and what to write."""
    if name in _NEED_CODE:
        return f"{shown(text)}, which needs code; write the value: {_NEED_CODE[name].__name__}(...)"
    if gone := why_removed(name):
        return f"the pattern {shown(text)}: {gone}"
    hint = did_you_mean(name or text.lower(), _NAMED)
    return f"the pattern {shown(text)}, {hint}expected one of {', '.join(_NAMED)}, or several joined by |"


def _arguments(texts: Sequence[str], name: str, source: str) -> dict[str, Any]:
    """The arguments of a pattern, ``"max_entries=8"`` each."""
    given: dict[str, Any] = {}
    known = [field.name for field in fields(_NAMED[name])]  # type: ignore[arg-type]  # all patterns are dataclasses
    for text in filter(None, map(str.strip, texts)):
        key, equals, value = map(str.strip, text.partition("="))
        if not equals or key not in known:
            allowed = ", ".join(f"{field}=" for field in known) or "none"
            free = (field for field in known if field not in given and (field == "env") == text.startswith("{"))
            meant = None if equals else next(free, None)
            fix = f"; write {name}({meant}={named(key)})" if meant else ""
            hint = did_you_mean(key, known, "{}=") if equals else ""
            raise SettingError(f"{source} gives {shown(text)} to {name}, {hint}allowed are: {allowed}{fix}")
        given[key] = read_variables(value) if key == "env" else _value(value)
    return given


@contextlib.contextmanager
def _located(source: str) -> Iterator[None]:
    """Add where a value was given to the error of the pattern that refuses it."""
    try:
        yield
    except SettingError as error:
        raise SettingError(f"{source}: {error}") from None


def _value(text: str) -> Any:
    """A Python literal; any other text is itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):  # the last two: brackets in brackets
        return text
