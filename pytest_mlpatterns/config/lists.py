"""The pattern and the wire of a marker: one, or a list that makes one test each.

Loaded while tests are collected if there is such a list, so it imports nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.patterns import Pattern
from pytest_mlpatterns.patterns.parsing import parse_pattern
from pytest_mlpatterns.wire import Wire
from pytest_mlpatterns.wording import shown, split_outside_brackets

if TYPE_CHECKING:
    from collections.abc import Mapping

_Member = TypeVar("_Member", Pattern, Wire)


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
