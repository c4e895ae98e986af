"""A latency objective such as ``p95<50ms``, under which NMRT can be searched."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.units import format_duration, parse_duration
from pytest_mlpatterns.wording import shown

__all__ = ["Objective", "parse_objective"]


@dataclass(frozen=True, slots=True)
class Objective:
    """A latency objective: this percentile is below this time.

    Prints as it is written, so that :func:`parse_objective` reads an equal one.
    """

    percentile: float
    limit_ns: int

    def __str__(self) -> str:
        name = "rtm" if self.percentile == 50 else f"p{self.percentile:.10g}"
        limit = format_duration(self.limit_ns).replace(",", "")
        if parse_duration(limit) != self.limit_ns:  # three digits are too few
            limit = f"{self.limit_ns / 1e6:.15g}ms"
        return f"{name}<{limit.replace(' ', '')}"


def parse_objective(text: object) -> Objective:
    """Read ``"p95<50ms"`` or ``"rtm<20ms"``.

    Raises:
        SettingError: another form, a percentile out of range, or a time that cannot be read.
    """
    match = re.fullmatch(r"\s*(?:(rtm)|p(\d+(?:\.\d+)?))\s*<\s*(\S.*)", text) if isinstance(text, str) else None
    percentile = 0.0 if match is None else 50.0 if match[1] else float(match[2])
    if match is None or not 1 <= percentile < 100:
        raise SettingError(
            f"slo is {shown(text)}, expected a percentile of at least 1 and less than 100, and a time; "
            'write "p95<50ms" or "rtm<20ms"'
        )
    return Objective(percentile, parse_duration(match[3].strip(), name=f"slo {shown(text)}"))
