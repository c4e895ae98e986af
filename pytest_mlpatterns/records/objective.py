"""What a service promises: an objective such as ``p95<50ms``, or what each request is to keep, ``ttft<300ms``."""

from __future__ import annotations

import re

from msgspec import Struct

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.latency import STREAM_QUANTITIES
from pytest_mlpatterns.units import format_duration, parse_duration
from pytest_mlpatterns.wording import did_you_mean, shown

QUANTITIES = ("latency", *STREAM_QUANTITIES)  # Times that can be promised: of the whole answer, and of streams
_PART = re.compile(r"\s*([^<>=]*?)\s*([<>]=?|==?)\s*(\S.*)")
_TIME = re.compile(r"(rtm)|p(\d+(?:\.\d+)?)|([a-z]+)(?:\s*:\s*p(\d+(?:\.\d+)?))?")


class Part(Struct, frozen=True):
    """One part of what is promised or asserted, ``p95<50ms``: words that are not read yet."""

    text: str
    name: str = ""  # of what is limited
    sign: str = ""  # ``<``, ``>=`` or another one; empty if the text has none
    limit: str = ""


def parts_of(text: object) -> list[Part]:
    """The parts between commas; none if it is no text."""
    parts = text.split(",") if isinstance(text, str) else []
    return [Part(one.strip(), *(found.groups() if (found := _PART.fullmatch(one)) else ())) for one in parts]


class Bound(Struct, frozen=True):
    """A percentile of a quantity is below a time; without a percentile, the quantity of every single request is."""

    percentile: float | None
    limit_ns: int
    quantity: str = "latency"

    def __str__(self) -> str:
        limit = format_duration(self.limit_ns).replace(",", "")
        if parse_duration(limit) != self.limit_ns:  # three digits are too few
            limit = f"{self.limit_ns / 1e6:.15g}ms"
        return f"{self._name}<{limit.replace(' ', '')}"

    @property
    def allowed(self) -> float:
        """Share of the values that may be over the limit."""
        return 0.0 if self.percentile is None else 1 - self.percentile / 100

    @property
    def _name(self) -> str:
        if self.percentile is None:
            return self.quantity
        rank = f"p{self.percentile:.10g}"
        if self.quantity != "latency":
            return f"{self.quantity}:{rank}"
        return "rtm" if self.percentile == 50 else rank


class Promise(Struct, frozen=True):
    """What each single request is to keep, such as ``ttft<300ms,tpot<40ms``. Prints as it is written."""

    bounds: tuple[Bound, ...]  # at least one, none with a percentile

    @property
    def is_of_streams(self) -> bool:
        """Whether only streams have all its quantities."""
        return any(bound.quantity != "latency" for bound in self.bounds)

    def __str__(self) -> str:
        return ",".join(map(str, self.bounds))


class Objective(Promise, frozen=True):
    """Percentiles below times, all at once, each bound with one; NMRT can be searched under it."""

    @classmethod
    def of(cls, percentile: float, limit_ns: int) -> Objective:
        """One percentile of the latency."""
        return cls((Bound(percentile, limit_ns),))

    @property
    def longest_ns(self) -> int:
        """The longest of its times."""
        return max(bound.limit_ns for bound in self.bounds)


def parse_objective(text: object) -> Objective:
    """Read ``"p95<50ms"``, ``"rtm<20ms"`` or, for streams, ``"ttft:p95<300ms, tpot:p95<40ms"``."""
    example = 'write "p95<50ms" or "rtm<20ms", or for streams "ttft:p95<300ms"'
    bounds = _bounds(text, f"a percentile of at least 1 and less than 100, and a time; {example}")
    for bound in bounds:
        if bound.percentile is None:
            raise SettingError(
                f"slo is {shown(text)}, expected the percentile of {bound.quantity}; write {bound.quantity}:p95<..."
            )
    return Objective(bounds)


def parse_promise(text: object) -> Promise:
    """Read ``"ttft<300ms, tpot<40ms"`` or ``"latency<200ms"``."""
    bounds = _bounds(text, 'what each request keeps; write "ttft<300ms, tpot<40ms" or "latency<200ms"')
    for bound in bounds:
        if bound.percentile is not None:
            raise SettingError(
                f"slo is {shown(text)}, expected what each single request keeps, without a percentile: goodput counts "
                f"the requests that keep it; write {bound.quantity}<..."
            )
    return Promise(bounds)


def _bounds(text: object, expected: str) -> tuple[Bound, ...]:
    bounds = tuple(_bound(part, text, expected) for part in parts_of(text))
    names = [str(bound).partition("<")[0] for bound in bounds]
    if not bounds:
        raise SettingError(f"slo is {shown(text)}, expected {expected}")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise SettingError(f"slo is {shown(text)}, expected {twice} once; leave one of the limits out")
    return bounds


def _bound(part: Part, text: object, expected: str) -> Bound:
    match = _TIME.fullmatch(part.name)
    if match is None or part.sign != "<":
        raise SettingError(f"slo is {shown(text)}, expected {expected}")
    rtm, of_latency, quantity, of_quantity = match.groups()
    if quantity is not None and quantity not in QUANTITIES:
        hint = did_you_mean(quantity, QUANTITIES)
        raise SettingError(f"slo is {shown(text)}, {hint}expected {expected}")
    percentile = 50.0 if rtm else float(of_latency or of_quantity) if of_latency or of_quantity else None
    if percentile is not None and not 1 <= percentile < 100:
        raise SettingError(f"slo is {shown(text)}, expected {expected}")
    limit_ns = parse_duration(part.limit.strip(), name=f"slo {shown(text)}")
    return Bound(percentile, limit_ns, quantity or "latency")
