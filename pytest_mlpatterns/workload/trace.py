"""A trace: recorded arrivals, replayed as an open loop."""

from __future__ import annotations

import csv
import itertools
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.fields import plain_number
from pytest_mlpatterns.records.setup import LoadDescription, LoadKind
from pytest_mlpatterns.units import MAX_DURATION_NS, SECOND_NS, format_duration
from pytest_mlpatterns.wording import shown
from pytest_mlpatterns.workload.text_file import read_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_TRACE_BYTES", "Trace"]

MAX_TRACE_BYTES = 256 * 2**20
"""Largest file of timestamps."""


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
                f"Trace({shown(self.path)}), expected a file of timestamps; write Trace('arrivals.csv')"
            ) from None
        speed = plain_number(self.speed)
        if speed is None or not 1e-9 <= speed <= 1e9:
            raise SettingError(
                f"Trace(speed={shown(self.speed)}), expected a factor above 0; 2.0 replays in half the time"
            )
        object.__setattr__(self, "speed", speed)
        if not isinstance(self.column, str):
            raise SettingError(f"Trace(column={shown(self.column)}), expected the name of the timestamps as text")
        seconds = sorted(_read_trace(path, self.column))
        if len(seconds) < 2:
            raise SettingError(f"Trace({shown(str(self.path))}) has {len(seconds)} timestamps, expected at least 2")
        if (length := (seconds[-1] - seconds[0]) / speed * SECOND_NS) > MAX_DURATION_NS:
            raise SettingError(
                f"Trace({shown(str(self.path))}, speed={speed:g}) lasts {length / SECOND_NS:.3g} s, expected at most "
                f"{MAX_DURATION_NS // SECOND_NS:,} s; give timestamps in seconds"
            )
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

    @property
    def arrivals_count(self) -> int:
        """Number of requests."""
        return len(self._offsets_ns)

    def arrivals(self) -> Iterator[int]:
        """The recorded times from the start, divided by the speed."""
        return iter(self._offsets_ns)

    def share(self, number: int, of: int) -> Iterator[int]:
        """Every n-th arrival of n generators."""
        return itertools.islice(self._offsets_ns, number, None, of)


def _read_trace(path: Path, column: str) -> Iterator[float]:
    """Timestamps in seconds, in the order of the file."""
    rows = _rows_of_csv if path.suffix.lower() == ".csv" else _rows_of_json
    for number, row in rows(_lines_of(path), path):
        try:
            value = json.loads(row) if isinstance(row, str) else row
            moment = float(value[column] if isinstance(value, dict) else value)  # type: ignore[arg-type]
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            moment = math.nan
        if not math.isfinite(moment):
            raise SettingError(
                f"Trace({shown(str(path))}) row {number} is {shown(row)}, expected a number of seconds, or one under "
                f"{shown(column)}"
            )
        yield moment


def _lines_of(path: Path) -> Iterator[str]:
    found = f"Trace({shown(str(path))})"
    try:
        yield from read_lines(path, MAX_TRACE_BYTES)
    except OSError as error:
        raise SettingError(f"{found} cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # not in UTF-8, or a path with NUL
        raise SettingError(f"{found} cannot be read: {error}") from None


def _rows_of_json(lines: Iterator[str], _path: Path) -> Iterator[tuple[int, object]]:
    return ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _rows_of_csv(lines: Iterator[str], path: Path) -> Iterator[tuple[int, object]]:
    reader = csv.DictReader(lines)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise SettingError(f"Trace({shown(str(path))}) row {reader.line_num} is not CSV: {error}") from None
