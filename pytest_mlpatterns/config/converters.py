"""Converters of single settings: each takes a value and its source, such as ``"--perf-duration"``.

An invalid value raises a :class:`SettingError` that names the source, the value and what is expected.
"""

import contextlib
import math
import re
from collections.abc import Callable
from enum import StrEnum
from inspect import signature
from typing import Any, Literal

from pytest_mlpatterns import fields
from pytest_mlpatterns.analysis.metrics.definitions import comparable_metrics, is_comparable, own_metrics, which_metric
from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances, can_more_than_double
from pytest_mlpatterns.errors import SettingError, UnitError
from pytest_mlpatterns.records.price import Price, parse_price
from pytest_mlpatterns.units import parse_duration, parse_ratio, parse_share
from pytest_mlpatterns.wording import count, listed, shown

_MIN_DURATION_NS = 100_000_000
"""Shortest measured window, in nanoseconds: shorter ones hold few requests of any service."""
_MOST_REQUESTS = 10_000_000  # Most of a window, whose recording then takes half a GiB
_REQUESTS = re.compile(r"\s*(\d{1,9})\s+requests?\s*")
_LEAST_CPUS = 0.01  # Least share of a core that a control group can give: a millisecond in a period of 100
_MOST_CPUS = 1e6  # Most cores that a setting may name; the machine decides later


def read_choice(kind: type[StrEnum], value: object, source: str) -> Any:
    """Convert to a member of an enumeration."""
    try:
        return kind(value if isinstance(value, str) else "")
    except ValueError:
        raise SettingError(f"{source} is {shown(value)}, expected one of {', '.join(kind)}") from None


def read_flag(value: object, source: str) -> bool:
    """Convert the words of ini files to True or False; no value is False."""
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "none": False, "": False}
    try:
        return known[str(value).strip().lower()]
    except KeyError:
        raise SettingError(f"{source} is {shown(value)}, expected true or false") from None


def read_duration(value: object, source: str) -> int | None:
    """Convert the length of a measured window, at least 100 ms, to nanoseconds, and ``"auto"`` to None."""
    if isinstance(value, str) and value == "auto":
        return None
    if isinstance(value, str) and (number := number_of_requests(value, source)):
        write = f"--perf-requests {number}" if source.startswith("--") else f"requests={number}"
        raise SettingError(f"{source} is {shown(value)}, expected a time; write {write}")
    nanoseconds = parse_duration(value, name=source)
    if nanoseconds < _MIN_DURATION_NS:
        raise SettingError(f"{source} is {shown(value)}, expected at least 100ms to contain enough requests")
    return nanoseconds


def read_price(value: object, source: str) -> Price | None:
    """Convert the price of cores and memory; None is none."""
    return None if value is None else parse_price(value, name=source)


def read_positive(value: object, source: str) -> int:
    """Convert a time limit above zero to nanoseconds."""
    nanoseconds = parse_duration(value, name=source)
    if not nanoseconds:
        raise SettingError(f"{source} is {shown(value)}, expected a time above zero; write 10s")
    return nanoseconds


def read_warmup(value: object, source: str) -> int | None:
    """Convert a time to nanoseconds, and ``"auto"`` or a number of requests to None."""
    if (isinstance(value, str) and value == "auto") or warmup_requests(value, source):
        return None
    if fields.plain_number(value) == 0:
        return 0
    try:
        return parse_duration(value, name=source)
    except UnitError as error:
        raise UnitError(f'{error}, 50 for as many requests, or "auto"') from None


def warmup_requests(value: object, source: str) -> int:
    """The requests of a warm-up by number; 0 of one by time, and of none."""
    return 0 if fields.plain_number(value) == 0 else number_of_requests(value, source) or 0


def number_of_requests(value: object, source: str) -> int | None:
    """The number that ``50`` or ``"50 requests"`` gives; None for any other value."""
    text = _REQUESTS.fullmatch(value) if isinstance(value, str) else None
    if text is None and fields.plain_number(value) is None:
        return None
    return whole_number(_MOST_REQUESTS, "requests")(value if text is None else int(text[1]), source)


def read_requests(value: object, source: str) -> int | Literal["all"] | None:
    """Convert the requests of a window: a number, or ``"all"`` for each input once; None is none."""
    if value is None:
        return None
    if isinstance(value, str) and value == "all":
        return "all"
    is_bare = isinstance(value, str) and value.strip().isdecimal()  # as options and ini files have it
    if number := number_of_requests(f"{value} requests" if is_bare else value, source):
        return number
    raise SettingError(
        f'{source} is {shown(value)}, expected a number of requests, or "all" for each input once; write requests=500'
    )


def read_cpus(value: object, source: str) -> float | None:
    """Convert a number of cores, and ``"all"`` to None."""
    if isinstance(value, str) and value == "all":
        return None
    number = math.nan
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            number = float(value)
    if not _LEAST_CPUS <= number <= _MOST_CPUS:
        expected = f'a number of cores of at least {_LEAST_CPUS}, or "all"'
        raise SettingError(f"{source} is {shown(value)}, expected {expected}; write 2 or 0.5")
    return int(number) if number.is_integer() else round(number, 3)


def whole_number(most: int, what: str) -> Callable[[object, str], int]:
    """A converter of whole numbers of ``what`` from 1 to ``most``."""

    def read(value: object, source: str) -> int:
        expected = f"a whole number of {what} from 1 to {most:,}"
        return fields.whole_number(value, f"{source} is {shown(value)}", least=1, most=most, expected=expected)

    return read


def function_like(example: str, *takes: str) -> Callable[[object, str], object]:
    """A converter of functions; None stays None."""

    def read(value: object, source: str) -> object:
        if value is None:
            return None
        if not callable(value):
            raise SettingError(f"{source} is {shown(value)}, expected a function; write {example}")
        if why := fields.unrun_function(value):
            raise SettingError(f"{source} {why}; write {example}")
        try:
            found = signature(value)
        except (TypeError, ValueError):  # of a function written in C, nothing is known
            return value
        try:
            found.bind(*takes)
        except TypeError as error:
            name = getattr(value, "__name__", type(value).__name__)
            expected = f"a function of {count(len(takes), 'argument')}, {listed(takes)}"
            raise SettingError(f"{source} is {name}{found}, expected {expected}: {error}; write {example}") from None
        return value

    return read


def read_tolerances(value: object, source: str) -> Tolerances:
    """Convert a share, or shares by metric: ``0.05``, ``"5%"``, ``{"rtm": 0.05}``, ``"rtm=5%, p99=0.3"``.

    A share is at most 1. A percentage may be larger for a metric that can worsen by more: ``"rtm=300%"``.
    """
    if value is None or isinstance(value, Tolerances):
        return value if isinstance(value, Tolerances) else Tolerances(None, source)
    given: object = value
    if isinstance(value, str) and "=" in value:
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        given = {name.strip(): share.strip() for name, _, share in pairs}
        if len(given) < len(pairs):
            raise SettingError(f"{source} is {shown(value)}, expected each metric once; leave one out")
    if isinstance(given, dict):
        read = {
            name: read_worsening(share, f"{source}[{shown(name)}]", can_more_than_double(name))
            for name, share in given.items()
        }
        return Tolerances(read, source)
    return Tolerances(parse_share(given, name=source), source)


def read_worsening(value: object, name: str, may_double: bool) -> float:
    """Convert how much worse a metric may be: a share, or in percent above 100 % too, where it may double."""
    in_percent = isinstance(value, str) and value.strip().endswith("%")
    parse = parse_ratio if in_percent and may_double else parse_share
    return parse(value, name=name)


def read_compared(value: object, source: str) -> tuple[str, ...] | None:
    """Convert the names of metrics, as a tuple or as text with commas; an empty one is none, and None stays None."""
    if value is None:
        return None
    names = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        raise SettingError(f"{source} is {shown(value)}, expected names of metrics; write ('rtm', 'p99', 'error_rate')")
    known = comparable_metrics()
    for name in names:
        if not is_comparable(name):
            hint = which_metric(name, [*known, *own_metrics()])
            raise SettingError(f"{source} names the metric {shown(name)}, {hint}expected some of {', '.join(known)}")
    return tuple(dict.fromkeys(names))


def read_truth(value: object, source: str) -> bool:
    """Convert True or False."""
    if not isinstance(value, bool):
        raise SettingError(f"{source} is {shown(value)}, expected True or False")
    return value


def as_given(value: object, _source: str) -> object:
    """Accept any value; it is checked later."""
    return value
