"""Durations, sizes, energies, rates and ratios: parsed from settings, and printed for people.

Only this module converts between units. Inside the package time is integer nanoseconds, size is integer bytes,
a ratio is 0..1 and a rate is requests per second.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from enum import Enum

from pytest_mlpatterns.errors import UnitError
from pytest_mlpatterns.wording import shown

__all__ = [
    "MAX_CONCURRENCY",
    "MAX_DURATION_NS",
    "MAX_RATE_RPS",
    "MIN_RATE_RPS",
    "Unit",
    "format_count",
    "format_duration",
    "format_percent",
    "format_percents",
    "format_rate",
    "format_size",
    "parse_duration",
    "parse_instructions",
    "parse_number",
    "parse_ratio",
    "parse_share",
    "parse_size",
    "parse_unit",
]


_NS_PER = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
}
_BYTES_PER = {
    "B": 1,
    **{unit: 1000**power for power, unit in enumerate(("kB", "MB", "GB", "TB"), start=1)},
    **{unit: 1024**power for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), start=1)},
}
_INSTRUCTIONS_PER = {"k": 10**3, "M": 10**6, "G": 10**9}
_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([^\s\d.]+)\s*")


def parse_duration(value: object, *, name: str = "duration") -> int:
    """Read a time such as ``"20ms"``, ``"1.5 s"`` or a ``timedelta``.

    Args:
        value: text of a number and one of ns, us, µs, ms, s, min, h; or a ``timedelta``. Not negative.

    Returns:
        Whole nanoseconds.
    """
    if isinstance(value, timedelta):
        nanoseconds = (value.days * 86_400 + value.seconds) * 10**9 + value.microseconds * 1000
        if nanoseconds < 0:
            raise UnitError(f"{name} is {shown(value)}, expected a time that is not negative")
    else:
        nanoseconds = round(_quantity(value, _NS_PER, name, expected="a time with its unit", example=("20", "ms", "s")))
    if nanoseconds > MAX_DURATION_NS:
        raise UnitError(f"{name} is {shown(value)}, expected at most {MAX_DURATION_NS // _NS_PER['h']:,}h; write 1h")
    return nanoseconds


def parse_size(value: object, *, name: str = "size") -> int:
    """Read a size such as ``"512MiB"`` (1024-based) or ``"10 MB"`` (1000-based). Returns whole bytes."""
    return round(_quantity(value, _BYTES_PER, name, expected="a size with its unit", example=("512", "MiB")))


def parse_ratio(value: object, *, name: str = "ratio") -> float:
    """Read a share such as ``0.1`` or ``"10%"``. Returns the share, at least 0."""
    text = value.strip() if isinstance(value, str) else ""
    number = _finite(text[:-1]) / 100 if text.endswith("%") else _finite(value)
    if math.isnan(number):
        raise UnitError(f'{name} is {shown(value)}, expected a share that is not negative; write 0.05 or "5%"')
    return number


def parse_share(value: object, *, name: str = "share") -> float:
    """Read a ratio up to 1; a value such as ``10`` probably means 10 % and is refused."""
    share = parse_ratio(value, name=name)
    if share > 1:
        percent = share if share <= 100 and "%" not in str(value) else 10
        raise UnitError(
            f'{name} is {shown(value)}, expected at most 1 (100 %); write {percent / 100:g} or "{percent:g}%"'
        )
    return share


def parse_unit(text: object, *, name: str) -> tuple[Unit, float]:
    """Read the unit of a number: ``"ms"``, ``"KiB"``, ``"%"``, or nothing for a plain number.

    Returns:
        The unit of a metric, and the factor on the number that gives its value.
    """
    scales: dict[object, tuple[Unit, float]] = {"": (Unit.COUNT, 1), "%": (Unit.RATIO, 0.01)}
    for unit, factors in ((Unit.DURATION, _NS_PER), (Unit.SIZE, _BYTES_PER)):
        scales |= {written: (unit, factor) for written, factor in factors.items()}
    if isinstance(text, str) and text in scales:
        return scales[text]
    units = _listed(map(str, filter(None, scales)))
    raise UnitError(f'{name} is {shown(text)}, expected the unit of a number; write "ms", or one of {units}')


def parse_number(value: object, *, name: str, example: str = "100") -> float:
    """Read a finite number that is not negative."""
    number = _finite(value)
    if math.isnan(number):
        raise UnitError(f"{name} is {shown(value)}, expected a number that is not negative; write {example}")
    return number


def parse_instructions(value: object, *, name: str) -> float:
    """Read a number of instructions: a plain number, or text such as ``"4.2M"``."""
    if isinstance(value, str) and value.strip()[-1:] in _INSTRUCTIONS_PER:
        return _quantity(value, _INSTRUCTIONS_PER, name, expected="a number of instructions", example=("4.2", "M"))
    return parse_number(value, name=name, example='"4.2M"')


def format_duration(ns: float) -> str:
    """Print nanoseconds with three significant digits and the unit that keeps the number between 1 and 1000."""
    return " ".join(_duration(ns))


def format_size(size_bytes: float) -> str:
    """Print bytes with three significant digits and a 1024-based unit."""
    return " ".join(_size(size_bytes))


def format_rate(per_second: float, what: str = "req") -> str:
    """Print requests per second, or tokens: three significant digits below 1000, whole numbers above."""
    return f"{_three_digits(per_second)} {what}/s"


def format_count(number: float) -> str:
    """Print a mean of counts with three significant digits: ``12.4``."""
    return _three_digits(number)


def format_percent(ratio: float, *, signed: bool = False) -> str:
    """Print a share as a percentage with at most three significant digits, ``0.123`` as ``12.3 %``."""
    return f"{_percent(ratio, '+' if signed else '')} %"


def format_percents(low: float, high: float) -> str:
    """Print an interval of changes: ``-1.0 to +2.0 %``."""
    return f"{_percent(low, '+')} to {_percent(high, '+')} %"


class Unit(Enum):
    """Units of metrics; the value of a member is the suffix of a name, empty for a plain number."""

    DURATION = "ns"
    RATE = "rps"
    TOKEN_RATE = "tokens_per_s"
    RATIO = "ratio"
    SIZE = "bytes"
    INSTRUCTIONS = "instructions"
    COST = "per_million_requests"
    PER_SECOND = "per_s"
    COUNT = ""

    def show(self, value: float) -> str:
        """Print a value of this unit for people."""
        return " ".join(filter(None, self.parts(value)))

    def parts(self, value: float) -> tuple[str, str]:
        """A printed value as number and unit; the unit is empty for a plain number."""
        match self:
            case Unit.DURATION:
                return _duration(value)
            case Unit.RATIO:
                return _percent(value), "%"
            case Unit.SIZE:
                return _size(value)
            case Unit.INSTRUCTIONS:
                return _instructions(value)
            case Unit.RATE | Unit.TOKEN_RATE | Unit.PER_SECOND | Unit.COST | Unit.COUNT:
                per_second = {Unit.RATE: "req/s", Unit.TOKEN_RATE: "tok/s", Unit.PER_SECOND: "/s"}
                return _three_digits(value), per_second.get(self, "")

    def read(self, text: object, *, name: str) -> float:
        """Read a limit as users write it, such as :attr:`example`.

        Args:
            text: what was written.
            name: what the value is, for the message.

        Raises:
            UnitError: the text has another form.
        """
        match self:
            case Unit.DURATION:
                return parse_duration(text, name=name)
            case Unit.RATIO:
                return parse_share(text, name=name)
            case Unit.SIZE:
                return parse_size(text, name=name)
            case Unit.INSTRUCTIONS:
                return parse_instructions(text, name=name)
            case Unit.RATE | Unit.TOKEN_RATE | Unit.COST | Unit.PER_SECOND | Unit.COUNT:
                return parse_number(text, name=name, example=self.example)

    @property
    def example(self) -> str:
        """An example of a value, as users write it."""
        return {
            Unit.DURATION: "20ms",
            Unit.RATE: "400",
            Unit.TOKEN_RATE: "400",
            Unit.RATIO: "10%",
            Unit.SIZE: "512MiB",
            Unit.INSTRUCTIONS: "4.2M",
            Unit.COST: "0.40",
            Unit.PER_SECOND: "400",
            Unit.COUNT: "4",
        }[self]

    def scale(self, slowdown: float) -> float:
        """Factor on a value when the same work takes ``slowdown`` times as long: times grow, rates shrink."""
        if self is Unit.DURATION:
            return slowdown
        return 1 / slowdown if self in (Unit.RATE, Unit.TOKEN_RATE, Unit.PER_SECOND) else 1.0


def _finite(value: object) -> float:
    """A finite number that is not negative; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) and number >= 0 else math.nan


def _duration(ns: float) -> tuple[str, str]:
    """Number and unit of a time."""
    for unit, scale in (("s", 10**9), ("ms", 10**6), ("µs", 10**3)):
        if abs(ns) >= 0.9995 * scale:
            return _three_digits(ns / scale), unit
    return _three_digits(ns), "ns"


def _instructions(number: float) -> tuple[str, str]:
    """Number and unit of instructions."""
    for unit in ("G", "M", "k"):
        if abs(number) >= 0.9995 * _INSTRUCTIONS_PER[unit]:
            return _three_digits(number / _INSTRUCTIONS_PER[unit]), unit
    return _three_digits(number), ""


def _size(size_bytes: float) -> tuple[str, str]:
    """Number and unit of a size."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if abs(size_bytes) >= 0.9995 * _BYTES_PER[unit]:
            return _three_digits(size_bytes / _BYTES_PER[unit]), unit
    return _three_digits(size_bytes), "B"


def _percent(ratio: float, sign: str = "") -> str:
    """A share in per cent, without the unit; a sign ``+`` stands before positive ones too."""
    percent = ratio * 100
    digits = 0 if abs(percent) >= 99.95 else 1 if abs(percent) >= 0.995 or percent == 0 else 2
    return f"{percent:{sign}.{digits}f}"


def _three_digits(number: float) -> str:
    if number == 0 or not math.isfinite(number):
        return f"{number:.0f}"
    rounded = float(f"{number:.3g}") if abs(number) < 999.5 else float(round(number))
    decimals = max(0, 2 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{decimals}f}"


def _quantity(
    value: object, scales: Mapping[str, float], name: str, *, expected: str, example: tuple[str, ...]
) -> float:
    """``example``: a number, and units that it may have. A number without a unit takes its place in the message."""
    if isinstance(value, str) and (match := _QUANTITY.fullmatch(value)) and match[2] in scales:
        quantity = float(match[1]) * scales[match[2]]
        if math.isfinite(quantity):
            return quantity
    number, *units = example
    given = shown(value).strip("' ")
    meant = " or ".join(f'"{given if _NUMBER.fullmatch(given) else number}{unit}"' for unit in units)
    raise UnitError(
        f"{name} is {shown(value)}, expected {expected}; write for example {meant} (units: {_listed(scales)})"
    )


def _listed(units: Iterable[str]) -> str:
    """The units; letters that look alike, the micro sign and the Greek letter, are one."""
    return ", ".join(dict.fromkeys(unit.replace("\N{GREEK SMALL LETTER MU}", "\N{MICRO SIGN}") for unit in units))


MAX_CONCURRENCY = 10_000  # Largest number of requests in flight; the system may allow fewer connections
MAX_RATE_RPS = 1_000_000  # Largest arrival rate
MIN_RATE_RPS = 1e-6  # Smallest arrival rate above 0: one request in eleven days
MAX_DURATION_NS = 1_000_000 * _NS_PER["h"]
"""Longest time of a setting, a million hours: its arithmetic stays within what floats and clocks hold."""
SECOND_NS = 1_000_000_000  # Nanoseconds per second
