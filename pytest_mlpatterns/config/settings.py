"""One merge: marker > command line > ini > default, into frozen settings of one test.

Takes plain mappings, never ``pytest.Config``. Every setting that can be given is in one table here, with its reader;
an unknown or impossible one is a :class:`SettingError` that names it and lists what is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_mlpatterns.config.converters import (
    LOAD_ARGUMENTS,
    as_given,
    function_like,
    read_choice,
    read_duration,
    read_pattern,
    read_positive,
    read_schedule,
    read_warmup,
    read_wire,
    whole_number,
)
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.patterns import Pattern, Single
from pytest_mlpatterns.units import parse_share
from pytest_mlpatterns.wire import REST_JSON, Wire
from pytest_mlpatterns.wording import did_you_mean, split_outside_brackets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_mlpatterns.workload.schedule import Schedule

__all__ = [
    "InconclusivePolicy",
    "Settings",
    "merge_markers",
    "model_version",
    "patterns_of",
    "read_settings",
    "wires_of",
]

_Member = TypeVar("_Member", Pattern, Wire)


class InconclusivePolicy(StrEnum):
    """What becomes of a test whose verdict is still open when the budget is spent."""

    WARN = "warn"
    FAIL = "fail"
    PASS = "pass"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that one perf test was asked to do. ``warmup_ns`` None lets the data decide.

    ``model`` and ``payload`` are None where the fixtures are to be asked. ``engine`` is a name as it was given; the
    registry of engines checks it.
    """

    pattern: Pattern
    schedule: Schedule
    duration_ns: int
    warmup_ns: int | None
    timeout_ns: int
    startup_timeout_ns: int
    budget_ns: int
    launches: int
    generators: int
    tolerance: float
    inconclusive: InconclusivePolicy
    payload: object
    model: object
    check: Callable[[Sequence[Any], Sequence[Any]], object] | None
    request: Callable[[Any], object] | None
    wire: Wire
    engine: str


def merge_markers(markers: Sequence[tuple[tuple[Any, ...], Mapping[str, Any]]]) -> dict[str, Any]:
    """Merge the marker's arguments, given closest first: argument by argument, the closest wins.

    ``concurrency``, ``rate_rps`` and ``load`` are one choice: the closest marker that makes it, makes it alone.

    Raises:
        SettingError: a positional or unknown argument.
    """
    merged: dict[str, Any] = {}
    for args, given in markers:
        if args:
            raise SettingError(
                f"perf({args[0]!r}) has a positional argument, expected keywords only; write pattern=..."
            )
        for name in given:
            if name not in _READERS and name not in LOAD_ARGUMENTS:
                hint = did_you_mean(name, [*_READERS, *LOAD_ARGUMENTS], "{}=")
                allowed = ", ".join(sorted([*_READERS, *LOAD_ARGUMENTS]))
                raise SettingError(f"perf({name}=...) is not an argument of the marker; {hint}allowed are: {allowed}")
        load_chosen = any(name in merged for name in LOAD_ARGUMENTS)
        for name, value in given.items():
            if name in LOAD_ARGUMENTS and load_chosen:
                continue
            merged.setdefault(name, value)
    return merged


def patterns_of(
    marker: Mapping[str, Any], options: Mapping[str, object], ini: Mapping[str, object]
) -> tuple[Pattern, ...] | None:
    """The patterns that make one test each: a list on the marker, or ``--perf-patterns`` where it names none.

    None where the marker names one pattern, or nobody names any.

    Raises:
        SettingError: an empty list, something that is no pattern, or one pattern twice.
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
    """The wires that make one test each: a list on the marker; None where it names one, or none.

    Raises:
        SettingError: an empty list, something that is no wire, or one wire twice.
    """
    given, source = marker.get("wire"), "perf(wire=...)"
    if not isinstance(given, list | tuple):
        return None
    if not given:
        raise SettingError(f"{source} is empty, expected at least one wire; write ['rest+json', 'rest+binary']")
    return _each_once(tuple(read_wire(item, source) for item in given), source, "wire")


def _each_once(members: tuple[_Member, ...], source: str, kind: str) -> tuple[_Member, ...]:
    for number, member in enumerate(members):
        if member in members[:number]:
            raise SettingError(f"{source} lists {str(member)!r} twice, expected each {kind} once")
    return members


def read_settings(
    marker: Mapping[str, Any],
    options: Mapping[str, object],
    ini: Mapping[str, object],
    *,
    pattern: Pattern | None = None,
    wire: Wire | None = None,
    caller: str = "perf",
) -> Settings:
    """Merge one test's settings.

    Args:
        marker: arguments of the marker, as :func:`merge_markers` returns them.
        options: command-line values by option name, None where not given.
        ini: ini values by option name, None or empty text where not given.
        pattern: the member of the marker's list that this test is about.
        wire: the member of the marker's list of wires that this test is about.
        caller: whose arguments ``marker`` holds, for messages.

    Raises:
        SettingError: a value that cannot be read; the message names where it was given.
    """
    patterns_of(marker, options, ini), wires_of(marker)  # bad lists are told here
    values: dict[str, Any] = {}
    for name, (read, default) in _READERS.items():
        option = name.replace("_", "-")
        if marker.get(name) is not None:
            value, source = marker[name], f"{caller}({name}=...)"
        elif options.get(option) is not None:
            value, source = options[option], f"--perf-{option}"
        elif ini.get(option) not in (None, ""):
            value, source = ini[option], f"ini key perf_{name}"
        else:
            value, source = default, f"perf({name}=...)"
        values[name] = read(value, source)
    members = {name: member for name, member in (("pattern", pattern), ("wire", wire)) if member is not None}
    settings = {**values, **members, "schedule": read_schedule(marker)}
    if (length_ns := settings["schedule"].length_ns) is not None:
        for name in ("duration", "warmup"):
            if marker.get(name) is not None:
                raise SettingError(
                    f"perf({name}=...) beside {settings['schedule']}, expected one of them; such a load says itself "
                    f"how long it is"
                )
        settings["duration"] = length_ns
    for name in ("duration", "warmup", "timeout", "startup_timeout", "budget"):
        settings[f"{name}_ns"] = settings.pop(name)
    return Settings(**settings)


def model_version(model: object) -> str:
    """The version that a model names itself by, in its attribute ``perf_version``; empty where it has none.

    Raises:
        SettingError: it is no text.
    """
    version = getattr(model, "perf_version", "")
    if not isinstance(version, str):
        raise SettingError(f"perf_model has perf_version {version!r}, expected text; write perf_version = '2'")
    return version


_READERS: dict[str, tuple[Callable[[Any, str], Any], Any]] = {
    "pattern": (
        lambda value, source: Single() if isinstance(value, list | tuple) else read_pattern(value, source),
        Single(),
    ),
    "duration": (read_duration, "3s"),
    "warmup": (read_warmup, "auto"),
    "timeout": (read_positive, "10s"),
    "startup_timeout": (read_positive, "60s"),
    "budget": (read_positive, "30s"),
    "launches": (whole_number(100, "deployments"), 5),
    "generators": (whole_number(64, "generator processes"), 1),
    "tolerance": (lambda value, source: parse_share(value, name=source), 0.10),
    "inconclusive": (
        lambda value, source: read_choice(InconclusivePolicy, value, source),
        InconclusivePolicy.WARN,
    ),
    "payload": (as_given, None),
    "model": (as_given, None),
    "check": (function_like("def check(inputs, outputs): assert ..."), None),
    "request": (function_like('lambda text: {"json": {"text": text}}'), None),
    "wire": (
        lambda value, source: REST_JSON if isinstance(value, list | tuple) else read_wire(value, source),
        REST_JSON,
    ),
    "engine": (as_given, "local"),
}
"""Marker argument → how it is read, and its default."""
