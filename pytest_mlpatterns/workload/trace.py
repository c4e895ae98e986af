"""A trace: recorded arrivals, replayed as an open loop."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.fields import plain_number
from pytest_mlpatterns.records.setup import LoadDescription, LoadKind
from pytest_mlpatterns.units import SECOND_NS, format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Trace"]


@dataclass(frozen=True, slots=True)
class Trace:
    """Recorded arrivals, replayed. The whole trace is the measured window.

    Args:
        path: file of timestamps in seconds, one per request: JSON lines (a number, or an object with the key
            ``column``) or CSV with a heading. The earliest timestamp is the start.
        column: key or heading of the timestamps.
        speed: 2.0 replays in half the time.

    Raises:
        SettingError: the file or one of its timestamps cannot be read; the message names the line.
    """

    path: str | Path
    column: str = "timestamp"
    speed: float = 1.0
    closed: ClassVar[bool] = False
    _offsets_ns: tuple[int, ...] = field(default=(), init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            path = Path(self.path)
        except TypeError:
            raise SettingError(
                f"Trace({self.path!r}), expected a file of timestamps; write Trace('arrivals.csv')"
            ) from None
        speed = plain_number(self.speed)
        if speed is None or not 0 < speed < math.inf:
            raise SettingError(f"Trace(speed={self.speed!r}), expected a factor above 0; 2.0 replays in half the time")
        object.__setattr__(self, "speed", speed)
        seconds = sorted(_read_trace(path, self.column))
        if len(seconds) < 2:
            raise SettingError(f"Trace({str(self.path)!r}) has {len(seconds)} timestamps, expected at least 2")
        offsets = tuple(round((moment - seconds[0]) / speed * SECOND_NS) for moment in seconds)
        object.__setattr__(self, "_offsets_ns", offsets)

    def __str__(self) -> str:
        speed = "" if self.speed == 1 else f", speed={self.speed:g}"
        return f"trace({Path(self.path).name}, {len(self._offsets_ns):,} in {format_duration(self.length_ns)}{speed})"

    def describe(self) -> LoadDescription:
        """The load as records keep it."""
        return LoadDescription(str(self), LoadKind.TRACE)

    @property
    def length_ns(self) -> int:
        """Time from the first request to just after the last."""
        return self._offsets_ns[-1] + 1

    def arrivals(self) -> Iterator[int]:
        """The recorded times from the start, divided by the speed."""
        return iter(self._offsets_ns)


def _read_trace(path: Path, column: str) -> Iterator[float]:
    """Timestamps in seconds, in the order of the file."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines() splits inside JSON and CSV text
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"Trace({str(path)!r}) cannot be read: {error}") from None
    is_csv = path.suffix.lower() == ".csv"
    reader = csv.DictReader(lines)
    rows: Iterator[tuple[int, object]] = (
        ((reader.line_num, row) for row in reader)
        if is_csv
        else ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    )
    for number, row in rows:
        try:
            value = json.loads(row) if isinstance(row, str) else row
            moment = float(value[column] if isinstance(value, dict) else value)  # type: ignore[arg-type]
        except (ValueError, TypeError, KeyError):
            moment = math.nan
        if not math.isfinite(moment):
            raise SettingError(
                f"Trace({str(path)!r}) row {number} is {row!r}, expected a number of seconds, or one under {column!r}"
            )
        yield moment
